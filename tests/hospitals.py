"""A consortium of two hospitals that really runs, with data registered and the plan approved, and what its people do.

One for the whole pytest process: whichever folder asks first starts it, and it ends with the process.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil
import pytest
from sklearn.datasets import load_breast_cancer

from appliance.embedded.consortium import BROKER, NETWORK, EmbeddedConsortium
from appliance.transport.sqlite import reading_engine
from appliance.warden.client import GovernanceClient
from appliance.warden.governance import SOCKET_NAME
from appliance.warden.history import History
from researcher_kit import Experiment, Federation
from tests.integration.network.hosts import wait_until

PLAN = Path(__file__).with_name("integration") / "rounds/plan.py"
NODES = ("north", "south")
RESEARCHERS = ("alice", "mallory", "oscar")
FEDERATORS = ("fed", "rival")  # members; a test that needs one's service launches it
_RUNNING = pytest.StashKey["Hospitals"]()


class Hospitals:
    """The consortium, and what its people do."""

    def __init__(self, consortium: EmbeddedConsortium) -> None:
        self.consortium = consortium

    @classmethod
    def start(cls, folder: Path, *, furnished: Sequence[str] = NODES) -> Self:
        """Two hospitals; those ``furnished`` each with half of the cells, alice permitted and the plan approved."""
        consortium = EmbeddedConsortium(folder, nodes=NODES, researchers=RESEARCHERS, federators=FEDERATORS)
        consortium.start((BROKER, NETWORK, *NODES))
        people = cls(consortium)
        cells = load_breast_cancer()
        table = np.column_stack([cells.data / cells.data.std(axis=0), cells.target])
        header = ",".join([f"f{n}" for n in range(30)] + ["malign"])
        for place, node in enumerate(furnished):
            file = people.data(node) / "cells.csv"
            np.savetxt(file, table[place::2], delimiter=",", header=header, comments="", fmt="%.5f")
            people.add_dataset(node, "cells", "cells.csv")
            people.staff(node).call("plan.add", name="wide", source=PLAN.read_text())
        return people

    # A hospital

    def home(self, member: str) -> Path:
        """The member's folder."""
        return self.consortium.home(member)

    def data(self, node: str) -> Path:
        """Where that hospital's files lie."""
        return self.home(node) / "data"

    def staff(self, node: str) -> GovernanceClient:
        """Somebody of that hospital, at the command line."""
        return GovernanceClient(self.home(node) / SOCKET_NAME, staff="nurse", via="cli")

    def add_dataset(self, node: str, name: str, path: str) -> str:
        """Register a file, tagged with its name, for alice; returns its id."""
        spec = {"name": name, "path": path, "tags": [name], "researchers": ["alice"]}
        return str(self.staff(node).call("dataset.add", spec=spec)["dataset_id"])

    def history(self, node: str) -> History:
        """The hospital's records."""
        return History(self.home(node))

    def audit(self, node: str, event: str | None = None) -> list[dict[str, Any]]:
        """The lines of the hospital's audit log, all or of one event."""
        lines = [json.loads(line.text) for line in self.history(node).audit_lines()]
        return [line for line in lines if event in (None, line["event"])]

    def since(self, node: str) -> AuditTail:
        """What the hospital's audit log says from now on."""
        return AuditTail(self, node)

    def children(self, node: str) -> list[psutil.Process]:
        """The processes that run plans: each leads a session of its own below the runner."""
        processes = self.consortium.processes(node)
        runner = next(pid for pid, command in processes.items() if "appliance.runner" in command)
        everyone = psutil.Process(runner).children(recursive=True)
        return [process for process in everyone if _session(process.pid) != _session(runner)]

    # The network host

    def uploads(self, experiment_id: str, purpose: str) -> list[dict[str, Any]]:
        """The rows of the files that the network host holds for an experiment, each with its file's name."""
        path = self.home(NETWORK) / "store/network.sqlite3"
        query = "SELECT * FROM parameters_upload WHERE experiment_id = ? AND purpose = ?"
        engine = reading_engine(path)
        with engine.connect() as connection:
            found = [dict(row) for row in connection.exec_driver_sql(query, (experiment_id, purpose)).mappings()]
        engine.dispose()
        return found

    def network_audit(self, event: str) -> list[dict[str, Any]]:
        """The lines of one event in the network host's audit log."""
        engine = reading_engine(self.home(NETWORK) / "store/network.sqlite3")
        with engine.connect() as connection:
            texts = connection.exec_driver_sql("SELECT text FROM audit_auditline ORDER BY n").scalars().all()
        engine.dispose()
        return [line for line in map(json.loads, texts) if line["event"] == event]

    # The researcher

    def federation(self) -> Federation:
        """Alice's connection."""
        return Federation(self.home("alice"))

    def experiment(self, federation: Federation | None, **changes: object) -> Experiment:
        """Two rounds on both hospitals, unless told otherwise."""
        arguments: dict[str, object] = {
            "tags": ["cells"],
            "training_plan_file": PLAN,
            "model_args": {"width": 8},
            "training_args": training_args(),
            "round_limit": 2,
            "federation": federation,
            "progress": False,
        }
        return Experiment(**(arguments | changes))  # type: ignore[arg-type]

    # The command line

    def fedward(self, *arguments: object, expect: int = 0) -> str:
        """What ``fedward …`` printed, both streams; a traceback is never right."""
        done = fedward(*arguments)
        assert "Traceback" not in done.stdout + done.stderr
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr


class AuditTail:
    """What a hospital's audit log says from a moment on."""

    def __init__(self, people: Hospitals, node: str) -> None:
        self._people = people
        self._node = node
        self._start = len(people.audit(node))

    def lines(self, event: str) -> list[dict[str, Any]]:
        """The new lines of one event."""
        return [line for line in self._people.audit(self._node)[self._start :] if line["event"] == event]

    def wait_for(self, event: str, **details: object) -> dict[str, Any]:
        """The first new line of that event with these details."""
        found: list[dict[str, Any]] = []

        def is_there() -> bool:
            found[:] = [line for line in self.lines(event) if details.items() <= line["details"].items()]
            return bool(found)

        wait_until(is_there)
        return found[0]


def training_args(updates: int = 2) -> dict[str, object]:
    """A short training."""
    return {"num_updates": updates, "batch_size": 16, "optimizer_args": {"lr": 0.01}, "random_seed": 1}


def bits(experiment: Experiment) -> dict[str, str]:
    """Each tensor's SHA-256: equal to the last bit or not, and short when a test has to say what differs."""
    return {name: hashlib.sha256(array.tobytes()).hexdigest() for name, array in experiment.parameters().items()}


def fedward(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the ``fedward`` command as a person would."""
    return subprocess.run(
        [sys.executable, "-m", "appliance.cli.main", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "NO_COLOR": "1", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture(scope="session")
def hospitals(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Hospitals:
    """The consortium that all tests of this process share."""
    config = request.config
    if _RUNNING not in config.stash:
        config.stash[_RUNNING] = people = Hospitals.start(tmp_path_factory.mktemp("consortium"))
        config.add_cleanup(people.consortium.stop)
    return config.stash[_RUNNING]


@pytest.fixture
def federation(hospitals: Hospitals) -> Iterator[Federation]:
    """Alice's connection, closed at the end."""
    with closing(hospitals.federation()) as connection:
        yield connection


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return -1

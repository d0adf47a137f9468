"""Parts that run under a fault, and what must hold of them when it is over."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from appliance.embedded.consortium import NETWORK
from appliance.protocol import chain
from appliance.protocol.rounds import RoundStep
from researcher_kit import Experiment
from tests.hospitals import NODES, Hospitals

NODE_STORE, NETWORK_STORE, RESEARCHER_STORE = "store/node.db", "store/network.sqlite3", "store/researcher.db"


@contextmanager
def started_as(
    hospitals: Hospitals,
    name: str,
    command: Callable[[list[str]], Sequence[str]] = lambda command: command,
    **environment: str,
) -> Iterator[None]:
    """A part restarted by another command or with a larger environment, and as it was at the end."""
    part = hospitals.consortium._part(name)
    before = part._command, part._environment
    part._command, part._environment = [*command([*part._command])], part._environment | environment
    hospitals.consortium.restart(name)
    try:
        yield
    finally:
        part._command, part._environment = before
        hospitals.consortium.restart(name)


def require_done_once(hospitals: Hospitals, experiment: Experiment, rounds: int = 1) -> None:
    """Each round was trained, sent and counted once at each node; no half file lies about, and every store is whole."""
    assert [{reply.node_id for reply in record.replies} for record in experiment.history] == [{*NODES}] * rounds
    for node in NODES:
        history = hospitals.history(node)
        assert [entry["step"] for entry in history.rounds(experiment.id)] == [RoundStep.REPLIED] * rounds
        sent = [
            line["round"] for line in history.egress() if line["tensors"] and line["experiment_id"] == experiment.id
        ]
        assert sent == [*range(1, rounds + 1)]
        assert [*(hospitals.home(node) / "spool").iterdir()] == []
    require_whole(hospitals)


def require_whole(hospitals: Hospitals) -> None:
    """Every SQLite file passes its own check, and no line of an audit log is missing or altered."""
    files = [hospitals.home(node) / NODE_STORE for node in NODES]
    files += [hospitals.home(NETWORK) / NETWORK_STORE, hospitals.home("alice") / RESEARCHER_STORE]
    for file in files:
        with closing(sqlite3.connect(file)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    for node in NODES:
        assert chain.verify(hospitals.history(node).audit_lines()).is_whole
    with closing(sqlite3.connect(hospitals.home(NETWORK) / NETWORK_STORE)) as connection:
        lines = connection.execute("SELECT text, hash FROM audit_auditline ORDER BY n").fetchall()
    assert chain.verify(chain.Line(*line) for line in lines).is_whole

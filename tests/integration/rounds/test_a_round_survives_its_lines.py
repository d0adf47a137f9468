"""What a round outlives between its members: a line cut in mid-transfer, a lost network host, a lost researcher."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.embedded.consortium import NETWORK
from appliance.protocol.rounds import RoundStep
from researcher_kit import Experiment, Federation
from researcher_kit.monitor import Event, NodeReceived, NodeReplied
from tests.hospitals import Hospitals, training_args
from tests.integration.network.hosts import Line

LOST = Path(__file__).with_name("lost_researcher.py")
WIDTH = 20_000
SIZE = 4 * (30 * WIDTH + WIDTH + 2 * WIDTH + 2)  # bytes of the plan's tensors
START, MIDDLE, END = 20_000, SIZE // 2, SIZE - 20_000  # behind the handshake and the first headers, at the earliest


@pytest.fixture(scope="module")
def line(hospitals: Hospitals) -> Iterator[Line]:
    """The only way from north to the network host's REST service."""
    settings = hospitals.home("north") / "member.toml"
    before = settings.read_text()
    port = hospitals.consortium.endpoint.rest_url.rpartition(":")[2]
    line = Line(int(port))
    settings.write_text(before.replace(f":{port}", f":{line.port}"))
    hospitals.consortium.restart("north")
    yield line
    settings.write_text(before)
    hospitals.consortium.restart("north")
    line.close()


def _wide(hospitals: Hospitals, federation: Federation) -> Experiment:
    return hospitals.experiment(federation, model_args={"width": WIDTH}, round_limit=1)


@pytest.mark.parametrize("cut", [START, MIDDLE, END])
def test_a_round_survives_a_line_that_is_cut_in_mid_upload(
    cut: int, line: Line, hospitals: Hospitals, federation: Federation
) -> None:
    """The update goes on where it stopped, and is there once: nobody may count a hospital twice."""
    experiment = _wide(hospitals, federation)
    line.cut_after(up=(cut,))
    stored: list[dict[str, object]] = []

    def look(event: Event) -> None:  # an update is deleted at the round's end
        if isinstance(event, NodeReplied) and event.reply.node_id == "north":
            stored[:] = hospitals.uploads(experiment.id, "update")

    experiment.on_event(look)
    experiment.run()

    assert line.cuts_left == 0
    assert line.bytes["up"] < 1.2 * SIZE
    (mine,) = [upload for upload in stored if upload["owner_id"] == "north"]
    (left,) = [line for line in hospitals.history("north").egress() if _is_upload(line, experiment.id)]
    assert (mine["is_complete"], mine["sha256"], mine["length"]) == (1, left["sha256"], left["size_bytes"])
    assert hashlib.sha256(_stored(hospitals, mine)).hexdigest() == left["sha256"]
    assert _steps(hospitals, "north", experiment.id) == [RoundStep.REPLIED]


@pytest.mark.parametrize("cut", [START, MIDDLE, END])
def test_a_round_survives_a_line_that_is_cut_in_mid_download(
    cut: int, line: Line, hospitals: Hospitals, federation: Federation
) -> None:
    """Parameters that came in two pieces train the same model as parameters that came in one."""
    whole, broken = _wide(hospitals, federation), _wide(hospitals, federation)
    line.cut_after()
    whole.run()
    line.cut_after(down=(cut,))
    broken.run()

    assert line.cuts_left == 0
    assert line.bytes["down"] < 1.2 * SIZE
    ours, theirs = whole.parameters(), broken.parameters()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)
    assert _steps(hospitals, "north", broken.id) == [RoundStep.REPLIED]


def test_a_round_survives_a_network_host_that_is_killed(hospitals: Hospitals, federation: Federation) -> None:
    """The post office may burn down while the hospitals train: they bring their updates when it is open again."""
    experiment = hospitals.experiment(
        federation, model_args={"width": 2000, "pause_s": 0.3}, training_args=training_args(4), round_limit=2
    )
    burnt = threading.Event()

    def burn(event: Event) -> None:
        if isinstance(event, NodeReceived) and not burnt.is_set():
            burnt.set()
            hospitals.consortium.kill(NETWORK)
            hospitals.consortium.restart(NETWORK)

    experiment.on_event(burn)
    experiment.run()

    assert burnt.is_set()
    for node in ("north", "south"):
        assert _steps(hospitals, node, experiment.id) == [RoundStep.REPLIED, RoundStep.REPLIED]


@pytest.mark.parametrize("event", ["ParametersUploaded", "NodeReceived", "NodeReplied"])
def test_a_round_survives_a_researcher_who_is_killed(event: str, hospitals: Hospitals, tmp_path: Path) -> None:
    """A notebook that died costs nobody a training: the requests sent before are the ones that count."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(LOST), str(hospitals.home("alice")), str(tmp_path), event]
    assert subprocess.run(command, env=environment, timeout=60, check=False).returncode == -9

    with hospitals.federation() as federation:
        experiment = Experiment.load_breakpoint(tmp_path, federation=federation, progress=False)
        assert experiment.round_current() == 0
        experiment.run()

    assert experiment.round_current() == 2
    for node in ("north", "south"):
        rounds = hospitals.history(node).rounds(experiment.id)
        assert [(entry["round"], entry["step"]) for entry in rounds] == [(1, "replied"), (2, "replied")]


def _steps(hospitals: Hospitals, node: str, experiment_id: str) -> list[str]:
    return [entry["step"] for entry in hospitals.history(node).rounds(experiment_id)]


def _is_upload(line: dict[str, object], experiment_id: str) -> bool:
    return (line["kind"], line["experiment_id"]) == ("upload", experiment_id)


def _stored(hospitals: Hospitals, upload: dict[str, object]) -> bytes:
    """The file itself, as the network host's disk has it."""
    name = str(upload["id"]).replace("-", "")
    (file,) = [path for path in (hospitals.home(NETWORK) / "store").rglob(f"{name}*") if path.is_file()]
    return file.read_bytes()

"""What a round outlives: a broker that forgot everything, a warden killed at any step, lines cut in mid-transfer."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.protocol import chain
from appliance.protocol.rounds import PLAIN_STEPS, RoundStep
from appliance.warden.history import History
from researcher_kit import Federation
from researcher_kit.monitor import Event, NodeReceived
from tests.hospitals import Hospitals, training_args

PLUG = Path(__file__).with_name("pulled_plug.py")


def test_a_round_survives_a_broker_that_was_killed_and_forgot_everything(
    hospitals: Hospitals, federation: Federation
) -> None:
    """The broker is a post office that may burn down: what it lost is sent again by those who wrote it."""
    experiment = hospitals.experiment(
        federation, model_args={"width": 8, "pause_s": 0.3}, training_args=training_args(4), round_limit=1
    )
    burnt = threading.Event()

    def burn(event: Event) -> None:
        if isinstance(event, NodeReceived) and not burnt.is_set():
            burnt.set()
            hospitals.consortium.kill("broker", forget=True)
            hospitals.consortium.restart("broker")

    experiment.on_event(burn)
    experiment.run()

    assert burnt.is_set()
    assert {reply.node_id for reply in experiment.history[0].replies} == {"north", "south"}


@pytest.mark.parametrize("step", PLAIN_STEPS)
def test_a_round_survives_a_warden_that_is_killed_after(
    step: RoundStep, hospitals: Hospitals, federation: Federation
) -> None:
    """A power cut at a hospital costs time, never the round, and never doubles it."""
    with _plugged(hospitals, "north", step) as warden:
        experiment = hospitals.experiment(federation, round_limit=1)
        running = threading.Thread(target=experiment.run)
        running.start()
        assert warden.wait(timeout=60) == -9
    running.join(timeout=90)

    assert not running.is_alive()
    assert {reply.node_id for reply in experiment.history[0].replies} == {"north", "south"}
    rounds = History(hospitals.consortium.home("north")).rounds(experiment.id)
    assert [entry["step"] for entry in rounds] == [RoundStep.REPLIED]
    assert chain.verify(History(hospitals.consortium.home("north")).audit_lines()).is_whole


def test_two_runs_with_one_seed_end_bit_equal(hospitals: Hospitals, federation: Federation) -> None:
    """What a researcher publishes, another must be able to repeat to the last bit."""
    first, second = hospitals.experiment(federation), hospitals.experiment(federation)
    first.run()
    second.run()

    ours, theirs = first.parameters(), second.parameters()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in ours)


@contextmanager
def _plugged(hospitals: Hospitals, node: str, step: RoundStep) -> Iterator[subprocess.Popen[bytes]]:
    """Run the node with the warden that dies, and with its own again at the end."""
    consortium, home = hospitals.consortium, hospitals.consortium.home(node)
    consortium.kill(node)
    runner = ["-m", "appliance.runner", "--socket", str(home / "run/runner.sock"), "--scratch", str(home / "scratch")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with (
        subprocess.Popen([sys.executable, *runner], env=environment) as helper,
        subprocess.Popen([sys.executable, str(PLUG), str(home), step], env=environment) as warden,
    ):
        try:
            yield warden
        finally:
            for process in (warden, helper):
                process.terminate()
    consortium.restart(node)

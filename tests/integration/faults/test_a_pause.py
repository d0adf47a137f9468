"""A hospital pauses an experiment: what runs ends well, what comes waits, and nothing of it is lost or done twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from appliance.protocol.rounds import RoundStep
from researcher_kit import Federation
from researcher_kit.monitor import NodePaused
from tests.hospitals import Hospitals
from tests.integration.faults.players import Hospital, Researcher
from tests.integration.faults.records import require_done_once, rounds_of
from tests.integration.faults.stage import Stage
from tests.integration.network.hosts import wait_until

pytestmark = pytest.mark.timeout(300)  # the first of a module waits until everybody is up
SETTINGS = {"model_args": {"width": 8}}


def test_a_paused_experiment_waits_and_goes_on_as_if_nothing_had_been(
    hospitals: Hospitals, north: Hospital, stage: Stage, federation: Federation, tmp_path: Path
) -> None:
    """Over a power cut as well, while another experiment takes its turn; the model ends the same to the last bit."""
    undisturbed = _undisturbed(hospitals, stage, tmp_path / "undisturbed")
    researcher = Researcher(hospitals, tmp_path / "experiment", stage.address, **SETTINGS)
    history, staff = hospitals.history("north"), hospitals.staff("north")
    answers: list[Any] = []

    def pause() -> None:
        answers.append(staff.call("experiment.pause", experiment=history.rounds()[-1]["experiment_id"]))

    researcher.start()
    try:
        # While its first round is at work.
        with stage.acting_at(RoundStep.TRAINED, pause):
            researcher.ask_for(1)
            first = researcher.answer()
        experiment = history.pauses()[0]["experiment_id"]
        stage.steps.clear()
        researcher.ask_for(2)
        wait_until(lambda: NodePaused.__name__ in stage.steps, 60)
        others = [hospitals.experiment(federation, round_limit=1).run()]
        north.warden.kill()
        north.start()
        others.append(hospitals.experiment(federation, round_limit=1).run())
        waiting = [row["step"] for row in history.rounds(experiment)]
        staff.call("experiment.resume", experiment=experiment)
        second = researcher.answer()
    finally:
        researcher.kill()

    assert (answers, first, second) == ([{"round": 1}], {"round": 1}, {"round": 2})
    assert others == [1, 1]
    assert waiting == [RoundStep.REPLIED, RoundStep.ACCEPTED]
    assert rounds_of(researcher.folder) == undisturbed
    require_done_once(hospitals, researcher.folder, 2)
    events = [(line["event"], line["actor"]) for line in hospitals.audit("north") if line["subject"] == experiment]
    assert ("experiment.paused", "staff:nurse") in events
    assert ("experiment.resumed", "staff:nurse") in events


def _undisturbed(people: Hospitals, stage: Stage, folder: Path) -> dict[int, bytes]:
    researcher = Researcher(people, folder, stage.address, **SETTINGS)
    researcher.start()
    try:
        researcher.ask_for(2)
        assert researcher.answer() == {"round": 2}
    finally:
        researcher.kill()
    return rounds_of(folder)

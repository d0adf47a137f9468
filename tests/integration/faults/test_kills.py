"""``kill -9`` of every part at every step of a round: it costs time, never the round, and never doubles it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from appliance.embedded.consortium import BROKER, NETWORK
from appliance.protocol.errors import Code
from appliance.protocol.rounds import PLAIN_STEPS, ResearcherStep
from tests.hospitals import Hospitals, training_args
from tests.integration.faults.players import Hospital, Researcher
from tests.integration.faults.records import require_done_once, require_whole, rounds_of
from tests.integration.faults.stage import Act, Stage

STEPS = (*PLAIN_STEPS, *ResearcherStep)
VICTIMS = ("warden", "child", "supervisor", "network", "broker", "researcher")


class Play:
    """One experiment, of which each round is disturbed once."""

    def __init__(self, people: Hospitals, north: Hospital, stage: Stage, researcher: Researcher) -> None:
        self.people, self.north, self.stage, self.researcher = people, north, stage, researcher
        self.rounds = 0

    def run_round(self) -> None:
        """One more round, to its end."""
        self.rounds += 1
        self.researcher.ask_for(self.rounds)
        assert self.researcher.answer() == {"round": self.rounds}

    def act(self, victim: str) -> Act:
        """Kill it, and start it again without waiting until it is up: what waits at the step goes on meanwhile."""
        acts: dict[str, Callable[[], object]] = {
            "warden": lambda: (self.north.warden.kill(), self.north.warden.start()),
            "child": self._kill_children,
            "supervisor": lambda: (self.north.runner.kill(), self.north.runner.start()),
            "network": lambda: self._kill_part(NETWORK),
            "broker": lambda: self._kill_part(BROKER),
            "researcher": self.researcher.start,
        }
        return acts[victim]

    def wait_until_up(self) -> None:
        """Everybody is back."""
        self.north.start()
        self.people.consortium.wait_until_up(BROKER, NETWORK)

    def _kill_children(self) -> None:
        children = self.north.children()
        assert children, "no plan's process runs"
        for child in children:
            child.kill()
        psutil.wait_procs(children, timeout=10)

    def _kill_part(self, name: str) -> None:
        self.people.consortium.kill(name, forget=name == BROKER)
        self.people.consortium.launch(name)


def _play(people: Hospitals, north: Hospital, stage: Stage, folder: Path, **changes: object) -> Iterator[Play]:
    researcher = Researcher(people, folder / "experiment", stage.address, **changes)
    researcher.start()
    try:
        yield Play(people, north, stage, researcher)
    finally:
        researcher.kill()


@pytest.fixture(scope="module")
def undisturbed(
    hospitals: Hospitals, north: Hospital, stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, bytes]:
    """The global parameters behind each round of the same experiment when nobody is killed."""
    play = next(playing := _play(hospitals, north, stage, tmp_path_factory.mktemp("undisturbed")))
    for _ in range(1 + len(STEPS)):
        play.run_round()
    playing.close()
    return rounds_of(play.researcher.folder)


@pytest.fixture(scope="module", params=VICTIMS)
def victim(request: pytest.FixtureRequest) -> str:
    """Who is killed."""
    return str(request.param)


@pytest.fixture(scope="module")
def play(
    victim: str, hospitals: Hospitals, north: Hospital, stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Play]:
    """The victim's experiment, behind a first round that is left in peace."""
    for play in _play(hospitals, north, stage, tmp_path_factory.mktemp(victim)):
        play.run_round()
        yield play


@pytest.mark.parametrize("step", STEPS)
def test_a_round_survives_a_kill(step: str, victim: str, play: Play, undisturbed: dict[int, bytes]) -> None:
    """Every step is a moment at which a machine may lose its power; the model ends the same to the last bit."""
    with play.stage.acting_at(step, play.act(victim)):
        play.run_round()
    play.wait_until_up()

    require_done_once(play.people, play.researcher.folder, play.rounds)
    require_whole(play.people)
    assert rounds_of(play.researcher.folder)[play.rounds] == undisturbed[play.rounds]


def test_every_step_of_a_round_is_said(hospitals: Hospitals, north: Hospital, stage: Stage, tmp_path: Path) -> None:
    """A step that nobody says is one at which nobody was killed."""
    for play in _play(hospitals, north, stage, tmp_path):
        stage.steps.clear()
        play.run_round()

        said = [step for step in stage.steps if step in STEPS]
        assert [step for step in said if step in PLAIN_STEPS] == [*PLAIN_STEPS]
        assert [step for step in said if step in [*ResearcherStep]] == [*ResearcherStep]


@pytest.fixture(scope="module")
def slow(
    victim: str, hospitals: Hospitals, north: Hospital, stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Play]:
    """An experiment whose training takes a second behind its first sign of progress."""
    changes = {"model_args": {"width": 2000, "pause_s": 0.3}, "training_args": training_args(4) | {"log_interval": 1}}
    yield from _play(hospitals, north, stage, tmp_path_factory.mktemp(f"slow-{victim}"), **changes)


def test_a_round_survives_a_kill_in_mid_training(victim: str, slow: Play) -> None:
    """The longest part of a round; only of a training process that was killed nobody can say why, so its end is told."""
    if victim == "child":
        with slow.stage.acting_at("Progress", slow.act(victim)):
            slow.researcher.ask_for(1)
            answer = slow.researcher.answer()
        assert (answer["round"], answer["code"]) == (0, Code.RUNNER_LIMIT)
    else:
        with slow.stage.acting_at("Progress", slow.act(victim)):
            slow.run_round()
        slow.wait_until_up()
        require_done_once(slow.people, slow.researcher.folder, 1)
    require_whole(slow.people)

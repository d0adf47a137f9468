"""``kill -9`` of every part at every step of a round: it costs time, never the round, and never doubles it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import psutil
import pytest

from appliance.embedded.consortium import BROKER, NETWORK
from appliance.protocol.errors import Code
from appliance.protocol.rounds import PLAIN_STEPS, ResearcherStep, RoundStep
from researcher_kit.monitor import Progress
from tests.hospitals import Hospitals, training_args
from tests.integration.faults.players import Hospital, Researcher
from tests.integration.faults.records import require_done_once, rounds_of
from tests.integration.faults.stage import Act, Stage
from tests.integration.network.hosts import wait_until

TRAINING = Progress.__name__  # between two steps, and for longest
STEPS = (*PLAIN_STEPS, TRAINING, *ResearcherStep)
UPLOADED, ENCLOSED = 2000, 8  # widths: parameters that go by way of the network host, and those inside a message
VICTIMS = {
    "warden": UPLOADED,
    "warden-enclosed": ENCLOSED,
    "child": UPLOADED,
    "supervisor": UPLOADED,
    "network": UPLOADED,
    "broker": UPLOADED,
    "researcher": UPLOADED,
}
# A training process that dies while it trains is one that its plan may have brought down: that is told, with a code.
WHILE_IT_TRAINS = (ResearcherStep.REQUESTED, TRAINING)

pytestmark = pytest.mark.timeout(300)  # the first of a module waits until everybody is up


class Play:
    """One experiment, of which each round is disturbed once."""

    def __init__(self, people: Hospitals, north: Hospital, stage: Stage, researcher: Researcher) -> None:
        self.people, self.north, self.stage, self.researcher = people, north, stage, researcher
        self.rounds = 0
        self.told: list[int] = []  # rounds that failed with an error first

    def run_round(self) -> None:
        """One more round, to its end."""
        self.rounds += 1
        assert self.ask() == {"round": self.rounds}

    def ask(self) -> dict[str, object]:
        """What the researcher says of the round that is due."""
        self.researcher.ask_for(self.rounds)
        return self.researcher.answer()

    def run_disturbed_round(self, victim: str, step: str) -> None:
        """One more round, in which the victim is killed at that step."""
        self.rounds += 1
        with self.stage.acting_at(step, self._act(victim)):
            answer = self.ask()
        if victim == "child" and step in WHILE_IT_TRAINS and "code" in answer:
            assert answer["code"] == Code.RUNNER_LIMIT
            self.told.append(self.rounds)
            answer = self.ask()
        assert answer == {"round": self.rounds}
        self.north.start()
        self.people.consortium.wait_until_up(BROKER, NETWORK)

    def require_done_once(self) -> None:
        """All rounds so far, and every store and log."""
        require_done_once(self.people, self.researcher.folder, self.rounds, told=self.told)

    def _act(self, victim: str) -> Act:
        """Kill it, and start it again without waiting until it is up: what waits at the step goes on meanwhile."""
        acts: dict[str, Callable[[], object]] = {
            "warden-enclosed": lambda: (self.north.warden.kill(), self.north.warden.start()),
            "warden": lambda: (self.north.warden.kill(), self.north.warden.start()),
            "child": self._kill_children,
            "supervisor": lambda: (self.north.runner.kill(), self.north.runner.start()),
            "network": lambda: self._kill_part(NETWORK),
            "broker": lambda: self._kill_part(BROKER),
            "researcher": self.researcher.start,
        }
        return acts[victim]

    def _kill_children(self) -> None:
        children = self.north.children()
        assert children, "no plan's process runs"
        for child in children:
            child.kill()
        psutil.wait_procs(children, timeout=10)

    def _kill_part(self, name: str) -> None:
        self.people.consortium.kill(name, forget=name == BROKER)
        self.people.consortium.launch(name)


@pytest.fixture(scope="module")
def undisturbed(
    hospitals: Hospitals, north: Hospital, stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], dict[int, bytes]]:
    """The global parameters behind each round when nobody is killed, by the model's width."""

    @cache
    def parameters(width: int) -> dict[int, bytes]:
        with _play(hospitals, north, stage, tmp_path_factory.mktemp("undisturbed"), width) as play:
            for _ in range(1 + 2 * len(STEPS)):
                play.run_round()
            return rounds_of(play.researcher.folder)

    return parameters


@pytest.fixture(scope="module", params=VICTIMS)
def victim(request: pytest.FixtureRequest) -> str:
    """Who is killed."""
    return str(request.param)


@pytest.fixture(scope="module")
def play(
    victim: str, hospitals: Hospitals, north: Hospital, stage: Stage, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Play]:
    """The victim's experiment, behind a first round that is left in peace."""
    with _play(hospitals, north, stage, tmp_path_factory.mktemp(victim), VICTIMS[victim]) as play:
        play.run_round()
        yield play


@pytest.mark.parametrize("step", STEPS)
def test_a_round_survives_a_kill(
    step: str, victim: str, play: Play, undisturbed: Callable[[int], dict[int, bytes]]
) -> None:
    """Every step is a moment at which a machine may lose its power; the model ends the same to the last bit."""
    if victim == "child":
        play.run_round()  # so that there is one
    play.run_disturbed_round(victim, step)

    play.require_done_once()
    assert rounds_of(play.researcher.folder)[play.rounds] == undisturbed(VICTIMS[victim])[play.rounds]


def test_every_step_of_a_round_is_said(hospitals: Hospitals, north: Hospital, stage: Stage, tmp_path: Path) -> None:
    """A step that nobody says is one at which nobody was killed."""
    with _play(hospitals, north, stage, tmp_path, UPLOADED) as play:
        stage.steps.clear()
        play.run_round()

        assert [step for step in stage.steps if step in [*PLAIN_STEPS]] == [*PLAIN_STEPS]
        assert [step for step in stage.steps if step in [*ResearcherStep]] == [*ResearcherStep]


def test_a_round_that_failed_at_one_hospital_is_run_again_at_all(
    hospitals: Hospitals, north: Hospital, stage: Stage, tmp_path: Path
) -> None:
    """Otherwise the hospital that had done its part would refuse it for ever after, and the experiment be lost."""
    with _play(hospitals, north, stage, tmp_path, UPLOADED) as play:
        play.run_round()
        stage.steps.clear()

        def fail_behind_south() -> None:
            wait_until(lambda: "NodeReplied" in stage.steps, 100)
            (experiment,) = {row["experiment_id"] for row in hospitals.history("north").rounds()[-1:]}
            hospitals.staff("north").call("experiment.stop", experiment=experiment)

        play.rounds += 1
        with stage.acting_at(RoundStep.FETCHED, fail_behind_south):
            assert play.ask()["code"] == Code.ROUND_STOPPED

        assert play.ask() == {"round": play.rounds}


@contextmanager
def _play(people: Hospitals, north: Hospital, stage: Stage, folder: Path, width: int) -> Iterator[Play]:
    settings = {"model_args": {"width": width, "pause_s": 0.1}, "training_args": training_args() | {"log_interval": 1}}
    researcher = Researcher(people, folder / "experiment", stage.address, **settings)
    researcher.start()
    try:
        yield Play(people, north, stage, researcher)
    finally:
        researcher.kill()

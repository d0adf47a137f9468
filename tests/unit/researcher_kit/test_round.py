"""A round that is cut short at any step, and taken up again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.messages import Scalar, Train
from appliance.protocol.rounds import ResearcherStep
from appliance.protocol.topics import parse_topic
from researcher_kit import Experiment, FedAverage, Federation, Quorum
from researcher_kit.errors import NodeFailedError, QuorumMissedError
from researcher_kit.monitor import Event, NodePaused, RoundStarted, StepFinished
from researcher_kit.store import RoundBook
from researcher_kit.strategies.base import Decision, RoundView, Verdict
from tests.simulator import Arrays, Consortium, SimulatedNode, drift
from tests.unit.researcher_kit.conftest import SETTINGS, same

Make = Callable[..., Experiment]


class Crash(BaseException):
    """The process ends here; nothing may tidy up."""


def crash_behind(step: ResearcherStep, monkeypatch: pytest.MonkeyPatch) -> None:
    """End the process when ``step`` of round 2 is finished."""
    emit = Experiment._emit

    def crashing(self: Experiment, event: Event) -> None:
        emit(self, event)
        if event == StepFinished(2, step):
            raise Crash

    monkeypatch.setattr(Experiment, "_emit", crashing)


@pytest.fixture
def undisturbed(make: Make) -> Arrays:
    """The parameters of three rounds in one go."""
    experiment = make()
    experiment.run()
    return experiment.parameters()


def run_until_the_crash(consortium: Consortium, folder: Path) -> None:
    """One process's life."""
    with consortium.federation() as federation, pytest.raises(Crash):
        Experiment(**SETTINGS, federation=federation, experimentation_folder=folder).run()


def resume(consortium: Consortium, folder: Path) -> tuple[Arrays, list[RoundStarted]]:
    """The next process's life."""
    started: list[RoundStarted] = []
    with consortium.federation() as federation:
        experiment = Experiment.load_breakpoint(folder, federation=federation)
        experiment.on_event(lambda event: started.append(event) if isinstance(event, RoundStarted) else None)
        experiment.run()
        return experiment.parameters(), started


def requests_to(consortium: Consortium, node: str) -> set[str]:
    """The distinct texts of all Train messages that were sent to a node."""
    return {
        text
        for topic, text in consortium.broker.texts
        if parse_topic(topic).to == node and parse_topic(topic).kind == "train"
    }


@pytest.mark.parametrize("step", [step for step in ResearcherStep if step is not ResearcherStep.CLOSED])
def test_a_crash_behind_any_step_changes_nothing(
    step: ResearcherStep,
    undisturbed: Arrays,
    consortium: Consortium,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Same parameters to the bit, and no node is asked twice: not one request beyond the three rounds'."""
    before = {node: len(requests_to(consortium, node)) for node in consortium.nodes}
    with monkeypatch.context() as patch:
        crash_behind(step, patch)
        run_until_the_crash(consortium, tmp_path / "run")

    parameters, started = resume(consortium, tmp_path / "run")

    assert same(parameters, undisturbed)
    is_recorded = step is not ResearcherStep.CHOSEN  # nothing has left by then
    assert [(event.round, event.is_resumed) for event in started] == [(2, is_recorded), (3, False)]
    assert all(len(requests_to(consortium, node)) == before[node] + 3 for node in consortium.nodes)


@pytest.mark.parametrize("is_closed", [False, True], ids=["before", "after"])
def test_a_crash_around_the_closing_of_a_round_changes_nothing(
    is_closed: bool, undisturbed: Arrays, consortium: Consortium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The breakpoint is written, and the store may or may not know it."""
    close = RoundBook.close

    def crashing(self: RoundBook, round_: int) -> list[str]:
        if is_closed:
            close(self, round_)
        if round_ == 2:
            raise Crash
        return close(self, round_)

    with monkeypatch.context() as patch:
        patch.setattr(RoundBook, "close", crashing)
        run_until_the_crash(consortium, tmp_path / "run")

    parameters, started = resume(consortium, tmp_path / "run")

    assert same(parameters, undisturbed)
    assert [event.round for event in started] == [3]


def test_a_store_holds_no_content_key_in_clear(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backups hold the store and never keys: what the store has of a key is sealed to the researcher."""
    experiment = make(round_limit=2)
    crash_behind(ResearcherStep.REQUESTED, monkeypatch)
    with pytest.raises(Crash):
        experiment.run()
    row = RoundBook(experiment.federation.store, experiment.id).find(2)

    assert len(row.parameters.content_key) > 43  # an HPKE sealing of 32 bytes, not 32 bytes


def test_other_terms_are_a_new_round(make: Make, consortium: Consortium, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who changes the arguments after an interruption means the new ones."""
    experiment = make(round_limit=2)
    with monkeypatch.context() as patch:
        crash_behind(ResearcherStep.REQUESTED, patch)
        with pytest.raises(Crash):
            experiment.run()
    experiment.set_training_args({"epochs": 2, "random_seed": 7})
    started: list[RoundStarted] = []
    experiment.on_event(lambda event: started.append(event) if isinstance(event, RoundStarted) else None)
    experiment.run()

    assert [event.is_resumed for event in started] == [False]


def test_a_looser_strategy_takes_up_the_round_that_waits(
    make: Make, consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Waiting for a hospital that is off, the researcher presses Ctrl-C and asks for fewer: nobody trains twice."""
    experiment = make(round_limit=2)
    with monkeypatch.context() as patch:
        crash_behind(ResearcherStep.REQUESTED, patch)
        with pytest.raises(Crash):
            experiment.run()
    experiment.set_strategy(Quorum(fraction=0.6, deadline_s=60))
    experiment.run()

    assert all(len(requests_to(consortium, node)) == 2 for node in consortium.nodes)


def test_an_update_that_is_lost_names_its_node(make: Make, consortium: Consortium) -> None:
    """The network host lost a file: the round can only be run again."""
    consortium.store.faults = []
    experiment = make(round_limit=1)
    original = consortium.nodes["north"].train

    def train(node, request, parameters):
        update = original(node, request, parameters)
        consortium.store.faults.append(FedWardError("The upload is gone.", code=Code.TRANSFER_MISSING))
        return update

    consortium.nodes["north"].train = train
    consortium.broker.deliver_replies_in(["north", "south", "west"])

    with pytest.raises(NodeFailedError, match="gone") as caught:
        experiment.run()

    assert caught.value.code is Code.TRANSFER_MISSING


def test_a_fault_of_our_own_is_not_waited_for(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What breaks in a download's thread must reach the researcher, not leave the round waiting for ever."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("researcher_kit.spool.TensorFile", broken)

    with pytest.raises(ZeroDivisionError):
        make().run()


def test_a_strategy_may_choose_fewer_nodes(make: Make, consortium: Consortium) -> None:
    """Sampling is a strategy's own business; the others hear nothing."""

    class First(Quorum):
        def choose(self, nodes, round_):
            return [nodes[round_ % len(nodes)]]

    experiment = make(strategy=First(fraction=1))
    experiment.run()

    assert [record.replies[0].node_id for record in experiment.history] == ["south", "west", "north"]


def test_what_the_nodes_must_know_of_the_aggregator_travels(make: Make, consortium: Consortium) -> None:
    """The seam for aggregators with a part at the nodes."""
    seen = []
    original = consortium.nodes["north"].train

    class Tuned(FedAverage):
        def create_aggregator_args(self):
            return {"mu": 0.1}

    def train(node, request, parameters):
        seen.append(request.aggregator_args)
        return original(node, request, parameters)

    consortium.nodes["north"].train = train
    make(aggregator=Tuned(), round_limit=1).run()

    assert seen == [{"mu": 0.1}]


def test_old_parameters_do_not_pile_up_at_the_network_host(make: Make, consortium: Consortium) -> None:
    """Forty rounds of a large model would fill the researcher's quota."""
    make().run()

    assert sum(upload.owner == "alice" for upload in consortium.store.uploads.values()) == 1


def test_the_spool_is_empty_when_the_round_is_closed(make: Make, federation: Federation) -> None:
    """One round's updates on disk, not all of them."""
    experiment = make()
    experiment.run()

    assert list((experiment.experimentation_path() / "spool").iterdir()) == []


@pytest.mark.usefixtures("encloses")
def test_a_small_model_travels_inside_its_messages(consortium: Consortium, make: Callable[..., Experiment]) -> None:
    """On a small model the transfers cost more than the training; both ways still only the recipient can open it."""
    uploaded = make()
    consortium.store.uploaded.clear()
    uploaded.run()

    assert sum(consortium.store.uploaded.values()) == 0
    assert uploaded.round_current() == 3


def test_a_request_that_was_given_up_is_not_sent_again_after_a_crash(
    consortium: Consortium, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hospital that comes back days later would train for nobody."""

    def crash(*_: object) -> None:
        raise Crash

    west = consortium.nodes["west"]
    with consortium.federation() as federation, monkeypatch.context() as patch:
        experiment = Experiment(**SETTINGS, federation=federation, experimentation_folder=tmp_path / "run")
        experiment.run_once()
        experiment.set_strategy(Quorum(fraction=1, deadline_s=0.3))
        west.is_silent = True
        patch.setattr(west._mailbox, "acknowledge", lambda _: None)
        patch.setattr(Federation, "withdraw", crash)
        with pytest.raises(Crash):
            experiment.run_once()

    with consortium.federation() as federation:
        assert federation._mailbox.waiting == 0


SINCE = 1_770_000_000


def paused(node: SimulatedNode, train: Train, parameters: Arrays) -> tuple[Arrays, int]:
    """Says twice that the hospital paused the experiment, as its heartbeats do, and goes on."""
    place = {"experiment_id": train.experiment_id, "round": train.round}
    for _ in range(2):
        node.send("alice", Scalar(**place, iteration=0, iterations=0, paused_since=SINCE))
    return drift(node, train, parameters)


def test_a_pause_is_told_once_and_the_round_goes_on(make: Make, consortium: Consortium) -> None:
    """A hospital says it with each heartbeat; nobody wants to read it that often."""
    consortium.nodes["west"].train = paused
    heard: list[Event] = []
    experiment = make(round_limit=1)
    experiment.on_event(heard.append)
    rounds = experiment.run()

    assert rounds == 1
    assert [event for event in heard if isinstance(event, NodePaused)] == [NodePaused(1, "west", SINCE)]


def test_a_deadline_that_passes_in_a_pause_names_it(make: Make, consortium: Consortium) -> None:
    """Whoever is too late shall know that it was the hospital's will."""
    released = threading.Event()

    class Patient(Quorum):
        is_told = False

        def decide(self, view: RoundView) -> Decision:
            if self.is_told:
                return Decision(Verdict.FAIL)
            return Decision(Verdict.WAIT, view.elapsed_s + 0.05)

    def held(node: SimulatedNode, train: Train, parameters: Arrays) -> tuple[Arrays, int]:
        update = paused(node, train, parameters)
        released.wait(20)
        return update

    strategy = Patient(fraction=1, deadline_s=0.001)
    consortium.nodes["west"].train = held
    experiment = make(strategy=strategy)
    experiment.on_event(lambda event: setattr(strategy, "is_told", strategy.is_told or isinstance(event, NodePaused)))
    try:
        with pytest.raises(QuorumMissedError) as caught:
            experiment.run_once()
    finally:
        released.set()

    said = {failure.node_id: failure.message for failure in caught.value.failures}
    assert said["west"].endswith(" s: the hospital has paused the experiment.")

"""A stop from either side: the work ends within five seconds, the record says when, and everybody learns who it was."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psutil
import pytest

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.messages import Stopped
from appliance.protocol.rounds import RoundStep
from researcher_kit import Experiment, Federation
from researcher_kit.errors import NodeFailedError, PlanNotApprovedError, RoundStoppedError
from researcher_kit.monitor import Event, Progress
from tests.hospitals import NODES, PLAN, Hospitals, training_args

PROMISE_S = 5.0


@dataclass
class AtWork:
    """An experiment that another thread runs, at a moment when both hospitals train."""

    experiment: Experiment
    children: dict[str, list[psutil.Process]] = field(default_factory=dict)
    errors: list[FedWardError] = field(default_factory=list)
    began_s: float = 0.0

    def require_over(self, node: str, ended_at: float | None) -> None:
        """The promise: nothing of it lives, and the moment that was recorded is the one that counts."""
        assert self.children[node]
        assert not any(child.is_running() for child in self.children[node])
        assert ended_at is not None
        assert self.began_s <= ended_at <= self.began_s + PROMISE_S


@pytest.fixture
def at_work(hospitals: Hospitals, federation: Federation) -> Iterator[AtWork]:
    """After a first step, two of a minute each: by itself this would end in two minutes."""
    with _at_work(hospitals, federation) as work:
        yield work


@contextmanager
def _at_work(hospitals: Hospitals, federation: Federation) -> Iterator[AtWork]:
    experiment = hospitals.experiment(
        federation,
        model_args={"width": 8, "pause_s": 60.0, "quick": 1},
        training_args=training_args(3) | {"log_interval": 1},
        round_limit=1,
    )
    already = {child.pid for node in NODES for child in hospitals.children(node)}
    work, training = AtWork(experiment), _Training()
    experiment.on_event(training)
    thread = threading.Thread(target=_run, args=(experiment, work.errors))
    thread.start()
    assert training.both.wait(30)
    for node in NODES:
        work.children[node] = [child for child in hospitals.children(node) if child.pid not in already]
    work.began_s = time.time()
    yield work
    if thread.is_alive():
        experiment.stop()
    thread.join(30)
    assert not thread.is_alive()


class _Training:
    """Notes when both hospitals have begun to train."""

    def __init__(self) -> None:
        self._nodes: set[str] = set()
        self.both = threading.Event()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._nodes.add(event.node_id)
        if self._nodes == set(NODES):
            self.both.set()


def _run(experiment: Experiment, errors: list[FedWardError]) -> None:
    try:
        experiment.run()
    except FedWardError as error:
        errors.append(error)


def _ended_at(hospitals: Hospitals, node: str, experiment: Experiment) -> float | None:
    """When the hospital's audit log says that the last process was seen dead."""
    lines = [line for line in hospitals.audit(node, "experiment.stopped") if line["subject"] == experiment.id]
    return lines[-1]["details"]["ended_at"] if lines else None


def test_a_researcher_stops_what_trains(hospitals: Hospitals, federation: Federation, at_work: AtWork) -> None:
    """Whoever sees a mistake from a notebook must not heat two hospitals for an hour."""
    stopped = at_work.experiment.stop()

    assert stopped.answers.keys() == set(NODES)
    for node in NODES:
        answer = stopped.answers[node]
        assert isinstance(answer, Stopped)
        assert answer.was_running
        at_work.require_over(node, answer.ended_at)
        assert _ended_at(hospitals, node, at_work.experiment) == answer.ended_at
        (entry,) = hospitals.history(node).rounds(at_work.experiment.id)
        assert (entry["step"], entry["stop_reason"]) == (RoundStep.STOPPED, "the researcher alice")
    hospitals.experiment(federation, round_limit=1).run()


def test_a_researcher_who_stopped_is_told_so(at_work: AtWork) -> None:
    """The cell that ran ends with a sentence."""
    at_work.experiment.stop()
    _wait_for_error(at_work)

    (error,) = at_work.errors
    assert isinstance(error, RoundStoppedError)
    assert (error.code, error.message) == (Code.ROUND_STOPPED, "Round 1 was stopped from this side.")


_ACTS: dict[str, tuple[Callable[[Hospitals, Experiment], object], Callable[[Hospitals], object]]] = {
    "experiment.stop": (
        lambda h, e: h.staff("north").call("experiment.stop", experiment=e.id),
        lambda h: None,
    ),
    "dataset.suspend": (
        lambda h, e: h.staff("north").call("dataset.suspend", dataset="cells"),
        lambda h: h.staff("north").call("dataset.resume", dataset="cells"),
    ),
    "dataset.forbid": (
        lambda h, e: h.staff("north").call("dataset.forbid", dataset="cells", researcher="alice"),
        lambda h: h.staff("north").call("dataset.permit", dataset="cells", researcher="alice"),
    ),
    "plan.revoke": (
        lambda h, e: h.staff("north").call("plan.revoke", plan="wide", note="Not this week."),
        lambda h: h.staff("north").call("plan.add", name="wide", source=PLAN.read_text()),
    ),
}


@pytest.mark.parametrize("act", _ACTS)
def test_a_hospital_stops_what_trains_by(
    act: str, hospitals: Hospitals, federation: Federation, at_work: AtWork
) -> None:
    """The hospital has the last word, by whichever way it takes back its yes."""
    stop, undo = _ACTS[act]
    stop(hospitals, at_work.experiment)
    try:
        at_work.require_over("north", _ended_at(hospitals, "north", at_work.experiment))
        _wait_for_error(at_work)

        (error,) = at_work.errors
        assert isinstance(error, NodeFailedError)
        assert error.code is Code.ROUND_STOPPED
        assert "North (north): The experiment was stopped by the hospital's staff." in error.message
        (entry,) = hospitals.history("north").rounds(at_work.experiment.id)
        assert (entry["step"], entry["stop_reason"]) == (RoundStep.STOPPED, "the hospital's staff")
    finally:
        undo(hospitals)
    assert hospitals.experiment(federation, round_limit=1).run() == 1


def test_a_revoked_plan_does_not_run_again(hospitals: Hospitals, federation: Federation) -> None:
    """Without this, a stop by revocation would last until the next call of run()."""
    hospitals.staff("north").call("plan.revoke", plan="wide", note="Not this week.")
    try:
        with pytest.raises(PlanNotApprovedError, match=r"North \(north\).*took the approval back.*Not this week"):
            hospitals.experiment(federation).run()
    finally:
        hospitals.staff("north").call("plan.add", name="wide", source=PLAN.read_text())


def test_a_stop_ends_at_one_hospital_alone(hospitals: Hospitals, federation: Federation, at_work: AtWork) -> None:
    """North decides for north: what south does with its own data is not touched by it."""
    hospitals.staff("north").call("experiment.stop", experiment=at_work.experiment.id)

    assert all(child.is_running() for child in at_work.children["south"])


def _wait_for_error(work: AtWork) -> None:
    deadline = time.monotonic() + 20
    while not work.errors and time.monotonic() < deadline:
        time.sleep(0.02)

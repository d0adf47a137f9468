"""A hospital that is away for some rounds of five: the others go on, and it takes part again when it is back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import psutil
import pytest

from appliance.protocol.errors import Code
from appliance.protocol.rounds import RoundStep
from researcher_kit import Experiment, Federation
from researcher_kit.strategies import Quorum
from tests.hospitals import NODES, Hospitals
from tests.integration.faults.records import require_whole
from tests.integration.network.hosts import wait_until

pytestmark = pytest.mark.timeout(300)  # the first of a module waits until everybody is up

AWAY = (2, 3)
SHORT_S, LONG_S = 10, 600  # how long a request is of use


@contextmanager
def _switched_off(hospitals: Hospitals) -> Iterator[None]:
    hospitals.consortium.kill("north")
    yield
    hospitals.consortium.restart("north")


@contextmanager
def _frozen(hospitals: Hospitals) -> Iterator[None]:
    """As a virtual machine that its host suspends: its lines stand, and nobody is at home."""
    processes = [psutil.Process(pid) for pid in hospitals.consortium.processes("north")]
    for process in processes:
        process.suspend()
    yield
    for process in processes:
        process.resume()


def _run_five(
    hospitals: Hospitals,
    federation: Federation,
    away: Callable[[Hospitals], AbstractContextManager[None]],
    due_s: float,
) -> Experiment:
    """North is away in rounds 2 and 3; if their requests are due soon, it is back only when they are over."""
    experiment = hospitals.experiment(federation, model_args={"width": 2000}, round_limit=5, strategy=Quorum(1.0))
    experiment.run(1)
    with away(hospitals):
        experiment.set_strategy(Quorum(fraction=0.5, deadline_s=due_s))
        experiment.run(len(AWAY))
        over = time.time() + due_s + 1
        if due_s == SHORT_S:
            wait_until(lambda: time.time() > over)
    experiment.set_strategy(Quorum(1.0))
    experiment.run()
    return experiment


def test_a_node_that_was_switched_off_does_not_train_what_is_over(hospitals: Hospitals, federation: Federation) -> None:
    """Its machine has better things to do than answers that nobody awaits, and the old ones must not be counted now."""
    tail = hospitals.since("north")
    experiment = _run_five(hospitals, federation, _switched_off, SHORT_S)

    for number in AWAY:
        tail.wait_for("round.refused", round=number, code=Code.ROUND_TIMEOUT)
    _require_five_rounds(experiment)
    assert _done(hospitals, "north", experiment) == [1, 4, 5]
    assert _done(hospitals, "south", experiment) == [1, 2, 3, 4, 5]
    require_whole(hospitals)


def test_a_node_that_stood_still_does_in_time_what_it_was_asked_for(
    hospitals: Hospitals, federation: Federation
) -> None:
    """Each round at most once and in order; those that were closed meanwhile may be given up, which the report says."""
    experiment = _run_five(hospitals, federation, _frozen, LONG_S)

    _require_five_rounds(experiment)
    rows = hospitals.history("north").rounds(experiment.id)
    assert [row["round"] for row in rows] == [1, 2, 3, 4, 5]
    assert {row["round"] for row in rows if row["step"] != RoundStep.REPLIED} <= {*AWAY}
    require_whole(hospitals)


def _require_five_rounds(experiment: Experiment) -> None:
    """What was counted: a node's update in a round once, and in its own round only."""
    taking_part = {record.round: [reply.node_id for reply in record.replies] for record in experiment.history}
    expected = {number: ["south"] if number in AWAY else [*NODES] for number in range(1, 6)}
    assert taking_part == expected
    failures = {record.round: [f.node_id for f in record.failures] for record in experiment.history}
    assert failures == {n: ["north"] if n in AWAY else [] for n in range(1, 6)}
    codes = {lost.code for record in experiment.history for lost in record.failures}
    assert codes <= {Code.ROUND_TIMEOUT, Code.ROUND_SUPERSEDED}


def _done(hospitals: Hospitals, node: str, experiment: Experiment) -> list[int]:
    rows = hospitals.history(node).rounds(experiment.id)
    assert {row["step"] for row in rows} == {RoundStep.REPLIED}
    return [row["round"] for row in rows]

"""A round while it runs: bounded however long it is, and forgotten when its training begins anew."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocol.messages import Reached
from appliance.protocol.rounds import RoundStep
from appliance.warden import live as live_module
from appliance.warden.live import MOST_POINTS, Curve, LiveRound


@given(st.integers(0, 5000))
def test_a_curve_is_bounded_and_keeps_its_ends(count: int) -> None:
    """A round of a week has as many points as a round of ten minutes; evenly, the first and the last among them."""
    curve = Curve()
    for place in range(1, count + 1):
        curve.add(place, 1.0 / place)
    places = [place for place, _ in curve.points]

    assert len(places) <= MOST_POINTS
    assert places[:1] + places[-1:] == ([1, count] if count else [])
    gaps = {after - before for before, after in pairwise(places[:-1])}
    assert len(gaps) <= 1
    assert all(value == 1.0 / place for place, value in curve.points)


def test_a_short_curve_loses_nothing() -> None:
    """Most rounds are short."""
    curve = Curve()
    for place in range(1, MOST_POINTS):
        curve.add(place, 0.5)
    assert [place for place, _ in curve.points] == [*range(1, MOST_POINTS)]


def test_the_last_update_told_twice_is_one_point() -> None:
    """Once as progress, once with the update."""
    curve = Curve()
    for value in (0.5, 0.4):
        curve.add(9, value)
    assert curve.points == [(9, 0.5)]


class Clock:
    """Set by hand."""

    now = 100.0

    def monotonic(self) -> float:
        """As ``time`` has it."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time that a live round sees."""
    clock = Clock()
    monkeypatch.setattr(live_module, "time", clock)
    return clock


def reached(iteration: int, **values: float) -> Reached:
    """So far of a hundred."""
    return Reached(iteration=iteration, iterations=100, epoch=1, values=values)


def test_the_rest_is_reckoned_by_the_pace_so_far(clock: Clock) -> None:
    """Loading is no part of the pace: it counts from the first update on, and down between two words."""
    live = LiveRound("e-1", 3)
    clock.now += 50  # got ready
    live.reach(reached(10))
    assert live.describe()["remaining_s"] is None
    clock.now += 20
    live.reach(reached(20))
    assert live.describe()["remaining_s"] == pytest.approx(160)
    clock.now += 30

    told = live.describe()
    assert (told["elapsed_s"], told["remaining_s"]) == (pytest.approx(100), pytest.approx(130))


def test_a_training_that_begins_anew_has_a_curve_of_its_own(clock: Clock) -> None:
    """The runner died and was started again: what it had told before is of another training."""
    live = LiveRound("e-1", 3)
    live.reach(reached(50, loss=0.5))
    live.finish(RoundStep.FETCHED)
    live.begin()
    told = live.describe()

    assert (told["iteration"], told["loss"], told["step"], live.curve) == (0, None, "fetched", [])

"""Pauses between attempts."""

from __future__ import annotations

import threading

import pytest

from appliance.transport import backoff
from appliance.transport.backoff import Backoff


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The longest pause that each attempt might have had; none is really waited for."""
    limits: list[float] = []

    def note(_low: float, high: float) -> float:
        limits.append(high)
        return 0.0

    monkeypatch.setattr(backoff.random, "uniform", note)
    return limits


def test_pauses_grow_up_to_a_cap(pauses: list[float]) -> None:
    """A host that is down for an hour is not asked a thousand times."""
    patience = Backoff(60)
    for _ in range(12):
        patience.pause()

    assert pauses[:3] == [0.1, 0.2, 0.4]
    assert max(pauses) == backoff.CAP_S


def test_progress_begins_anew(pauses: list[float]) -> None:
    """A slow line that moves is not a dead one."""
    patience = Backoff(60)
    for _ in range(5):
        patience.pause()
    patience.progressed()
    patience.pause()

    assert pauses[-1] == backoff.FIRST_S


def test_patience_ends(pauses: list[float]) -> None:
    """The caller must learn that nobody is there."""
    assert not Backoff(0).pause()


def test_a_stop_ends_a_pause_at_once() -> None:
    """A stop must act within seconds, not after the pause."""
    stop = threading.Event()
    stop.set()

    assert not Backoff(60, stop).pause()

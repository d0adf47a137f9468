"""What the link hands over."""

from __future__ import annotations

import queue

from appliance.transport.mqtt import DRAIN_AT_MOST, drain


def filled(count: int) -> queue.SimpleQueue[int]:
    """A queue with numbers in it."""
    events: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(count):
        events.put(number)
    return events


def test_what_waits_is_taken_in_order() -> None:
    """A stop behind its train must stay behind it."""
    assert list(drain(filled(3), 0.0)) == [0, 1, 2]


def test_nothing_is_an_answer_when_the_time_is_over() -> None:
    """The caller then looks after what is due."""
    assert list(drain(filled(0), 0.0)) == []


def test_a_flood_leaves_the_caller_time_for_its_own_business() -> None:
    """Else whoever can send messages could keep a node from repeating its own, and from saying that it lives."""
    events = filled(DRAIN_AT_MOST + 5)
    assert len(list(drain(events, 0.0))) == DRAIN_AT_MOST
    assert len(list(drain(events, 0.0))) == 5

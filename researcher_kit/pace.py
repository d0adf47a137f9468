"""How fast an experiment goes: what is left of a round and of the run, and which node it waits for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from researcher_kit.monitor import Event, NodeFailed, NodePaused, NodeReplied, Progress, RoundClosed, RoundStarted

_REMEMBERED = 5  # rounds that the next one is judged by
_WAITS, _TRAINS, _PAUSED, _DONE = "waits", "trains", "paused", "done"


@dataclass
class _Node:
    state: str = _WAITS
    first: tuple[float, float] = (0.0, 0.0)  # when its first progress came, and how far it was
    last: tuple[float, float] = (0.0, 0.0)


@dataclass
class Pace:
    """An observer that judges the time to come by what it has seen; None where it has not seen enough.

    Args:
        clock: Seconds that only go forward.

    Example:
        >>> from researcher_kit.monitor import Progress, RoundStarted
        >>> now = [0.0]
        >>> pace = Pace(clock=lambda: now[0])
        >>> pace(RoundStarted(1, 3, {"north": "North Hospital"}, is_resumed=False))
        >>> pace(Progress(1, "north", "train", 1, 1, 11, {}))
        >>> now[0] = 20.0
        >>> pace(Progress(1, "north", "train", 1, 6, 11, {}))
        >>> round(pace.round_left_s())
        20
    """

    clock: Callable[[], float] = time.monotonic
    _nodes: dict[str, _Node] = field(default_factory=dict)
    _took: dict[str, float] = field(default_factory=dict)  # seconds from a round's start to each node's last answer
    _rounds: deque[float] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))
    _began: float = 0.0
    _to_come: int = 0  # rounds after this one

    def __call__(self, event: Event) -> None:
        """Take up an event."""
        match event:
            case RoundStarted():
                self._nodes = {node: _Node() for node in event.nodes}
                self._began = self.clock()
                self._to_come = 0 if event.is_test else event.round_limit - event.round
            case Progress() if (node := self._nodes.get(event.node_id)) and event.iterations:
                now = (self.clock(), event.iteration / event.iterations)
                node.first = now if node.state != _TRAINS else node.first
                node.state, node.last = _TRAINS, now
            case NodePaused() if node := self._nodes.get(event.node_id):
                node.state = _PAUSED
            case NodeReplied() if node := self._nodes.get(event.reply.node_id):
                node.state = _DONE
                self._took[event.reply.node_id] = self.elapsed_s()
            case NodeFailed() if node := self._nodes.get(event.failure.node_id):
                node.state = _DONE
            case RoundClosed():
                self._rounds.append(event.record.seconds)
                self._nodes = {}

    def elapsed_s(self) -> float:
        """Since the round began."""
        return self.clock() - self._began

    def round_left_s(self) -> float | None:
        """Until the last node that is waited for has answered; a node that is paused is not counted."""
        left = [self._left_s(node) for node, known in self._nodes.items() if known.state != _PAUSED]
        told = [seconds for seconds in left if seconds is not None]
        return max(told) if told and len(told) == len(left) else None

    def run_left_s(self) -> float | None:
        """Until the round limit."""
        mean = sum(self._rounds) / len(self._rounds) if self._rounds else None
        round_left = self.round_left_s()
        if not self._nodes:
            round_left = 0.0
        elif round_left is None and mean is not None:
            round_left = max(0.0, mean - self.elapsed_s())
        if mean is None and round_left is not None:
            mean = self.elapsed_s() + round_left
        return None if mean is None or round_left is None else round_left + self._to_come * mean

    def slowest(self) -> str | None:
        """The node whose answer is expected last; None where less than two are compared."""
        left = {node: seconds for node in self._nodes if (seconds := self._left_s(node)) is not None}
        return max(left, key=left.__getitem__) if len(left) > 1 and max(left.values()) > 0 else None

    def _left_s(self, node_id: str) -> float | None:
        node, now = self._nodes[node_id], self.clock()
        if node.state == _DONE:
            return 0.0
        if node.state == _PAUSED:
            return None
        (began, share), (at, reached) = node.first, node.last
        if node.state == _TRAINS and reached > share:
            return max(0.0, (1 - reached) * (at - began) / (reached - share) - (now - at))
        took = self._took.get(node_id)
        return None if took is None else max(0.0, took - self.elapsed_s())

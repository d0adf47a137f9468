"""How long to wait before the next attempt: longer each time, never in step with others, and not for ever."""

from __future__ import annotations

import random
import threading
import time

FIRST_S, CAP_S = 0.1, 10.0


class Backoff:
    """The pauses between attempts at one thing.

    Each is random between nothing and a growing limit ("full jitter": Brooker, Exponential Backoff and Jitter, 2015),
    so that nodes which lost the network together do not come back together.

    Args:
        give_up_s: Seconds without progress after which there is no further attempt.
        stop: Ends a pause at once.
    """

    def __init__(self, give_up_s: float, stop: threading.Event | None = None) -> None:
        self._give_up_s = give_up_s
        self._stop = stop or threading.Event()
        self.progressed()

    @property
    def is_stopped(self) -> bool:
        """Whether the caller wants no further attempt."""
        return self._stop.is_set()

    def progressed(self) -> None:
        """Something came through: patience and pauses start anew."""
        self._limit_s = FIRST_S
        self._deadline = time.monotonic() + self._give_up_s

    def pause(self) -> bool:
        """Wait before the next attempt; False when patience has run out, or as soon as ``stop`` is set."""
        wait_s = random.uniform(0, self._limit_s)  # noqa: S311 - nothing secret
        self._limit_s = min(self._limit_s * 2, CAP_S)
        if time.monotonic() + wait_s >= self._deadline:
            return False
        return not self._stop.wait(wait_s)

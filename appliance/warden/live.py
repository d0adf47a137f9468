"""A round while it runs, for staff who watch: in memory alone, for nothing depends on it."""

from __future__ import annotations

import threading
import time
from typing import Any

from appliance.protocol.messages import Reached
from appliance.protocol.rounds import RoundStep

MOST_POINTS = 300

Point = tuple[int, float]


class Curve:
    """A value over a round's updates, thinned evenly: at most ``MOST_POINTS``, however long the round is."""

    def __init__(self) -> None:
        self._kept: list[Point] = []
        self._last: Point | None = None
        self._seen = 0
        self._every = 1

    def add(self, place: int, value: float) -> None:
        """One more point; of a place that is there already, only the first counts."""
        if self._last is not None and place <= self._last[0]:
            return
        self._last = (place, value)
        if self._seen % self._every == 0:
            self._kept.append(self._last)
        self._seen += 1
        if len(self._kept) == MOST_POINTS:
            self._kept, self._every = self._kept[::2], self._every * 2

    @property
    def points(self) -> list[Point]:
        """The points that were kept, and the last one."""
        is_kept = self._last is None or self._kept[-1] == self._last
        return [*self._kept] if is_kept or self._last is None else [*self._kept, self._last]


class LiveRound:
    """How far one round is. Its worker tells; whoever answers staff reads."""

    def __init__(self, experiment_id: str, round_: int) -> None:
        self.experiment_id, self.round = experiment_id, round_
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._step = RoundStep.ACCEPTED
        self.begin()

    def begin(self) -> None:
        """Its training begins, or begins anew."""
        with self._lock:
            self._loss = Curve()
            self._first: tuple[float, int] | None = None  # when, and at which update
            self._last: tuple[float, Reached] | None = None

    def finish(self, step: RoundStep) -> None:
        """A step lies behind it."""
        with self._lock:
            self._step = step

    def reach(self, reached: Reached) -> None:
        """Its training has come so far; ``reached`` holds only what may leave."""
        now = time.monotonic()
        with self._lock:
            self._first = self._first or (now, reached.iteration)
            self._last = (now, reached)
            if "loss" in reached.values:
                self._loss.add(reached.iteration, reached.values["loss"])

    @property
    def curve(self) -> list[Point]:
        """The loss by update."""
        with self._lock:
            return self._loss.points

    def describe(self) -> dict[str, Any]:
        """How far it is.

        Returns:
            ``experiment_id``, ``round``, ``step`` (the last one that is finished), ``elapsed_s``, ``iteration`` of
            ``iterations`` and ``epoch`` (0 before the first update), ``loss`` (None where there is none) and
            ``remaining_s`` of the training, as far as its pace so far tells; else None.
        """
        now = time.monotonic()
        with self._lock:
            reached = self._last[1] if self._last else Reached(iteration=0, iterations=0)
            return {
                "experiment_id": self.experiment_id,
                "round": self.round,
                "step": self._step,
                "elapsed_s": now - self._began,
                "iteration": reached.iteration,
                "iterations": reached.iterations,
                "epoch": reached.epoch,
                "loss": reached.values.get("loss"),
                "remaining_s": self._remaining_s(now),
            }

    def _remaining_s(self, now: float) -> float | None:
        if self._first is None or self._last is None or self._last[1].iteration == self._first[1]:
            return None
        (began, first), (at, reached) = self._first, self._last
        pace_s = (at - began) / (reached.iteration - first)
        return max(0.0, (reached.iterations - reached.iteration) * pace_s - (now - at))

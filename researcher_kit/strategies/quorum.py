"""Enough nodes, in time."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic import JsonValue

from appliance.protocol.errors import FedWardError
from researcher_kit.errors import ExperimentArgumentError, NodeFailure, QuorumMissedError
from researcher_kit.strategies.base import Decision, RoundView, Strategy, Verdict, require_deadline


class Quorum(Strategy):
    """The round closes as soon as a share of the nodes has answered, and fails when they have not in time.

    Which nodes make the quorum depends on who is fast; a node that comes late is asked again in the next round.

    Args:
        fraction: The share that is enough, above 0 and at most 1; rounded up to whole nodes.
        deadline_s: Seconds that the nodes have.

    Raises:
        ExperimentArgumentError: One of the two is out of its range.

    Example:
        >>> Quorum(fraction=0.8, deadline_s=600).needed(5)
        4
    """

    def __init__(self, fraction: float = 0.8, deadline_s: float | None = 600) -> None:
        if not 0 < fraction <= 1:
            raise ExperimentArgumentError(f"fraction is {fraction}; expected a share above 0 and at most 1.")
        self.fraction = fraction
        self.deadline_s = require_deadline(deadline_s)

    def __repr__(self) -> str:
        return f"Quorum(fraction={self.fraction}, deadline_s={self.deadline_s})"

    def needed(self, nodes: int) -> int:
        """How many of ``nodes`` are enough."""
        # 0.7 of 10 is 7, though 0.7 * 10 is a little more in binary.
        return max(1, math.ceil(round(self.fraction * nodes, 9)))

    def decide(self, view: RoundView) -> Decision:
        """See ``Strategy``."""
        needed = self.needed(len(view.asked))
        if len(view.arrived) >= needed:
            return Decision(Verdict.CLOSE)
        is_over = self.deadline_s is not None and view.elapsed_s >= self.deadline_s
        if is_over or len(view.asked) - len(view.failed) < needed:
            return Decision(Verdict.FAIL)
        return Decision(Verdict.WAIT, self.deadline_s)

    def failure(self, view: RoundView, failures: tuple[NodeFailure, ...]) -> FedWardError:
        """See ``Strategy``; lists each missing node's reason."""
        needed, asked = self.needed(len(view.asked)), len(view.asked)
        return QuorumMissedError(f"{len(view.arrived)} of {asked} nodes answered; {needed} are needed.", failures)

    def state(self) -> dict[str, JsonValue]:
        """See ``Strategy``."""
        return {"fraction": self.fraction, **super().state()}

    def restore(self, state: Mapping[str, JsonValue]) -> None:
        """See ``Strategy``."""
        super().restore(state)
        self.fraction = state["fraction"]  # type: ignore[assignment]  # as ``state`` wrote it

"""Every node, or none."""

from __future__ import annotations

from researcher_kit.strategies.base import Decision, RoundView, Strategy, Verdict, require_deadline


class AllNodes(Strategy):
    """The round needs every node that has data; one that fails ends it, and the error names that node.

    Args:
        deadline_s: Fail when a node is silent for longer; None waits, and the node may come back days later.

    Raises:
        ExperimentArgumentError: The deadline is not above 0.

    Example:
        >>> AllNodes(deadline_s=3600)
        AllNodes(deadline_s=3600)
    """

    def __init__(self, deadline_s: float | None = None) -> None:
        self.deadline_s = require_deadline(deadline_s)

    def __repr__(self) -> str:
        return f"AllNodes(deadline_s={self.deadline_s})"

    def decide(self, view: RoundView) -> Decision:
        """See ``Strategy``."""
        if view.failed:
            return Decision(Verdict.FAIL)
        if view.arrived == view.asked:
            return Decision(Verdict.CLOSE)
        is_over = self.deadline_s is not None and view.elapsed_s >= self.deadline_s
        return Decision(Verdict.FAIL) if is_over else Decision(Verdict.WAIT, self.deadline_s)

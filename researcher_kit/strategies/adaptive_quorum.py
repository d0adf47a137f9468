"""Enough nodes, each waited for as long as it usually takes."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from pydantic import JsonValue

from researcher_kit.aggregators.base import require_number
from researcher_kit.strategies.base import Decision, RoundView, Verdict
from researcher_kit.strategies.quorum import Quorum

REMEMBERED = 20  # rounds of each node


class AdaptiveQuorum(Quorum):
    """The round waits for every node as long as that node usually takes, and closes without those that are late.

    A node is late when it has taken ``patience`` times the median of its own last rounds. One that has answered no
    round yet has until ``deadline_s``. With too few answers, the round waits for late ones until ``deadline_s``.

    Args:
        fraction: The share of the nodes that is enough, above 0 and at most 1.
        patience: How many times its usual time a node has, above 1.
        least_s: Seconds that every node has at least, however fast it usually is.
        deadline_s: Seconds after which the round is over for every node.

    Raises:
        ExperimentArgumentError: One of them is out of its range.

    Example:
        >>> strategy = AdaptiveQuorum(fraction=0.5, patience=3, least_s=5)
        >>> nodes = frozenset({"north", "south"})
        >>> strategy.closed(RoundView(nodes, nodes, {}, 40.0, seconds={"north": 20.0, "south": 40.0}))
        >>> strategy.usual_s("north"), strategy.late_after_s("north")
        (20.0, 60.0)
        >>> strategy.decide(RoundView(nodes, frozenset({"south"}), {}, 61.0)).verdict
        <Verdict.CLOSE: 'close'>
    """

    def __init__(
        self, fraction: float = 0.8, patience: float = 3.0, least_s: float = 10.0, deadline_s: float = 600
    ) -> None:
        super().__init__(fraction, deadline_s)
        self.patience = require_number("patience", patience, above=1)
        self.least_s = require_number("least_s", least_s, above=0, or_equal=True)
        self._seconds: dict[str, list[float]] = {}

    def __repr__(self) -> str:
        return f"AdaptiveQuorum(fraction={self.fraction}, patience={self.patience:g}, deadline_s={self.deadline_s})"

    def usual_s(self, node_id: str) -> float | None:
        """How long a node usually takes; None: not known yet."""
        seconds = self._seconds.get(node_id)
        return median(seconds) if seconds else None

    def late_after_s(self, node_id: str) -> float:
        """After how many seconds of a round a node is late."""
        assert self.deadline_s is not None
        usual = self.usual_s(node_id)
        return self.deadline_s if usual is None else min(self.deadline_s, max(self.least_s, self.patience * usual))

    def decide(self, view: RoundView) -> Decision:
        """See ``Strategy``."""
        needed = self.needed(len(view.asked))
        missing = view.asked - view.arrived - view.failed.keys()
        ends = [self.late_after_s(node) for node in missing]
        if len(view.arrived) < needed:
            return super().decide(view)  # which fails when there is no way to enough any more
        awaited = [end for end in ends if end > view.elapsed_s]
        return Decision(Verdict.WAIT, min(awaited)) if awaited else Decision(Verdict.CLOSE)

    def closed(self, view: RoundView) -> None:
        """See ``Strategy``."""
        for node, seconds in view.seconds.items():
            self._seconds[node] = [*self._seconds.get(node, []), seconds][-REMEMBERED:]
        for node in view.asked - view.seconds.keys() - view.failed.keys():  # it takes so long at least
            self._seconds[node] = [*self._seconds.get(node, []), view.elapsed_s][-REMEMBERED:]

    def state(self) -> dict[str, JsonValue]:
        """See ``Strategy``."""
        seconds: JsonValue = {node: [round(each, 3) for each in found] for node, found in self._seconds.items()}
        return {"patience": self.patience, "least_s": self.least_s, "seconds": seconds, **super().state()}

    def restore(self, state: Mapping[str, JsonValue]) -> None:
        """See ``Strategy``."""
        super().restore(state)
        self.patience, self.least_s = state["patience"], state["least_s"]  # type: ignore[assignment]  # as written
        self._seconds = {**state["seconds"]}  # type: ignore[dict-item]  # likewise

"""Some of the nodes, drawn anew in each round."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from researcher_kit.errors import ExperimentArgumentError
from researcher_kit.strategies.quorum import Quorum


def drawn(nodes: Sequence[str], count: int, seed: int, round_: int) -> list[str]:
    """``count`` of ``nodes``, the same for a seed and a round: a round that is asked for again asks the same ones."""
    return random.Random(f"{seed}/{round_}").sample(sorted(nodes), min(count, len(nodes)))  # noqa: S311 - no secret


class RandomFraction(Quorum):
    """Each round asks a random share of the nodes, and needs a quorum of those.

    Args:
        share: Which share is asked, above 0 and at most 1; rounded up to whole nodes.
        fraction: Which share of those that were asked is enough.
        deadline_s: Seconds that they have.
        seed: Of the draws.

    Raises:
        ExperimentArgumentError: One of them is out of its range.

    Example:
        >>> strategy = RandomFraction(share=0.5)
        >>> strategy.choose(["a", "b", "c", "d"], round_=1)
        ['d', 'c']
    """

    def __init__(
        self, share: float = 0.5, fraction: float = 1.0, deadline_s: float | None = 600, seed: int = 0
    ) -> None:
        super().__init__(fraction, deadline_s)
        if not 0 < share <= 1:
            raise ExperimentArgumentError(f"share is {share}; expected a share above 0 and at most 1.")
        self.share, self.seed = share, seed

    def __repr__(self) -> str:
        return f"RandomFraction(share={self.share}, fraction={self.fraction}, deadline_s={self.deadline_s})"

    def choose(self, nodes: Sequence[str], round_: int) -> Sequence[str]:
        """See ``Strategy``."""
        return drawn(nodes, max(1, math.ceil(round(self.share * len(nodes), 9))), self.seed, round_)

    def state(self) -> dict[str, JsonValue]:
        """See ``Strategy``."""
        return {"share": self.share, "seed": self.seed, **super().state()}

    def restore(self, state: Mapping[str, JsonValue]) -> None:
        """See ``Strategy``."""
        super().restore(state)
        self.share, self.seed = state["share"], state["seed"]  # type: ignore[assignment]  # as ``state`` wrote it


class OverSelection(Quorum):
    """Each round asks more nodes than it needs, at random, and closes with the first ones to answer.

    Slow nodes cost no time, but those that are always slow are never heard: compare ``history`` for who was left out.

    Args:
        nodes: How many updates a round needs, from 1.
        extra: Which share more is asked, from 0; rounded up to whole nodes.
        deadline_s: Seconds that they have.
        seed: Of the draws.

    Raises:
        ExperimentArgumentError: One of them is out of its range.

    Source: Bonawitz et al., Towards Federated Learning at Scale: System Design, MLSys 2019, section 2.

    Example:
        >>> strategy = OverSelection(nodes=2, extra=0.5)
        >>> len(strategy.choose(["a", "b", "c", "d"], round_=1)), strategy.needed(3)
        (3, 2)
    """

    def __init__(self, nodes: int = 2, extra: float = 0.3, deadline_s: float | None = 600, seed: int = 0) -> None:
        super().__init__(1.0, deadline_s)
        if type(nodes) is not int or nodes < 1:
            raise ExperimentArgumentError(f"nodes is {nodes!r}; expected a whole number from 1.")
        if not 0 <= extra < math.inf:
            raise ExperimentArgumentError(f"extra is {extra}; expected a share from 0.")
        self.nodes, self.extra, self.seed = nodes, extra, seed

    def __repr__(self) -> str:
        return f"OverSelection(nodes={self.nodes}, extra={self.extra}, deadline_s={self.deadline_s})"

    def choose(self, nodes: Sequence[str], round_: int) -> Sequence[str]:
        """See ``Strategy``."""
        return drawn(nodes, math.ceil(round(self.nodes * (1 + self.extra), 9)), self.seed, round_)

    def needed(self, nodes: int) -> int:
        """How many of ``nodes`` that were asked are enough."""
        return min(self.nodes, nodes)

    def state(self) -> dict[str, JsonValue]:
        """See ``Strategy``."""
        return {"nodes": self.nodes, "extra": self.extra, "seed": self.seed, **super().state()}

    def restore(self, state: Mapping[str, JsonValue]) -> None:
        """See ``Strategy``."""
        super().restore(state)
        for name in ("nodes", "extra", "seed"):
            setattr(self, name, state[name])

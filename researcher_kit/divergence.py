"""Losses that grow: told while there is time to do something about it, before they are no numbers any more."""

from __future__ import annotations

from dataclasses import dataclass

GROWN = 10.0  # times what the loss had come down by, above its best
TINY = 1e-3  # what is below counts as this: a loss of nothing may grow to a little


@dataclass(frozen=True)
class LossGrew:
    """A node's loss is far above its best: the training diverges.

    Attributes:
        loss: Of the last update of this round.
        best: The lowest at the end of an earlier round, and in which one.
    """

    round: int
    node_id: str
    loss: float
    best: float
    best_round: int

    def __str__(self) -> str:
        return (
            f"Round {self.round}: the loss at {self.node_id} is {self.loss:.4g}, after {self.best:.4g} in round "
            f"{self.best_round}. The training diverges: lower the learning rate (set_training_args), and go back to an "
            "earlier breakpoint."
        )


class LossWatch:
    """Hears the last loss of each node in each round; says once of a node that it grew, until it comes down again.

    A loss has grown when it is above its best by more than ten times all that it had come down by, or ten times its
    own size: losses may be negative, and those of small batches jump.

    Example:
        >>> watch = LossWatch()
        >>> [watch.hear(1, "north", 2.0), watch.hear(2, "north", 1.5), watch.hear(3, "north", 1.7)]
        [None, None, None]
        >>> watch.hear(4, "north", 40.0).best_round
        2
    """

    def __init__(self) -> None:
        self._first: dict[str, float] = {}
        self._best: dict[str, tuple[float, int]] = {}
        self._grown: set[str] = set()

    def hear(self, round_: int, node_id: str, loss: float) -> LossGrew | None:
        """Take up a node's last loss of a round."""
        first = self._first.setdefault(node_id, loss)
        best, best_round = self._best.setdefault(node_id, (loss, round_))
        if loss <= best:
            self._best[node_id] = (loss, round_)
        is_grown = loss - best > GROWN * max(first - best, abs(best), TINY)
        is_new = is_grown and node_id not in self._grown
        self._grown = self._grown | {node_id} if is_grown else self._grown - {node_id}
        return LossGrew(round_, node_id, loss, best, best_round) if is_new else None

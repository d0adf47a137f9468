"""The seam for strategies: choose the nodes of a round, then judge again whenever something arrives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from pydantic import JsonValue

from appliance.protocol.errors import FedWardError
from researcher_kit.errors import ExperimentArgumentError, NodeFailedError, NodeFailure


class Verdict(Enum):
    """What becomes of a round."""

    WAIT = "wait"
    CLOSE = "close"  # what has arrived is enough
    FAIL = "fail"


@dataclass(frozen=True)
class Decision:
    """A strategy's judgement.

    Attributes:
        ask_again_s: With WAIT: ask again when the round is this old, even if nothing arrives; None: only then.
    """

    verdict: Verdict
    ask_again_s: float | None = None


@dataclass(frozen=True)
class RoundView:
    """A round as its strategy sees it.

    Attributes:
        asked: The nodes of the round.
        arrived: Those whose update is here and was found in order.
        failed: Those that refused or failed.
        elapsed_s: Seconds since the round was asked for, a crash in between included.
        seconds: When each update arrived, in the same seconds.
    """

    asked: frozenset[str]
    arrived: frozenset[str]
    failed: Mapping[str, NodeFailure]
    elapsed_s: float
    seconds: Mapping[str, float] = field(default_factory=dict)


class Strategy(ABC):
    """Chooses the nodes of a round and decides on late and lost ones.

    A strategy of your own needs ``decide``. One that remembers something between rounds returns it from ``state``
    and takes it back in ``restore``, so that a breakpoint holds it.

    Example:
        >>> class AnyTwo(Strategy):
        ...     def decide(self, view):
        ...         return Decision(Verdict.CLOSE if len(view.arrived) >= 2 else Verdict.WAIT)
        >>> AnyTwo().decide(RoundView(frozenset("abc"), frozenset("ab"), {}, elapsed_s=3.0)).verdict
        <Verdict.CLOSE: 'close'>

    Attributes:
        deadline_s: When the round is over for every node, in seconds after it was asked for; None: never.
    """

    deadline_s: float | None = None

    def choose(self, nodes: Sequence[str], round_: int) -> Sequence[str]:  # noqa: ARG002 - for those who choose by it
        """The nodes of round ``round_`` out of ``nodes`` (those with data, by id). All, unless you say otherwise."""
        return nodes

    @abstractmethod
    def decide(self, view: RoundView) -> Decision:
        """Judge the round; asked at its start, after each arrival, and when you asked to be asked."""

    def closed(self, view: RoundView) -> None:
        """Hear how the round went, once it is closed: for those who learn from it."""

    def failure(self, view: RoundView, failures: tuple[NodeFailure, ...]) -> FedWardError:  # noqa: ARG002 - a seam
        """The error that a FAIL becomes; ``failures`` has one for each node without an update."""
        return NodeFailedError(failures)

    def state(self) -> dict[str, JsonValue]:
        """What a breakpoint must keep."""
        return {"deadline_s": self.deadline_s}

    def restore(self, state: Mapping[str, JsonValue]) -> None:
        """Take back what ``state`` returned."""
        self.deadline_s = state["deadline_s"]  # type: ignore[assignment]  # as ``state`` wrote it


def require_deadline(deadline_s: float | None) -> float | None:
    """Raise ExperimentArgumentError unless a deadline lies ahead."""
    if deadline_s is not None and not deadline_s > 0:
        raise ExperimentArgumentError(f"deadline_s is {deadline_s}; expected a number of seconds above 0, or None.")
    return deadline_s

"""What happens in an experiment, for whoever wants to watch: its events. ``live.py`` draws them.

    @experiment.on_event
    def note(event):
        if isinstance(event, RoundClosed):
            print(event.record.round, event.record.metrics())

Observers are called one after another in the thread that runs the experiment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.protocol.rounds import ResearcherStep
from researcher_kit.divergence import LossGrew
from researcher_kit.early_stopping import BestRound
from researcher_kit.errors import NodeFailure
from researcher_kit.history import NodeRecord, RoundRecord


@dataclass(frozen=True)
class NodesFound:
    """The nodes with data for the experiment are known; ``silent`` ones did not answer the search."""

    datasets: Mapping[str, str]
    silent: Sequence[str]


@dataclass(frozen=True)
class RoundStarted:
    """The nodes of a round are chosen, or the round is taken up again after an interruption."""

    round: int
    round_limit: int
    nodes: Mapping[str, str]  # institutions by node
    is_resumed: bool
    is_test: bool = False  # no training: a test of the global parameters


@dataclass(frozen=True)
class ParametersUploaded:
    """The global parameters lie at the network host."""

    round: int
    size_bytes: int
    seconds: float


@dataclass(frozen=True)
class NodeReceived:
    """A node has committed the request: it will train, even after a power cut."""

    round: int
    node_id: str


@dataclass(frozen=True)
class Progress:
    """Inside a node's training."""

    round: int
    node_id: str
    split: str
    epoch: int
    iteration: int
    iterations: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class NodePaused:
    """The round waits at a node: the hospital paused the experiment, and it goes on when the hospital resumes it."""

    round: int
    node_id: str
    since: float  # seconds since the epoch, by the node's clock


@dataclass(frozen=True)
class NodeReplied:
    """A node's update is here and in order."""

    round: int
    reply: NodeRecord


@dataclass(frozen=True)
class NodeFailed:
    """A node refused or failed; the strategy decides what that means."""

    round: int
    failure: NodeFailure


@dataclass(frozen=True)
class NodeGaveUp:
    """What became of a round that was closed without this node: it gave the round up for a later one.

    Attributes:
        round: The closed round; the history's record of it says so, too.
    """

    round: int
    node_id: str
    message: str


@dataclass(frozen=True)
class StepFinished:
    """A step of the round's state machine lies behind us, and what it must outlive is in the store."""

    round: int
    step: ResearcherStep


@dataclass(frozen=True)
class RoundClosed:
    """The next global parameters are on disk."""

    record: RoundRecord


@dataclass(frozen=True)
class StoppedEarly:
    """The last tests brought nothing better; ``best`` is what the experiment keeps."""

    round: int
    best: BestRound


@dataclass(frozen=True)
class Interrupted:
    """The run was interrupted; it resumes from this folder."""

    round: int
    folder: Path


@dataclass(frozen=True)
class Paused:
    """``pause`` was called: the run ended behind this round; it resumes from this folder."""

    round: int
    folder: Path


Event = (
    NodesFound
    | RoundStarted
    | ParametersUploaded
    | NodeReceived
    | Progress
    | NodePaused
    | NodeReplied
    | NodeFailed
    | NodeGaveUp
    | StepFinished
    | RoundClosed
    | StoppedEarly
    | LossGrew
    | Paused
    | Interrupted
)
Observer = Callable[[Event], None]

"""What happens in an experiment, for whoever wants to watch: events, and a live table of them.

    @experiment.on_event
    def note(event):
        if isinstance(event, RoundClosed):
            print(event.record.round, event.record.metrics())

Observers are called one after another in the thread that runs the experiment.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from appliance.protocol.rounds import ResearcherStep
from researcher_kit.divergence import LossGrew
from researcher_kit.early_stopping import BestRound
from researcher_kit.errors import NodeFailure
from researcher_kit.history import NodeRecord, RoundRecord
from researcher_kit.tables import printable


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
    | StepFinished
    | RoundClosed
    | StoppedEarly
    | LossGrew
    | Paused
    | Interrupted
)
Observer = Callable[[Event], None]


@dataclass
class _Line:
    institution: str
    state: str = "asked"
    done: str = ""
    values: str = ""
    samples: str = ""


@dataclass
class LiveTable:
    """An observer that shows the running round as a table, a line for each node.

    Silent where nobody looks (the output is neither a terminal nor a notebook), unless ``always``.

    Args:
        console: Where to draw; the standard output if None.
        always: Draw to a file as well.

    Example:
        >>> with LiveTable() as table:  # doctest: +SKIP
        ...     experiment.on_event(table)
        ...     experiment.run()
    """

    console: Console | None = None
    always: bool = False
    _title: str = ""
    _lines: dict[str, _Line] = field(default_factory=dict)
    _closed: list[str] = field(default_factory=list)
    _live: Live | None = None

    def __enter__(self) -> Self:
        console = self.console or Console(file=sys.stdout)
        if self.always or console.is_terminal or console.is_jupyter:
            self._live = Live(self, console=console, refresh_per_second=4, transient=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            with suppress(BrokenPipeError):
                self._live.stop()
            self._live = None

    def __call__(self, event: Event) -> None:
        """Take up an event."""
        match event:
            case RoundStarted():
                again = " (resumed)" if event.is_resumed else ""
                self._title = f"Round {event.round} of {event.round_limit}{again}"
                if event.is_test:
                    self._title = f"Test of the parameters after round {event.round - 1}{again}"
                self._lines = {node: _Line(institution) for node, institution in sorted(event.nodes.items())}
            case RoundClosed():
                record = event.record
                self._closed.append(f"Round {record.round}: {len(record.replies)} nodes, {record.seconds:.1f} s")
            case StoppedEarly():
                best = event.best
                self._closed.append(
                    f"Stopped after round {event.round}: nothing better than {best.metric}={best.value:.4g}, "
                    f"after round {best.round}"
                )
            case LossGrew():
                self._closed.append(str(event))
            case Paused():
                self._closed.append(f"Paused after round {event.round}; run() goes on")
            case Interrupted():
                self._closed.append(f"Interrupted in round {event.round}; resume from {event.folder}")
            case _:
                self._take(event)

    def __rich__(self) -> RenderableType:
        table = Table(title=self._title, title_justify="left", expand=False)
        for column in ("node", "institution", "state", "done", "values", "samples"):
            table.add_column(column)
        for node, line in self._lines.items():
            cells = (node, line.institution, line.state, line.done, line.values, line.samples)
            table.add_row(*(Text(printable(cell)) for cell in cells))
        return Group(*(Text(printable(line)) for line in self._closed[-3:]), table)

    def _take(self, event: Event) -> None:
        match event:
            case NodeReceived() if line := self._lines.get(event.node_id):
                line.state = "received"
            case Progress() if line := self._lines.get(event.node_id):
                line.state, line.values = f"{event.split}ing", _words(event.values)
                line.done = f"epoch {event.epoch}, {event.iteration}/{event.iterations}"
            case NodePaused() if line := self._lines.get(event.node_id):
                line.state = "paused"
                since = datetime.fromtimestamp(event.since).astimezone().strftime("%d %B, %H:%M")
                self._closed.append(
                    f"Round {event.round} waits at {line.institution} ({event.node_id}): the hospital paused the "
                    f"experiment on {since}. It goes on by itself when the hospital resumes it."
                )
            case NodeReplied() if line := self._lines.get(event.reply.node_id):
                line.state, line.samples = "replied", str(event.reply.sample_count)
                line.values = " ".join(_words(metrics.values) for metrics in event.reply.metrics) or line.values
            case NodeFailed() if line := self._lines.get(event.failure.node_id):
                line.state, line.values = f"failed: {event.failure.code}", event.failure.message


def _words(values: Mapping[str, float]) -> str:
    return " ".join(f"{name}={value:.4g}" for name, value in values.items())

"""A live picture of the running round: a table in the terminal, the same with drawn curves in a notebook.

A line for each node with its progress, the time to come, what the closed rounds took, and the curves so far.
"""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from researcher_kit.curves import Curves, sparkline
from researcher_kit.divergence import LossGrew
from researcher_kit.history import History, RoundRecord, rate, size
from researcher_kit.monitor import (
    Event,
    Interrupted,
    NodeFailed,
    NodePaused,
    NodeReceived,
    NodeReplied,
    ParametersUploaded,
    Paused,
    Progress,
    RoundClosed,
    RoundStarted,
    StoppedEarly,
)
from researcher_kit.pace import Pace
from researcher_kit.tables import printable

_COLUMNS = ("node", "institution", "state", "progress", "loss", "values", "samples", "from the node")
_WHOLE = ("node", "progress", "loss", "samples")  # are not broken over lines
_BAR = 8  # letters
_CLOSED_SHOWN = 3
_LOSSES_SHOWN = 60  # of a round's curve
_REFRESH_S = 0.5  # of a notebook, which draws with each event
_STYLES = {"answered": "green", "failed": "red", "paused": "yellow", "training": "cyan"}
_CELL = "text-align:left;padding:.25em .9em .25em 0"
_COLOURS = {"green": "#1f9d6b", "red": "#d9534f", "yellow": "#b0813c", "cyan": "#3a86d0"}


@dataclass
class _Line:
    institution: str
    state: str = "asked"
    share: float = 0.0
    done: str = ""
    losses: list[float] = field(default_factory=list)
    values: str = ""
    samples: str = ""
    transfer: str = ""

    def cells(self, node: str) -> tuple[str, ...]:
        """The texts of its row, the bar aside."""
        spark = f"{sparkline(self.losses, 10)} {self.losses[-1]:.4g}" if self.losses else ""
        return node, self.institution, self.state, self.done, spark, self.values, self.samples, self.transfer


@dataclass(repr=False)
class LiveTable:
    """An observer that shows the running round, a line for each node, and the curves of those before.

    Silent where nobody looks (the output is neither a terminal nor a notebook), unless ``always``.

    Args:
        console: Where to draw; the standard output if None.
        always: Draw to a file as well.
        display: Shows an object in a notebook and returns a handle with ``update``; IPython's own if None.

    Example:
        >>> with LiveTable() as table:  # doctest: +SKIP
        ...     experiment.on_event(table)
        ...     experiment.run()
    """

    console: Console | None = None
    always: bool = False
    display: Callable[[Any], Any] | None = None
    pace: Pace = field(default_factory=Pace)
    _title: str = ""
    _lines: dict[str, _Line] = field(default_factory=dict)
    _closed: list[str] = field(default_factory=list)
    _records: list[RoundRecord] = field(default_factory=list)
    _uploaded: str = ""
    _curves: tuple[int, Curves] = (0, Curves(()))  # of so many closed rounds: computed and drawn once a round
    _drawn: str = ""
    _live: Live | None = None
    _handle: Any = None
    _shown_at: float = float("-inf")

    def __enter__(self) -> Self:
        console = self.console or Console(file=sys.stdout)
        if console.is_jupyter or self.display:
            self._handle = (self.display or _displayed)(self)
        elif self.always or console.is_terminal:
            self._live = Live(self, console=console, refresh_per_second=4, transient=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._refresh(at_once=True)
        self._handle = None
        if self._live:
            with suppress(BrokenPipeError):
                self._live.stop()
            self._live = None

    def __call__(self, event: Event) -> None:
        """Take up an event."""
        self.pace(event)
        match event:
            case RoundStarted():
                again = " (resumed)" if event.is_resumed else ""
                self._title = f"Round {event.round} of {event.round_limit}{again}"
                if event.is_test:
                    self._title = f"Test of the parameters after round {event.round - 1}{again}"
                self._lines = {node: _Line(institution) for node, institution in sorted(event.nodes.items())}
            case ParametersUploaded():
                self._uploaded = f"parameters up: {rate(event.size_bytes, event.seconds)}"
            case RoundClosed():
                self._records.append(event.record)
                self._closed.append(_closed_line(event.record))
                self._drawn = ""
            case StoppedEarly():
                self._closed.append(f"Stopped after round {event.round}: nothing better than {event.best}")
            case LossGrew():
                self._closed.append(str(event))
            case Paused():
                self._closed.append(f"Paused after round {event.round}; run() goes on")
            case Interrupted():
                self._closed.append(f"Interrupted in round {event.round}; resume from {event.folder}")
            case _:
                self._take(event)
        self._refresh(at_once=not isinstance(event, Progress))

    def __repr__(self) -> str:
        return f"LiveTable({self._title!r})"

    def __rich__(self) -> RenderableType:
        table = Table(title=Text(self._title), title_justify="left", expand=False)
        for column in _COLUMNS:
            is_number = column in ("samples", "from the node")
            table.add_column(column, justify="right" if is_number else "left", no_wrap=column in _WHOLE)
        slowest = self.pace.slowest()
        for node, line in self._lines.items():
            cells = [Text(printable(cell)) for cell in line.cells(node)]
            cells[2].stylize(_style(line.state))
            cells[3] = _bar(line.share) + Text(f" {line.done}") if line.done else Text("")
            if node == slowest:
                cells[2].append(", slowest", style="yellow")
            table.add_row(*cells)
        parts: list[RenderableType] = [Text(printable(line)) for line in self._closed[-_CLOSED_SHOWN:]]
        if self._records:
            parts.append(self._trends())
        if self._lines:
            parts += [table, Text(self._footer(), style="dim")]
        return Group(*parts)

    def _repr_html_(self) -> str:
        if not self._drawn and self._records:
            self._drawn = self._plot()._repr_html_()
        slowest = self.pace.slowest()
        rows = "".join(_html_row(node, line, is_slowest=node == slowest) for node, line in self._lines.items())
        head = "".join(f"<th style='{_CELL}'>{column}</th>" for column in _COLUMNS)
        closed = "".join(f"<div>{_escaped(line)}</div>" for line in self._closed[-_CLOSED_SHOWN:])
        return (
            f"<div style='max-width:72rem'><div style='opacity:.75;font-size:.9em'>{closed}</div>"
            f"<table style='color:inherit;border-spacing:0;margin:.6em 0;font-size:.92em'>"
            f"<caption style='color:inherit;text-align:left;font-weight:bold'>{_escaped(self._title)}</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
            f"<div style='opacity:.75;font-size:.9em'>{_escaped(self._footer())}</div>{self._drawn}</div>"
        )

    def _footer(self) -> str:
        """The time to come and the line, as far as they are known."""
        times = {"this round": self.pace.round_left_s(), "all rounds": self.pace.run_left_s()}
        left = [f"{what}: about {span(seconds)} to go" for what, seconds in times.items() if seconds]
        return " · ".join(
            [f"{span(self.pace.elapsed_s())} so far", *left, *([self._uploaded] if self._uploaded else [])]
        )

    def _trends(self) -> Table:
        """Each measure over the rounds, as a line of blocks."""
        table = Table.grid(padding=(0, 2))
        for panel in self._plot().panels:
            values = [value for _, value in panel.whole]
            if len(values) > 1:
                table.add_row(panel.title, Text(sparkline(values), style="cyan"), f"{values[-1]:.4g}", panel.whole_name)
        return table

    def _plot(self) -> Curves:
        # By their number: the terminal is drawn by a thread of its own, while rounds close.
        rounds, curves = self._curves
        if rounds != len(self._records):
            records = [*self._records]
            curves = History(records).plot()
            self._curves = len(records), curves
        return curves

    def _refresh(self, *, at_once: bool) -> None:
        now = time.monotonic()
        if self._handle is not None and (at_once or now - self._shown_at >= _REFRESH_S):
            self._shown_at = now
            self._handle.update(self)

    def _take(self, event: Event) -> None:
        match event:
            case NodeReceived() if line := self._lines.get(event.node_id):
                line.state = "received"
            case Progress() if line := self._lines.get(event.node_id):
                line.state, line.share = f"{event.split}ing", event.iteration / max(event.iterations, 1)
                line.values = _words({name: value for name, value in event.values.items() if name != "loss"})
                line.done = f"epoch {event.epoch}, {event.iteration}/{event.iterations}"
                if "loss" in event.values:
                    line.losses = [*line.losses[-_LOSSES_SHOWN:], event.values["loss"]]
            case NodePaused() if line := self._lines.get(event.node_id):
                line.state = "paused"
                since = datetime.fromtimestamp(event.since).astimezone().strftime("%d %B, %H:%M")
                self._closed.append(
                    f"Round {event.round} waits at {line.institution} ({event.node_id}): the hospital paused the "
                    f"experiment on {since}. It goes on by itself when the hospital resumes it."
                )
            case NodeReplied() if line := self._lines.get(event.reply.node_id):
                reply = event.reply
                line.state, line.share, line.samples = "answered", 1.0, str(reply.sample_count)
                line.values = " ".join(_words(metrics.values) for metrics in reply.metrics) or line.values
                line.transfer = rate(reply.update_bytes, reply.timing.upload_s + reply.download_s)
            case NodeFailed() if line := self._lines.get(event.failure.node_id):
                line.state, line.values = f"failed: {event.failure.code}", event.failure.message


def span(seconds: float) -> str:
    """A length of time as people say it.

    Example:
        >>> span(4.2), span(75), span(7300)
        ('4 s', '1 min 15 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes < 10 else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def _closed_line(record: RoundRecord) -> str:
    """A closed round: how long, what of it went where, the slowest node, the bytes, and who is missing."""
    whole = max(record.seconds, 1e-9)
    split = ", ".join(f"{name} {seconds / whole:.0%}" for name, seconds in record.timing.parts().items())
    down = sum(reply.update_bytes for reply in record.replies)
    words = [f"Round {record.round}: {len(record.replies)} nodes, {record.seconds:.1f} s ({split})"]
    if (slowest := record.slowest) is not None and len(record.replies) > 1:
        words.append(f"slowest {slowest.node_id} {slowest.seconds:.1f} s")
    words.append(f"up {size(record.parameters_bytes)}, down {size(down)}")
    words += [f"without {lost.node_id} ({lost.code})" for lost in record.failures]
    # In the first round, every optimizer does.
    words += [
        f"the optimizer at {reply.node_id} began anew"
        for reply in record.replies
        if reply.is_optimizer_new and record.round > 1
    ]
    return "; ".join(words)


def _style(state: str) -> str:
    return _STYLES.get(state.split(":", maxsplit=1)[0], "")


def _bar(share: float) -> Text:
    full = round(_BAR * min(max(share, 0.0), 1.0))
    return Text("━" * full, style="cyan").append("━" * (_BAR - full), style="bright_black")


def _html_row(node: str, line: _Line, *, is_slowest: bool) -> str:
    cells = [_escaped(cell) for cell in line.cells(node)]
    colour = _COLOURS.get(_style(line.state), "")
    cells[2] = f'<span style="color:{colour}">{cells[2]}</span>' if colour else cells[2]
    cells[2] += ", slowest" if is_slowest else ""
    if line.done:
        cells[3] = f'<progress max="1" value="{line.share:.3f}" style="width:6em"></progress> {cells[3]}'
    styles = [_CELL if name == "values" else f"{_CELL};white-space:nowrap" for name in _COLUMNS]
    return (
        "<tr>"
        + "".join(f"<td style='{style}'>{cell}</td>" for style, cell in zip(styles, cells, strict=True))
        + "</tr>"
    )


def _escaped(text: str) -> str:
    return html.escape(printable(text))


def _displayed(what: object) -> Any:
    from IPython.display import display  # noqa: PLC0415 - only notebooks have it

    return display(what, display_id=True)


def _words(values: Mapping[str, float]) -> str:
    return " ".join(f"{name}={value:.4g}" for name, value in values.items())

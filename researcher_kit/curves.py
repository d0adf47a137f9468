"""An experiment's curves over rounds: as text in a terminal, as a drawing in a notebook.

The drawing takes its ink from the page (``currentColor``), so that it is right on a light page and on a dark one.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLOCKS = "▁▂▃▄▅▆▇█"
_WIDTH, _HEIGHT = 60, 7  # letters of a drawing in text
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a braille letter, by row and column
# Each stands out on white and on black by 3:1 at least; after the last they begin anew, dashed.
PALETTE = ("#3a86d0", "#d9730d", "#1f9d6b", "#a36bdc", "#d9534f", "#1a98b0", "#b0813c", "#cf5fa6")
_INK, _GRID = "#000001", "#000002"  # stand for the page's own colour until the drawing is done
_NODES_NAMED = 8

Line = Sequence[tuple[int, float]]  # rounds and values


def sparkline(values: Sequence[float], width: int = 24) -> str:
    """Values as blocks of eight heights, from the least to the most of them; more than ``width`` are averaged.

    Example:
        >>> sparkline([1, 2, 3, 8])
        '▁▂▃█'
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    count = min(width, len(finite))
    edges = [round(place * len(finite) / count) for place in range(count + 1)]
    means = [sum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    if high == low:
        return BLOCKS[3] * count
    return "".join(BLOCKS[min(7, int((mean - low) / (high - low) * 8))] for mean in means)


@dataclass(frozen=True)
class Panel:
    """One measure over the rounds.

    Attributes:
        title: What is measured.
        whole: Over all nodes; may be empty.
        nodes: At each node.
        whole_name: What ``whole`` is: pooled or a mean.
    """

    title: str
    whole: Line
    nodes: Mapping[str, Line]
    whole_name: str = "pooled"


@dataclass(frozen=True)
class Curves:
    """Some panels; a terminal shows them as text, a notebook as a drawing, and ``figure()`` is matplotlib's.

    Attributes:
        nodes: All nodes, in order, so that each has the same colour whichever panels are drawn.

    Example:
        >>> print(Curves((Panel("AUC", [(1, 0.7), (2, 0.8), (3, 0.85)], {}),)))  # doctest: +ELLIPSIS
        AUC
        ...
    """

    panels: tuple[Panel, ...]
    nodes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.panels)

    def __str__(self) -> str:
        if not self.panels:
            return "Nothing to draw yet: no round is closed, or none of its tests and trainings said a number."
        return "\n\n".join(map(_text, self.panels))

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(str(self))

    def _repr_html_(self) -> str:
        return f'<div style="max-width:64rem">{self.svg()}</div>' if self.panels else f"<p>{self}</p>"

    def figure(self) -> Figure:
        """The drawing as a matplotlib figure, in matplotlib's own black on white, to be changed and saved."""
        return _figure(self.panels, self.nodes, ink="#222222", grid="#888888")

    def svg(self) -> str:
        """The drawing as SVG without script, whose text and lines have the colour of the text around it."""
        if not self.panels:
            return ""
        figure, out = _figure(self.panels, self.nodes, ink=_INK, grid=_GRID), io.StringIO()
        import matplotlib as mpl  # noqa: PLC0415 - a second, for who draws

        with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "fedward"}):
            figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        text = out.getvalue()
        text = text[text.index("<svg") :].replace(_INK, "currentColor").replace(_GRID, "currentColor")
        return text.replace("<svg ", '<svg role="img" style="max-width:100%;height:auto" ', 1)


def _text(panel: Panel) -> str:
    shown = panel.whole or next(iter(panel.nodes.values()), [])
    names = [panel.whole_name, *panel.nodes]
    wide = max(map(len, names))
    lines = [panel.title, *_canvas(shown)] if len(shown) > 1 else [panel.title]
    rows = [(panel.whole_name, panel.whole), *panel.nodes.items()]
    lines += [
        f"  {name:<{wide}}  {sparkline([value for _, value in line]):<24}  {line[-1][1]:.4g}"
        for name, line in rows
        if line
    ]
    return "\n".join(lines)


def _canvas(line: Line) -> list[str]:
    """A line of dots in braille letters, with its range at the left and its rounds below."""
    values = [value for _, value in line]
    low, high = min(values), max(values)
    spread = (high - low) or 1.0
    first, last = line[0][0], line[-1][0]
    across, down = 2 * _WIDTH - 1, 4 * _HEIGHT - 1
    points = [
        (
            round((x - first) / max(last - first, 1) * across),
            round((high - y) / spread * down) if high > low else down // 2,
        )
        for x, y in line
    ]
    letters = [[0] * _WIDTH for _ in range(_HEIGHT)]
    for (x1, y1), (x2, y2) in pairwise(points):
        steps = max(abs(x2 - x1), abs(y2 - y1), 1)
        for step in range(steps + 1):
            x, y = round(x1 + (x2 - x1) * step / steps), round(y1 + (y2 - y1) * step / steps)
            letters[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
    marks = {0: f"{high:.4g}", _HEIGHT - 1: f"{low:.4g}"}
    wide = max(map(len, marks.values()))
    drawn = ["".join(chr(0x2800 + bits) for bits in row).rstrip("⠀") for row in letters]
    rows = [
        f"  {marks.get(number, ''):>{wide}} {'┤' if number in marks else '│'}{row}" for number, row in enumerate(drawn)
    ]
    ends = f"{first}{'round':^{max(0, _WIDTH - len(str(first)) - len(str(last)))}}{last}"
    return [*rows, f"  {'':>{wide}} └{'─' * _WIDTH}", f"  {'':>{wide}}  {ends}"]


def _figure(panels: Sequence[Panel], nodes: Sequence[str], *, ink: str, grid: str) -> Figure:
    import matplotlib as mpl  # noqa: PLC0415 - a second, for who draws
    from matplotlib.figure import Figure  # noqa: PLC0415 - as above; without pyplot, whose figures nobody would close

    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    names = list(dict.fromkeys([*nodes, *(name for panel in panels for name in panel.nodes)]))
    with mpl.rc_context({"font.family": "sans-serif", "font.size": 9.5, "text.parse_math": False}):
        figure = Figure(figsize=(5.2 * columns if columns > 1 else 7.2, 2.9 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
        for panel, place in zip(panels, axes, strict=False):
            _draw(place, panel, names, ink=ink, grid=grid)
        for place in axes[len(panels) :]:
            place.remove()
        handles, labels = _legend(axes[: len(panels)])
        if len(labels) > 1:
            legend = figure.legend(
                handles, labels, loc="outside lower center", ncols=min(5, len(labels)), frameon=False
            )
            for text in legend.get_texts():
                text.set_color(ink)
    return figure


def _draw(axes: Axes, panel: Panel, names: Sequence[str], *, ink: str, grid: str) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415 - as above

    is_crowded = len(names) > _NODES_NAMED
    for name, line in panel.nodes.items():
        number = names.index(name)
        dashes = "solid" if number < len(PALETTE) else "dashed"
        label = "each node" if is_crowded else name
        colour = PALETTE[0] if is_crowded else PALETTE[number % len(PALETTE)]
        axes.plot(*zip(*line, strict=True), color=colour, linewidth=1.3, linestyle=dashes, markersize=4,
                  alpha=0.45 if is_crowded else 0.95, marker="o" if len(line) == 1 else "", label=label)  # fmt: skip
    if panel.whole:
        marker = "o" if len(panel.whole) == 1 else ""
        axes.plot(*zip(*panel.whole, strict=True), color=ink, linewidth=2.4, marker=marker, label="all nodes")
        axes.annotate(f"{panel.whole[-1][1]:.4g}", panel.whole[-1], (5, 0), textcoords="offset points", va="center",
                      color=ink, fontweight="bold", annotation_clip=False)  # fmt: skip
    title = f"{panel.title}, {panel.whole_name}" if panel.whole else panel.title
    axes.set_title(title, loc="left", color=ink, fontweight="bold", fontsize=10.5)
    axes.set_xlabel("round", color=ink)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=7))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.grid(axis="y", color=grid, alpha=0.22, linewidth=0.8)
    axes.tick_params(colors=ink, length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(grid)
        spine.set_alpha(0.5)
    axes.margins(x=0.02, y=0.12)


def _legend(axes: Sequence[Axes]) -> tuple[list[Any], list[str]]:
    found: dict[str, Any] = {}
    for place in axes:
        for handle, label in zip(*place.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return [*found.values()], [*found]

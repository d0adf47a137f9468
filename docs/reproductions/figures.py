"""How the studies' figures look: one palette, quiet axes, names beside their lines; SVG, the same each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's palette: told apart with every kind of colour vision.
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#D4B106",
)  # fmt: skip
INK, QUIET, GRID = "#24292f", "#6e7781", "#e4e7eb"
SERIES = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW)

mpl.rcParams.update(
    {
        "axes.axisbelow": True,
        "axes.edgecolor": QUIET,
        "axes.grid": True,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.8,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "figure.facecolor": "white",
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9.5,
        "grid.color": GRID,
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "lines.linewidth": 1.8,
        "svg.fonttype": "path",
        "svg.hashsalt": "fedward",
        "text.color": INK,
        "xtick.color": QUIET,
        "ytick.color": QUIET,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
    }
)


def figure(rows: int = 1, columns: int = 1, *, width: float = 7.6, height: float = 3.6) -> tuple[Figure, np.ndarray]:
    """A figure of so many inches, and its axes as an array of shape (rows, columns)."""
    drawn = Figure(figsize=(width, height), layout="constrained")
    return drawn, drawn.subplots(rows, columns, squeeze=False)


def save(drawn: Figure, path: Path) -> None:
    """Write it, as SVG without a date, or as PNG."""
    drawn.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, dpi=150)


def curves(axes: Axes, series: Mapping[str, Sequence[float]], *, colours: Mapping[str, str] | None = None) -> None:
    """A line for each series over the rounds, its name at its end; names that would touch are moved apart.

    The axes' limits are set before.
    """
    ends = []
    for number, (name, values) in enumerate(series.items()):
        colour = (colours or {}).get(name) or SERIES[number % len(SERIES)]
        axes.plot(range(1, len(values) + 1), values, color=colour)
        ends.append((float(values[-1]), name, colour, len(values)))
    ends.sort()
    low, high = axes.get_ylim()
    apart, places = (high - low) * 0.065, [end[0] for end in ends]
    for number in range(1, len(places)):
        places[number] = max(places[number], places[number - 1] + apart)
    pushed = np.mean([place - end[0] for place, end in zip(places, ends, strict=True)])
    for place, (_, name, colour, last) in zip(places, ends, strict=True):
        axes.annotate(
            name, (last, place - pushed), xytext=(7, 0), textcoords="offset points", color=colour, va="center",
            fontweight="bold", fontsize=9, annotation_clip=False,
        )  # fmt: skip
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))

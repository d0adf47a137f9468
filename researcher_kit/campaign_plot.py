"""A campaign's picture: every run as a dot, every point's mean with its standard deviation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from researcher_kit.campaign import Summary

# Told apart also by those who see few colours (Okabe and Ito 2008), and by their marks.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_MARKS = ("o", "s", "D", "^", "v", "P")
_LOG_FROM = 20.0  # the largest value over the smallest
_BESIDE = 0.2  # of a row's height: runs stand below their mean's bar
_INK, _FAINT = "#222222", "#d9d9d9"


def draw(
    metric: str, summaries: Sequence[Summary], values: Sequence[Sequence[float]], grid: Mapping[str, Sequence[Any]]
) -> Figure:
    """Draw a campaign: curves over numbers, else a row for each point.

    Args:
        metric: Its name.
        summaries: Of each point, in the grid's order.
        values: The metric of each point's runs.
        grid: The values of each name that a sweep changes.

    Example:
        >>> from researcher_kit.campaign import Summary
        >>> draw("AUC", [Summary({}, 0.8, 0.02, 2, 0)], [[0.78, 0.82]], {}).axes[0].get_xlabel()
        'AUC'
    """
    names = [*grid]
    is_curve = 1 <= len(names) <= 2 and _is_numeric(grid[names[0]]) and len(grid[names[0]]) > 1
    return _curves(metric, summaries, values, grid) if is_curve else _rows(metric, summaries, values)


def _rows(metric: str, summaries: Sequence[Summary], values: Sequence[Sequence[float]]) -> Figure:
    figure = Figure(figsize=(7, 1.1 + 0.42 * len(summaries)), layout="constrained")
    axes = figure.subplots()
    for row, (summary, runs) in enumerate(zip(summaries, values, strict=True)):
        axes.scatter(runs, [row + _BESIDE] * len(runs), s=22, color=_COLOURS[0], alpha=0.35, linewidths=0, zorder=2)
        if summary.mean is not None:
            axes.errorbar(summary.mean, row, xerr=summary.deviation, **_mean_style(0))
    labels = [", ".join(f"{name} = {word}" for name, word in each.point.items()) or "all runs" for each in summaries]
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.set_xlabel(metric)
    _tidy(axes, "x")
    return figure


def _curves(
    metric: str,
    summaries: Sequence[Summary],
    values: Sequence[Sequence[float]],
    grid: Mapping[str, Sequence[Any]],
) -> Figure:
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    (along, numbers), *others = grid.items()
    lines = [f"{name} = {value}" for name, each in others for value in each] or [""]
    for number, label in enumerate(lines):
        # Points are in the order of the grid: the second name changes faster.
        places = [*range(number, len(summaries), len(lines))]
        order = sorted(range(len(numbers)), key=lambda place: numbers[place])
        style = _mean_style(number)
        for place in order:
            runs = values[places[place]]
            axes.scatter([numbers[place]] * len(runs), runs, s=22, color=style["color"], alpha=0.3, linewidths=0)
        known = [place for place in order if summaries[places[place]].mean is not None]
        axes.errorbar(
            [numbers[place] for place in known],
            [_number(summaries[places[place]].mean) for place in known],
            yerr=[_number(summaries[places[place]].deviation) for place in known],
            label=label or None,
            **style | {"linestyle": "-"},
        )
    if min(numbers) > 0 and max(numbers) / min(numbers) >= _LOG_FROM:
        axes.set_xscale("log")
        axes.set_xticks([*numbers], [f"{each:g}" for each in numbers])
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(along)
    axes.set_ylabel(metric)
    _tidy(axes, "y")
    if len(lines) > 1:
        figure.legend(frameon=False, loc="outside upper center", ncols=min(len(lines), 4))
    return figure


def _mean_style(number: int) -> dict[str, Any]:
    return {
        "color": _COLOURS[number % len(_COLOURS)],
        "marker": _MARKS[number % len(_MARKS)],
        "markersize": 7,
        "capsize": 3,
        "linewidth": 1.6,
        "linestyle": "none",
        "zorder": 3,
    }


def _tidy(axes: Axes, values_along: str) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x" if values_along == "x" else "y", color=_FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK)


def _is_numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _number(value: float | None) -> float:
    return 0.0 if value is None else value

"""Curves as inline SVG, each with the numbers behind it: drawn here, so that no script is needed to read them."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from node_gui.formats import digits

WIDTH, HEIGHT = 640, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 14, 44
_TICKS = 4
_TABLE_ROWS = 60

Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One curve, in the drawing's units: ``points`` as SVG takes them, ``dots`` one by one when they are few."""

    name: str
    points: str
    dots: tuple[Point, ...]


@dataclass(frozen=True)
class Chart:
    """A drawing and the table behind it.

    Attributes:
        lines: Without points where the values lie too far apart, or not apart enough, to draw; the table has them.
        ticks_x: Position and text of each mark below; ``ticks_y`` at the left.
        columns: What stands over the table's columns, the first one over the places.
        table: For places across, evenly chosen if there are many, the value of every line, or None.
    """

    title: str
    across: str
    lines: tuple[Line, ...]
    ticks_x: tuple[tuple[float, str], ...]
    ticks_y: tuple[tuple[float, str], ...]
    columns: tuple[str, ...]
    table: tuple[tuple[float, tuple[float | None, ...]], ...]
    width: int = WIDTH
    height: int = HEIGHT


def line_chart(title: str, lines: Mapping[str, Sequence[Point]], *, across: str, are_samples: bool = False) -> Chart:
    """Draw curves over one axis.

    Args:
        lines: For each curve its points, by their place across; at least one point in all.
        across: What the horizontal axis counts.
        are_samples: Each curve was looked at at places of its own: the table has what it was when last looked at.
    """
    places = sorted({x for points in lines.values() for x, _ in points})
    values = [y for points in lines.values() for _, y in points]
    columns, rows = (across, *lines), _some(places, _TABLE_ROWS)
    table = tuple((x, tuple(_value_at(x, sorted(points), are_samples) for points in lines.values())) for x in rows)
    scale = _scale(min(values), max(values)) if all(map(math.isfinite, values)) else None
    if scale is None:
        return Chart(title, across, tuple(Line(name, "", ()) for name in lines), (), (), columns, table)
    low, high, step = scale
    first, last = places[0], places[-1]

    def at_x(x: float) -> float:
        share = 0.5 if first == last else (x - first) / (last - first)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def at_y(y: float) -> float:
        return round(HEIGHT - _BOTTOM - (y - low) / (high - low) * (HEIGHT - _TOP - _BOTTOM), 1)

    drawn = []
    for name, points in lines.items():
        dots = [(at_x(x), at_y(y)) for x, y in sorted(points)]
        drawn.append(Line(name, " ".join(f"{x},{y}" for x, y in dots), tuple(dots) if len(dots) <= 40 else ()))
    count = round((high - low) / step)
    every = max(1, math.ceil(len(places) / 8))
    return Chart(
        title,
        across,
        tuple(drawn),
        tuple((at_x(x), digits(x)) for x in places[::every]),
        tuple((at_y(low + n * step), digits(low + n * step)) for n in range(count + 1)),
        columns,
        table,
    )


def _some(places: Sequence[float], most: int) -> Sequence[float]:
    """At most that many, evenly chosen, the first and the last among them."""
    if len(places) <= most:
        return places
    return [places[round(n * (len(places) - 1) / (most - 1))] for n in range(most)]


def _value_at(place: float, points: Sequence[Point], is_sample: bool) -> float | None:
    """A curve's value at a place, or the one before it; None where it has none, and outside."""
    found = bisect_right(points, place, key=lambda point: point[0]) - 1
    if found < 0 or place > points[-1][0] or not (is_sample or points[found][0] == place):
        return None
    return points[found][1]


def _scale(low: float, high: float) -> tuple[float, float, float] | None:
    """Round ends around the values, and the step of the marks between them: 1, 2 or 5 times a power of ten.

    None where a float cannot hold them: a plan may return any number.
    """
    if high - low <= abs(high) * 1e-9:
        spread = abs(high) * 0.1 or 1.0
        low, high = low - spread, high + spread
    raw = (high - low) / _TICKS
    if not 1e-305 < raw < 1e305:
        return None
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    return (low, high, step) if math.isfinite(low) and math.isfinite(high) else None

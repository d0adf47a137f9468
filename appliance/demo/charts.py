"""The report's plots as inline SVG: no script, no outside file, colours by style classes so that they follow the page.

Each plot is drawn for a width in CSS pixels; the page shows the one that fits. Text keeps its size that way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDE, NARROW = 820, 332
_NARROW_LIMIT = 560
_LETTER = 7.6  # the mean width of a letter, on the safe side
_THICK = 16
_TEXT = 14  # pixels; the page's style says the same


@dataclass(frozen=True)
class Dot:
    """A row of the dot plot: a mean with its spread."""

    label: str
    mean: float
    spread: float
    style: str


@dataclass(frozen=True)
class Bars:
    """A group of horizontal bars: (style, value, text beside it)."""

    label: str
    bars: tuple[tuple[str, float, str], ...]


@dataclass(frozen=True)
class Stack:
    """A column: (style, value) from the bottom up."""

    label: str
    parts: tuple[tuple[str, float], ...]

    @property
    def total(self) -> float:
        """The column's height."""
        return sum(value for _, value in self.parts)


class _Canvas:
    """Collects the elements of one drawing."""

    def __init__(self, width: float, height: float, title: str) -> None:
        self._size = (width, height)
        self._title = title
        self._elements: list[str] = []

    def line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> None:
        self._add(f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{style}"/>')

    def bar(self, x: float, y: float, width: float, height: float, *, style: str, tip: str = "") -> None:
        size = f'width="{max(width, 0):.1f}" height="{max(height, 0):.1f}"'
        self._add(f'<rect x="{x:.1f}" y="{y:.1f}" {size} class="fill {style}">{_tip(tip)}</rect>')

    def dot(self, x: float, y: float, radius: float, style: str, tip: str = "") -> None:
        self._add(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" class="fill {style}">{_tip(tip)}</circle>')

    def path(self, points: Sequence[tuple[float, float]], style: str) -> None:
        way = " L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self._add(f'<path d="M{way}" class="{style}"/>')

    def text(self, x: float, y: float, text: str, style: str = "", anchor: str = "start") -> None:
        self._add(f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{style}">{escape(text)}</text>')

    def _add(self, element: str) -> None:
        self._elements.append(element)

    def __str__(self) -> str:
        width, height = self._size
        head = f'<svg role="img" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
        return f'{head} aria-label="{escape(self._title)}">{"".join(self._elements)}</svg>'


@dataclass(frozen=True)
class _Scale:
    """Values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round numbers from at most ``low`` to at least ``high``, in about ``wanted`` steps of 1, 2 or 5."""
    span = max(high - low, 1e-9)
    raw = span / wanted
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(number * step, 10) for number in range(first, last + 1)]


def tick_text(value: float, marks: Sequence[float]) -> str:
    """``value`` with as many decimals as the step between the marks needs."""
    step = marks[1] - marks[0] if len(marks) > 1 else 1.0
    return f"{value:.{max(0, -math.floor(math.log10(step) + 1e-9))}f}"


def fitting(label: str, room: float) -> str:
    """``label``, cut to about ``room`` pixels."""
    letters = int(room / _LETTER)
    return label if len(label) <= letters else f"{label[: letters - 1].rstrip()}…"


def dot_chart(dots: Sequence[Dot], *, title: str, width: int) -> str:
    """Means as dots, spreads as lines, on one scale that need not start at zero."""
    narrow = width < _NARROW_LIMIT
    row, left, right, top, bottom = (52, 6, 14, 8, 48) if narrow else (44, 226, 118, 8, 48)
    height = top + row * len(dots) + bottom
    marks = ticks(min(dot.mean - dot.spread for dot in dots), min(1.0, max(dot.mean + dot.spread for dot in dots)), 4)
    scale = _Scale(marks[0], marks[-1], left + 8, width - right - 8)
    canvas = _Canvas(width, height, title)
    floor = height - bottom
    for mark in marks:
        canvas.line(scale(mark), top, scale(mark), floor, "grid")
        canvas.text(scale(mark), floor + 20, tick_text(mark, marks), "small", "middle")
    canvas.text(
        (scale.start + scale.end) / 2, height - 6, "AUC on held-out patients of every hospital", "small", "middle"
    )
    for number, dot in enumerate(dots):
        middle = top + row * number + (row - 14 if narrow else row / 2)
        label_y = middle - 16 if narrow else middle + 5
        value = f"{dot.mean:.3f} ± {dot.spread:.3f}"
        strong = "strong" if dot.style != "alone" else ""
        label = fitting(dot.label, width - 130 if narrow else left - 14)
        canvas.text(left if narrow else left - 14, label_y, label, strong, "start" if narrow else "end")
        canvas.text(width - right if narrow else width, label_y, value, f"figures {strong}", "end")
        canvas.line(scale.start, middle, scale.end, middle, "track")
        low, high = scale(dot.mean - dot.spread), scale(min(1.0, dot.mean + dot.spread))
        canvas.line(low, middle, high, middle, f"whisker {dot.style}")
        canvas.dot(scale(dot.mean), middle, 7, dot.style, f"{dot.label}: {value}")
    return str(canvas)


def line_chart(
    values: Sequence[float], references: Sequence[tuple[str, float, str]], *, label: str, title: str, width: int
) -> str:
    """A value after each round, with horizontal lines to compare it with: (label, value, style)."""
    narrow = width < _NARROW_LIMIT
    left, right, top, bottom = (44, 10, 12, 46) if narrow else (54, 196, 12, 46)
    height = 300 if narrow else 320
    levels = [*values, *(level for _, level, _ in references)]
    marks = ticks(min(levels), max(levels), 4)
    across = _Scale(1, max(len(values), 2), left + 8, width - right - 8)
    up = _Scale(marks[0], marks[-1], height - bottom, top)
    canvas = _Canvas(width, height, title)
    for mark in marks:
        canvas.line(left, up(mark), width - right, up(mark), "grid")
        canvas.text(left - 8, up(mark) + 5, tick_text(mark, marks), "small figures", "end")
    _round_axis(canvas, [str(number + 1) for number in range(len(values))], across, height - bottom)
    canvas.text((across.start + across.end) / 2, height - 4, "round", "small", "middle")
    for name, level, style in references:
        canvas.line(left, up(level), width - right, up(level), f"reference {style}")
        if not narrow:
            canvas.text(width - right + 10, up(level) + 5, f"{name} {level:.3f}", f"ink-{style}")
    points = [(across(number), up(value)) for number, value in enumerate(values, 1)]
    canvas.path(points, "curve federated")
    for (x, y), (number, value) in zip(points, enumerate(values, 1), strict=True):
        canvas.dot(x, y, 4, "federated", f"round {number}: {value:.3f}")
    if not narrow:
        clear = _clear(points[-1][1], [up(level) for _, level, _ in references])
        canvas.text(width - right + 10, clear + 5, f"{label} {values[-1]:.3f}", "ink-federated strong")
    return str(canvas)


def stack_chart(stacks: Sequence[Stack], *, unit: str, title: str, width: int) -> str:
    """Columns in parts, one for each round. A column far above all others is cut, with its height written beside it."""
    left, right, top, bottom, height = 46, 8, 14, 46, 300
    marks = ticks(0, _ceiling([stack.total for stack in stacks]), 4)
    up = _Scale(0, marks[-1], height - bottom, top)
    count = max(len(stacks), 2)
    step = (width - left - right) / count
    across = _Scale(1, count, left + step / 2, width - right - step / 2)
    canvas = _Canvas(width, height, title)
    for mark in marks:
        canvas.line(left, up(mark), width - right, up(mark), "grid")
        canvas.text(left - 8, up(mark) + 5, tick_text(mark, marks), "small figures", "end")
    canvas.text((left + width - right) / 2, height - 4, f"round ({unit} upwards)", "small", "middle")
    for number, stack in enumerate(stacks, 1):
        _column(canvas, stack, up, middle=across(number), thick=min(step * 0.72, 34), unit=unit)
    _round_axis(canvas, [stack.label for stack in stacks], across, height - bottom)
    return str(canvas)


def bar_chart(groups: Sequence[Bars], *, title: str, width: int) -> str:
    """Horizontal bars in groups, from zero, each with its value beside it."""
    narrow = width < _NARROW_LIMIT
    left, head = (0, 24) if narrow else (226, 0)
    bars = [bar for group in groups for bar in group.bars]
    reserve = 0 if narrow else 9 + max(len(text) for _, _, text in bars) * _LETTER
    scale = _Scale(0, max(value for _, value, _ in bars) or 1.0, left, width - reserve)
    heights = [head + len(group.bars) * (_THICK + (24 if narrow else 6)) + 16 for group in groups]
    canvas = _Canvas(width, sum(heights), title)
    y = 4.0
    for group, height in zip(groups, heights, strict=True):
        if narrow:
            canvas.text(0, y + 14, fitting(group.label, width), "strong")
        else:
            canvas.text(left - 14, y + (height - 16) / 2 + 2, fitting(group.label, left - 14), "strong", "end")
        _group(canvas, group, scale, top=y + head, narrow=narrow)
        y += height
    return str(canvas)


def _group(canvas: _Canvas, group: Bars, scale: _Scale, *, top: float, narrow: bool) -> None:
    """The bars of one group: each text above its bar where it is narrow, else beside it."""
    y = top
    for style, value, text in group.bars:
        length = max(scale(value) - scale.start, 2)
        if narrow:
            canvas.text(0, y + 13, text, "small")
            y += 18
        canvas.bar(scale.start, y, length, _THICK, style=style, tip=f"{group.label}: {text}")
        if not narrow:
            canvas.text(scale.start + length + 9, y + 13, text, "small")
        y += _THICK + 6


def _ceiling(totals: Sequence[float]) -> float:
    """The height that the scale must reach: a first round that also starts everything must not flatten the others."""
    *others, tallest = sorted(totals)
    return others[-1] * 1.3 if len(others) > 1 and 0 < others[-1] < tallest / 2 else tallest or 1.0


def _column(canvas: _Canvas, stack: Stack, up: _Scale, *, middle: float, thick: float, unit: str) -> None:
    level = 0.0
    for style, value in stack.parts:
        base, peak = (up(min(height, up.high)) for height in (level, level + value))
        gap = 1.0 if base - peak > 3 else 0.0  # a hair of background keeps neighbours apart without colour
        tip = f"round {stack.label}, {style}: {value:.3g} {unit}"
        canvas.bar(middle - thick / 2, peak, thick, base - peak - gap, style=style, tip=tip)
        level += value
    if level > up.high:
        for y in (up.end + 12, up.end + 17):
            canvas.line(middle - thick / 2 - 2, y + 4, middle + thick / 2 + 2, y - 4, "break")
        height = f"{level:,.0f}" if level >= 100 else f"{level:.2g}"
        canvas.text(middle + thick / 2 + 6, up.end + 14, f"{height} {unit}", "small figures backed")


def _round_axis(canvas: _Canvas, labels: Sequence[str], across: _Scale, floor: float) -> None:
    """The rounds' numbers: the first, the last and every fifth, as far as there is room."""
    every = 1 if len(labels) <= 10 else 5 * math.ceil(len(labels) / 50)
    for number, label in enumerate(labels, 1):
        if number in {1, len(labels)} or (number % every == 0 and len(labels) - number > every / 3):
            canvas.text(across(number), floor + 20, label, "small figures", "middle")
    canvas.line(across.start - 8, floor, across.end + 8, floor, "axis")


def _clear(y: float, taken: Sequence[float]) -> float:
    """``y``, moved just so far that a line of text there does not touch those at ``taken``."""
    apart = _TEXT + 4
    for other in sorted(taken, key=lambda place: abs(place - y)):
        if abs(other - y) < apart:
            y = other + math.copysign(apart, y - other if y != other else 1)
    return y


def _tip(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""

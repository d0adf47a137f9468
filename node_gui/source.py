"""A plan's text as a reviewer reads it: coloured line by line, and side by side with the one before."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from markupsafe import Markup, escape
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from appliance.protocol.wording import spelt_out
from appliance.warden.findings import source_lines

# Pygments takes more than linear time on long texts and on many blank lines: such a text is shown in one colour.
COLOURED_AT_MOST = 20_000  # characters
BLANK_LINES_AT_MOST = 50  # in a row
SHOWN_AT_MOST = 5000  # lines on one page
COMPARED_AT_MOST = 3000  # lines
_CONTEXT = 3  # unchanged lines shown around a change


def lines_of(source: str) -> list[Markup]:
    """The text's lines as HTML, in Pygments' classes; signs that nobody sees are spelt out."""
    text = spelt_out("\n".join(source_lines(source)))
    if len(text) > COLOURED_AT_MOST or _has_a_blank_stretch(text):
        return [escape(line) for line in text.split("\n")]
    formatter = HtmlFormatter(nowrap=True, classprefix="py-")
    # A span ends with its line, so that the lines can be taken apart. Each ends with a newline, also the last.
    html = highlight(f"{text}\n", PythonLexer(stripnl=False, ensurenl=False), formatter)
    lines = [Markup(line) for line in html.removesuffix("\n").split("\n")]  # noqa: S704 - Pygments has escaped it
    if len(lines) != text.count("\n") + 1:  # a number beside the wrong line would be worse than no colour
        return [escape(line) for line in text.split("\n")]
    return lines


def _has_a_blank_stretch(text: str) -> bool:
    stretch = 0
    for line in text.split("\n"):
        stretch = 0 if line.strip() else stretch + 1
        if stretch > BLANK_LINES_AT_MOST:
            return True
    return False


@dataclass(frozen=True)
class Row:
    """A line of a comparison.

    Attributes:
        kind: ``same``, ``changed``, ``removed``, ``added`` or ``skipped``.
        left: The older text's line, with its number; None where it has none.
        skipped: How many unchanged lines are left out here.
    """

    kind: str
    left: tuple[int, Markup] | None = None
    right: tuple[int, Markup] | None = None
    skipped: int = 0


def compare(before: str, after: str) -> list[Row] | None:
    """Two texts side by side, without what is the same far from any change; None when they are too long for that."""
    old, new = lines_of(before), lines_of(after)
    if max(len(old), len(new)) > COMPARED_AT_MOST:
        return None
    matcher = difflib.SequenceMatcher(a=source_lines(before), b=source_lines(after))
    found: list[Row] = []
    for kind, i, i_end, j, j_end in matcher.get_opcodes():
        if kind == "equal":
            found += _same(old, new, i, j, i_end - i, is_first=i == 0, is_last=i_end == len(old))
            continue
        for step in range(max(i_end - i, j_end - j)):
            left = (i + step + 1, old[i + step]) if i + step < i_end else None
            right = (j + step + 1, new[j + step]) if j + step < j_end else None
            name = "changed" if left and right else "removed" if left else "added"
            found.append(Row(name, left, right))
    return found


def _same(
    old: list[Markup], new: list[Markup], i: int, j: int, length: int, *, is_first: bool, is_last: bool
) -> list[Row]:
    rows = [Row("same", (i + n + 1, old[i + n]), (j + n + 1, new[j + n])) for n in range(length)]
    head, tail = (0 if is_first else _CONTEXT), (0 if is_last else _CONTEXT)
    if length <= head + tail + 1:
        return rows
    return [*rows[:head], Row("skipped", skipped=length - head - tail), *rows[length - tail :]]

"""Answers as people read them: a table in the terminal, the same one in a notebook, and the values behind it.

Names and notes come from other members, so every cell is cleaned of control characters and escaped.
"""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

_WIDTH = 120
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Table:
    """Rows of texts under a title; shows itself in a terminal and in a notebook."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __rich__(self) -> RichTable:
        table = RichTable(title=Text(printable(self.title)), title_justify="left")
        for column in self.columns:
            table.add_column(column, overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(printable(cell)) for cell in row))
        return table

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=_WIDTH, color_system=None)
        console.print(self)
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue().rstrip()

    def _repr_html_(self) -> str:
        head = _html_row("th", self.columns)
        body = "".join(_html_row("td", row) for row in self.rows)
        return f"<table><caption>{_escaped(self.title)}</caption><thead>{head}</thead><tbody>{body}</tbody></table>"

    def _repr_pretty_(self, printer: object, _cycle: bool) -> None:
        printer.text(str(self))  # type: ignore[attr-defined]  # IPython's printer, which we do not depend on


@dataclass(frozen=True)
class NodeTable(Table, Generic[Answer]):
    """A table of what nodes answered.

    Attributes:
        answers: The values behind the rows, by node.
        silent: The nodes that gave no answer in time.
    """

    answers: Mapping[str, Answer]
    silent: tuple[str, ...]

    def __getitem__(self, node_id: str) -> Answer:
        return self.answers[node_id]


def printable(text: str) -> str:
    """``text`` without what could move a terminal's cursor or break a line."""
    return "".join(character if character.isprintable() else "�" for character in text)


def _html_row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{_escaped(cell)}</{tag}>" for cell in cells) + "</tr>"


def _escaped(text: str) -> str:
    return html.escape(printable(text))

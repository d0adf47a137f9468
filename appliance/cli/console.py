"""What all commands share: how they print, and how they fail."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterable
from typing import ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from appliance.protocol.errors import FedWardError
from appliance.protocol.wording import spelt_out

console = Console()
errors = Console(stderr=True)

_P = ParamSpec("_P")
_R = TypeVar("_R")


def explained(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a command end with a sentence and exit code 1 instead of a traceback."""

    @functools.wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return command(*args, **kwargs)
        except FedWardError as error:
            text = error.explain()
        except OSError as error:
            text = f"{error.filename or 'A file'}: {error.strerror or error}."
        errors.print(Text.assemble(("Error", "bold red"), ": ", visible(text)), soft_wrap=True)
        raise typer.Exit(1)

    return run


def print_changed(is_changed: bool) -> None:
    """The first line of a command that changes something, for the roles that call it."""
    typer.echo("changed" if is_changed else "unchanged")


def print_table(title: str, columns: Iterable[str], lines: Iterable[Iterable[object]]) -> None:
    """A table, as wide as the terminal or, in a pipe, as wide as it needs; columns of numbers end at the right."""
    table = Table(title=visible(title), title_justify="left", title_style="bold")
    rows = [list(line) for line in lines]
    for index, column in enumerate(columns):
        are_numbers = all(isinstance(row[index], int | float | None) for row in rows)
        table.add_column(column, justify="right" if are_numbers else "left", overflow="fold")
    for line in rows:
        table.add_row(*("" if cell is None else visible(str(cell)) for cell in line))
    (console if sys.stdout.isatty() else Console(width=200)).print(table)


def visible(text: str) -> Text:
    """A stranger's text as it is: no markup acts, and signs that steer a terminal or turn the writing are spelt out."""
    return Text(spelt_out(text))


def moment(seconds: float | None) -> str:
    """A time as people read it, in their own zone; empty for None."""
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))

"""Runs a notebook as a person does who presses Shift-Enter from the first cell to the last, without Jupyter."""

from __future__ import annotations

import json
import linecache
from collections.abc import Callable
from pathlib import Path
from typing import Any


def cells(path: Path) -> list[str]:
    """The text of each code cell."""
    found = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    return ["".join(cell["source"]) for cell in found]


def run_notebook(
    path: Path,
    names: dict[str, Any] | None = None,
    *,
    change: Callable[[str], str] = lambda text: text,
    between: Callable[[int, dict[str, Any]], None] = lambda _number, _names: None,
) -> dict[str, Any]:
    """Run all code cells one after the other; returns what they defined.

    Args:
        path: The notebook.
        names: What is defined before the first cell.
        change: Makes of a cell's text what is run.
        between: Called with the number of cells that were run and what is defined by now.
    """
    defined = {"__name__": "__main__"} | (names or {})
    for number, text in enumerate(map(change, cells(path)), start=1):
        name = f"<{path.stem}, cell {number}>"
        # A plan's text is read back from where its cell is kept, as in a notebook.
        linecache.cache[name] = (len(text), None, text.splitlines(keepends=True), name)
        exec(compile(text, name, "exec"), defined)
        between(number, defined)
    return defined

"""What the studies have in common: nodes on local files, and a report of tables and figures."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from docs.reproductions import figures
from researcher_kit.local import LocalDataset, LocalFederation

HERE = Path(__file__).parent
PLANS, RESULTS = HERE / "plans", HERE / "results"
TAG = "study"


@dataclass
class Report:
    """Tables and figures of one study: shown, and kept in a folder where there is one.

    Attributes:
        study: The first part of every file's name.
        folder: Where they go; None to keep nothing.
    """

    study: str
    folder: Path | None
    console: Console

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table; its first column holds words, the others numbers."""
        cells = [[_words(cell) for cell in row] for row in rows]
        shown = Table(title=f"{self.study}: {name}", title_justify="left")
        for number, column in enumerate(columns):
            shown.add_column(column, justify="right" if number else "left")
        for row in cells:
            shown.add_row(*row)
        self.console.print(shown)
        rule = ["---", *["---:"] * (len(columns) - 1)]
        lines = [f"| {' | '.join(row)} |" for row in [list(columns), rule, *cells]]
        self._keep(name, ".md", lambda path: path.write_text("\n".join(lines) + "\n"))

    def figure(self, name: str, drawn: Figure) -> None:
        """A figure."""
        self._keep(name, ".svg", lambda path: figures.save(drawn, path))

    def say(self, text: str) -> None:
        """A line of progress."""
        self.console.print(text, style="dim")

    def _keep(self, name: str, ending: str, write: Callable[[Path], object]) -> None:
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            write(self.folder / f"{self.study}-{name.replace(' ', '-')}{ending}")


def federation(tables: Mapping[str, tuple[Sequence[str], np.ndarray]], *, workers: int) -> LocalFederation:
    """Nodes of which each holds one of these tables: columns and numbers, of shape (rows, columns)."""

    def write(folder: Path) -> dict[str, LocalDataset]:
        found = {}
        for node, (columns, numbers) in tables.items():
            path = folder / f"{node}.csv"
            write_table(path, columns, numbers)
            found[node] = LocalDataset(path, tags=(TAG,), institution=node)
        return found

    # Every node stays warm: what is studied is training, not the reading of files.
    return LocalFederation(write, workers=workers, warm=len(tables))


def write_table(path: Path, columns: Sequence[str], numbers: np.ndarray) -> None:
    """A CSV file."""
    with path.open("w") as file:
        file.write(",".join(columns) + "\n")
        file.writelines(",".join(map(str, row)) + "\n" for row in numbers.tolist())


def pictures_table(pixels: np.ndarray, labels: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Pictures of shape (n, height, width) as rows, and the digit that each shows."""
    flat = pixels.reshape(len(pixels), -1)
    columns = [f"p{number:03}" for number in range(flat.shape[1])]
    return [*columns, "digit"], np.column_stack([flat, labels]).astype(int)


def arguments(description: str, sizes: Sequence[str]) -> tuple[str, Path | None, int]:
    """What the command line said: the study's size, where to keep its results, and how many nodes train at once."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=sizes, default=sizes[-1], help="how much of the study is run")
    parser.add_argument("--results", type=Path, default=RESULTS, help="a folder for tables and figures")
    parser.add_argument("--workers", type=int, default=2, help="how many nodes train at once")
    given = parser.parse_args()
    torch.set_num_threads(1)
    return given.size, given.results, given.workers


def _words(cell: object) -> str:
    return f"{cell:.3f}" if isinstance(cell, float) else str(cell)

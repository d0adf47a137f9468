"""Deals one table out to many nodes: at random, skewed by a label, or by a column.

A file is dealt out row by row, so that it need not fit into memory; cells stay as they are.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.data import LoadingPlan
from appliance.data.delimited import DelimitedFile, ReadLimits
from appliance.data.errors import DatasetInvalidError
from appliance.protocol.wording import did_you_mean, shorten
from researcher_kit.errors import ExperimentArgumentError

Places = NDArray[np.int64]
# Which node each unit (a row, or a patient) goes to: by each unit's cell, the number of nodes, and a generator.
Split = Callable[[Sequence[str], int, np.random.Generator], Sequence[int] | Places]
Columns = Mapping[str, Any]
Data = Path | str | Columns | Callable[[int], Path | str | Columns]

MAX_NODES = 999
MAX_CLASSES = 200  # of a column that is to be skewed
_TRIES = 100
_FILES_AT_ONCE = 200  # below the number that a process may have open


@dataclass(frozen=True)
class Dealing:
    """How a table is dealt out; see ``simulate``.

    Raises:
        ExperimentArgumentError: An unknown split, one without the column that it needs, or an alpha that is none.
    """

    split: str | Split = "iid"
    column: str | None = None
    alpha: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        known = ("iid", "label-skew", "by column")
        if isinstance(self.split, str) and self.split not in known:
            hint = did_you_mean(self.split, known)
            raise ExperimentArgumentError(
                f"split is {self.split!r}; expected one of {', '.join(known)}, or a function.{hint}"
            )
        if self.split in known[1:] and self.column is None:
            raise ExperimentArgumentError(f'The split "{self.split}" goes by a column; say which: column=...')
        if not isinstance(self.alpha, int | float) or not 0 < self.alpha < float("inf"):
            raise ExperimentArgumentError(f"alpha is {self.alpha!r}; expected a number above 0.")


def deal(data: Data, n_nodes: int | None, folder: Path, plan: LoadingPlan, dealing: Dealing) -> list[tuple[str, Path]]:
    """Deal data out into files in ``folder``, or find the nodes' own files.

    Returns:
        Each node's name and file.

    Raises:
        ExperimentArgumentError: Too few rows or values for so many nodes, or data that are none.
        DatasetInvalidError: The table cannot be read.
    """
    if n_nodes is not None and (type(n_nodes) is not int or not 1 <= n_nodes <= MAX_NODES):
        raise ExperimentArgumentError(f"n_nodes is {n_nodes!r}; expected a whole number from 1 to {MAX_NODES}.")
    dealer = _Dealer(plan, dealing)
    if isinstance(data, Path | str):
        source = Path(data).expanduser()
        if source.is_dir():
            return _own_files(n_nodes, source)
        return dealer.deal_file(source, n_nodes, folder)
    if callable(data):
        if n_nodes is None:
            raise ExperimentArgumentError("data is a function; say for how many nodes: n_nodes.")
        return [(f"Virtual {n + 1}", _own_file(data(n), folder / f"node-{n + 1:03d}.csv")) for n in range(n_nodes)]
    return dealer.deal_columns(_columns(data), n_nodes, folder)


def _own_files(n_nodes: int | None, folder: Path) -> list[tuple[str, Path]]:
    found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if not found or (n_nodes is not None and n_nodes > len(found)):
        raise ExperimentArgumentError(f"{folder} holds {len(found)} files; {n_nodes or 'some'} are needed, one a node.")
    return [(path.stem, path) for path in found[:n_nodes]]


def _own_file(given: Any, target: Path) -> Path:
    if isinstance(given, Path | str):
        return Path(given)
    columns = _columns(given)
    with target.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(_rows(columns, None))
    return target


def _columns(data: Any) -> dict[str, Any]:
    try:
        columns = {str(name): np.asarray(data[name]) for name in data}
    except (TypeError, KeyError, ValueError):
        columns = {}
    lengths = {len(values) if values.ndim == 1 else -1 for values in columns.values()}
    if len(lengths) != 1 or min(lengths) < 1:
        raise ExperimentArgumentError(
            f"data is {shorten(data)}; expected a file, a folder, columns of one length by name, or a function."
        )
    return columns


def _rows(columns: Mapping[str, Any], which: Places | None) -> Iterator[tuple[object, ...]]:
    """Rows as a CSV file has them; what is missing is empty, and numbers are read back to the last bit."""
    parts = (values if which is None else values[which] for values in columns.values())
    lists = ([_cell(value) for value in part.tolist()] for part in parts)
    return zip(*lists, strict=True)


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return int(value)
    return "" if value is None or value != value else value  # noqa: PLR0124 - true of a NaN alone


class _Dealer:
    """Deals out one table."""

    def __init__(self, plan: LoadingPlan, dealing: Dealing) -> None:
        self._plan = plan
        self._split, self._column, self._alpha = dealing.split, dealing.column, dealing.alpha
        self._random = np.random.default_rng(dealing.seed)

    def deal_columns(self, columns: Mapping[str, Any], n_nodes: int | None, folder: Path) -> list[tuple[str, Path]]:
        """Deal out columns; returns each node's name and file."""
        rows = len(next(iter(columns.values())))
        cells = [[str(value) for value in columns[name].tolist()] for name in self._looked_at(columns)]
        places, names = self._places(cells, rows, n_nodes)
        kept = {name: values for name, values in columns.items() if name != self._left_out}
        targets = _targets(names, folder)
        for place, (_, path) in enumerate(targets):
            which = np.flatnonzero(places == place)
            _own_file({name: values[which] for name, values in kept.items()}, path)
        return targets

    def deal_file(self, source: Path, n_nodes: int | None, folder: Path) -> list[tuple[str, Path]]:
        """Deal out a file, row by row, so that it need not fit into memory; returns each node's name and file."""
        table = DelimitedFile(source, self._plan, ReadLimits(), _refuse)
        with table.opened() as (header, blocks):
            positions = [header.index(name) for name in self._looked_at(header)]
            cells: list[list[str]] = [[] for _ in positions]
            rows = 0
            for block in blocks:
                rows += len(block.rows)
                for found, position in zip(cells, positions, strict=True):
                    found.extend(block.column(position))
        places, names = self._places(cells, rows, n_nodes)
        kept = [position for position, name in enumerate(header) if name != self._left_out]
        targets = _targets(names, folder)
        for first in range(0, len(targets), _FILES_AT_ONCE):
            self._write_files(table, places, first, [path for _, path in targets[first : first + _FILES_AT_ONCE]], kept)
        return targets

    def _write_files(
        self, table: DelimitedFile, places: Places, first: int, targets: list[Path], kept: list[int]
    ) -> None:
        encoding = self._plan.encoding
        with ExitStack() as stack, table.opened() as (header, blocks):
            # As the loading plan has it, if it does: each node reads its file by the same one.
            delimiter = self._plan.delimiter or ","
            files = [stack.enter_context(path.open("w", newline="", encoding=encoding)) for path in targets]
            writers = [csv.writer(file, delimiter=delimiter) for file in files]
            for writer in writers:
                writer.writerow([header[position] for position in kept])
            rows = (row for block in blocks for row in block.rows)
            for place, row in zip(places, rows, strict=True):
                if first <= place < first + len(writers):
                    writers[place - first].writerow([row[position] for position in kept])

    @property
    def _left_out(self) -> str | None:
        """The column that says the node, where every column would be presented."""
        return self._column if self._split == "by column" and not self._plan.columns else None

    def _looked_at(self, header: Sequence[str] | Mapping[str, Any]) -> list[str]:
        """The columns whose cells the split needs: its own, and the patient."""
        names = [name for name in (self._column, self._plan.patient_id) if name is not None]
        for name in names:
            if name not in header:
                raise ExperimentArgumentError(f"The table has no column '{name}'.{did_you_mean(name, header)}")
        return names

    def _places(self, cells: list[list[str]], rows: int, n_nodes: int | None) -> tuple[Places, list[str]]:
        """Each row's node, as a number from 0, and the nodes' names."""
        labels = cells[0] if self._column is not None else [str(row) for row in range(rows)]
        units, members = _units(cells[-1] if self._plan.patient_id is not None else None, rows)
        by_unit = [labels[row] for row in units]
        if self._split == "by column":
            return self._by_column(labels, n_nodes)
        if n_nodes is None:
            raise ExperimentArgumentError("Say how many nodes there shall be: n_nodes.")
        if len(units) < n_nodes:
            what = "rows" if self._plan.patient_id is None else "patients"
            raise ExperimentArgumentError(f"The table has {len(units)} {what}; {n_nodes} nodes need at least one each.")
        if self._split == "iid":
            places = self._evenly(len(units), n_nodes)
        elif self._split == "label-skew":
            places = self._skewed(by_unit, n_nodes)
        else:
            assert callable(self._split)
            places = _checked(self._split(by_unit, n_nodes, self._random), len(units), n_nodes)
        return places[members], [f"Virtual {n + 1}" for n in range(n_nodes)]

    def _by_column(self, labels: list[str], n_nodes: int | None) -> tuple[Places, list[str]]:
        values = sorted(set(labels))
        if n_nodes is not None and n_nodes != len(values):
            raise ExperimentArgumentError(
                f"The column '{self._column}' has {len(values)} values, each a node; n_nodes is {n_nodes}."
            )
        if len(values) > MAX_NODES:
            raise ExperimentArgumentError(f"The column '{self._column}' has {len(values)} values; {MAX_NODES} at most.")
        number = {value: place for place, value in enumerate(values)}
        return np.array([number[label] for label in labels], np.int64), [value[:200] or "(empty)" for value in values]

    def _evenly(self, units: int, n_nodes: int) -> Places:
        places = np.arange(units, dtype=np.int64) % n_nodes
        return self._random.permutation(places)

    def _skewed(self, labels: list[str], n_nodes: int) -> Places:
        classes, which = np.unique(np.array(labels), return_inverse=True)
        if len(classes) > MAX_CLASSES:
            raise ExperimentArgumentError(
                f"The column '{self._column}' has {len(classes)} values; a skewed split needs classes, "
                f"{MAX_CLASSES} at most."
            )
        for _ in range(_TRIES):
            places = np.empty(len(labels), np.int64)
            for number in range(len(classes)):
                units = self._random.permutation(np.flatnonzero(which == number))
                shares = self._random.dirichlet(np.full(n_nodes, self._alpha))
                ends = np.round(np.cumsum(shares) * len(units)).astype(np.int64)
                places[units] = np.searchsorted(ends, np.arange(len(units)), side="right").clip(max=n_nodes - 1)
            if len(np.unique(places)) == n_nodes:
                return places
        raise ExperimentArgumentError(
            f"With alpha={self._alpha:g} some of {n_nodes} nodes stayed without a row in {_TRIES} draws.",
            remedy="Take a larger alpha, fewer nodes or more rows.",
        )


def _units(patients: list[str] | None, rows: int) -> tuple[list[int], Places]:
    """What is dealt out: the first row of each unit, and each row's unit."""
    if patients is None:
        return [*range(rows)], np.arange(rows, dtype=np.int64)
    number: dict[str, int] = {}
    first: list[int] = []
    members = np.empty(rows, np.int64)
    for row, patient in enumerate(patients):
        if patient not in number:
            number[patient] = len(first)
            first.append(row)
        members[row] = number[patient]
    return first, members


def _checked(given: Sequence[int] | Places, units: int, n_nodes: int) -> Places:
    places = np.asarray(given)
    if places.shape != (units,) or places.dtype.kind not in "iu" or set(places.tolist()) != set(range(n_nodes)):
        raise ExperimentArgumentError(
            f"The split returned {shorten(given)}; expected {units} numbers from 0 to {n_nodes - 1}, all of them used."
        )
    return places.astype(np.int64)


def _targets(names: Sequence[str], folder: Path) -> list[tuple[str, Path]]:
    return [(name, folder / f"node-{n:03d}.csv") for n, name in enumerate(names, start=1)]


def _refuse(error: DatasetInvalidError) -> None:
    raise error

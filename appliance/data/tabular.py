"""The reader of tables: CSV and TSV files, by a data loading plan.

A table is read in one pass. What is wrong goes to a reporter: opening a dataset raises the first error, a check
collects them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from appliance.data.dataset import Dataset
from appliance.data.delimited import MIB, Block, DelimitedFile, ReadLimits
from appliance.data.errors import DatasetInvalidError
from appliance.data.loading_plan import ColumnPlan, ColumnType, LoadingPlan, MissingRule
from appliance.data.values import ColumnReader, Float64, fill_value
from appliance.protocol.wording import did_you_mean

MAX_PROBLEMS = 50
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

Reporter = Callable[[DatasetInvalidError], None]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class Problem(_Part):
    """Something that the hospital's staff must mend, in the file or in the loading plan."""

    what: str
    row: int | None = None
    column: str | None = None
    remedy: str


class Report(_Part):
    """What a check found. For the hospital's staff only: a problem may show a cell.

    Attributes:
        rows: Rows that the dataset would have.
        dropped: Rows left out by the rule ``drop``.
        columns: Each presented column's type, in order.
        missing: How many values of each presented column are missing.
        problems: What must be mended, at most 50.
    """

    rows: int = 0
    dropped: int = 0
    columns: dict[str, str] = {}
    missing: dict[str, int] = {}
    problems: tuple[Problem, ...] = ()

    @property
    def is_usable(self) -> bool:
        """True when the dataset can be opened."""
        return not self.problems


class Preview(_Part):
    """The first rows as they stand in the file. For the hospital's staff only."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class ColumnProfile(_Part):
    """One column's distribution. For the hospital's staff only.

    Attributes:
        type: The column's type.
        unit: The column's unit.
        missing: How many values are missing.
        minimum: The smallest value; None for a category or when every value is missing, as for the next three.
        maximum: The largest value.
        mean: The mean.
        quantiles: The 5th, 25th, 50th, 75th and 95th percentiles.
        counts: For categories and booleans, how often each level occurs.
    """

    type: str
    unit: str
    missing: int
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    quantiles: tuple[float, ...] | None = None
    counts: dict[str, int] | None = None


class Profile(_Part):
    """A dataset's distributions, before missing values are dropped or filled. For the hospital's staff only."""

    rows: int
    columns: dict[str, ColumnProfile]


def open_dataset(
    path: Path | str, loading_plan: LoadingPlan | None = None, *, limits: ReadLimits | None = None
) -> Dataset:
    """Read a table as its loading plan says.

    Args:
        path: The CSV or TSV file.
        loading_plan: How it is read; without one, every column as a number.
        limits: How much is taken at most.

    Raises:
        DatasetInvalidError: Names file, row, column and remedy of the first thing wrong.
    """
    table = _read(Path(path), loading_plan or LoadingPlan(), limits, _raise)
    return _complete(table, Path(path).name, _raise)


def check(path: Path | str, loading_plan: LoadingPlan | None = None, *, limits: ReadLimits | None = None) -> Report:
    """Read a table to the end and collect what is wrong with it; never raises for what the file holds."""
    problems: list[Problem] = []

    def collect(error: DatasetInvalidError) -> None:
        problems.append(Problem(what=error.what, row=error.row, column=error.column, remedy=error.remedy))
        if len(problems) >= MAX_PROBLEMS:
            raise _EnoughError

    table: _Table | None = None
    dataset: Dataset | None = None
    try:
        table = _read(Path(path), loading_plan or LoadingPlan(), limits, collect)
        dataset = _complete(table, Path(path).name, collect)
    except DatasetInvalidError as error:
        problems.append(Problem(what=error.what, row=error.row, column=error.column, remedy=error.remedy))
    except _EnoughError:
        pass
    if table is None:
        return Report(problems=tuple(problems))
    return Report(
        rows=len(dataset) if dataset else 0,
        dropped=len(table.lines) - len(dataset) if dataset else 0,
        columns={name: str(column.type) for name, column in table.plans.items()},
        missing={name: int(np.isnan(values).sum()) for name, values in table.values.items()},
        problems=tuple(problems),
    )


def preview(path: Path | str, rows: int = 10, loading_plan: LoadingPlan | None = None) -> Preview:
    """The header and the first rows, as text.

    Raises:
        DatasetInvalidError: The file cannot be read as a table.
    """
    file = DelimitedFile(Path(path), loading_plan or LoadingPlan(), ReadLimits(), _ignore)
    with file.opened() as (header, blocks):
        first = islice((row for block in blocks for row in block.rows), rows)
        return Preview(header=header, rows=tuple(tuple(row) for row in first))


def profile(path: Path | str, loading_plan: LoadingPlan | None = None, *, limits: ReadLimits | None = None) -> Profile:
    """Each presented column's distribution.

    Raises:
        DatasetInvalidError: Names file, row, column and remedy of the first thing wrong.
    """
    table = _read(Path(path), loading_plan or LoadingPlan(), limits, _raise)
    columns = {name: _column_profile(plan, table.values[name]) for name, plan in table.plans.items()}
    return Profile(rows=len(table.lines), columns=columns)


def fingerprint(path: Path | str) -> str:
    """The file's SHA-256 in hexadecimal, read in chunks of 1 MiB.

    Raises:
        DatasetInvalidError: The file cannot be read.
    """
    path = Path(path)
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(MIB):
                digest.update(chunk)
    except OSError as error:
        raise DatasetInvalidError(f"the file cannot be read ({error.strerror})", file=path.name) from None
    return digest.hexdigest()


class _EnoughError(Exception):
    """A check has collected as many problems as a person reads at once."""


@dataclass(frozen=True)
class _Table:
    """Columns as read, NaN where a value is missing."""

    plans: dict[str, ColumnPlan]
    values: dict[str, Float64]
    lines: NDArray[np.int64]
    groups: NDArray[np.int64] | None


def _raise(error: DatasetInvalidError) -> NoReturn:
    raise error


def _ignore(_: DatasetInvalidError) -> None:
    """A preview shows what it can."""


def _read(path: Path, plan: LoadingPlan, limits: ReadLimits | None, report: Reporter) -> _Table:
    file = path.name
    with DelimitedFile(path, plan, limits or ReadLimits(), report).opened() as (header, blocks):
        plans = dict(plan.columns) or _all_columns(header, plan, file)
        readers = [
            (_position(column.source, header, file), ColumnReader(column, plan, file=file, report=report))
            for column in plans.values()
        ]
        patients = _PatientReader(plan, header, file=file, report=report)
        lines, values, groups = [], [], []
        for block in blocks:
            lines.append(np.array(block.lines, np.int64))
            values.append([reader.read(block.column(position), block.lines) for position, reader in readers])
            groups.append(patients.read(block))
    if not lines:
        raise DatasetInvalidError("there is a header but no row", file=file, remedy="Add a file with rows.")
    columns = {name: np.concatenate(parts) for name, parts in zip(plans, zip(*values, strict=True), strict=True)}
    return _Table(plans, columns, np.concatenate(lines), np.concatenate(groups) if plan.patient_id else None)


def _all_columns(header: tuple[str, ...], plan: LoadingPlan, file: str) -> dict[str, ColumnPlan]:
    if "" in header:
        what = f"column {header.index('') + 1} of {len(header)} has no name"
        raise DatasetInvalidError(what, file=file, row=1, remedy="Name it, or list the columns in the loading plan.")
    return {name: ColumnPlan(source=name) for name in header if name != plan.patient_id}


def _position(source: str, header: tuple[str, ...], file: str) -> int:
    if source not in header:
        remedy = f"Add the column to the file, or correct 'source' in the loading plan.{did_you_mean(source, header)}"
        raise DatasetInvalidError("the column is missing", file=file, row=1, column=source, remedy=remedy)
    return header.index(source)


class _PatientReader:
    """Numbers the patients in the order in which they appear; without a patient id there are none."""

    def __init__(self, plan: LoadingPlan, header: tuple[str, ...], *, file: str, report: Reporter) -> None:
        self._column = plan.patient_id
        self._position = _position(plan.patient_id, header, file) if plan.patient_id else None
        self._na_values = frozenset(plan.na_values)
        self._file = file
        self._report = report
        self._numbers: dict[str, int] = {}

    def read(self, block: Block) -> NDArray[np.int64]:
        """Each row's patient, of shape (n_rows,)."""
        if self._position is None:
            return np.empty(0, np.int64)
        patients = [text.strip() for text in block.column(self._position)]
        if nobody := self._na_values.intersection(patients):
            line = next(line for line, patient in zip(block.lines, patients, strict=True) if patient in nobody)
            what, remedy = "the row has no patient", "Give each row its patient's number."
            self._report(DatasetInvalidError(what, file=self._file, row=line, column=self._column, remedy=remedy))
        return np.array([self._numbers.setdefault(patient, len(self._numbers)) for patient in patients], np.int64)


def _complete(table: _Table, file: str, report: Reporter) -> Dataset:
    """Drop and fill, as each column's rule says; values are dropped first, so that others are filled from rows kept."""
    keep = np.ones(len(table.lines), np.bool_)
    for name, plan in table.plans.items():
        if plan.missing is MissingRule.DROP:
            keep &= ~np.isnan(table.values[name])
    if not keep.any():
        remedy = "Change 'missing' in the loading plan for the column with most missing values."
        raise DatasetInvalidError("no row is left after dropping those with missing values", file=file, remedy=remedy)
    lines = table.lines[keep]
    values = {name: _filled(plan, table.values[name][keep], lines, file, report) for name, plan in table.plans.items()}
    return Dataset(table.plans, values, lines, None if table.groups is None else table.groups[keep])


def _filled(plan: ColumnPlan, values: Float64, lines: NDArray[np.int64], file: str, report: Reporter) -> Float64:
    missing = np.isnan(values)
    if not missing.any():
        return values
    if plan.missing is MissingRule.REFUSE:
        row = int(lines[int(np.argmax(missing))])
        count = int(missing.sum())
        what = "a value is missing" if count == 1 else f"{count} values are missing, the first here"
        remedy = "Say in the loading plan what to do: missing = 'drop', 'mean', 'median' or a number."
        report(DatasetInvalidError(what, file=file, row=row, column=plan.source, remedy=remedy))
        return values
    try:
        return np.where(missing, fill_value(plan, values), values)
    except ValueError:
        remedy = "Leave the column out, or fill it with a number."
        report(DatasetInvalidError("every value is missing", file=file, column=plan.source, remedy=remedy))
        return values


def _column_profile(plan: ColumnPlan, values: Float64) -> ColumnProfile:
    present = values[~np.isnan(values)]
    base = ColumnProfile(type=str(plan.type), unit=plan.unit, missing=len(values) - len(present))
    if plan.type in (ColumnType.CATEGORY, ColumnType.BOOLEAN):
        levels = plan.levels or ("no", "yes")
        counts = {level: int((present == position).sum()) for position, level in enumerate(levels)}
        return base.model_copy(update={"counts": counts})
    if present.size == 0:
        return base
    return base.model_copy(
        update={
            "minimum": float(present.min()),
            "maximum": float(present.max()),
            "mean": float(present.mean()),
            "quantiles": tuple(float(value) for value in np.quantile(present, QUANTILES)),
        }
    )

"""A dataset as training plans see it: named columns of numbers, in the file's order."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from appliance.data.errors import DatasetInvalidError
from appliance.data.loading_plan import ColumnPlan, ColumnType
from appliance.protocol.wording import did_you_mean

Float64 = NDArray[np.float64]

_DTYPES: Mapping[ColumnType, type[np.generic]] = {
    ColumnType.NUMBER: np.float64,
    ColumnType.INTEGER: np.int64,
    ColumnType.BOOLEAN: np.bool_,
    ColumnType.CATEGORY: np.int64,
}


@dataclass(frozen=True, eq=False)
class Dataset:
    """Columns without missing values, as the data loading plan presents them.

    Attributes:
        plans: How each column was read, by its presented name, in order.
        values: Each column's values, of shape (n_rows,).
        row_ids: The line of the file where each row begins, of shape (n_rows,); it stays when other rows drop out.
        groups: A number for each row's patient, in the order of first appearance; None without a patient id.
    """

    plans: Mapping[str, ColumnPlan]
    values: Mapping[str, Float64]
    row_ids: NDArray[np.int64]
    groups: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.row_ids)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns' presented names, in order."""
        return tuple(self.plans)

    @property
    def types(self) -> dict[str, str]:
        """Each column's type, by its presented name."""
        return {name: str(plan.type) for name, plan in self.plans.items()}

    def column(self, name: str) -> NDArray[np.generic]:
        """One column, of shape (n_rows,): float64, int64, bool, or for a category each row's position in its levels.

        Raises:
            DatasetInvalidError: There is no such column.
        """
        dtype = _DTYPES[self._plan(name).type]
        return self.values[name].astype(dtype)

    def matrix(self, names: Sequence[str] | None = None) -> NDArray[np.float32]:
        """Columns side by side as float32 of shape (n_rows, n_cols); a category takes one column for each level.

        Args:
            names: The columns, in order; all when absent.

        Raises:
            DatasetInvalidError: There is no such column.
        """
        parts = [self._encoded(name) for name in (self.columns if names is None else names)]
        return np.concatenate(parts, axis=1) if parts else np.empty((len(self), 0), np.float32)

    def write_csv(self, file: TextIO) -> None:
        """Write the columns as a table with commas and a line of names; a category by its level's name."""
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(zip(*(self._cells(name) for name in self.columns), strict=True))

    def take(self, rows: NDArray[np.int64]) -> Dataset:
        """The rows at these positions, as a dataset."""
        values = {name: column[rows] for name, column in self.values.items()}
        groups = None if self.groups is None else self.groups[rows]
        return Dataset(self.plans, values, self.row_ids[rows], groups)

    def _cells(self, name: str) -> list[Any]:
        levels = self.plans[name].levels if self.plans[name].type is ColumnType.CATEGORY else None
        values: list[Any] = self.column(name).tolist()
        return values if levels is None else [levels[value] for value in values]

    def _encoded(self, name: str) -> NDArray[np.float32]:
        plan = self._plan(name)
        column = self.values[name]
        if plan.type is not ColumnType.CATEGORY:
            return column.astype(np.float32)[:, np.newaxis]
        hits: NDArray[np.bool_] = column[:, np.newaxis] == np.arange(len(plan.levels))
        return hits.astype(np.float32)

    def _plan(self, name: str) -> ColumnPlan:
        if name not in self.plans:
            remedy = f"Name one of the dataset's columns.{did_you_mean(name, self.plans)}"
            raise DatasetInvalidError(f"the dataset has no column '{name}'", remedy=remedy)
        return self.plans[name]


def concatenate(datasets: Sequence[Dataset]) -> Dataset:
    """Datasets with the same columns, one below the other; patients of different datasets stay different.

    Raises:
        DatasetInvalidError: The columns or their types differ, or there is no dataset.
    """
    if not datasets or any(other.types != datasets[0].types for other in datasets):
        raise DatasetInvalidError("only datasets with the same columns and types can be put together")
    first = datasets[0]
    values = {name: np.concatenate([dataset.values[name] for dataset in datasets]) for name in first.columns}
    return Dataset(first.plans, values, np.concatenate([d.row_ids for d in datasets]), _joined_groups(datasets))


def _joined_groups(datasets: Sequence[Dataset]) -> NDArray[np.int64] | None:
    joined: list[NDArray[np.int64]] = []
    start = 0
    for dataset in datasets:
        if dataset.groups is None:
            return None
        joined.append(dataset.groups + start)
        start += int(dataset.groups.max(initial=-1)) + 1
    return np.concatenate(joined)

"""Datasets and the catalogue of readers."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pytest

from appliance.data import DatasetInvalidError, LoadingPlan, concatenate, open_dataset, reader_for

Table = Callable[[str | bytes], Path]


def test_an_unknown_column_is_answered_with_the_nearest(table: Table) -> None:
    """A plan's author sees names only."""
    with pytest.raises(DatasetInvalidError, match="no column 'agee'") as caught:
        open_dataset(table("age\n30\n")).column("agee")

    assert "Did you mean 'age'?" in caught.value.remedy


def test_a_column_is_a_copy(table: Table) -> None:
    """A warm child trains again on the same dataset."""
    dataset = open_dataset(table("age\n30\n"))
    dataset.column("age")[0] = 99

    assert dataset.column("age")[0] == 30


def test_taken_rows_keep_their_lines(table: Table) -> None:
    """The pooled baseline is tested on the rows that the nodes held out."""
    assert open_dataset(table("age\n30\n31\n32\n")).take(np.array([0, 2])).row_ids.tolist() == [2, 4]


def test_patients_of_different_hospitals_stay_different(table: Table) -> None:
    """Patient 0 of north is not patient 0 of south."""
    dataset = open_dataset(table("age\n30\n31\n"))
    with_groups = type(dataset)(dataset.plans, dataset.values, dataset.row_ids, np.array([0, 0]))
    together = concatenate([with_groups, with_groups])

    assert together.groups is not None
    assert together.groups.tolist() == [0, 0, 1, 1]


def test_tables_with_other_columns_are_not_put_together(table: Table) -> None:
    """A column would silently get another one's values."""
    north, south = open_dataset(table("age\n30\n")), open_dataset(table("bmi\n30\n"))

    with pytest.raises(DatasetInvalidError, match="same columns"):
        concatenate([north, south])


def test_the_catalogue_names_the_kinds_it_knows() -> None:
    """An operator's file may ask for a kind of a later version."""
    with pytest.raises(DatasetInvalidError, match="kind 'tabula'") as caught:
        reader_for("tabula")

    assert "Did you mean 'tabular'?" in caught.value.remedy


def test_a_dataset_is_written_as_it_is_presented(table: Table, plan_of: Callable[..., LoadingPlan]) -> None:
    """A plan that reads a file gets what the hospital presents: its names and codes, and no column more."""
    columns = {
        "age": {"source": "Alter", "type": "integer"},
        "smoker": {"source": "R", "type": "boolean", "coding": {"ja": 1, "nein": 0}},
        "stage": {"source": "S", "type": "category", "levels": ["I", "II, b"]},
    }
    file = table("Alter;R;S;name\n40;ja;I;Anna\n50;nein;II, b;Otto\n")
    open_dataset(file, plan_of(columns, delimiter=";")).write_csv(written := StringIO())

    assert written.getvalue() == 'age,smoker,stage\n40,True,I\n50,False,"II, b"\n'

"""Reading tables."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from appliance.data import (
    DatasetInvalidError,
    LoadingPlan,
    ReadLimits,
    check,
    fingerprint,
    open_dataset,
    preview,
    profile,
)
from appliance.protocol.errors import Code

Table = Callable[[str | bytes], Path]
PlanOf = Callable[..., LoadingPlan]


def test_without_a_plan_every_column_is_a_number(table: Table) -> None:
    """A clean table needs no plan."""
    dataset = open_dataset(table("age,bmi\n30,21.5\n41,28\n"))

    assert dataset.columns == ("age", "bmi")
    np.testing.assert_array_equal(dataset.matrix(), np.array([[30, 21.5], [41, 28]], np.float32))


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_delimiter_is_found_out(table: Table, mark: str) -> None:
    """Exports differ by the country's settings."""
    assert len(open_dataset(table(f"a{mark}b\n1{mark}2\n"))) == 1


def test_a_decimal_comma_is_read_when_the_plan_says_so(table: Table, plan_of: PlanOf) -> None:
    """Much of Europe writes 1,5."""
    dataset = open_dataset(table("a;b\n1,5;2\n"), plan_of(decimal=","))

    assert dataset.column("a")[0] == 1.5


def test_a_decimal_comma_that_the_plan_does_not_know_gets_the_right_remedy(table: Table) -> None:
    """It is the commonest surprise, and its cure is one line."""
    with pytest.raises(DatasetInvalidError) as caught:
        open_dataset(table("a;b\n1,5;2\n"))

    assert 'decimal = ","' in caught.value.remedy


def test_a_byte_order_mark_is_not_part_of_the_first_name(table: Table) -> None:
    """Spreadsheet programs write one."""
    assert open_dataset(table(b"\xef\xbb\xbfage\n30\n")).columns == ("age",)


def test_a_coding_turns_texts_into_numbers(table: Table, plan_of: PlanOf) -> None:
    """Hospitals code the same thing differently."""
    plan = plan_of({"smoker": {"source": "Raucher", "type": "boolean", "coding": {"ja": 1, "nein": 0}}})

    np.testing.assert_array_equal(open_dataset(table("Raucher\nja\n nein \n"), plan).column("smoker"), [True, False])


def test_a_coding_gives_an_empty_cell_its_meaning(table: Table, plan_of: PlanOf) -> None:
    """An empty cell may mean none, rather than unknown."""
    plan = plan_of({"pregnancies": {"type": "integer", "coding": {"": 0}}, "age": {}})

    assert open_dataset(table("pregnancies,age\n,30\n2,31\n"), plan).column("pregnancies").tolist() == [0, 2]


def test_a_category_is_one_hot_in_the_plans_order(table: Table, plan_of: PlanOf) -> None:
    """All hospitals must agree which column is which, whatever their files hold."""
    plan = plan_of({"grade": {"type": "category", "levels": ["low", "mid", "high"], "coding": {"H": "high"}}})
    dataset = open_dataset(table("grade\nH\nlow\n"), plan)

    assert dataset.matrix(["grade"]).tolist() == [[0, 0, 1], [1, 0, 0]]
    assert dataset.column("grade").tolist() == [2, 0]


@pytest.mark.parametrize(("rule", "filled"), [("mean", 4.0), ("median", 3.0), (0, 0.0)])
def test_a_missing_value_is_filled_by_the_columns_rule(
    table: Table, plan_of: PlanOf, rule: str | int, filled: float
) -> None:
    """The rule is the hospital's own decision."""
    dataset = open_dataset(table("a,b\n1,1\n3,1\n8,1\nNA,1\n"), plan_of({"a": {"missing": rule}, "b": {}}))

    assert dataset.column("a")[3] == filled


def test_a_filled_integer_stays_one(table: Table, plan_of: PlanOf) -> None:
    """Half a pregnancy is no value."""
    dataset = open_dataset(
        table("a,b\n1,1\n2,1\n,1\n"), plan_of({"a": {"type": "integer", "missing": "mean"}, "b": {}})
    )

    assert dataset.column("a").tolist() == [1, 2, 2]


def test_rows_are_dropped_before_others_are_filled(table: Table, plan_of: PlanOf) -> None:
    """A row that is not used must not move the mean."""
    plan = plan_of({"a": {"missing": "mean"}, "label": {"missing": "drop"}})
    dataset = open_dataset(table("a,label\n1,0\n3,1\n100,\n,1\n"), plan)

    assert dataset.column("a").tolist() == [1, 3, 2]


def test_a_row_keeps_its_line_when_others_are_dropped(table: Table, plan_of: PlanOf) -> None:
    """Staff look the row up in their file."""
    dataset = open_dataset(table("a\n1\nNA\n\n3\n"), plan_of({"a": {"missing": "drop"}}))

    assert dataset.row_ids.tolist() == [2, 5]


def test_lines_are_counted_across_quoted_line_breaks(table: Table, plan_of: PlanOf) -> None:
    """A note over two lines must not shift every later row."""
    dataset = open_dataset(table('a,note\n1,"two\nlines"\n3,\n'), plan_of({"a": {}}))

    assert dataset.row_ids.tolist() == [2, 4]


def test_a_patients_rows_have_one_number_that_is_not_his_own(table: Table, plan_of: PlanOf) -> None:
    """The split needs to know who is who; a plan has no need of names."""
    dataset = open_dataset(table("PID,a\nx7,1\nx9,2\nx7,3\n"), plan_of(patient_id="PID"))

    assert dataset.groups is not None
    assert dataset.groups.tolist() == [0, 1, 0]
    assert dataset.columns == ("a",)


def test_the_same_file_gives_the_same_bits(table: Table) -> None:
    """Two runs with one seed end bit-equal only if the data do."""
    path = table("a,b\n0.1,0.2\n0.3,0.7\n")

    assert open_dataset(path).matrix().tobytes() == open_dataset(path).matrix().tobytes()


@pytest.mark.parametrize(
    ("content", "columns", "row", "column", "reason"),
    [
        ("a,b\n1,2\n3\n", {}, 3, None, "1 cells; the header has 2"),
        ("a,b\n1,2\n3,4,5\n", {}, 3, None, "3 cells; the header has 2"),
        ("a,b,a\n1,2,3\n", {}, 1, "a", "more than once"),
        ("a,b\n1,2\n", {"age": {}}, 1, "age", "missing"),
        ("a\n1\nlow\n", {}, 3, "a", "'low' is not a number"),
        ("a\n1\n1_000\n", {}, 3, "a", "is not a number"),
        ("a\n1\ninf\n", {}, 3, "a", "is not a number"),
        ("a\nYes\nMaybe\n", {"a": {"type": "boolean"}}, 3, "a", "'Maybe' is not yes or no"),
        ("a\nY\nN\n", {"a": {"coding": {"Y": 1}}}, 3, "a", "'N' has no coding"),
        ("a\nlow\nhigh\n", {"a": {"type": "category", "levels": ["low", "mid"]}}, 3, "a", "none of the levels"),
        ("a\n1\n1.5\n", {"a": {"type": "integer"}}, 3, "a", "not a plausible integer"),
        (
            "a\n30\n300\n",
            {"a": {"maximum": 120, "unit": "years"}},
            3,
            "a",
            "'300' is not a plausible number up to 120 years",
        ),
        ("a,b\n1,1\nNA,1\n", {}, 3, "a", "a value is missing"),
        ("a,b\nNA,1\n,1\n", {"a": {"missing": "mean"}}, None, "a", "every value is missing"),
        ("a\n", {}, None, None, "a header but no row"),
        ("", {}, None, None, "empty"),
        ("\n \n", {}, None, None, "empty"),
        (",b\n1,2\n", {}, 1, None, "column 1 of 2 has no name"),
        ("a,b\n1,NA\n", {"b": {"missing": "drop"}}, None, None, "no row is left"),
        ('a,b\n1,"2\n3,4\n', {}, 2, None, "cannot be split"),
        ("a\n1\n\0\n", {}, 3, None, "NUL byte"),
        (b"a\n1\n\xff\n", {}, 3, None, "not utf-8"),
        (b"\xff\xfea\0\n\0", {}, None, None, "utf-16"),
        (b"PK\x03\x04....", {}, None, None, "spreadsheet"),
    ],
)
def test_what_is_wrong_with_a_file_is_told_with_row_and_column(
    table: Table, plan_of: PlanOf, content: str | bytes, columns: dict[str, object], row: int, column: str, reason: str
) -> None:
    """Staff must find the cell, and know what to do."""
    with pytest.raises(DatasetInvalidError, match=reason) as caught:
        open_dataset(table(content), plan_of(columns))

    assert (caught.value.file, caught.value.row, caught.value.column) == ("north.csv", row, column)
    assert caught.value.remedy
    assert caught.value.code is Code.DATASET_INVALID


def test_a_quotation_mark_that_is_never_closed_is_named_by_its_row(table: Table) -> None:
    """Otherwise the rest of the file becomes one cell."""
    with pytest.raises(DatasetInvalidError, match="cannot be split") as caught:
        open_dataset(table('a,b\n1,"2\n' + "3,4\n" * 50_000))

    assert caught.value.row == 2


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (ReadLimits(max_bytes=10), "MiB; allowed"),
        (ReadLimits(max_rows=3), "more than 3 rows"),
        (ReadLimits(max_columns=1), "2 columns; allowed are 1"),
        (ReadLimits(max_line=3), "longer than 3"),
    ],
)
def test_a_huge_file_is_refused_at_the_limit(table: Table, limits: ReadLimits, reason: str) -> None:
    """Before it fills the node's memory."""
    with pytest.raises(DatasetInvalidError, match=reason):
        open_dataset(table("a,b\n" + "1,2\n" * 4), limits=limits)


@pytest.mark.parametrize(("name", "reason"), [(".", "folder"), ("absent.csv", "no such file"), ("pipe", "device")])
def test_what_is_no_file_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    """Reading a pipe would wait for ever."""
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(DatasetInvalidError, match=reason):
        open_dataset(tmp_path / name)


def test_a_file_without_permission_names_the_cure(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's user is not the one who copied the file. Refused by hand, for root may read all."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    path = table("a\n1\n")
    monkeypatch.setattr(Path, "open", refuse)

    with pytest.raises(DatasetInvalidError, match="may not read") as caught:
        open_dataset(path)
    assert "service user" in caught.value.remedy


def test_a_check_collects_what_staff_must_mend(table: Table) -> None:
    """One look at a file, one list: not one error a try."""
    report = check(table("a,b\n1,x\n2\n3,y\nNA,4\n"))

    assert [(problem.row, problem.column) for problem in report.problems] == [(3, None), (2, "b"), (4, "b"), (5, "a")]
    assert not report.is_usable


def test_a_check_of_a_good_file_counts_rows(table: Table, plan_of: PlanOf) -> None:
    """Registration shows these numbers."""
    report = check(table("a,b\n1,1\n,2\n"), plan_of({"a": {"missing": "drop"}, "b": {"type": "integer"}}))

    assert (report.rows, report.dropped, report.missing) == (1, 1, {"a": 1, "b": 0})
    assert report.columns == {"a": "number", "b": "integer"}


def test_a_check_ends_after_fifty_problems(table: Table) -> None:
    """A wrong column type would list a million cells."""
    assert len(check(table("a\n" + "".join(f"x{n}\n" for n in range(9000)))).problems) == 50


def test_a_check_survives_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A check answers; it does not fail."""
    assert check(tmp_path / "absent.csv").problems[0].what == "there is no such file"


def test_a_preview_shows_the_first_rows_as_they_stand(table: Table) -> None:
    """Staff write the loading plan from it."""
    shown = preview(table("a,b\n1,x\n2,\n3,z\n"), 2)

    assert (shown.header, shown.rows) == (("a", "b"), (("1", "x"), ("2", "")))


def test_a_profile_describes_numbers_before_filling(table: Table, plan_of: PlanOf) -> None:
    """The hospital sees what is there, not what the plan puts in its place."""
    found = profile(table("a,b\n1,1\n3,1\nNA,1\n"), plan_of({"a": {"missing": 0, "unit": "mm"}})).columns["a"]

    assert (found.missing, found.minimum, found.maximum, found.mean, found.unit) == (1, 1, 3, 2, "mm")
    assert found.quantiles is not None
    assert found.quantiles[2] == 2


def test_a_profile_counts_levels(table: Table, plan_of: PlanOf) -> None:
    """A mean of categories says nothing."""
    plan = plan_of({"g": {"type": "category", "levels": ["low", "high"]}})

    assert profile(table("g\nlow\nlow\nhigh\n"), plan).columns["g"].counts == {"low": 2, "high": 1}


def test_the_fingerprint_is_the_files_sha256(table: Table) -> None:
    """Staff can check it with any tool."""
    content = b"a\n" + b"1\n" * 2_000_000

    assert fingerprint(table(content)) == hashlib.sha256(content).hexdigest()

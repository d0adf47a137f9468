"""The data loading plan."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.data import LoadingPlan, LoadingPlanInvalidError
from appliance.protocol.errors import Code

CATEGORY = {"type": "category", "levels": ["low", "high"]}


def test_toml_and_json_say_the_same(tmp_path: Path) -> None:
    """Staff write TOML; Ansible and the GUI write JSON."""
    columns = {"age": {"source": "Alter", "type": "integer", "coding": {"k.A.": 0}}}
    (tmp_path / "plan.json").write_text(json.dumps({"columns": columns}))
    (tmp_path / "plan.toml").write_text('[columns.age]\nsource = "Alter"\ntype = "integer"\ncoding = { "k.A." = 0 }\n')

    assert LoadingPlan.read(tmp_path / "plan.json") == LoadingPlan.read(tmp_path / "plan.toml")


def test_a_plan_survives_the_way_through_json() -> None:
    """It travels to the runner as a dictionary."""
    plan = LoadingPlan.parse({"columns": {"age": {"missing": "median"}, "grade": CATEGORY | {"missing": 1}}})

    assert LoadingPlan.parse(json.loads(plan.model_dump_json())) == plan


def test_a_column_is_sought_under_its_own_name_when_no_source_is_given() -> None:
    """Most columns need no other name."""
    assert LoadingPlan.parse({"columns": {"age": {}}}).columns["age"].source == "age"


def test_a_misspelt_setting_is_named_with_the_right_one() -> None:
    """A setting that is silently ignored would change the data."""
    with pytest.raises(LoadingPlanInvalidError, match=r"columns\.age\.mising.*Did you mean 'missing'"):
        LoadingPlan.parse({"columns": {"age": {"mising": "drop"}}})


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ({"type": "text"}, "type"),
        ({"type": "category"}, "needs levels"),
        ({"type": "category", "levels": ["low", "low"]}, "named once"),
        (CATEGORY | {"missing": "mean"}, "no mean or median"),
        (CATEGORY | {"missing": 2}, "not one that the column may have"),
        (CATEGORY | {"coding": {"l": "lower"}}, "not among the levels"),
        (CATEGORY | {"minimum": 0}, "for numbers"),
        ({"levels": ["low", "high"]}, "for categories"),
        ({"coding": {"Yes": "one"}}, "must be a number"),
        ({"minimum": 2, "maximum": 1}, "above the maximum"),
        ({"missing": -1, "minimum": 0}, "not one that the column may have"),
        ({"type": "boolean", "missing": 0.5}, "not one that the column may have"),
        ({"type": "integer", "missing": 0.5}, "not one that the column may have"),
        ({"missing": "guess"}, "missing"),
        ({"missing": float("nan")}, "missing"),
    ],
)
def test_a_plan_that_contradicts_itself_is_refused(column: dict[str, object], reason: str) -> None:
    """At registration, not in the middle of a round."""
    with pytest.raises(LoadingPlanInvalidError, match=reason) as caught:
        LoadingPlan.parse({"columns": {"age": column}})

    assert caught.value.code is Code.LOADING_PLAN_INVALID


@pytest.mark.parametrize("encoding", ["utf-9", "base64"])
def test_an_unknown_encoding_is_refused_with_the_usual_ones(encoding: str) -> None:
    """Staff seldom know the name of what their export program writes."""
    with pytest.raises(LoadingPlanInvalidError, match="windows-1252"):
        LoadingPlan.parse({"encoding": encoding})


@pytest.mark.parametrize("content", [b"columns = [", b"\xff\xfe", b""])
def test_a_plan_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes) -> None:
    """The message names the file, for there may be many."""
    path = tmp_path / "south.json"
    path.write_bytes(content)

    with pytest.raises(LoadingPlanInvalidError, match=r"south\.json"):
        LoadingPlan.read(path)

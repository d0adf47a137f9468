"""Datasets in the browser: from a file to a dataset, and what staff decide about it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from appliance.warden.store import datasets, permissions
from node_gui.access import Role
from tests.conftest import Members
from tests.unit.node_gui.conftest import Browser, write_home
from tests.unit.node_gui.hospital import TABLE, Hospital

SCRIPT = "<script>alert(1)</script>"
FORM = {
    "path": "trial.csv",
    "name": "OPT",
    "tags": "opt, trial",
    "description": "Women of the trial.",
    "decimal": ".",
    "source": ["age", "smoker", "outcome"],
    "used-0": "on",
    "name-0": "age",
    "type-0": "integer",
    "missing-0": "refuse",
    "unit-0": "years",
    "used-1": "on",
    "name-1": "smoker",
    "type-1": "boolean",
    "missing-1": "refuse",
    "coding-1": "yes = 1, no = 0",
    "name-2": "outcome",
    "type-2": "number",
}


@pytest.fixture
def hospital(tmp_path: Path, members: Members) -> Iterator[Hospital]:
    """A hospital whose staff use the GUI, with a table in its data folder."""
    hospital = Hospital(tmp_path, members)
    hospital.write_table()
    yield hospital
    hospital.close()


@pytest.fixture
def manager(hospital: Hospital) -> Browser:
    """Dora, who decides on data."""
    return hospital.signed_in(Role.DATA_MANAGER, "Dora")


@pytest.fixture
def dataset_id(manager: Browser) -> str:
    """A dataset as the wizard makes it."""
    return str(manager.post("/datasets/add", **FORM).location.split("/")[-1].removesuffix("#permissions"))


def row(hospital: Hospital) -> dict[str, Any]:
    """The one dataset as the store has it."""
    (found,) = hospital.node.table(datasets)
    return found


def test_a_file_becomes_a_dataset(hospital: Hospital, manager: Browser, dataset_id: str) -> None:
    """As the form says, for nobody yet."""
    found = row(hospital)
    assert (found["name"], found["tags"], found["rows"], found["added_by"]) == ("OPT", ["opt", "trial"], 120, "Dora")
    assert found["columns"] == [{"name": "age", "type": "integer"}, {"name": "smoker", "type": "boolean"}]
    assert "Nobody may use it yet." in manager.get(f"/datasets/{dataset_id}").text


def test_the_form_is_filled_in_from_the_first_rows(manager: Browser) -> None:
    """A newcomer corrects more easily than he invents."""
    page = manager.get("/datasets/look?path=trial.csv").text
    assert 'value="no = 0, yes = 1"' in page
    assert page.count(" checked") == 3


def test_a_profile_is_shown_before_anything_is_registered(hospital: Hospital, manager: Browser) -> None:
    """Rows, missing values and ranges, and what was typed is still there."""
    page = manager.post("/datasets/look", **FORM).text
    assert "120 rows." in page
    assert 'value="yes = 1, no = 0"' in page
    assert hospital.node.table(datasets) == []


def test_a_pasted_loading_plan_counts_instead_of_the_table(hospital: Hospital, manager: Browser) -> None:
    """Somebody may have written one with care."""
    plan = '[columns.years]\nsource = "age"\ntype = "integer"\n'
    manager.post("/datasets/add", **(FORM | {"plan": plan}))
    assert row(hospital)["columns"] == [{"name": "years", "type": "integer"}]


@pytest.mark.parametrize(
    "change",
    [
        {"tags": ""},
        {"name": ""},
        {"plan": "= no toml"},
        {"coding-1": "yes"},
        {"coding-1": "yes = x"},
        {"minimum-0": "low"},
        {"name-1": "age"},
        {"type-1": "number", "coding-1": ""},
        {"type-0": "words"},
        {"path": "../outside.csv"},
        {"path": "/etc/passwd"},
        {"path": ""},
        {"path": "nothing.csv"},
        {"description": "x" * 2001},
    ],
)
def test_what_cannot_be_registered_is_told_and_not_registered(
    hospital: Hospital, manager: Browser, change: dict[str, str]
) -> None:
    """With a sentence, and a page that goes on."""
    reply = manager.post("/datasets/add", **(FORM | change))
    assert reply.status_code in (400, 404)
    assert "Something failed" not in reply.text
    assert hospital.node.table(datasets) == []


def test_the_data_folder_is_browsed_and_left_by_no_link(hospital: Hospital, manager: Browser, tmp_path: Path) -> None:
    """Names alone are read, and odd ones are spelt out."""
    (hospital.data / "2026").mkdir()
    (hospital.data / "out").symlink_to("/etc")
    (hospital.data / "secret").symlink_to(tmp_path / "store" / "node.db")
    (hospital.data / f"{SCRIPT.replace('/', '')}\u202e.csv").write_text("a\n")
    os.close(os.open(os.fsencode(hospital.data) + b"/b\xff.csv", os.O_CREAT | os.O_WRONLY))

    page = manager.get("/datasets/browse").text
    assert "2026/" in page
    assert ">out<" not in page
    assert "secret" not in page
    assert "<script>alert" not in page
    assert "\u202e" not in page
    assert "not UTF-8" in page
    assert "2 names are not shown" in page


@pytest.mark.parametrize("folder", ["..", "/etc", "../store", "2026/../..", "out", "\x00", "x" * 5000, "nothing"])
def test_nothing_outside_the_data_folder_is_listed(hospital: Hospital, manager: Browser, folder: str) -> None:
    """However it is written."""
    (hospital.data / "out").symlink_to("/etc")
    reply = manager.get("/datasets/browse", query_string={"folder": folder})
    assert reply.status_code == 400
    assert "Something failed" not in reply.text


def test_a_new_version_keeps_name_permissions_and_the_old_fingerprint(
    hospital: Hospital, manager: Browser, dataset_id: str
) -> None:
    """The monthly re-export is the same dataset."""
    before = row(hospital)
    manager.post(f"/datasets/{dataset_id}/permit", researcher="alice")
    hospital.write_table("trial-2.csv", TABLE + "77,no,1\n")

    assert 'value="yes = 1, no = 0"' in manager.get(f"/datasets/look?path=trial-2.csv&for={dataset_id}").text
    form = FORM | {"path": "trial-2.csv", "for": dataset_id, "shown": str(before["revision"])}
    assert manager.post(f"/datasets/{dataset_id}/renew", **form).status_code == 302
    assert (row(hospital)["rows"], row(hospital)["name"], row(hospital)["id"]) == (121, "OPT", dataset_id)
    (line,) = [line for line in hospital.node.audit() if line["event"] == "dataset.renewed"]
    assert line["details"]["before"] == before["fingerprint"]
    assert [p["researcher"] for p in hospital.node.table(permissions)] == ["alice"]
    assert before["fingerprint"][:12] in manager.get(f"/datasets/{dataset_id}").text


def test_a_changed_file_is_told_and_accepted_by_name(hospital: Hospital, manager: Browser, dataset_id: str) -> None:
    """Until then no round uses it."""
    hospital.write_table("trial.csv", TABLE + "77,no,1\n")
    manager.post(f"/datasets/{dataset_id}/check")
    assert "not the one that was registered" in manager.get(f"/datasets/{dataset_id}").text

    assert manager.post(f"/datasets/{dataset_id}/check", accept="yes", shown="0").status_code == 409
    assert row(hospital)["state"] == "changed"
    manager.post(f"/datasets/{dataset_id}/check", accept="yes", shown=str(row(hospital)["revision"]))
    assert (row(hospital)["state"], row(hospital)["rows"]) == ("active", 121)


def test_a_permission_ends_on_the_day_that_was_said(hospital: Hospital, manager: Browser, dataset_id: str) -> None:
    """And at once when it is taken back."""
    manager.post(f"/datasets/{dataset_id}/permit", researcher="alice", until="2099-05-01")
    (granted,) = hospital.node.table(permissions)
    assert time.strftime("%Y-%m-%d", time.localtime(granted["until"])) == "2099-05-01"

    manager.post(f"/datasets/{dataset_id}/forbid", researcher="alice")
    assert hospital.node.table(permissions) == []


def test_nobody_unknown_is_permitted(hospital: Hospital, manager: Browser, dataset_id: str) -> None:
    """A name that was mistyped, or a node's."""
    for name in ("alcie", "south", ""):
        reply = manager.post(f"/datasets/{dataset_id}/permit", researcher=name)
        assert reply.status_code == 400
        assert f"'{name}' is no active researcher of this consortium." in unescape(reply.text)
    assert hospital.node.table(permissions) == []


def test_researchers_of_the_register_are_suggested(hospital: Hospital, manager: Browser, dataset_id: str) -> None:
    """Those alone: a permission for anybody else is refused."""
    write_home(hospital.gui.home)
    page = manager.get(f"/datasets/{dataset_id}").text

    assert re.findall('<option value="([a-z]+)">', page) == ["alice", "mallory"]


def test_description_and_tags_change_unless_somebody_else_was_quicker(
    hospital: Hospital, manager: Browser, dataset_id: str
) -> None:
    """The later of two pages is told."""
    form = {"tags": "new", "description": "other", "shown": "0"}
    assert manager.post(f"/datasets/{dataset_id}/describe", **form).status_code == 302
    assert (row(hospital)["tags"], row(hospital)["description"]) == (["new"], "other")
    assert manager.post(f"/datasets/{dataset_id}/describe", **form).status_code == 409


def test_suspended_and_used_again(hospital: Hospital, manager: Browser, dataset_id: str) -> None:
    """Each by a button that says so."""
    manager.post(f"/datasets/{dataset_id}/suspend", shown="0")
    assert row(hospital)["state"] == "suspended"
    manager.post(f"/datasets/{dataset_id}/resume", shown="1")
    assert row(hospital)["state"] == "active"


def test_a_removal_says_what_ends_and_needs_a_second_click(
    hospital: Hospital, manager: Browser, dataset_id: str
) -> None:
    """The file stays."""
    manager.post(f"/datasets/{dataset_id}/permit", researcher="alice")
    hospital.node.add_plan()
    hospital.node.deliver("alice", hospital.node.train(dataset_id))

    page = manager.get(f"/datasets/{dataset_id}/remove").text
    assert "The permissions of alice end." in page
    assert "e-1" in page
    assert hospital.node.table(datasets) != []
    manager.post(f"/datasets/{dataset_id}/remove", shown=str(row(hospital)["revision"]))
    assert hospital.node.table(datasets) == []
    assert hospital.node.runner.stopped == ["e-1"]
    assert (hospital.data / "trial.csv").is_file()


def test_nothing_that_was_typed_or_read_acts_in_a_page(hospital: Hospital, manager: Browser) -> None:
    """Name, tags, description, header and cells."""
    hospital.write_table("evil.csv", f"age,{SCRIPT}\n" + f"1,{SCRIPT}\n" * 60)
    form = FORM | {"path": "evil.csv", "name": SCRIPT, "tags": SCRIPT, "description": SCRIPT}
    form |= {"source": ["age", SCRIPT], "plan": '[columns.age]\nsource = "age"\n'}
    made = manager.post("/datasets/add", **form)

    assert made.status_code == 302
    for path in (made.location.split("#")[0], "/datasets/", "/datasets/look?path=evil.csv", "/datasets/browse"):
        assert "<script>alert" not in manager.get(path).text


def test_with_the_warden_down_datasets_are_shown_and_nothing_is_changed(
    hospital: Hospital, manager: Browser, dataset_id: str
) -> None:
    """History must not need it."""
    hospital.stop_warden()
    assert manager.get(f"/datasets/{dataset_id}").status_code == 200
    assert manager.get("/datasets/browse").status_code == 503
    assert manager.post(f"/datasets/{dataset_id}/suspend", shown="0").status_code == 503
    assert row(hospital)["state"] == "active"

"""The pages on data and plans in a stranger's hands: paths that lead out, forms too large, decisions nobody took."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.warden.store import datasets, plans
from node_gui.access import Role
from node_gui.app import LARGEST_FORM_BYTES
from tests.conftest import Members
from tests.unit.node_gui.conftest import HTTPS
from tests.unit.node_gui.hospital import Hospital
from tests.unit.warden.conftest import PLAN

OUTSIDE = ["../identity.json", "/etc/passwd", "sub/../../store/node.db", "link", "ring", "\0", "a" * 5000, "sub", "."]


@pytest.fixture
def hospital(tmp_path: Path, members: Members) -> Iterator[Hospital]:
    """A hospital with a table, and with links in its data folder that somebody laid."""
    hospital = Hospital(tmp_path, members)
    hospital.write_table()
    (hospital.data / "sub").mkdir()
    (hospital.data / "link").symlink_to(tmp_path / "store" / "node.db")
    (hospital.data / "ring").symlink_to("ring")
    yield hospital
    hospital.close()


@pytest.mark.parametrize("path", OUTSIDE)
def test_no_path_leads_out_of_the_data_folder_or_to_what_is_no_file(hospital: Hospital, path: str) -> None:
    """Wherever a path is taken, it is refused with a sentence and nothing is registered."""
    manager = hospital.signed_in(Role.DATA_MANAGER)
    replies = [
        manager.get("/datasets/look", query_string={"path": path}),
        manager.post("/datasets/look", path=path),
        manager.post("/datasets/add", path=path, name="x", tags="x", plan='[columns.a]\nsource = "age"\n'),
    ]
    assert [reply.status_code for reply in replies] == [400, 400, 400]
    assert not any("SQLite format" in reply.text or "root:" in reply.text for reply in replies)
    assert hospital.node.table(datasets) == []


def test_a_file_that_became_a_link_is_not_followed_out(hospital: Hospital, tmp_path: Path) -> None:
    """The new version of a dataset is looked at as carefully as the first."""
    dataset_id = hospital.node.add_dataset("registered")
    before = hospital.node.table(datasets)
    (hospital.data / "later.csv").symlink_to(tmp_path / "store" / "node.db")
    manager = hospital.signed_in(Role.DATA_MANAGER)

    assert manager.post(f"/datasets/{dataset_id}/renew", path="later.csv", shown="0").status_code == 400
    assert hospital.node.table(datasets) == before


def test_a_form_that_is_too_large_decides_nothing(hospital: Hospital) -> None:
    """It is not even read."""
    sha256 = hospital.request_plan(PLAN)
    reviewer = hospital.signed_in(Role.REVIEWER)
    reply = reviewer.post(f"/plans/{sha256}/approve", shown="0", note="x" * (LARGEST_FORM_BYTES + 1))

    assert reply.status_code == 413
    assert hospital.node.table(plans)[0]["state"] == "pending"


def test_a_decision_without_the_pages_own_token_is_none(hospital: Hospital) -> None:
    """Another site may make a reviewer's browser send anything."""
    sha256 = hospital.request_plan(PLAN)
    reviewer = hospital.signed_in(Role.REVIEWER)
    for csrf in ("", "guessed"):
        assert reviewer.post(f"/plans/{sha256}/approve", shown="0", csrf=csrf).status_code == 403
    forged = {"base_url": HTTPS, "headers": {"Origin": "https://evil.example"}}
    form = {"csrf": reviewer.csrf, "shown": "0"}
    assert reviewer.client.post(f"/plans/{sha256}/approve", data=form, **forged).status_code == 403
    assert hospital.node.table(plans)[0]["state"] == "pending"


def test_a_replayed_decision_finds_the_plan_changed(hospital: Hospital) -> None:
    """The same form again does not undo what was decided in between."""
    sha256 = hospital.request_plan(PLAN, ranges=())
    reviewer = hospital.signed_in(Role.REVIEWER)
    reviewer.post(f"/plans/{sha256}/approve", shown="0")
    reviewer.post(f"/plans/{sha256}/revoke", shown="1", note="a leak")

    assert reviewer.post(f"/plans/{sha256}/approve", shown="0").status_code == 409
    assert hospital.node.table(plans)[0]["state"] == "revoked"


@pytest.mark.parametrize("role", [Role.ADMINISTRATOR, Role.AUDITOR, Role.DATA_MANAGER])
def test_whoever_is_no_reviewer_decides_on_no_plan(hospital: Hospital, role: Role) -> None:
    """Nor sees a button for it."""
    sha256 = hospital.request_plan(PLAN)
    person = hospital.signed_in(role)
    assert "Your decision" not in person.get(f"/plans/{sha256}").text
    assert person.post(f"/plans/{sha256}/approve", shown="0").status_code == 403
    assert hospital.node.table(plans)[0]["state"] == "pending"

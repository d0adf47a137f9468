"""The record as staff read it, with the warden up or down."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from appliance.protocol.errors import Code, FedWardError
from appliance.warden.history import History
from appliance.warden.store import FILE_NAME, settings
from tests.unit.warden.conftest import PLAN, PLAN_SHA, Node


def test_history_cannot_write(node: Node) -> None:
    """The warden is the only writer."""
    history = History(node.root)
    with history._read() as connection, pytest.raises(sa.exc.OperationalError, match="readonly"):
        connection.execute(settings.insert().values(name="a", value="1"))


def test_history_is_readable_while_the_warden_is_down(node: Node) -> None:
    """What happened must not need the one that it is about."""
    node.add_dataset()
    node.close()
    assert [dataset["name"] for dataset in History(node.root).datasets()] == ["trial"]


def test_a_node_that_never_ran_is_said_to_have_never_run(tmp_path: Path) -> None:
    """Not a traceback about a file."""
    with pytest.raises(FedWardError) as refusal:
        History(tmp_path)
    assert refusal.value.code is Code.NODE_NOT_RUNNING


def test_a_store_that_cannot_be_read_is_called_corrupt(tmp_path: Path) -> None:
    """The remedy is a backup."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / FILE_NAME).write_bytes(b"not a database" * 100)
    with pytest.raises(FedWardError) as refusal:
        History(tmp_path).datasets()
    assert refusal.value.code is Code.STORE_CORRUPT


def test_datasets_come_with_their_permissions(node: Node) -> None:
    """Who may use what is one question."""
    node.add_dataset(researchers=("alice", "mallory"))
    found = History(node.root).dataset("trial")
    assert [permission["researcher"] for permission in found["permissions"]] == ["alice", "mallory"]
    assert History(node.root).dataset(found["id"]) == found


def test_an_unknown_dataset_is_named(node: Node) -> None:
    """It was mistyped."""
    with pytest.raises(FedWardError, match="'trail'"):
        History(node.root).dataset("trail")


@pytest.mark.parametrize("prefix", [PLAN_SHA, PLAN_SHA[:6], "plan"])
def test_a_plan_is_found_by_its_name_or_the_beginning_of_its_hash(node: Node, prefix: str) -> None:
    """Nobody types 64 characters."""
    node.add_plan()
    assert History(node.root).plan(prefix)["sha256"] == PLAN_SHA


@pytest.mark.parametrize("prefix", ["", "%", "______", "%%%%%%", PLAN_SHA[:5], "nothing"])
def test_what_names_no_plan_finds_none(node: Node, prefix: str) -> None:
    """Approving the wrong plan would be the worst of mistakes."""
    node.add_plan()
    with pytest.raises(FedWardError) as refusal:
        History(node.root).plan(prefix)
    assert refusal.value.code is Code.PLAN_UNKNOWN


def test_a_name_that_two_plans_share_is_not_guessed(node: Node) -> None:
    """The reader is given both hashes to choose from."""
    node.add_plan()
    other = node.add_plan(PLAN + "\n# changed")
    with pytest.raises(FedWardError, match=other[:12]):
        History(node.root).plan("plan")


def test_a_plans_changes_are_shown_against_the_last_approved_of_its_name(node: Node) -> None:
    """A reviewer reads what is new."""
    node.add_plan()
    other = node.add_plan(PLAN + "import socket\n")
    diff = History(node.root).plan_diff(other)
    assert "+import socket" in diff
    assert PLAN_SHA[:12] in diff


def test_a_first_plan_has_nothing_to_be_compared_with(node: Node) -> None:
    """Which is not an error."""
    node.add_plan()
    assert History(node.root).plan_diff("plan") == ""


def test_a_rounds_record_is_shown_to_staff_and_its_request_is_not_dragged_along(node: Node) -> None:
    """The list of all rounds must stay light."""
    node.round(node.accepted()).run()
    history = History(node.root)
    assert history.record("e-1", 1) == "epoch 1 done"
    assert {"request", "record", "result"}.isdisjoint(history.rounds("e-1")[0])
    assert history.rounds("other") == []

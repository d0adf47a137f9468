"""Datasets: inside the data folder only, and visible to those alone whom a permission names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from appliance.protocol.errors import Code, FedWardError
from appliance.warden.datasets import ACTIVE, CHANGED, SUSPENDED, DatasetSpec, DatasetUnknownError, source_of
from appliance.warden.store import datasets, permissions
from tests.unit.warden.conftest import COLUMNS, Node

REPORT = {"rows": 120, "columns": COLUMNS, "fingerprint": "b" * 64}


def do(node: Node, action: str, *args: Any, **options: Any) -> Any:
    """A write of the book's, in its own transaction."""
    with node.store.write() as connection:
        return getattr(node.services.datasets, action)(connection, *args, **options)


def visible(node: Node, researcher: str) -> list[str]:
    """The names of what a researcher sees."""
    with node.store.read() as connection:
        return [info.name for info in node.services.datasets.visible_to(connection, researcher)]


def usable(node: Node, dataset_id: str, researcher: str) -> dict[str, Any]:
    """The dataset's row, if the researcher may use it."""
    with node.store.read() as connection:
        return node.services.datasets.require_usable(connection, dataset_id, researcher)


def test_only_whom_a_permission_names_sees_a_dataset(node: Node, dataset_id: str) -> None:
    """That a hospital has such data at all may be a secret."""
    assert visible(node, "alice") == ["trial"]
    assert visible(node, "mallory") == []


def test_an_unknown_dataset_and_a_forbidden_one_read_alike(node: Node, dataset_id: str) -> None:
    """Otherwise names and ids could be tried out."""
    with pytest.raises(DatasetUnknownError) as forbidden:
        usable(node, dataset_id, "mallory")
    with pytest.raises(DatasetUnknownError) as unknown:
        usable(node, "0" * 16, "mallory")
    assert forbidden.value.message.replace(dataset_id, "X") == unknown.value.message.replace("0" * 16, "X")
    assert forbidden.value.code is unknown.value.code


def test_a_permission_ends_by_itself(node: Node, dataset_id: str) -> None:
    """Nobody has to remember it."""
    do(node, "permit", "Dr. Weiss", dataset_id, "mallory", until=node.clock() + 60)
    assert visible(node, "mallory") == ["trial"]
    node.clock.ahead_s = 61
    assert visible(node, "mallory") == []
    with pytest.raises(FedWardError) as refusal:
        usable(node, dataset_id, "mallory")
    assert refusal.value.code is Code.PERMISSION_DENIED


def test_a_permission_cannot_end_before_it_begins(node: Node, dataset_id: str) -> None:
    """A wrong year would look like a permission."""
    with pytest.raises(FedWardError, match="past"):
        do(node, "permit", "Dr. Weiss", dataset_id, "mallory", until=node.clock() - 1)


def test_a_new_permission_replaces_the_old_one(node: Node, dataset_id: str) -> None:
    """A longer one and a shorter one must not hold at once."""
    do(node, "permit", "Dr. Weiss", dataset_id, "alice", until=node.clock() + 60)
    node.clock.ahead_s = 61
    assert visible(node, "alice") == []


def test_a_permission_taken_back_is_gone(node: Node, dataset_id: str) -> None:
    """At once."""
    do(node, "forbid", "Dr. Weiss", dataset_id, "alice")
    assert visible(node, "alice") == []


def test_a_researcher_cannot_use_a_dataset_by_its_name(node: Node, dataset_id: str) -> None:
    """One dataset's name may be another's id; permissions hang on ids."""
    other = node.add_dataset(dataset_id, researchers=("mallory",))
    assert usable(node, dataset_id, "alice")["id"] == dataset_id
    with pytest.raises(DatasetUnknownError):
        usable(node, "trial", "alice")
    with node.store.read() as connection:
        assert node.services.datasets.require(connection, dataset_id)["id"] == dataset_id
        assert node.services.datasets.require(connection, "trial")["id"] == dataset_id
    assert other != dataset_id


@pytest.mark.parametrize(("state", "code"), [(SUSPENDED, Code.DATASET_SUSPENDED), (CHANGED, Code.DATASET_CHANGED)])
def test_a_dataset_that_is_not_active_is_neither_seen_nor_used(
    node: Node, dataset_id: str, state: str, code: Code
) -> None:
    """Whoever may use it reads why not."""
    do(node, "set_state", "Dr. Weiss", dataset_id, state)
    assert visible(node, "alice") == []
    with pytest.raises(FedWardError) as refusal:
        usable(node, dataset_id, "alice")
    assert refusal.value.code is code


@pytest.mark.parametrize("path", ["../secret.csv", "sub/../../secret.csv", "/etc/passwd", "link.csv", "folder/x.csv"])
def test_a_path_or_a_link_out_of_the_data_folder_is_refused(node: Node, path: str) -> None:
    """Keys lie one folder further up."""
    data = node.root / "data"
    (node.root / "secret.csv").write_text("x")
    (node.root / "x.csv").write_text("x")
    (data / "sub").mkdir()
    (data / "link.csv").symlink_to(node.root / "secret.csv")
    (data / "folder").symlink_to(node.root)
    with pytest.raises(FedWardError) as refusal:
        node.services.datasets.locate(path)
    assert refusal.value.code is Code.DATASET_INVALID
    assert "outside" in refusal.value.message


def test_a_folder_whose_name_only_begins_alike_is_outside(node: Node) -> None:
    """``data-old`` is not inside ``data``."""
    (node.root / "data-old").mkdir()
    (node.root / "data-old" / "x.csv").write_text("x")
    with pytest.raises(FedWardError, match="outside"):
        node.services.datasets.locate("../data-old/x.csv")


def test_a_link_inside_the_data_folder_is_kept_as_the_file_that_it_means(node: Node) -> None:
    """Turned round later, it must not lead elsewhere."""
    data = node.root / "data"
    (data / "real.csv").write_text("x")
    (data / "link.csv").symlink_to(data / "real.csv")
    spec = DatasetSpec(name="linked", path="link.csv", tags=("opt",))
    do(node, "add", "Dr. Weiss", spec, REPORT)
    assert node.table(datasets)[0]["path"] == str((data / "real.csv").resolve())


def test_a_file_that_is_not_there_is_named(node: Node) -> None:
    """The data manager mistyped it."""
    with pytest.raises(FedWardError, match=r"nothing\.csv"):
        node.services.datasets.locate("nothing.csv")


def test_two_datasets_cannot_have_one_name(node: Node, dataset_id: str) -> None:
    """Staff name them by it."""
    with pytest.raises(FedWardError, match="trial"):
        node.add_dataset("trial")


@pytest.mark.parametrize("column", [{"name": "x" * 129, "type": "number"}, {"name": "", "type": "number"}])
def test_a_column_that_no_message_can_carry_is_found_at_registration(node: Node, column: dict[str, str]) -> None:
    """Found at each search instead, it would make the node mute."""
    (node.root / "data" / "x.csv").write_text("x")
    spec = DatasetSpec(name="x", path="x.csv", tags=("opt",))
    with pytest.raises(FedWardError) as refusal:
        do(node, "add", "Dr. Weiss", spec, REPORT | {"columns": [column]})
    assert refusal.value.code is Code.DATASET_INVALID


def test_what_a_researcher_sees_is_no_path_and_no_value(node: Node, dataset_id: str) -> None:
    """The description of a dataset leaves the hospital."""
    with node.store.read() as connection:
        told = node.services.datasets.visible_to(connection, "alice")[0].model_dump_json()
    assert str(node.root) not in told
    assert "trial.csv" not in told


def test_changed_files_are_used_again_once_staff_accept_them(node: Node, dataset_id: str) -> None:
    """Until then no round runs on them."""
    do(node, "mark_changed", dataset_id)
    assert visible(node, "alice") == []
    do(node, "accept_files", "Dr. Weiss", dataset_id, REPORT)
    row = usable(node, dataset_id, "alice")
    assert (row["rows"], row["fingerprint"], row["state"]) == (120, "b" * 64, ACTIVE)


def test_files_that_are_the_registered_ones_again_may_be_used_again(node: Node, dataset_id: str) -> None:
    """A copy that was put back must not leave the dataset locked for ever."""
    do(node, "mark_changed", dataset_id)
    do(node, "confirm_files", "Dr. Weiss", dataset_id)
    assert visible(node, "alice") == ["trial"]


def test_a_suspended_dataset_stays_so_whatever_happens_to_its_files(node: Node, dataset_id: str) -> None:
    """Somebody had a reason, and it was not the files."""
    do(node, "set_state", "Dr. Weiss", dataset_id, SUSPENDED)
    do(node, "mark_changed", dataset_id)
    do(node, "accept_files", "Dr. Weiss", dataset_id, REPORT)
    do(node, "confirm_files", "Dr. Weiss", dataset_id)
    assert node.table(datasets)[0]["state"] == SUSPENDED


def test_a_removed_dataset_takes_its_permissions_with_it(node: Node, dataset_id: str) -> None:
    """A later one with the same id must not inherit them."""
    do(node, "remove", "Dr. Weiss", dataset_id)
    assert node.table(permissions) == []
    with pytest.raises(DatasetUnknownError):
        usable(node, dataset_id, "alice")


def test_the_runner_is_told_the_fingerprint_that_staff_registered(node: Node, dataset_id: str) -> None:
    """It reads the file at each round, and must know which one."""
    source = source_of(node.table(datasets)[0])
    assert source.fingerprint == "a" * 64
    assert Path(source.path).is_absolute()


def test_a_crash_while_a_dataset_is_added_leaves_neither_it_nor_its_permissions(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a registration would be a dataset that nobody asked for."""

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(node.services.datasets, "permit", fail)
    with pytest.raises(KeyboardInterrupt):
        node.add_dataset()
    with node.store.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(datasets)) == 0
    assert node.audit() == []

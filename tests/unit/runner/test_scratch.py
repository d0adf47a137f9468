"""Scratch folders, and what a plan may have done to them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.runner.scratch import MAX_ENTRIES, is_within, make_scratch, wipe


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    """A fresh scratch folder."""
    return make_scratch(tmp_path, "1", None)


def test_a_scratch_folder_is_private(scratch: Path) -> None:
    """Another plan may run as the same user, but other users have no way in."""
    assert scratch.stat().st_mode & 0o777 == 0o700


def test_files_in_folders_count(scratch: Path) -> None:
    """A limit that looks only at the top is none."""
    (scratch / "a").mkdir()
    (scratch / "a" / "large").write_bytes(bytes(100_000))

    assert is_within(scratch, 1 << 20)
    assert not is_within(scratch, 50_000)


def test_empty_files_count(scratch: Path) -> None:
    """They use up the disk's table of files."""
    for number in range(MAX_ENTRIES + 1):
        (scratch / str(number)).touch()

    assert not is_within(scratch, 1 << 30)


def test_a_link_is_not_followed(scratch: Path, tmp_path: Path) -> None:
    """Wiping must not leave the scratch folder."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("kept")
    (scratch / "link").symlink_to(tmp_path / "outside")
    wipe(scratch)

    assert (tmp_path / "outside" / "kept").exists()
    assert not scratch.exists()


def test_a_link_in_the_folders_place_is_not_followed(scratch: Path, tmp_path: Path) -> None:
    """Where Landlock is missing, a plan can put one there for the cleaning to follow."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "kept").write_text("kept")
    scratch.rmdir()
    scratch.symlink_to(tmp_path / "outside")
    wipe(scratch)

    assert (tmp_path / "outside" / "kept").exists()
    assert not scratch.is_symlink()


def test_a_tree_too_deep_for_a_path_is_wiped(scratch: Path) -> None:
    """A plan builds one in a second."""
    home = Path.cwd()
    try:
        os.chdir(scratch)
        for _ in range(1500):
            Path("deeper").mkdir()
            os.chdir("deeper")
    finally:
        os.chdir(home)
    assert not is_within(scratch, 1 << 30)
    wipe(scratch)

    assert list(scratch.parent.iterdir()) == []


def test_a_folder_without_rights_is_wiped(scratch: Path) -> None:
    """Its owner can take the rights away, and so can a plan."""
    (scratch / "closed" / "inner").mkdir(parents=True)
    (scratch / "closed" / "inner").chmod(0)
    (scratch / "closed").chmod(0)
    wipe(scratch)

    assert not scratch.exists()

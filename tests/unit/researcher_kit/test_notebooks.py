"""The one-time link that opens the notebooks, and the tutorials that lie there."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.protocol.errors import ConfigurationError
from researcher_kit import notebooks
from researcher_kit.notebooks import LINK_FILE, TUTORIALS, OneTimeLink, place_tutorials, read_config


def test_a_link_opens_once(tmp_path: Path) -> None:
    """The second time it may be somebody else's."""
    link = OneTimeLink(tmp_path)
    token = link.make(hours=1)

    assert (link.redeem(token), link.redeem(token)) == (True, False)


def test_a_wrong_token_leaves_the_link_as_it_is(tmp_path: Path) -> None:
    """A stranger's guess must not lock the researcher out."""
    link = OneTimeLink(tmp_path)
    token = link.make(hours=1)

    assert (link.redeem("guess"), link.redeem(token)) == (False, True)


def test_a_link_that_has_ended_opens_nothing(tmp_path: Path) -> None:
    """It may lie in a mailbox for years."""
    link = OneTimeLink(tmp_path)

    assert not link.redeem(link.make(hours=0))


def test_only_its_hash_is_kept_and_for_nobody_else_to_read(tmp_path: Path) -> None:
    """Who reads the file must not get in with it."""
    token = OneTimeLink(tmp_path).make(hours=1)
    file = tmp_path / LINK_FILE

    assert (token in file.read_text(), oct(file.stat().st_mode & 0o777)) == (False, "0o600")


def test_a_misspelt_setting_is_named(tmp_path: Path) -> None:
    """With its file, so that whoever wrote it finds it."""
    (tmp_path / "kit.toml").write_text("prot = 8889\n")

    with pytest.raises(ConfigurationError, match=r"kit\.toml: prot"):
        read_config(tmp_path)


def test_the_tutorials_lie_among_the_notebooks(tmp_path: Path) -> None:
    """The first that a researcher sees; each has its words beside its code."""
    place_tutorials(tmp_path)
    found = sorted(file.name for file in (tmp_path / "tutorials").glob("*.ipynb"))

    assert found == sorted(file.name for file in TUTORIALS.glob("*.ipynb"))
    assert found[0] == "01-first-experiment.ipynb"


def test_a_tutorial_that_was_changed_stays_and_the_others_are_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upgrade brings new ones, and takes nobody's work."""
    release = tmp_path / "release"
    release.mkdir()
    monkeypatch.setattr(notebooks, "TUTORIALS", release)
    for name in ("a.ipynb", "b.ipynb"):
        (release / name).write_text("old")
    place_tutorials(tmp_path)
    (tmp_path / "tutorials/a.ipynb").write_text("mine")
    for name in ("a.ipynb", "b.ipynb"):
        (release / name).write_text("new")
    place_tutorials(tmp_path)

    assert [(tmp_path / "tutorials" / name).read_text() for name in ("a.ipynb", "b.ipynb")] == ["mine", "new"]

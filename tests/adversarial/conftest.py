"""A runner that hostile plans attack, in a folder with things that are none of theirs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hospitals import federation, hospitals
from tests.runners import Runner, running, write_table

__all__ = ["federation", "hospitals", "runner"]


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """One runner for all attacks: that it stands them all is part of the claim."""
    folder = tmp_path_factory.mktemp("hospital")
    write_table(folder / "data" / "south.csv")
    (folder / "keys").mkdir()
    (folder / "keys" / "identity.pem").write_text("the key")
    with running(folder) as started:
        yield started

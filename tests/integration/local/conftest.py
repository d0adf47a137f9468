"""Two hospitals on this machine, for the tests that leave them as they were."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from researcher_kit import LocalFederation
from tests.runners import write_table


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two hospitals' files, of different sizes."""
    folder = tmp_path_factory.mktemp("tables")
    return {node: write_table(folder / f"{node}.csv", rows) for node, rows in (("north", 100), ("south", 60))}


@pytest.fixture(scope="module")
def local(tables: dict[str, Path]) -> Iterator[LocalFederation]:
    """Both of them, with real runners."""
    with LocalFederation(tables) as federation:
        yield federation

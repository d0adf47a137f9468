"""A runner for all tests of this folder: each uses an experiment of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runners import Runner, running


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """A runner as an ordinary start gives it."""
    with running(tmp_path_factory.mktemp("runner")) as started:
        yield started

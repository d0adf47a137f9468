"""Consortia that run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.embedded.consortium import EmbeddedConsortium


@pytest.fixture
def consortium(tmp_path: Path) -> Iterator[EmbeddedConsortium]:
    """North, south and alice, with a broker that runs."""
    consortium = EmbeddedConsortium(tmp_path / "run", nodes=["north", "south"], researchers=["alice"])
    consortium.start(["broker"])
    yield consortium
    consortium.stop()

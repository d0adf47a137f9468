"""Tables as hospitals send them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.data import LoadingPlan

Table = Callable[[str | bytes], Path]


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Writes a table of north's and returns its path."""

    def write(content: str | bytes) -> Path:
        path = tmp_path / "north.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


@pytest.fixture
def plan_of() -> Callable[..., LoadingPlan]:
    """A loading plan from columns and settings."""

    def make(columns: dict[str, object] | None = None, **settings: object) -> LoadingPlan:
        return LoadingPlan.parse({"columns": columns or {}, **settings})

    return make

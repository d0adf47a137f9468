"""A network host that lies to a federator about its queue: what it says there becomes no path and no endless work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from researcher_kit.federator import JOBS, Federator
from tests.simulator import Consortium, MemoryFiles, MemoryWire

NAMES = ["../keys", "..", ".", "", "../../alice/keys", "/", "jobs\n", "-c", "%2e%2e", "x" * 300, "0" * 32, None]


@pytest.fixture
def consortium(tmp_path: Path) -> Iterator[Consortium]:
    """Alice, her federator and their hospitals."""
    found = Consortium(tmp_path)
    yield found
    found.close()


@pytest.fixture
def federator(consortium: Consortium) -> Federator:
    """It has not looked into its queue yet."""
    return Federator(consortium.folder / "fed", wire=MemoryWire(consortium))


def _tree(folder: Path) -> set[Path]:
    return {*folder.rglob("*")}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("call", ["claimed", "listed"])
def test_a_jobs_name_leads_nowhere(
    call: str, name: Any, federator: Federator, consortium: Consortium, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job's id names a folder here, and the host makes it up: nothing is written and no process begins."""
    answers = [[], {"id": name}] if call == "claimed" else [[{"id": name}], None]
    monkeypatch.setattr(MemoryFiles, "jobs_list", lambda *_, **__: answers[0])
    monkeypatch.setattr(MemoryFiles, "jobs_claim", lambda *_: answers[1])
    before = _tree(consortium.folder)

    federator.turn()  # and ends, however often it is handed the same job

    assert federator.running == ()
    assert _tree(consortium.folder) == before
    assert [*(consortium.folder / "fed" / JOBS).iterdir()] == []

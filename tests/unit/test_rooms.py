"""No room is left out of the import contracts."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
TOP_LEVEL = {"node_gui", "researcher_kit", "secagg_mpc"}


def test_every_room_has_a_contract() -> None:
    """A room without one could import anything, and nobody would notice; the command line may."""
    rooms = {f"appliance.{path.parent.name}" for path in ROOT.glob("appliance/*/__init__.py")}
    rooms |= TOP_LEVEL

    assert {room for contract in CONTRACTS for room in contract["source_modules"]} == rooms - {"appliance.cli"}


def test_every_room_says_what_it_is_for() -> None:
    """Whoever opens a folder should not have to guess."""
    rooms = [*ROOT.glob("appliance/*/__init__.py"), *(ROOT / f"{name}/__init__.py" for name in TOP_LEVEL)]

    assert [room for room in rooms if not room.read_text().startswith('"""')] == []

"""The soak in small, so that ``make soak`` works on the day when somebody needs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.schedule import Victim, make_schedule
from tests.soak.soak import Soak
from tests.soak.verdict import judge

pytestmark = pytest.mark.timeout(400)  # parts are started again, which is long on a busy machine

SEED, ROUNDS, NODES = 3, 12, ("north", "south")


def test_twelve_rounds_outlive_a_kill_of_each_part(tmp_path: Path) -> None:
    """Everybody dies once: nothing is lost, nothing is done twice, nothing is left behind."""
    told: list[str] = []
    soak = Soak(tmp_path / "s", seed=SEED, rounds=ROUNDS, nodes=NODES, tell=told.append)
    soak.run()
    verdict = judge(soak)

    assert verdict.is_good, (verdict, told)
    assert verdict.completed == ROUNDS
    assert verdict.accepted >= ROUNDS * len(NODES)
    assert soak.kills.keys() >= {*Victim} - {Victim.CHILD}  # a child may have ended by itself


def test_a_seed_is_a_schedule() -> None:
    """Whoever finds a fault can look for it again."""
    assert make_schedule(SEED, 500, NODES) == make_schedule(SEED, 500, NODES)
    assert make_schedule(SEED, 500, NODES) != make_schedule(SEED + 1, 500, NODES)

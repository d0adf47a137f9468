"""What the demo trains, and what its researcher asks for next."""

from __future__ import annotations

import ast

from appliance.demo.settings import CHANGES, PLAN, next_version


def test_every_change_of_the_next_version_finds_its_place() -> None:
    """A change that finds none would leave the newcomer with less to compare."""
    text = PLAN.read_text()

    assert [text.count(before) for before, _after in CHANGES] == [1] * len(CHANGES)


def test_the_next_version_is_a_plan() -> None:
    """Whoever approves it may want to train it."""
    names = [node.name for node in ast.walk(ast.parse(next_version())) if isinstance(node, ast.ClassDef)]

    assert names == ["BleedingPlan"]

"""The steps of a round: one order, with room for secure aggregation."""

from __future__ import annotations

import pytest

from appliance.protocol.rounds import ALL_STEPS, FINAL_STEPS, PLAIN_STEPS, SECAGG_STEPS, RoundStep


def test_without_secure_aggregation_its_steps_are_passed_over() -> None:
    """They have their places, and cost nothing."""
    assert [step for step in ALL_STEPS if step not in SECAGG_STEPS] == [*PLAIN_STEPS]


@pytest.mark.parametrize("earlier, later", [("accepted", "fetched"), ("fetched", "trained"), ("checked", "submit")])
@pytest.mark.parametrize("steps", [ALL_STEPS, PLAIN_STEPS], ids=["all", "plain"])
def test_the_guard_stands_before_the_door(earlier: str, later: str, steps: tuple[RoundStep, ...]) -> None:
    """Nothing is trained before it was accepted, and nothing is sent before it was checked."""
    assert steps.index(RoundStep(earlier)) < steps.index(RoundStep(later))


@pytest.mark.parametrize("steps", [ALL_STEPS, PLAIN_STEPS], ids=["all", "plain"])
def test_a_round_ends_where_its_steps_end(steps: tuple[RoundStep, ...]) -> None:
    """Work that ended stays ended, and none is stuck between two steps."""
    assert [step for step in steps if step.is_final] == [steps[-1]] == [RoundStep.REPLIED]
    assert {step for step in RoundStep if step.is_final} == FINAL_STEPS

"""The steps of a round: one order, with room for secure aggregation."""

from __future__ import annotations

import pytest

from appliance.protocol.rounds import ALL_STEPS, FINAL_STEPS, PLAIN_STEPS, SECAGG_STEPS, RoundStep, next_step


def walk(*, secagg: bool) -> list[RoundStep]:
    """Every step from the first to the last."""
    steps, step = [], RoundStep.ACCEPTED
    while step is not None:
        steps.append(step)
        step = next_step(step, secagg=secagg)
    return steps


@pytest.mark.parametrize(("secagg", "steps"), [(False, PLAIN_STEPS), (True, ALL_STEPS)])
def test_a_round_walks_its_steps_in_order(secagg: bool, steps: tuple[RoundStep, ...]) -> None:
    """A crash resumes behind the last finished step: the order is what it resumes in."""
    assert walk(secagg=secagg) == list(steps)


def test_without_secure_aggregation_its_steps_are_passed_over() -> None:
    """They have their places, and cost nothing."""
    assert not SECAGG_STEPS & set(walk(secagg=False))


@pytest.mark.parametrize("earlier, later", [("accepted", "fetched"), ("fetched", "trained"), ("checked", "submit")])
@pytest.mark.parametrize("secagg", [True, False])
def test_the_guard_stands_before_the_door(earlier: str, later: str, secagg: bool) -> None:
    """Nothing is trained before it was accepted, and nothing is sent before it was checked."""
    steps = walk(secagg=secagg)

    assert steps.index(RoundStep(earlier)) < steps.index(RoundStep(later))


@pytest.mark.parametrize("step", sorted(FINAL_STEPS))
def test_nothing_follows_a_final_step(step: RoundStep) -> None:
    """Work that ended stays ended."""
    assert step.is_final
    assert next_step(step, secagg=True) is None


@pytest.mark.parametrize("step", [step for step in RoundStep if step not in FINAL_STEPS])
def test_something_follows_every_other_step(step: RoundStep) -> None:
    """No round is stuck between two steps."""
    assert next_step(step, secagg=True) is not None

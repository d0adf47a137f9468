"""A model that is about to be given its parameters is filled without a draw for each number."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from appliance.training.determinism import reproducible
from appliance.training.repeated_draws import BLOCK, RepeatedDraws

LARGE, SMALL = (3, BLOCK), (2, 5)


def drawn(shape: tuple[int, int], kind: str = "uniform_") -> torch.Tensor:
    """A parameter as ``RepeatedDraws`` fills it."""
    parameter = torch.nn.Parameter(torch.full(shape, torch.nan))
    with RepeatedDraws():
        getattr(torch.nn.init, kind)(parameter)
    return parameter.detach()


@pytest.mark.parametrize("kind", ["uniform_", "normal_", "kaiming_uniform_", "xavier_normal_"])
def test_a_large_parameter_repeats_its_first_numbers(kind: str) -> None:
    """Each number has a value of its distribution, whichever of the library's ways fills it."""
    first, second, third = drawn(LARGE, kind)

    assert len(first.unique()) > BLOCK // 2
    assert torch.equal(first, second)
    assert torch.equal(first, third)


@pytest.mark.parametrize("extra", [1, BLOCK - 1, BLOCK, BLOCK + 1])
def test_no_number_is_left_out(extra: int) -> None:
    """What is left as it lay in memory would differ from process to process."""
    numbers = drawn((1, BLOCK + extra)).flatten()

    assert not numbers.isnan().any()
    assert torch.equal(numbers[BLOCK:][:BLOCK], numbers[: min(extra, BLOCK)])


def test_a_small_parameter_and_what_is_no_parameter_are_drawn_as_ever() -> None:
    """A buffer may be the node's own and stay; a small parameter costs nothing."""

    def draw() -> list[torch.Tensor]:
        small = torch.nn.Parameter(torch.empty(SMALL))
        torch.nn.init.normal_(small)
        return [small.detach(), torch.randn(LARGE), torch.empty(LARGE).uniform_()]

    with reproducible(1):
        expected = draw()
    with reproducible(1), RepeatedDraws():
        found = draw()

    assert all(map(torch.equal, found, expected))


def test_a_parameter_that_does_not_lie_in_one_piece_is_drawn_whole() -> None:
    """A view of it in a row would be a copy, and the parameter left unfilled."""
    parameter = torch.nn.Parameter(torch.full((BLOCK, 2), torch.nan).t())
    with RepeatedDraws():
        torch.nn.init.uniform_(parameter)

    assert not parameter.isnan().any()
    assert not torch.equal(parameter[0], parameter[1])


def test_an_empty_parameter_stays_empty() -> None:
    """Some layers have none until they see data."""
    assert drawn((0, 4)).shape == (0, 4)


def test_a_compiler_is_not_loaded() -> None:
    """Its modules would be in every training process, and a second more would pass before the first."""
    code = """
import sys, torch
from appliance.training.repeated_draws import RepeatedDraws
with RepeatedDraws():
    torch.nn.Linear(2, 1)
print("torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)

    assert done.stdout == "False\n"

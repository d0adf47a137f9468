"""The same seed gives the same draws, also beside another experiment of the same notebook."""

from __future__ import annotations

import random
import threading

import numpy as np
import torch

from appliance.training.determinism import reproducible

BESIDE_S = 0.3  # how long a thread that does not wait would have for its draws


def _draw() -> tuple[float, float, float]:
    return random.random(), float(np.random.random()), float(torch.rand(1))  # noqa: NPY002 - what plans draw from


def test_a_seed_decides_each_draw() -> None:
    """Python's, NumPy's and PyTorch's generators alike."""
    with reproducible(1):
        once = [_draw(), _draw()]
    with reproducible(1):
        again = [_draw(), _draw()]
    with reproducible(2):
        other = [_draw(), _draw()]

    assert once == again
    assert once != other


def test_what_was_set_before_is_put_back() -> None:
    """A notebook's own draws go on as if nothing had been."""
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    with reproducible(1):
        _draw()

    assert torch.equal(torch.rand(1), expected)


def test_two_experiments_of_one_notebook_do_not_take_each_others_draws() -> None:
    """The generators belong to the process: a second thread that seeds them would change what the first draws."""
    with reproducible(1):
        alone = [_draw(), _draw()]
    is_done = threading.Event()

    def disturb() -> None:
        with reproducible(2):
            _draw()
        is_done.set()

    beside = threading.Thread(target=disturb)
    with reproducible(1):
        first = _draw()
        beside.start()
        waited = not is_done.wait(BESIDE_S)
        together = [first, _draw()]
    beside.join(30)

    assert waited
    assert together == alone
    assert is_done.is_set()


def test_a_plan_may_ask_for_it_within_itself() -> None:
    """As a batch does, whose seed is its own."""
    with reproducible(1), reproducible(1):
        inner = _draw()
    with reproducible(1):
        assert _draw() == inner

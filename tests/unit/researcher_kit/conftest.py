"""Three hospitals and alice, who trains a small model with them, all in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from torch import nn

from researcher_kit import DataManager, Experiment, Federation, TorchTrainingPlan
from tests.simulator import Consortium


class SmallPlan(TorchTrainingPlan):
    """A model with floats, and with a counter that is an integer."""

    def init_dependencies(self):
        """What the plan imports."""
        return ["from torch import nn"]

    def init_model(self, model_args):
        """Two layers."""
        return nn.Sequential(nn.Linear(model_args["inputs"], 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def training_data(self):
        """Nobody trains here: simulated nodes have no data."""
        return DataManager([0.0], [0.0])

    def training_step(self, data, target):
        """Likewise."""
        return ((self.model()(data) - target) ** 2).mean()


SETTINGS = {
    "tags": ["demo"],
    "training_plan_class": SmallPlan,
    "model_args": {"inputs": 3},
    "training_args": {"epochs": 1, "random_seed": 7},
    "round_limit": 3,
}


@pytest.fixture(autouse=True)
def uploads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' models are small: without this they would all be enclosed, and no file would ever be transferred."""
    if "encloses" not in request.fixturenames:
        monkeypatch.setattr("researcher_kit.round.MAX_ENCLOSED_BYTES", 0)


@pytest.fixture
def encloses() -> None:
    """Let small files travel inside their messages, as outside the tests."""


@pytest.fixture
def consortium(tmp_path: Path) -> Iterator[Consortium]:
    """north, south and west, each with one dataset tagged demo."""
    found = Consortium(tmp_path)
    yield found
    found.close()


@pytest.fixture
def federation(consortium: Consortium) -> Iterator[Federation]:
    """Alice's connection."""
    with consortium.federation() as found:
        yield found


@pytest.fixture
def make(federation: Federation) -> Callable[..., Experiment]:
    """An experiment that could run, but for what the test changes."""

    def making(**changes: object) -> Experiment:
        return Experiment(**{**SETTINGS, "federation": federation} | changes)

    return making


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    """Whether two models are the same, bit by bit."""
    assert one.keys() == other.keys()
    return all(one[name].tobytes() == other[name].tobytes() for name in one)

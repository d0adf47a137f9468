"""Federated standardisation, and the hooks before and behind the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import SGDRegressor

from appliance.data import Dataset
from appliance.training import (
    ArgumentInvalidError,
    DataManager,
    PlanInvalidError,
    SklearnTrainingPlan,
    Standardise,
    TorchTrainingPlan,
)
from researcher_kit.aggregators import FedAdam, Scaffold
from tests.unit.training.federated import federated

Built = Callable[..., Any]
Make = Callable[..., Dataset]
STEPS = {"num_updates": 3, "optimizer_args": {"lr": 0.01}}


class _Net(TorchTrainingPlan):
    """A linear model on two columns of another size."""

    def init_model(self, model_args: dict[str, Any]) -> torch.nn.Module:
        return torch.nn.Linear(2, 1)

    def init_standardisation(self) -> Standardise:
        return Standardise(2, sizes=[1, 1000])

    def training_data(self) -> DataManager:
        return DataManager(_columns(self.dataset), self.dataset.matrix(["y"]))

    def training_step(self, data: Any, target: Any) -> Any:
        self.seen = data
        return torch.nn.functional.mse_loss(self.model()(data), target)


def _columns(dataset: Dataset) -> np.ndarray:
    return dataset.matrix(["x", "z"]).astype(np.float64) * [1, 500] + [0, 3000]


@pytest.fixture
def hospitals(make_dataset: Make) -> list[Dataset]:
    """Ten rows at one hospital, sixty at another."""
    return [make_dataset(10), make_dataset(60)]


def test_the_pooled_mean_and_deviation_are_found(hospitals: list[Dataset]) -> None:
    """Not the mean of the hospitals' deviations: their means differ as well."""
    found = federated(_Net, hospitals, rounds=1, **STEPS)

    pooled = np.concatenate([_columns(each) for each in hospitals])
    np.testing.assert_allclose(found._standardise.mean, pooled.mean(axis=0))
    np.testing.assert_allclose(found._standardise.deviation, pooled.std(axis=0))


@pytest.mark.parametrize("aggregator", [None, FedAdam(), Scaffold()])
def test_it_is_exact_whatever_the_aggregator(hospitals: list[Dataset], aggregator: Any) -> None:
    """The measuring round is averaged by samples, and no later one changes what it found."""
    found = federated(_Net, hospitals, rounds=3, aggregator=aggregator, **STEPS)

    pooled = np.concatenate([_columns(each) for each in hospitals])
    np.testing.assert_allclose(found._standardise.mean, pooled.mean(axis=0))


def test_the_measuring_round_leaves_the_model_as_it_was(hospitals: list[Dataset]) -> None:
    """It has not seen one sample as it will see them."""
    before, after = (federated(_Net, hospitals, rounds=rounds, **STEPS).get_parameters() for rounds in (0, 1))

    np.testing.assert_array_equal(before["weight"], after["weight"])


def test_training_sees_standardised_data(hospitals: list[Dataset], build: Built) -> None:
    """And so does whoever predicts with the model afterwards."""
    found = federated(_Net, hospitals, rounds=1, **STEPS)
    plan = build(_Net, **STEPS | {"batch_size": 40})
    plan.set_parameters(found.get_parameters())
    plan.train()

    assert plan.seen.abs().max() < 4
    data = torch.tensor(_columns(hospitals[1]), dtype=torch.float32)
    np.testing.assert_allclose(found._standardise.undo(found.prepare(data)), data, rtol=1e-4)


def test_nothing_is_tested_while_the_data_are_measured(build: Built) -> None:
    """A metric on data that the model has never seen so would be the best or the worst of the whole experiment."""
    plan = build(_Net, test_ratio=0.5, test_metric="MSE", **STEPS)
    before = plan.test()
    plan.train()

    assert (before, plan.test()) == (None, None)


def test_held_out_samples_are_not_measured(build: Built) -> None:
    """What is tested on must not be known to the training."""
    plan = build(_Net, test_ratio=0.5, **STEPS)
    plan.train()
    trained = _columns(plan.dataset)[plan._load().train] / [1, 1000]

    np.testing.assert_allclose(plan.get_returned_parameters()["standardisation/means"], trained.mean(axis=0))


def test_scikit_learn_plans_standardise_too(hospitals: list[Dataset]) -> None:
    """Where it matters most: one step length for all features."""

    class Linear(SklearnTrainingPlan):
        def init_model(self, model_args: dict[str, Any]) -> Any:
            return SGDRegressor()

        def init_standardisation(self) -> Standardise:
            return Standardise(2, sizes=[1, 1000])

        def training_data(self) -> DataManager:
            return DataManager(_columns(self.dataset), self.dataset.column("y"))

    found = federated(Linear, hospitals, rounds=4, model_args={"n_features": 2})

    error = np.square(found.model().predict(found.prepare(_columns(hospitals[1]))) - hospitals[1].column("y")).mean()
    assert error < 0.2


def test_channels_of_images_are_features() -> None:
    """One mean a channel, over all places of all images."""
    images = np.random.default_rng(1).normal(5, 2, size=(4, 3, 8, 8))
    standardise = Standardise(3)
    standardise.begin()
    standardise.add(images)
    standardise.end()
    standardise.fill(standardise.tensors())

    assert np.abs(standardise.apply(images).mean(axis=(0, 2, 3))).max() < 1e-12


def test_a_constant_feature_becomes_nought() -> None:
    """And not a division by nought, nor by what rounding leaves of it."""
    standardise = Standardise(1)
    standardise.begin()
    standardise.add(np.full((7, 1), 0.1))
    standardise.end()
    standardise.fill(standardise.tensors())

    assert np.abs(standardise.apply(np.full((2, 1), 0.1))).max() < 1e-12


@pytest.mark.parametrize("data", [np.zeros((5, 3)), np.zeros(5), np.array([["a", "b"]])])
def test_other_data_than_it_was_made_for_are_refused(data: np.ndarray) -> None:
    """In a plan's error, not in a library's."""
    standardise = Standardise(2)
    standardise.begin()

    with pytest.raises(PlanInvalidError, match="2 features along axis 1"):
        standardise.add(data)


@pytest.mark.parametrize(("features", "sizes"), [(0, None), (True, None), (2, [1.0]), (2, [1.0, 0.0])])
def test_it_is_made_of_sensible_numbers(features: Any, sizes: Any) -> None:
    """Said where the researcher types it."""
    with pytest.raises(ArgumentInvalidError):
        Standardise(features, sizes=sizes)


def test_the_hooks_stand_before_and_behind_the_model(build: Built) -> None:
    """Units are mended before, and turned back for the metric behind."""

    class Hooked(_Net):
        def init_standardisation(self) -> None:
            return None

        def preprocess(self, data: Any, target: Any) -> tuple[Any, Any]:
            return data * 0, target * 0 + 3

        def postprocess(self, output: np.ndarray) -> np.ndarray:
            return output * 0 + 3

    plan = build(Hooked, test_ratio=0.5, test_metric="MSE", **STEPS)
    plan.train()

    assert not plan.seen.any()
    assert plan.test().values["MSE"] == 0


@pytest.mark.parametrize("name", ["preprocess", "init_standardisation"])
def test_a_hook_that_returns_something_else_is_named(build: Built, name: str) -> None:
    """Else an error arises far from its cause."""
    with pytest.raises(PlanInvalidError, match=name):
        build(type("Wrong", (_Net,), {name: lambda self, *_: 7}), **STEPS).train()

"""declearn's optimizers in scikit-learn's plans: they step along the gradients that the model's own follow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from declearn.optimizer import Optimizer
from sklearn.linear_model import LinearRegression, Perceptron, SGDClassifier, SGDRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor

from appliance.data import Dataset
from appliance.training import (
    ArgumentInvalidError,
    DataManager,
    PlanInvalidError,
    SklearnTrainingPlan,
    load_plan,
    plan_source,
)
from researcher_kit.aggregators import ConsensusADMM, FedAverage, Scaffold
from tests.unit.training.federated import federated

Built = Callable[..., Any]
Make = Callable[..., Dataset]
EXAMPLE = Path(__file__).parents[3] / "docs/researcher/examples/momentum.py"
BATCHES = {"batch_size": 8, "shuffle": False}


class _Plan(SklearnTrainingPlan):
    """Any model, stepped by what its model arguments make."""

    def init_model(self, model_args: dict[str, Any]) -> Any:
        return model_args["kind"](**model_args.get("options", {}))

    def init_optimizer(self, optimizer_args: dict[str, Any]) -> Any:
        return self.model_args()["make"](**optimizer_args)

    def training_data(self) -> DataManager:
        return DataManager(self.dataset.matrix(["x", "z"]), self.dataset.column("y"))


def _args(kind: Any, make: Callable[..., Any], classes: int = 2, **options: Any) -> dict[str, Any]:
    return {"kind": kind, "make": make, "options": options, "n_features": 2, "n_classes": classes}


def _plain(lr: float = 0.05) -> Any:
    return Optimizer(lrate=lr)


@pytest.mark.parametrize("penalty", [None, "l2"])
@pytest.mark.parametrize(
    ("kind", "loss"),
    [
        *((SGDClassifier, loss) for loss in ("hinge", "log_loss", "modified_huber", "squared_hinge", "perceptron")),
        *(
            (SGDRegressor, loss)
            for loss in ("squared_error", "huber", "epsilon_insensitive", "squared_epsilon_insensitive")
        ),
        (Perceptron, None),
    ],
)
def test_a_step_of_one_sample_is_scikit_learns(build: Built, kind: Any, loss: str | None, penalty: str | None) -> None:
    """The same loss, the same penalty: a plain step is the model's own with a constant rate."""
    rate = 1.0 if kind is Perceptron else 0.05
    options = {"penalty": penalty} | ({} if loss is None else {"loss": loss})
    steady = {} if kind is Perceptron else {"learning_rate": "constant", "eta0": rate}
    plan = build(_Plan, _args(kind, lambda: _plain(rate), **options), epochs=2, batch_size=1, shuffle=False)
    plan.train()
    own, classes = kind(**options, **steady), {} if kind is SGDRegressor else {"classes": [0, 1]}
    data, target = plan.dataset.matrix(["x", "z"]).astype(np.float64), plan.dataset.column("y")
    for row in [*range(40)] * 2:
        own.partial_fit(data[row : row + 1], target[row : row + 1], **classes)

    np.testing.assert_allclose(plan.get_parameters()["coef_"].ravel(), own.coef_.ravel(), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(plan.get_parameters()["intercept_"], own.intercept_, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("weights", [None, {0: 2.0, 2: 0.5}])
def test_several_classes_step_one_against_the_others(build: Built, weights: dict[int, float] | None) -> None:
    """With the weights that the model gives to classes."""

    class Three(_Plan):
        def training_data(self) -> DataManager:
            return DataManager(self.dataset.matrix(["x", "z"]), np.arange(40) % 3)

    options = {"loss": "log_loss", "class_weight": weights}
    plan = build(Three, _args(SGDClassifier, _plain, 3, **options), epochs=1, batch_size=1, shuffle=False)
    plan.train()
    own = SGDClassifier(**options, learning_rate="constant", eta0=0.05)
    data = plan.dataset.matrix(["x", "z"]).astype(np.float64)
    for row in range(40):
        own.partial_fit(data[row : row + 1], [row % 3], classes=[0, 1, 2])

    np.testing.assert_allclose(plan.get_parameters()["coef_"], own.coef_, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", [{"penalty": "l1"}, {"penalty": "elasticnet"}, {"fit_intercept": False}])
def test_the_models_own_settings_hold(build: Built, options: dict[str, Any]) -> None:
    """A strong penalty shrinks; without an intercept there is none."""
    weak, strong = (
        build(_Plan, _args(SGDRegressor, _plain, alpha=alpha, **options), epochs=9, **BATCHES) for alpha in (0.0, 0.9)
    )
    for plan in (weak, strong):
        plan.train()

    small, large = (np.abs(plan.get_parameters()["coef_"]).sum() for plan in (strong, weak))
    assert small < large
    assert plan.get_parameters()["intercept_"].any() == options.get("fit_intercept", True)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_a_networks_step_is_the_one_of_its_own_solver(build: Built, kind: Any) -> None:
    """Its gradients are scikit-learn's own, penalty included."""
    options = {"hidden_layer_sizes": [3], "solver": "sgd", "alpha": 0.1, "learning_rate_init": 0.05}
    steady = {"momentum": 0.0, "nesterovs_momentum": False, "shuffle": False}
    ours = build(_Plan, _args(kind, _plain, **options, **steady), epochs=2, **BATCHES)
    own = build(_Plan, _args(kind, lambda: None, **options, **steady), epochs=2, **BATCHES)
    for plan in (ours, own):
        plan.train()

    for name, array in own.get_parameters().items():
        np.testing.assert_allclose(ours.get_parameters()[name], array, rtol=1e-4, atol=1e-6)


def test_the_guides_example_learns(make_dataset: Make) -> None:
    """Readers copy it."""
    source = plan_source(EXAMPLE)
    hospitals, columns = [make_dataset(40), make_dataset(80)], ["x", "z"]
    plan = federated(
        load_plan(source.text, source.class_name),
        hospitals,
        rounds=5,
        model_args={"n_features": 2, "n_classes": 2, "columns": columns, "target": "y"},
        epochs=10,
        optimizer_args={"lr": 0.1},
    )
    predicted = plan.model().predict(hospitals[1].matrix(columns))

    assert (predicted == hospitals[1].column("y")).mean() > 0.95


@pytest.mark.parametrize("kind", [SGDClassifier, MLPRegressor])
def test_it_remembers_over_rounds(make_dataset: Make, kind: Any) -> None:
    """Two rounds of one epoch at the only hospital are one of two."""
    args = _args(kind, lambda: Optimizer(lrate=0.05, modules=["momentum", "adam"]))
    whole, halves = (
        federated(_Plan, [make_dataset(40)], rounds=rounds, model_args=args, epochs=2 // rounds, **BATCHES)
        for rounds in (1, 2)
    )

    for name, array in whole.get_parameters().items():
        np.testing.assert_allclose(halves.get_parameters()[name], array, rtol=1e-3, atol=1e-5)


def test_optimizer_args_reach_it(build: Built) -> None:
    """As in a PyTorch plan, where schedules change them."""
    plans = [
        build(_Plan, _args(SGDRegressor, _plain), epochs=1, optimizer_args={"lr": lr}, **BATCHES) for lr in (0.01, 0.1)
    ]
    for plan in plans:
        plan.train()

    slow, fast = (np.abs(plan.get_parameters()["coef_"]).sum() for plan in plans)
    assert fast > 2 * slow


def test_its_scaffold_brings_skewed_hospitals_together(make_dataset: Make) -> None:
    """Each hospital's own optimum is another; FedAverage stops between, Scaffold goes on to that of all samples."""
    hospitals = [make_dataset(60), make_dataset(60)]
    hospitals[0].values["y"] = hospitals[0].values["x"] * 3 + 1
    hospitals[1].values["y"] = hospitals[1].values["x"] - 1
    hospitals[1].values["x"] = hospitals[1].values["x"] * 2
    rounds = {"rounds": 30, "num_updates": 20, "batch_size": 60}
    found = {}
    for modules, aggregator in (([], FedAverage()), (["scaffold-client"], Scaffold())):
        make = lambda modules=modules: Optimizer(lrate=0.2, modules=modules)  # noqa: E731 - as a plan's text has it
        args = _args(SGDRegressor, make, penalty=None)
        plan = federated(_Plan, hospitals, model_args=args, aggregator=aggregator, **rounds)
        found[len(modules)] = plan.get_parameters()
    data = np.concatenate([each.matrix(["x", "z"]) for each in hospitals])
    best = LinearRegression().fit(data, np.concatenate([each.values["y"] for each in hospitals])).coef_
    far, near = (np.abs(parameters["coef_"] - best).max() for parameters in found.values())

    assert near < 0.02 < far


@pytest.mark.parametrize(("arguments", "aggregator"), [({"fedprox_mu": 5.0}, FedAverage()), ({}, ConsensusADMM(5.0))])
def test_other_corrections_work_as_well(make_dataset: Make, arguments: dict[str, Any], aggregator: Any) -> None:
    """They are added to gradients, and here are some."""
    args = _args(SGDRegressor, _plain)
    plain, pulled = (
        federated(_Plan, [make_dataset(40)], rounds=2, model_args=args, aggregator=merger, epochs=3, **BATCHES, **more)
        for merger, more in ((FedAverage(), {}), (aggregator, arguments))
    )

    assert not np.allclose(plain.get_parameters()["coef_"], pulled.get_parameters()["coef_"], rtol=1e-3)


@pytest.mark.parametrize(
    ("kind", "make", "error", "reason"),
    [
        (SGDRegressor, lambda: "adam", PlanInvalidError, "one of declearn's, or None"),
        (
            SGDRegressor,
            lambda: torch.optim.SGD([torch.zeros(1)], lr=0.1),
            PlanInvalidError,
            "one of declearn's, or None",
        ),
        (LinearRegression, _plain, PlanInvalidError, "made of statistics"),
        (
            SGDRegressor,
            lambda: Optimizer(lrate=1.0, modules=["scaffold-client"]),
            ArgumentInvalidError,
            r"aggregator Scaffold\(\)",
        ),
    ],
)
def test_what_has_no_meaning_is_refused(
    build: Built, kind: Any, make: Any, error: type[Exception], reason: str
) -> None:
    """With the rules of PyTorch's plans."""
    with pytest.raises(error, match=reason):
        build(_Plan, _args(kind, make)).train()


def test_what_needs_an_optimizer_is_refused_where_the_plan_made_none(build: Built) -> None:
    """It would be ignored."""
    with pytest.raises(ArgumentInvalidError, match="'fedprox_mu' needs"):
        build(_Plan, _args(SGDRegressor, lambda: None), fedprox_mu=0.1).train()

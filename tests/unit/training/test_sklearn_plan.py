"""scikit-learn plans."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Perceptron, RidgeClassifier, SGDClassifier, SGDRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor

from appliance.training import (
    ArgumentInvalidError,
    DataManager,
    ParametersInvalidError,
    PlanInvalidError,
    SklearnTrainingPlan,
    TrainingFailedError,
    TrainingProgress,
)

Built = Callable[..., Any]
CLASSIFIER = {"n_features": 2, "n_classes": 2}


class _Linear(SklearnTrainingPlan):
    """Any linear model, named by its model arguments."""

    def init_model(self, model_args: dict[str, Any]) -> Any:
        return model_args["kind"](**model_args.get("options", {}))

    def training_data(self) -> DataManager:
        return DataManager(self.dataset.matrix(["x", "z"]), self.dataset.column("y"), batch_size=8)


@pytest.fixture
def built(build: Built) -> Built:
    """Builds the linear plan with one kind of model."""

    def make(kind: Any, *, plan: type = _Linear, counts: dict[str, int] | None = None, **rest: Any) -> Any:
        options = rest.pop("options", {})
        return build(plan, {"kind": kind, "options": options} | (CLASSIFIER if counts is None else counts), **rest)

    return make


@pytest.mark.parametrize(
    ("kind", "metric", "constant"),
    [(SGDClassifier, "AUC", 0.5), (Perceptron, "AUC", 0.5), (SGDRegressor, "EXPLAINED_VARIANCE", 0.0)],
)
def test_each_supported_model_learns(built: Built, kind: Any, metric: str, constant: float) -> None:
    """Fed-BioMed's three, by metrics for which it is known what a model scores that has learnt nothing."""
    plan = built(kind, epochs=20, test_ratio=0.5, test_metric=metric)
    before = plan.test().values[metric]
    plan.train()

    assert before == pytest.approx(constant)
    assert plan.test().values[metric] > constant + 0.3


@pytest.mark.parametrize("kind", [SGDClassifier, Perceptron, SGDRegressor])
def test_training_is_what_scikit_learn_does_by_itself(built: Built, kind: Any) -> None:
    """The engine adds nothing: one pass in the rows' order equals partial_fit over the same batches."""
    plan = built(kind, epochs=1, shuffle=False, options={"shuffle": False})
    plan.train()
    data, target = plan.dataset.matrix(["x", "z"]).astype(np.float64), plan.dataset.column("y")
    alone = kind(shuffle=False)
    for start in range(0, 40, 8):
        classes = {} if kind is SGDRegressor else {"classes": [0, 1]}
        alone.partial_fit(data[start : start + 8], target[start : start + 8], **classes)

    np.testing.assert_allclose(plan.get_parameters()["coef_"], alone.coef_.reshape(plan.model().coef_.shape), rtol=1e-6)


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_a_network_trains_as_scikit_learn_does_by_itself(built: Built, kind: Any, solver: str) -> None:
    """A batch is one step of its solver, whose memory begins anew with the round."""
    options = {"hidden_layer_sizes": [3], "solver": solver, "shuffle": False, "learning_rate_init": 0.05}
    plan = built(kind, epochs=2, shuffle=False, options=options)
    alone, classes = kind(**options), {} if kind is MLPRegressor else {"classes": [0, 1]}
    data, target = plan.dataset.matrix(["x", "z"]).astype(np.float64), plan.dataset.column("y")
    first = plan.get_parameters()
    plan.train()

    alone.partial_fit(data[:8], target[:8], **classes)
    del alone._optimizer
    for name, array in first.items():
        kind_of, layer = name.split(".")
        getattr(alone, kind_of)[int(layer)][...] = array
    for start in [*range(0, 40, 8)] * 2:
        alone.partial_fit(data[start : start + 8], target[start : start + 8], **classes)
    np.testing.assert_allclose(plan.get_parameters()["coefs_.0"], alone.coefs_[0], rtol=1e-4)


def test_a_network_begins_with_weights_that_differ(built: Built) -> None:
    """From zeros, all hidden units would stay alike for ever."""
    parameters = built(MLPClassifier, options={"hidden_layer_sizes": [5]}).get_parameters()

    assert len(np.unique(parameters["coefs_.0"])) == 10
    assert np.abs(parameters["coefs_.0"]).max() <= np.sqrt(6 / 7)


def test_the_parameters_are_coefficients_and_intercept_from_zero(built: Built) -> None:
    """All nodes start from the same model."""
    parameters = built(SGDClassifier).get_parameters()

    assert {name: (array.shape, array.dtype.name) for name, array in parameters.items()} == {
        "coef_": ((1, 2), "float32"),
        "intercept_": ((1,), "float32"),
    }
    assert not parameters["coef_"].any()


def test_several_classes_have_a_row_each(built: Built) -> None:
    """A hospital that lacks a class still has its row, or the mean would not fit."""
    plan = built(SGDClassifier, counts={"n_features": 2, "n_classes": 3}, epochs=1)
    plan.train()

    assert plan.get_parameters()["coef_"].shape == (3, 2)


def test_the_same_seed_gives_the_same_bits(built: Built) -> None:
    """scikit-learn shuffles inside, from numpy's generator."""
    first, second = built(SGDClassifier, epochs=3), built(SGDClassifier, epochs=3)
    first.train()
    second.train()

    assert first.get_parameters()["coef_"].tobytes() == second.get_parameters()["coef_"].tobytes()


def test_training_goes_on_from_the_parameters_set(built: Built) -> None:
    """A round trains the global model, not one of its own."""
    plan = built(SGDClassifier, dry_run=True, options={"learning_rate": "constant", "eta0": 1e-6})
    plan.set_parameters({"coef_": np.full((1, 2), 9, np.float32), "intercept_": np.zeros(1, np.float32)})
    plan.train()

    np.testing.assert_allclose(plan.get_parameters()["coef_"], 9, atol=0.01)


def test_progress_reports_the_share_of_wrong_predictions(built: Built) -> None:
    """scikit-learn tells no loss."""
    seen: list[TrainingProgress] = []
    built(SGDClassifier, epochs=1).train(seen.append)

    assert 0 <= seen[0].values["loss"] <= 1


@pytest.mark.parametrize(
    ("kind", "rest", "error", "reason"),
    [
        (RidgeClassifier, {}, PlanInvalidError, "SGDClassifier, SGDRegressor, Perceptron"),
        (MLPClassifier, {"options": {"solver": "lbfgs"}}, ArgumentInvalidError, "'sgd' or 'adam'"),
        (MLPClassifier, {"options": {"early_stopping": True}}, ArgumentInvalidError, "without early_stopping"),
        (SGDClassifier, {"options": {"average": True}}, PlanInvalidError, "average=True"),
        (SGDClassifier, {"options": {"alpha": -1}}, ArgumentInvalidError, "given to the plan's model"),
        (
            SGDClassifier,
            {"counts": {"n_features": 2}},
            ArgumentInvalidError,
            "'n_classes' must be a whole number from 2",
        ),
        (
            SGDRegressor,
            {"counts": {"n_features": 0}},
            ArgumentInvalidError,
            "'n_features' must be a whole number from 1",
        ),
        (SGDClassifier, {"fedprox_mu": 0.1}, ArgumentInvalidError, "'fedprox_mu' needs a PyTorch plan, or an init_opt"),
        (SGDClassifier, {"optimizer_args": {"lr": 1}}, ArgumentInvalidError, "eta0"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_what_can(
    built: Built, kind: Any, rest: dict[str, Any], error: type[Exception], reason: str
) -> None:
    """Before the first sample is read."""
    with pytest.raises(error, match=reason):
        built(kind, **rest)


def test_another_number_of_columns_is_refused(built: Built) -> None:
    """One hospital's loading plan may present one column more."""
    with pytest.raises(ArgumentInvalidError, match="'n_features' is not the number of the data's columns"):
        built(SGDClassifier, counts={"n_features": 3, "n_classes": 2}).train()


def test_a_class_beyond_the_stated_ones_is_refused(built: Built) -> None:
    """Told by its number of classes only, never by the value found."""

    class Shifted(_Linear):
        def training_data(self) -> DataManager:
            return DataManager(self.dataset.matrix(["x", "z"]), self.dataset.column("y") + 7)

    with pytest.raises(TrainingFailedError, match="not among the classes") as caught:
        built(SGDClassifier, plan=Shifted).train()
    assert "7" not in caught.value.message


def test_parameters_of_another_shape_are_refused(built: Built) -> None:
    """A mean over tensors of other shapes would be nonsense."""
    with pytest.raises(ParametersInvalidError, match="coef_"):
        built(SGDClassifier).set_parameters({"coef_": np.zeros((2, 2)), "intercept_": np.zeros(1)})

"""scikit-learn's models that are made of statistics: federated and pooled fits are the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.datasets import load_iris
from sklearn.decomposition import IncrementalPCA
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import GaussianNB

from appliance.data import ColumnPlan, Dataset
from appliance.training import ArgumentInvalidError, DataManager, SklearnTrainingPlan, TrainingArguments
from researcher_kit.aggregators import FedAdam
from tests.unit.training.federated import federated

COLUMNS = ["x0", "x1", "x2", "x3"]
FLOWERS, KINDS = load_iris(return_X_y=True)
FLOWERS = (
    (FLOWERS + np.array([0, 100, 0, 0])).astype(np.float32).astype(np.float64)
)  # a mean far from nought, as of a year
COUNTS = {"n_features": 4, "n_classes": 3, "n_samples": 150}


class _Any(SklearnTrainingPlan):
    """Whatever model the arguments make."""

    def init_model(self, model_args: dict[str, Any]) -> Any:
        return model_args["make"]()

    def training_data(self) -> DataManager:
        return DataManager(self.dataset.matrix(COLUMNS).astype(np.float64), self.dataset.column("y"))


def _dataset(rows: slice, kinds: Any = KINDS) -> Dataset:
    values = {name: FLOWERS[rows, place] for place, name in enumerate(COLUMNS)} | {"y": kinds[rows].astype(np.float64)}
    lines = np.arange(len(values["y"]))
    return Dataset({name: ColumnPlan(source=name) for name in values}, values, lines, None)


# The flowers are in the order of their kinds: no hospital has all three, and one has seven flowers.
ROWS = [slice(0, 70), slice(70, 77), slice(77, 150)]
HOSPITALS = [_dataset(rows) for rows in ROWS]


def _fit(make: Callable[[], Any], rounds: int = 1, counts: dict[str, Any] | None = None, **rest: Any) -> Any:
    return federated(_Any, HOSPITALS, rounds=rounds, model_args={**(counts or COUNTS), "make": make}, **rest).model()


@pytest.mark.parametrize("intercept", [True, False])
def test_linear_regression_is_the_pooled_one(intercept: bool) -> None:
    """Statistics of each hospital, and one solution for all."""
    pooled = LinearRegression(fit_intercept=intercept).fit(FLOWERS, KINDS)

    found = _fit(lambda: LinearRegression(fit_intercept=intercept))

    np.testing.assert_allclose(found.predict(FLOWERS), pooled.predict(FLOWERS), atol=1e-8)


def test_naive_bayes_is_the_pooled_one_though_no_hospital_has_all_classes() -> None:
    """The mean of variances is no variance: the classes' own means differ between hospitals."""
    pooled = GaussianNB().fit(FLOWERS, KINDS)

    found = _fit(GaussianNB)

    np.testing.assert_allclose(found.var_, pooled.var_, rtol=1e-8)
    np.testing.assert_allclose(found.predict_proba(FLOWERS), pooled.predict_proba(FLOWERS), atol=1e-8)


def test_components_are_those_of_the_pooled_data() -> None:
    """Of centred data, with the signs that scikit-learn gives; its variances are over n - 1."""
    pooled = IncrementalPCA(2, batch_size=150).fit(FLOWERS)

    found = _fit(lambda: IncrementalPCA(2))

    np.testing.assert_allclose(found.transform(FLOWERS), pooled.transform(FLOWERS), atol=1e-8)
    np.testing.assert_allclose(found.explained_variance_ * 150 / 149, pooled.explained_variance_)
    np.testing.assert_allclose(found.explained_variance_ratio_, pooled.explained_variance_ratio_)
    assert found.noise_variance_ * 150 / 149 == pytest.approx(pooled.noise_variance_)


def test_a_round_of_clusters_is_a_step_of_lloyds_algorithm() -> None:
    """A plain mean of centres would draw one towards hospitals that have none of its samples."""
    init = FLOWERS[[0, 60, 140]]
    pooled = KMeans(3, init=init, max_iter=5, n_init=1, tol=0, algorithm="lloyd").fit(FLOWERS)

    found = _fit(lambda: MiniBatchKMeans(3, init=init), 5, batch_size=1000)

    np.testing.assert_allclose(found.cluster_centers_, pooled.cluster_centers_, atol=1e-9)
    assert (found.predict(FLOWERS) == pooled.predict(FLOWERS)).all()


def test_a_centre_without_samples_stays_where_it_is() -> None:
    """It must not become a division by nought."""
    init = np.vstack([FLOWERS[[0, 60]], np.full((1, 4), -1e3)])

    found = _fit(lambda: MiniBatchKMeans(3, init=init), 2)

    np.testing.assert_array_equal(found.cluster_centers_[2], init[2])


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("intercept", [True, False])
def test_logistic_regression_reaches_the_pooled_optimum(classes: int, intercept: bool) -> None:
    """By Newton's method, in a handful of rounds, with scikit-learn's own penalty."""
    kinds = np.minimum(KINDS, classes - 1)
    pooled = LogisticRegression(fit_intercept=intercept, solver="newton-cholesky", tol=1e-10).fit(FLOWERS, kinds)

    counts = {**COUNTS, "n_classes": classes, "make": lambda: LogisticRegression(fit_intercept=intercept)}
    found = federated(_Any, [_dataset(rows, kinds) for rows in ROWS], rounds=12, model_args=counts).model()

    np.testing.assert_allclose(found.predict_proba(FLOWERS), pooled.predict_proba(FLOWERS), atol=1e-5)


def test_a_step_that_makes_the_loss_larger_is_halved() -> None:
    """Newton's method overshoots where the start is far; without a remedy it never comes back."""
    plan = _Any()
    plan.build({**COUNTS, "make": LogisticRegression}, TrainingArguments(), seed=0)
    before = plan.get_parameters()
    plan.set_parameters({**before, "point": before["point"] + 8, "loss": np.array([50.0])})

    np.testing.assert_allclose(plan.model().coef_, 4.0)


def test_no_step_is_halved_without_end() -> None:
    """Other hospitals may answer in the next round, and have a larger loss everywhere."""
    plan = _Any()
    plan.build({**COUNTS, "make": LogisticRegression}, TrainingArguments(), seed=0)
    before = plan.get_parameters()
    gradient = np.ones_like(before["gradient"])
    curved = {"gradient": gradient, "hessian": np.eye(len(gradient)), "loss": np.array([50.0])}
    plan.set_parameters(before | curved)

    assert (plan.model().intercept_ == -1).all()


def test_any_aggregator_takes_the_mean_of_statistics() -> None:
    """Momentum would make them those of no data at all."""
    found = _fit(GaussianNB, aggregator=FedAdam())

    np.testing.assert_allclose(found.theta_, GaussianNB().fit(FLOWERS, KINDS).theta_)


def test_batches_and_epochs_do_not_change_statistics() -> None:
    """They say how a network learns; here each sample counts once."""
    once, often = _fit(GaussianNB), _fit(GaussianNB, batch_size=4, epochs=3)

    np.testing.assert_allclose(once.var_, often.var_)


def test_a_model_can_be_tested_before_its_first_round() -> None:
    """test_on_global_updates asks for it; warnings are errors here."""
    arguments = {"test_ratio": 0.3, "test_metric": "ACCURACY"}
    plan = federated(_Any, HOSPITALS, rounds=0, model_args={**COUNTS, "make": GaussianNB}, **arguments)
    plan.attach(HOSPITALS[0])

    assert 0 <= plan.test().values["ACCURACY"] <= 1


def test_unsupervised_models_are_tested_by_what_they_keep_of_a_sample() -> None:
    """There is no target to compare with."""
    arguments = {"test_ratio": 0.3, "test_metric": "MSE"}
    counts = {**COUNTS, "make": lambda: IncrementalPCA(3)}
    plan = federated(_Any, HOSPITALS, model_args=counts, **arguments)
    plan.attach(HOSPITALS[0])

    assert 0 < plan.test().values["MSE"] < 0.05


@pytest.mark.parametrize(
    ("make", "counts", "reason"),
    [
        (lambda: LinearRegression(positive=True), COUNTS, "positive=True"),
        (LogisticRegression, {"n_features": 4, "n_classes": 3}, "'n_samples'"),
        (lambda: LogisticRegression(l1_ratio=0.5), COUNTS, "l2 penalties"),
        (lambda: LogisticRegression(class_weight="balanced"), COUNTS, "class_weight"),
        (lambda: IncrementalPCA(9), COUNTS, "given to the plan's model"),
        (lambda: MiniBatchKMeans(2, init=[[1.0]]), COUNTS, "given to the plan's model"),
    ],
)
def test_what_cannot_be_made_of_sums_is_refused(make: Callable[[], Any], counts: dict[str, Any], reason: str) -> None:
    """Better than a model that is nearly what was asked."""
    with pytest.raises(ArgumentInvalidError, match=reason):
        _fit(make, counts=counts)

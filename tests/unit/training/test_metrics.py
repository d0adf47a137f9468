"""Metrics, held to scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as reference

from appliance.training import ArgumentInvalidError, Metric, TrainingFailedError, evaluate

GENERATOR = np.random.default_rng(3)
TRUE = GENERATOR.integers(0, 2, 60)
SCORE = (TRUE + GENERATOR.normal(size=60)).round(1) - 0.5  # rounded, so that there are ties
TRUE_3 = GENERATOR.integers(0, 3, 60)
SCORE_3 = np.eye(3)[TRUE_3] + GENERATOR.normal(size=(60, 3))


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (Metric.ACCURACY, reference.accuracy_score(TRUE, SCORE > 0)),
        (Metric.PRECISION, reference.precision_score(TRUE, SCORE > 0)),
        (Metric.RECALL, reference.recall_score(TRUE, SCORE > 0)),
        (Metric.F1_SCORE, reference.f1_score(TRUE, SCORE > 0)),
        (Metric.AUC, reference.roc_auc_score(TRUE, SCORE)),
        (Metric.MSE, reference.mean_squared_error(TRUE, SCORE)),
        (Metric.MAE, reference.mean_absolute_error(TRUE, SCORE)),
        (Metric.EXPLAINED_VARIANCE, reference.explained_variance_score(TRUE, SCORE)),
    ],
)
@pytest.mark.parametrize("shape", [(60,), (60, 1)])
def test_a_metric_of_one_score_agrees_with_scikit_learn(
    metric: Metric, expected: float, shape: tuple[int, ...]
) -> None:
    """Clinicians compare the numbers with those of their own tools."""
    assert evaluate(metric, TRUE.reshape(shape), SCORE.reshape(shape)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (Metric.ACCURACY, reference.accuracy_score(TRUE_3, SCORE_3.argmax(1))),
        (Metric.F1_SCORE, reference.f1_score(TRUE_3, SCORE_3.argmax(1), average="macro")),
        (
            Metric.AUC,
            np.mean([reference.roc_auc_score(label == TRUE_3, SCORE_3[:, label]) for label in range(3)]),
        ),
    ],
)
def test_a_metric_of_several_classes_agrees_with_scikit_learn(metric: Metric, expected: float) -> None:
    """The mean over classes, each counting the same."""
    assert evaluate(metric, TRUE_3, SCORE_3) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", [Metric.AUC, Metric.EXPLAINED_VARIANCE])
def test_what_one_class_does_not_determine_is_absent(metric: Metric) -> None:
    """A NaN would be refused on its way out, and a made-up 0.5 would be believed."""
    assert evaluate(metric, np.ones(5), np.arange(5.0)) is None


def test_no_samples_have_no_metric() -> None:
    """Nothing was measured."""
    assert evaluate(Metric.ACCURACY, np.empty(0), np.empty(0)) is None


def test_a_threshold_is_the_researchers_to_choose() -> None:
    """A model that ends in a sigmoid gives probabilities."""
    assert evaluate(Metric.ACCURACY, np.array([0, 1]), np.array([0.2, 0.8]), {"threshold": 0.5}) == 1


@pytest.mark.parametrize("arguments", [{"treshold": 1}, {"threshold": "high"}, {"average": "best"}])
def test_a_wrong_metric_argument_is_refused(arguments: dict[str, object]) -> None:
    """It would silently change what is measured."""
    with pytest.raises(ArgumentInvalidError):
        evaluate(Metric.ACCURACY, TRUE, SCORE, arguments)


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    """Broadcasting (n, 1) against (n, 2) would give a number, and a wrong one."""
    with pytest.raises(TrainingFailedError, match="differ in shape"):
        evaluate(Metric.MSE, np.zeros((4, 1)), np.zeros((4, 2)))

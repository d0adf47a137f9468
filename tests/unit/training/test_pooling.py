"""Metrics over the federation, held to the same metrics of all records in one place."""

from __future__ import annotations

import numpy as np
import pytest

from appliance.protocol.counts import MAX_COUNTS
from appliance.training.metrics import Metric, Part, Pooled, evaluate, measure, pool

GENERATOR = np.random.default_rng(11)
SIZES = (400, 60, 25)
CLASS_METRICS = [Metric.BALANCED_ACCURACY, Metric.F1_SCORE, Metric.PRECISION, Metric.RECALL, Metric.SPECIFICITY]

Samples = tuple[np.ndarray, np.ndarray]


def hospitals(kind: str) -> list[Samples]:
    """Targets and outputs at three hospitals that differ in size and in patients."""
    return [_samples(kind, size, shift) for size, shift in zip(SIZES, (0.0, 0.8, -1.2), strict=True)]


def _samples(kind: str, size: int, shift: float) -> Samples:
    if kind == "scores":
        target = (GENERATOR.random(size) < 0.35).astype(int)
        return target, 1.6 * target - 0.8 + shift + GENERATOR.normal(size=size)
    if kind == "classes":
        target = GENERATOR.integers(0, 4, size)
        return target, 1.5 * np.eye(4)[target] + GENERATOR.normal(size=(size, 4))
    if kind == "columns":
        target = GENERATOR.normal(100 + 9 * shift, 2, size=(size, 2))
        return target, target + GENERATOR.normal(0.3, 1, size=(size, 2))
    target = (GENERATOR.random((size, 6, 6)) < 0.4).astype(int)
    return target, target * 2.0 - 1 + GENERATOR.normal(size=(size, 6, 6))


def parts(metric: Metric, where: list[Samples], **arguments: object) -> list[Part]:
    """What each hospital's test says."""
    found = [measure(metric, *samples, arguments) for samples in where]
    return [Part(len(samples[0]), each.value, each.counts) for samples, each in zip(where, found, strict=True)]


def in_one_place(metric: Metric, where: list[Samples], **arguments: object) -> float:
    """The metric of all records together."""
    value = evaluate(metric, *(np.concatenate(column) for column in zip(*where, strict=True)), arguments)
    assert value is not None
    return value


@pytest.mark.parametrize(
    ("metric", "kind"),
    [
        *((metric, kind) for metric in CLASS_METRICS for kind in ("scores", "classes")),
        *((metric, kind) for metric in (Metric.ACCURACY, Metric.BRIER) for kind in ("scores", "classes")),
        *((metric, "scores") for metric in (Metric.CALIBRATION_ERROR,)),
        (Metric.CALIBRATION_ERROR, "classes"),
        *((metric, "columns") for metric in (Metric.MAE, Metric.MSE, Metric.RMSE, Metric.R2)),
        (Metric.EXPLAINED_VARIANCE, "columns"),
        *((metric, "masks") for metric in (Metric.DICE, Metric.IOU, Metric.HAUSDORFF)),
    ],
)
def test_pooled_is_the_metric_of_all_records_in_one_place(metric: Metric, kind: str) -> None:
    """A mean over hospitals is another number, and the wrong one."""
    where = hospitals(kind)
    found = pool(metric, parts(metric, where))

    assert found is not None
    assert found.value == pytest.approx(in_one_place(metric, where), rel=1e-9)
    assert (found.bound, found.nodes, found.samples) == (0.0, 3, sum(SIZES))


@pytest.mark.parametrize("metric", [Metric.AUC, Metric.AVERAGE_PRECISION])
@pytest.mark.parametrize("kind", ["scores", "classes"])
def test_what_bins_leave_open_is_within_the_bound_that_is_stated(metric: Metric, kind: str) -> None:
    """Scores do not leave, only how many lie in each bin: the result is an interval, and a narrow one."""
    where = hospitals(kind)
    found = pool(metric, parts(metric, where))

    assert found is not None
    assert abs(found.value - in_one_place(metric, where)) <= found.bound
    assert 0 < found.bound < 0.05


@pytest.mark.parametrize("metric", [Metric.AUC, Metric.AVERAGE_PRECISION])
def test_ties_and_saturated_scores_are_within_the_bound(metric: Metric) -> None:
    """Trees give few values, and networks huge ones."""
    few = [(target, (scores * 2).round()) for target, scores in hospitals("scores")]
    huge = [(target, 40 * scores) for target, scores in hospitals("scores")]
    for where in (few, huge):
        found = pool(metric, parts(metric, where))
        assert found is not None
        assert abs(found.value - in_one_place(metric, where)) <= found.bound + 1e-12


def test_probabilities_have_bins_of_their_own() -> None:
    """On the scale of logits a random forest's scores would all lie in five bins."""
    where = [(target, 1 / (1 + np.exp(-scores))) for target, scores in hospitals("scores")]
    found = pool("AUC", parts(Metric.AUC, where, outputs="probabilities"))

    assert found is not None
    assert abs(found.value - in_one_place(Metric.AUC, where)) <= found.bound < 0.015


def test_a_hospital_with_one_class_has_no_auc_and_counts_all_the_same() -> None:
    """Its healthy patients are compared with the ill ones elsewhere."""
    where = hospitals("scores")
    where[1] = (np.zeros_like(where[1][0]), where[1][1])
    said = parts(Metric.AUC, where)
    found = pool("AUC", said)

    assert said[1].value is None
    assert found is not None
    assert abs(found.value - in_one_place(Metric.AUC, where)) <= found.bound


def test_pairs_are_compared_within_each_hospital() -> None:
    """Two patients of different hospitals are never compared: that would take their records."""
    survival = [(np.column_stack([GENERATOR.exponential(size=n), np.ones(n)]), GENERATOR.normal(size=n)) for n in SIZES]
    found = pool("C_INDEX", parts(Metric.C_INDEX, survival))
    pairs = np.array([n * (n - 1) / 2 for n in SIZES])
    expected = np.average([evaluate(Metric.C_INDEX, *samples) or 0 for samples in survival], weights=pairs)

    assert found is not None
    assert found.value == pytest.approx(expected)


def test_counts_are_few_however_many_classes_there_are() -> None:
    """The node's guard lets so many numbers leave and no more."""
    for classes in (2, 5, 32, 33, 400):
        target = np.arange(800) % classes
        found = measure(Metric.AUC, target, GENERATOR.normal(size=(800, classes)))
        assert (found.counts is None) == (classes > 32)
        assert found.counts is None or len(found.counts.cells) <= MAX_COUNTS


def test_what_nobody_says_how_to_pool_is_not_pooled() -> None:
    """A number of a plan's own may be a maximum, or a ratio that has lost its whole."""
    assert pool("my_number", [Part(10, 0.5), Part(30, 0.7)]) is None


def test_a_hospital_without_counts_is_left_out_and_the_result_says_so() -> None:
    """Its policy withheld them: the value is of the others alone."""
    said = parts(Metric.F1_SCORE, hospitals("scores"))
    found = pool("F1_SCORE", [*said[:2], Part(said[2].samples, said[2].value)])

    assert found is not None
    assert (found.nodes, found.samples) == (2, SIZES[0] + SIZES[1])


def test_counts_that_do_not_fit_each_other_are_not_pooled() -> None:
    """Two hospitals ran plans with other numbers of classes, or one of them lies."""
    said = [*parts(Metric.AUC, hospitals("scores")), *parts(Metric.AUC, hospitals("classes"))]

    assert pool("AUC", said) is None


def test_a_pooled_value_says_its_bound_where_it_has_one() -> None:
    """Four digits of a value known to two would be a lie."""
    assert str(Pooled(0.81234, 0.0123)) == "0.8123 ± 0.01"
    assert str(Pooled(0.81234)) == "0.8123"

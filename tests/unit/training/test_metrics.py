"""Metrics, held to scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import directed_hausdorff
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
        (Metric.BALANCED_ACCURACY, reference.balanced_accuracy_score(TRUE, SCORE > 0)),
        (Metric.SPECIFICITY, reference.recall_score(TRUE, SCORE > 0, pos_label=0)),
        (Metric.AVERAGE_PRECISION, reference.average_precision_score(TRUE, SCORE)),
        (Metric.BRIER, reference.brier_score_loss(TRUE, 1 / (1 + np.exp(-SCORE)))),
        (Metric.RMSE, reference.root_mean_squared_error(TRUE, SCORE)),
        (Metric.R2, reference.r2_score(TRUE, SCORE)),
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
        (Metric.BALANCED_ACCURACY, reference.balanced_accuracy_score(TRUE_3, SCORE_3.argmax(1))),
        (Metric.AVERAGE_PRECISION, reference.average_precision_score(np.eye(3)[TRUE_3], SCORE_3, average="macro")),
        (
            Metric.BRIER,
            np.square(np.exp(SCORE_3) / np.exp(SCORE_3).sum(1, keepdims=True) - np.eye(3)[TRUE_3]).sum(1).mean(),
        ),
    ],
)
def test_a_metric_of_several_classes_agrees_with_scikit_learn(metric: Metric, expected: float) -> None:
    """The mean over classes, each counting the same."""
    assert evaluate(metric, TRUE_3, SCORE_3) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", [Metric.AUC, Metric.EXPLAINED_VARIANCE, Metric.R2])
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


# Probabilities


def test_calibration_is_nought_where_probabilities_are_frequencies() -> None:
    """Of ten patients with 0.3, three; of ten with 0.75, a half: a quarter too much for half of them."""
    target = np.array([1] * 3 + [0] * 7 + [1] * 5 + [0] * 5)
    output = np.array([0.3] * 10 + [0.75] * 10)

    assert evaluate(Metric.CALIBRATION_ERROR, target[:10], output[:10], {"outputs": "probabilities"}) == pytest.approx(
        0
    )
    assert evaluate(Metric.CALIBRATION_ERROR, target, output, {"outputs": "probabilities"}) == pytest.approx(0.125)


def test_more_bins_see_what_fewer_average_out() -> None:
    """Two opposite faults in one bin cancel."""
    target, output = np.array([0, 1] * 5), np.array([0.41, 0.49] * 5)

    few, many = (
        evaluate(Metric.CALIBRATION_ERROR, target, output, {"outputs": "probabilities", "bins": bins})
        for bins in (2, 100)
    )
    assert few == pytest.approx(0.05)
    assert many == pytest.approx(0.46)


def test_outputs_that_are_no_probabilities_are_refused() -> None:
    """The researcher said that they are."""
    with pytest.raises(TrainingFailedError, match="no probabilities"):
        evaluate(Metric.BRIER, TRUE, SCORE, {"outputs": "probabilities"})


@pytest.mark.parametrize("metric", [Metric.BRIER, Metric.CALIBRATION_ERROR])
def test_extreme_logits_are_certain_and_no_overflow(metric: Metric) -> None:
    """The exponential of a thousand is no number."""
    assert evaluate(metric, np.array([1, 0]), np.array([1000.0, -1000.0])) == 0
    assert evaluate(metric, np.array([1, 0]), np.array([[-1000.0, 0.0], [0.0, -1000.0]])) == 0


# Segmentations

SQUARE = np.zeros((2, 8, 8), np.int64)
SQUARE[0, 2:6, 2:6] = 1  # the second sample has nothing
SHIFTED = np.roll(SQUARE, 1, axis=2)


@pytest.mark.parametrize("with_channel", [False, True])
def test_dice_and_iou_of_a_square_that_was_shifted(with_channel: bool) -> None:
    """Twelve of sixteen pixels are common; a sample with nothing in it, of which nothing is found, is perfect."""
    target = SQUARE[:, None] if with_channel else SQUARE
    logits = np.stack([1.0 - SHIFTED, SHIFTED * 2.0 - 0.5], axis=1)

    assert evaluate(Metric.DICE, target, logits) == pytest.approx((12 / 16 + 1) / 2)
    assert evaluate(Metric.IOU, target, logits) == pytest.approx((12 / 20 + 1) / 2)
    assert evaluate(Metric.DICE, target, SHIFTED[:, None] - 0.5) == pytest.approx((12 / 16 + 1) / 2)
    assert evaluate(Metric.DICE, target, SHIFTED.astype(float), {"threshold": 0.5}) == pytest.approx((12 / 16 + 1) / 2)


def test_classes_of_a_segmentation_count_alike() -> None:
    """A small lesion is not drowned by a large organ; the background does not count at all."""
    target = np.zeros((1, 4, 4), np.int64)
    target[0, :2], target[0, 3, 3] = 1, 2
    found = np.eye(3)[np.where(target == 2, 0, target)].transpose(0, 3, 1, 2)

    assert evaluate(Metric.DICE, target, found) == pytest.approx((1 + 0) / 2)


def test_hausdorff_is_scipys() -> None:
    """In 3-D, with voxels that are no cubes; the largest distance of two clouds of points."""
    rng = np.random.default_rng(4)
    masks = np.zeros((2, 10, 12, 14), bool)
    for mask in masks:
        low = rng.integers(1, 5, 3)
        mask[tuple(slice(a, a + b) for a, b in zip(low, rng.integers(2, 5, 3), strict=True))] = True
    spacing = [3.0, 0.5, 0.7]
    points = [np.argwhere(mask) * spacing for mask in masks]
    expected = max(directed_hausdorff(points[0], points[1])[0], directed_hausdorff(points[1], points[0])[0])
    target, output = masks[:1].astype(int), masks[1:].astype(float) - 0.5

    assert evaluate(Metric.HAUSDORFF, target, output, {"spacing": spacing}) == pytest.approx(expected)
    less = evaluate(Metric.HAUSDORFF, target, output, {"spacing": spacing, "percentile": 50.0})
    assert less is not None
    assert less < expected


def test_hausdorff_of_nothing_is_absent() -> None:
    """There is no surface to be away from."""
    assert evaluate(Metric.HAUSDORFF, SQUARE[1:], SHIFTED[1:] - 0.5) is None
    assert evaluate(Metric.HAUSDORFF, SQUARE, SHIFTED - 0.5) == 1.0


@pytest.mark.parametrize(
    ("arguments", "error"),
    [({"spacing": [1.0]}, "a side for each"), ({"percentile": 0}, "percentile"), ({"bins": 5}, "takes no argument")],
)
def test_wrong_arguments_of_a_segmentation_are_refused(arguments: dict[str, object], error: str) -> None:
    """A distance in the wrong unit would be believed."""
    with pytest.raises(ArgumentInvalidError, match=error):
        evaluate(Metric.HAUSDORFF, SQUARE, SHIFTED - 0.5, arguments)


def test_tables_have_no_dice() -> None:
    """Somebody took the wrong metric."""
    with pytest.raises(TrainingFailedError, match="segmentation"):
        evaluate(Metric.DICE, TRUE, SCORE)


# Survival


def test_the_c_index_is_the_share_of_pairs_in_order() -> None:
    """Compared with all pairs, one by one; with ties, censored times, and more samples than are compared at once."""
    rng = np.random.default_rng(5)
    time, event, risk = rng.integers(1, 30, 1200), rng.integers(0, 2, 1200), rng.normal(size=1200).round(1)
    right = pairs = 0.0
    for i in np.flatnonzero(event):
        later = (time[i] < time) | ((time[i] == time) & (event == 0))
        pairs += later.sum()
        right += (risk[i] > risk[later]).sum() + 0.5 * (risk[i] == risk[later]).sum()

    assert evaluate(Metric.C_INDEX, np.column_stack([time, event]), risk) == pytest.approx(right / pairs)


def test_without_an_event_there_is_no_c_index() -> None:
    """Nothing can be compared."""
    assert evaluate(Metric.C_INDEX, np.array([[1, 0], [2, 0]]), np.array([0.1, 0.2])) is None
    with pytest.raises(TrainingFailedError, match="time and event"):
        evaluate(Metric.C_INDEX, TRUE, SCORE)

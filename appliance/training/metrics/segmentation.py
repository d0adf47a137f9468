"""Metrics of segmentations: each sample is an image or a volume, class 0 is the background."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from appliance.protocol.counts import Counts
from appliance.training.errors import ArgumentInvalidError, TrainingFailedError
from appliance.training.metrics.classification import Array
from appliance.training.metrics.counting import ratio
from appliance.training.metrics.options import Options

Mask = NDArray[np.bool_]


def _masks(target: Array, output: Array, options: Options) -> tuple[Array, Array, range]:
    """True and predicted labels, each of shape (n, …), and the labels of the foreground."""
    if target.ndim > 2 and target.shape[1] == 1:
        target = target[:, 0]
    count = 2
    if output.ndim == target.ndim + 1:
        count = max(2, output.shape[1])
        output = output[:, 0] > options.threshold if output.shape[1] == 1 else output.argmax(axis=1)
    else:
        output = output > options.threshold
    if target.ndim < 3 or target.shape != output.shape:
        shapes = f"{target.shape} and {output.shape}"
        raise TrainingFailedError(f"A segmentation's targets and outputs have the shapes {shapes} without classes.")
    return target.astype(np.int64), output.astype(np.int64), range(1, count)


def _overlap(score: Callable[[int, int, int], float]) -> Callable[[Array, Array, Options], float]:
    """A metric from the sizes of intersection, truth and prediction: the mean over samples and classes.

    A class that is absent from both is found perfectly.
    """

    def metric(target: Array, output: Array, options: Options) -> float:
        true, predicted, labels = _masks(target, output, options)
        scores = []
        for one, other in zip(true, predicted, strict=True):
            for label in labels:
                mask, found = one == label, other == label
                sizes = int((mask & found).sum()), int(mask.sum()), int(found.sum())
                scores.append(score(*sizes) if sizes[1] or sizes[2] else 1.0)
        return float(np.mean(scores))

    return metric


# Dice, Measures of the Amount of Ecologic Association Between Species, Ecology 26, 1945.
dice = _overlap(lambda both, true, found: 2 * both / (true + found))
# Jaccard's index.
iou = _overlap(lambda both, true, found: both / (true + found - both))


def hausdorff(target: Array, output: Array, options: Options) -> Counts | None:
    """The distance between the surfaces of truth and prediction, in the unit of ``spacing``, or in voxels.

    Of all points' distances to the other surface, both ways, the ``percentile``: the largest for 100, and 95 for what
    is often called HD95. The mean over samples and classes, as sum and number; where one of the two is empty there is
    none.

    Source: Huttenlocher et al., Comparing Images Using the Hausdorff Distance, IEEE PAMI 15, 1993.
    """
    true, predicted, labels = _masks(target, output, options)
    dimensions = true.ndim - 1
    if options.spacing is not None and len(options.spacing) != dimensions:
        raise ArgumentInvalidError("test_metric_args.spacing needs a side for each dimension of the images.")
    spacing = options.spacing or [1.0] * dimensions
    pairs = zip(true, predicted, strict=True)
    found = [_distance(one == label, other == label, spacing, options) for one, other in pairs for label in labels]
    known = [distance for distance in found if distance is not None]
    return ratio(sum(known), len(known))


def _distance(true: Mask, found: Mask, spacing: list[float], options: Options) -> float | None:
    from scipy.ndimage import binary_erosion, distance_transform_edt  # noqa: PLC0415 - only where it is used

    if not true.any() or not found.any():
        return None
    surfaces = [mask & ~binary_erosion(mask) for mask in (true, found)]
    away = [distance_transform_edt(~surface, sampling=spacing) for surface in surfaces]
    distances = np.concatenate([away[1][surfaces[0]], away[0][surfaces[1]]])
    return float(np.percentile(distances, options.percentile))

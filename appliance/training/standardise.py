"""Federated standardisation: each feature's mean and variance over all nodes, which no node could know alone."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from appliance.training.errors import ArgumentInvalidError, PlanInvalidError

PREFIX = "standardisation/"  # of its tensors among the parameters
Array = NDArray[Any]
Float64 = NDArray[np.float64]


class Standardise:
    """Takes each feature's mean off and divides by its standard deviation, both over all nodes' training samples.

    The experiment's first round measures: a node returns the means of its samples and of their squares, and the model
    as it was. The mean of those, weighted by numbers of samples, is that of the pooled samples. In all rounds that
    follow the nodes train on standardised data; a node that comes later takes what the others found.

    Args:
        features: How many there are.
        axis: Where they lie: 1 for rows of features, and for the channels of images.
        sizes: About how large each feature's values are, where some go beyond a thousand: a hospital lets no number
            leave that is larger than its policy's ``maximum_value``, and squares are large.

    Raises:
        ArgumentInvalidError: ``features`` is no whole number from 1, or ``sizes`` are not as many numbers above 0.

    Example:
        >>> import numpy as np
        >>> standardise = Standardise(1)
        >>> standardise.begin()
        >>> standardise.add(np.array([[1.0], [3.0]]))
        >>> standardise.end()
        >>> standardise.fill(standardise.tensors())
        >>> standardise.apply(np.array([[1.0], [3.0]]))
        array([[-1.],
               [ 1.]])
    """

    def __init__(self, features: int, *, axis: int = 1, sizes: Sequence[float] | None = None) -> None:
        if isinstance(features, bool) or not isinstance(features, int) or features < 1:
            raise ArgumentInvalidError("Standardise needs the number of features: a whole number from 1.")
        self._sizes = np.ones(features) if sizes is None else np.asarray(sizes, np.float64)
        if self._sizes.shape != (features,) or not (self._sizes > 0).all():
            raise ArgumentInvalidError("Standardise needs a size above 0 for each feature, or none.")
        self._features, self._axis = features, axis
        self._tensors = {"is_known": np.zeros(1), "means": np.zeros(features), "squares": np.zeros(features)}
        self.mean, self.deviation = np.zeros(features), np.ones(features)

    @property
    def is_known(self) -> bool:
        """Whether means and deviations are those of the nodes; else the next round finds them."""
        return bool(self._tensors["is_known"][0] > 0)

    def tensors(self) -> dict[str, Float64]:
        """What travels."""
        return dict(self._tensors)

    def fill(self, tensors: Mapping[str, Array]) -> None:
        """Take what the nodes found together."""
        self._tensors = {name: tensors[name].astype(np.float64) for name in self._tensors}
        if self.is_known:
            means, squares = self._tensors["means"], self._tensors["squares"]
            variances = np.maximum(squares - np.square(means), 0)
            variances[variances <= 1e-12 * squares] = 0  # what rounding leaves of a constant
            self.mean = means * self._sizes
            self.deviation = np.where(variances > 0, np.sqrt(variances), 1.0) * self._sizes

    def begin(self) -> None:
        """Prepare to measure."""
        self._count, self._sum, self._sum_of_squares = 0, np.zeros(self._features), np.zeros(self._features)

    def add(self, data: Any) -> None:
        """Measure one batch; what is not one array of numbers raises PlanInvalidError."""
        array = np.asarray(data.detach().cpu() if _is_torch(data) else data)
        if array.dtype.kind not in "fiub" or array.ndim <= self._axis or array.shape[self._axis] != self._features:
            raise PlanInvalidError(
                f"Standardise was made for {self._features} features along axis {self._axis} of one array of numbers; "
                "the data are something else."
            )
        rows = np.moveaxis(array, self._axis, -1).reshape(-1, self._features).astype(np.float64) / self._sizes
        self._count += len(rows)
        self._sum += rows.sum(axis=0)
        self._sum_of_squares += np.square(rows).sum(axis=0)

    def end(self) -> None:
        """Make the tensors that are returned, of what was measured."""
        found = {"means": self._sum / self._count, "squares": self._sum_of_squares / self._count}
        self._tensors = {"is_known": np.ones(1), **found}

    def apply(self, data: Any) -> Any:
        """An array or a tensor, standardised."""
        mean, deviation = self._like(data, self.mean), self._like(data, self.deviation)
        return (data - mean) / deviation

    def undo(self, data: Any) -> Any:
        """What ``apply`` was given."""
        return data * self._like(data, self.deviation) + self._like(data, self.mean)

    def _like(self, data: Any, values: Float64) -> Any:
        shape = [1] * data.ndim
        shape[self._axis] = self._features
        shaped = values.reshape(shape)
        if _is_torch(data):
            return data.new_tensor(
                shaped, dtype=data.dtype if data.is_floating_point() else sys.modules["torch"].float32
            )
        return shaped.astype(data.dtype) if np.asarray(data).dtype.kind == "f" else shaped


def _is_torch(data: Any) -> bool:
    return "torch" in sys.modules and isinstance(data, sys.modules["torch"].Tensor)

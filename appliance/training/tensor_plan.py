"""Training plans of tensors in, tensors out: statistics, EM, variational inference, whatever has no gradient."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from appliance.training.data_manager import DataManager
from appliance.training.errors import ArgumentInvalidError, PlanInvalidError, TrainingFailedError
from appliance.training.plan import Array, Arrays, Batch, Loaded, Samples, TrainingPlan, require_like
from appliance.training.split import Indices

_TYPES = frozenset({"float32", "float64", "int64", "int32", "uint8", "bool"})


class TensorTrainingPlan(TrainingPlan):
    """A plan that gets the global tensors and a node's samples, and returns tensors of the same names and shapes.

    ``FedAverage`` makes the next global tensors of them: their mean, weighted by numbers of samples. So a node returns
    means over its samples, and the mean over all samples comes out, however they are spread; what is to be made of
    those is made at the beginning of the next ``compute``, alike at each node. Another reduction is an aggregator of
    your own.

    A node calls ``compute`` once a round, with all of its training samples. With a ``batch_size`` among the training
    arguments it is called for each batch, with the same global tensors, and the results are averaged by samples.

    Attributes:
        local: Tensors by name that stay at this node for its next round; assign to it in ``compute``.
        sent: What the aggregator's ``node_tensors`` sent beside the parameters.

    Example:
        A histogram of ages, each bin a share of the samples::

            class Ages(TensorTrainingPlan):
                def init_model(self, model_args):
                    return {"shares": np.zeros(10)}

                def init_dependencies(self):
                    return ["import numpy as np"]

                def training_data(self):
                    return DataManager(self.dataset.column("age"))

                def compute(self, tensors, data, target):
                    counts, _ = np.histogram(data, bins=10, range=(0, 100))
                    return {"shares": counts / len(data)}
    """

    def __init__(self) -> None:
        super().__init__()
        self.local: dict[str, Any] = {}
        self.sent: Mapping[str, Array] = {}

    @abstractmethod
    def compute(self, tensors: dict[str, Array], data: Any, target: Any) -> Mapping[str, Any]:
        """One round's work.

        Args:
            tensors: The global tensors; your own copies.
            data: The training samples, as an array of shape (n_samples, …).
            target: Their targets; None where the DataManager has none.

        Returns:
            A tensor for each of ``tensors``, of the same shape.
        """

    def get_kept_tensors(self) -> Arrays:
        """See ``TrainingPlan``."""
        return {name: _tensor(value) for name, value in self.local.items()}

    def set_kept_tensors(self, kept: Mapping[str, Array], sent: Mapping[str, Array]) -> None:
        """See ``TrainingPlan``."""
        self.local, self.sent = dict(kept), dict(sent)

    def trained_names(self) -> frozenset[str]:
        """See ``TrainingPlan``: none, so that every aggregator takes the mean by samples."""
        return frozenset()

    def _model_tensors(self, *, copy: bool = True) -> Arrays:
        return {name: array.copy() if copy else array for name, array in self._model.items()}

    def _fill_model(self, parameters: Mapping[str, Array]) -> None:
        require_like(parameters, {name: array.shape for name, array in self._model.items()})
        self._model = {name: parameters[name].astype(array.dtype) for name, array in self._model.items()}

    def _adopt(self, model: Any, *, use_gpu: bool) -> dict[str, Array]:  # noqa: ARG002 - arrays have no use for it
        if not isinstance(model, Mapping) or not model or not all(isinstance(name, str) for name in model):
            raise PlanInvalidError("init_model must return the first tensors: arrays by name.")
        return {name: _tensor(value) for name, value in model.items()}

    def _read_samples(self, manager: DataManager) -> Samples:
        return _Rows(manager)

    def _batches(self, loaded: Loaded) -> Iterator[Batch]:
        arguments = self._arguments
        wants_batches = arguments.batch_size or arguments.loader_args.batch_size or loaded.manager.batch_size
        return super()._batches(loaded) if wants_batches else iter([Batch(1, 1, 1, loaded.train)])

    def _start_training(self) -> None:
        self._results: list[tuple[int, Arrays]] = []

    def _update(self, data: Any, target: Any, *, wants_loss: bool) -> None:  # noqa: ARG002 - there is none
        found = self.compute(self._model_tensors(), data, target)
        if not isinstance(found, Mapping) or set(found) != set(self._model):
            raise TrainingFailedError("compute must return a tensor for each of the tensors that it was given.")
        result = {name: _tensor(found[name]) for name in self._model}
        for name, array in self._model.items():
            if result[name].shape != array.shape:
                # Not its name: that is the plan's own word.
                raise TrainingFailedError(f"compute returned a tensor of another shape than {array.shape}.")
        self._results.append((len(data), result))

    def _end_training(self) -> None:
        total = sum(count for count, _ in self._results)
        for name, array in self._model.items():
            mean = np.zeros(array.shape)
            for count, result in self._results:
                mean += count / total * result[name]
            self._model[name] = (mean if array.dtype.kind == "f" else np.rint(mean)).astype(array.dtype)
        self._results = []

    def _predict(self, data: Any, target: Any) -> tuple[Array, Array]:  # noqa: ARG002 - there is no model
        raise ArgumentInvalidError("These tensors predict nothing: write testing_step, and leave out 'test_metric'.")


class _Rows:
    """Samples as arrays, just as the DataManager has them; a map-style dataset is read sample by sample."""

    def __init__(self, manager: DataManager) -> None:
        self._is_mapped = manager.target is None and not hasattr(manager.dataset, "dtype") and _yields_pairs(manager)
        self.are_in_memory = not self._is_mapped
        self._dataset = manager.dataset if self._is_mapped else np.asarray(manager.dataset)
        self._target = None if manager.target is None else np.asarray(manager.target)

    def take(self, indices: Indices) -> tuple[Any, Any]:
        if not self._is_mapped:
            return self._dataset[indices], None if self._target is None else self._target[indices]
        data, target = zip(*(self._dataset[int(index)] for index in indices), strict=True)
        return np.stack([np.asarray(one) for one in data]), np.stack([np.asarray(one) for one in target])

    def place(self, data: Any, target: Any) -> tuple[Any, Any]:
        return data, target


def _yields_pairs(manager: DataManager) -> bool:
    """Whether it is a dataset of (data, target) pairs, and no table or list of numbers."""
    first = manager.dataset[0] if len(manager) and not hasattr(manager.dataset, "iloc") else None
    return isinstance(first, tuple) and len(first) == 2


def _tensor(value: Any) -> Array:
    try:
        array = np.asarray(value)
        if array.dtype.name in _TYPES:
            return np.array(array)
        if array.dtype.kind in "fiu":
            return array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
    except (TypeError, ValueError, RuntimeError):
        pass
    raise PlanInvalidError("A tensor holds something other than numbers, or has an uneven shape.")

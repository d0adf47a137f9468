"""What a scikit-learn plan needs of each kind of model, and the counts that the model arguments state."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from appliance.training.errors import ArgumentInvalidError
from appliance.training.plan import Array, Arrays, require_like


class Learner(ABC):
    """A scikit-learn model as a plan's engine sees it: tensors in, updates by batches, tensors out.

    Args:
        model: What ``init_model`` returned.
        model_args: ``n_features`` and, for a classifier, ``n_classes``.

    Raises:
        ArgumentInvalidError: A count is missing, or scikit-learn does not take the model's arguments.
    """

    is_classifier: ClassVar[bool] = False
    needs_target: ClassVar[bool] = True

    def __init__(self, model: Any, model_args: Mapping[str, Any]) -> None:
        self.model = model
        self.model_args = model_args
        self.features = self.count("n_features", minimum=1)
        self.classes = self.count("n_classes", minimum=2) if self.is_classifier else 1
        self.check()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the few rows that it is shown
            try:
                self.allocate()
            except ValueError:
                raise ArgumentInvalidError(
                    "scikit-learn does not take the arguments given to the plan's model."
                ) from None

    def count(self, name: str, *, minimum: int) -> int:
        """A whole number among the model arguments."""
        value = self.model_args.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ArgumentInvalidError(f"Model argument '{name}' must be a whole number from {minimum}.")
        return value

    def check(self) -> None:
        """Refuse a model that is set in a way which has no meaning over several nodes."""

    @abstractmethod
    def allocate(self) -> None:
        """Let scikit-learn check the model's arguments and make what it keeps, then set the first tensors."""

    @abstractmethod
    def tensors(self) -> Arrays:
        """The model's tensors by name."""

    @abstractmethod
    def fill(self, parameters: Mapping[str, Array]) -> None:
        """Give the model these tensors, of which names and shapes are right."""

    def load(self, parameters: Mapping[str, Array]) -> None:
        """Give the model these tensors; raises ParametersInvalidError unless names and shapes are its own."""
        require_like(parameters, {name: array.shape for name, array in self.tensors().items()})
        self.fill(parameters)

    def begin(self) -> None:
        """Prepare for the batches of one round."""

    @abstractmethod
    def update(self, data: Array, target: Array) -> None:
        """Learn from one batch."""

    def end(self) -> None:
        """Make the tensors that are returned, of the batches that were seen."""

    @abstractmethod
    def loss(self, data: Array, target: Array) -> float:
        """How wrong the model is on a batch, before it learns from it."""

    @abstractmethod
    def predict(self, data: Array, target: Array) -> tuple[Array, Array]:
        """Targets and the outputs that metrics take: one score or one for each class, or the values themselves."""

    def outline(self, rows: int) -> tuple[Array, Array]:
        """A few rows to allocate with: zeros, one of each class."""
        return np.zeros((rows, self.features)), np.arange(rows) % self.classes


class StepLearner(Learner):
    """A model that is trained by steps, which one of declearn's optimizers may make in place of the model."""

    @abstractmethod
    def arrays(self) -> Arrays:
        """The trained tensors themselves, by name: what changes in them, the model has."""

    @abstractmethod
    def gradients(self, data: Array, target: Array) -> Arrays:
        """Of the loss's mean over a batch, with the model's own penalty, by the names of ``arrays``."""


def wrong_share(predicted: Array, target: Array) -> float:
    """The share of wrong predictions."""
    return float((predicted != target).mean())


def mean_square(predicted: Array, target: Array) -> float:
    """The mean squared difference."""
    return float(np.square(predicted - target).mean())


def log_odds(probabilities: Array) -> Array:
    """Probabilities of shape (n, k) as scores: one for two classes, k for more."""
    logs = np.log(np.maximum(probabilities, np.finfo(np.float64).tiny))
    return logs[:, 1] - logs[:, 0] if logs.shape[1] == 2 else logs

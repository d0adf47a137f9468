"""scikit-learn's models that learn step by step: their weights are averaged as any network's are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from appliance.training.errors import ArgumentInvalidError, PlanInvalidError
from appliance.training.plan import Array, Arrays
from appliance.training.sklearn_learner import Learner, log_odds, mean_square, wrong_share

_TENSORS = ("coef_", "intercept_")


class LinearSteps(Learner):
    """SGDRegressor: ``coef_`` and ``intercept_``, zero at first, one ``partial_fit`` a batch."""

    def check(self) -> None:
        """See ``Learner``."""
        if getattr(self.model, "average", False):
            raise PlanInvalidError("A model with average=True keeps two sets of parameters; leave it out.")

    def allocate(self) -> None:
        """See ``Learner``."""
        self.update(*self.outline(self.classes))
        for name in _TENSORS:
            getattr(self.model, name)[...] = 0.0
        self.model.t_ = 1.0

    def tensors(self) -> Arrays:
        """See ``Learner``."""
        return {name: getattr(self.model, name).astype(np.float32) for name in _TENSORS}

    def fill(self, parameters: Mapping[str, Array]) -> None:
        """See ``Learner``."""
        for name in _TENSORS:
            setattr(self.model, name, parameters[name].astype(np.float64))

    def update(self, data: Array, target: Array) -> None:
        """See ``Learner``."""
        self.model.partial_fit(data, target)

    def loss(self, data: Array, target: Array) -> float:
        """See ``Learner``: the mean squared error."""
        return mean_square(self.model.predict(data), target)

    def predict(self, data: Array, target: Array) -> tuple[Array, Array]:
        """See ``Learner``."""
        return target, self.model.predict(data)


class LinearClassifierSteps(LinearSteps):
    """SGDClassifier and Perceptron: a row of ``coef_`` for each class, or one for two."""

    is_classifier = True

    def update(self, data: Array, target: Array) -> None:
        """See ``Learner``."""
        self.model.partial_fit(data, target, classes=np.arange(self.classes))

    def loss(self, data: Array, target: Array) -> float:
        """See ``Learner``: the share of wrong predictions."""
        return wrong_share(self.model.predict(data), target)

    def predict(self, data: Array, target: Array) -> tuple[Array, Array]:
        """See ``Learner``."""
        return target, self.model.decision_function(data)


class NetworkSteps(Learner):
    """MLPRegressor: each layer's weights and biases, one step of the model's own solver a batch.

    The first weights are drawn as scikit-learn draws them, by the plan's seed and not by ``random_state``.

    Source: Glorot and Bengio, Understanding the Difficulty of Training Deep Feedforward Neural Networks, AISTATS 2010.
    """

    def check(self) -> None:
        """See ``Learner``."""
        if self.model.solver == "lbfgs" or self.model.early_stopping:
            raise ArgumentInvalidError(
                "A network learns batch by batch here: use solver='sgd' or 'adam', without early_stopping."
            )

    def allocate(self) -> None:
        """See ``Learner``."""
        self.update(*self.outline(self.classes))
        # As if no batch had been seen: the solver's memory is made anew at the next.
        self.model.t_, self.model.loss_curve_, self.model.best_loss_ = 0, [], np.inf
        del self.model._optimizer  # noqa: SLF001 - scikit-learn has no other way to begin anew with given weights
        factor = 2.0 if self.model.activation == "logistic" else 6.0
        for weights, biases in zip(self.model.coefs_, self.model.intercepts_, strict=True):
            bound = np.sqrt(factor / sum(weights.shape))
            for array in (weights, biases):
                array[...] = np.random.uniform(-bound, bound, array.shape)  # noqa: NPY002 - seeded by the plan

    def tensors(self) -> Arrays:
        """See ``Learner``."""
        return {name: array.astype(np.float32) for name, array in self._layers().items()}

    def fill(self, parameters: Mapping[str, Array]) -> None:
        """See ``Learner``."""
        for name, array in self._layers().items():
            array[...] = parameters[name]

    def update(self, data: Array, target: Array) -> None:
        """See ``Learner``."""
        self.model.batch_size = len(data)  # else a large batch would be cut into several steps
        self._fit(data, target)

    def loss(self, data: Array, target: Array) -> float:
        """See ``Learner``: the mean squared error."""
        return mean_square(self.model.predict(data), target)

    def predict(self, data: Array, target: Array) -> tuple[Array, Array]:
        """See ``Learner``."""
        return target, self.model.predict(data)

    def _fit(self, data: Array, target: Array) -> None:
        self.model.partial_fit(data, target)

    def _layers(self) -> dict[str, Any]:
        named: dict[str, Any] = {}
        for name in ("coefs_", "intercepts_"):
            named |= {f"{name}.{layer}": array for layer, array in enumerate(getattr(self.model, name))}
        return named


class NetworkClassifierSteps(NetworkSteps):
    """MLPClassifier."""

    is_classifier = True

    def loss(self, data: Array, target: Array) -> float:
        """See ``Learner``: the mean logarithmic loss."""
        probabilities = self.model.predict_proba(data)[np.arange(len(target)), target.astype(np.int64)]
        return float(-np.log(np.maximum(probabilities, np.finfo(np.float64).tiny)).mean())

    def predict(self, data: Array, target: Array) -> tuple[Array, Array]:
        """See ``Learner``."""
        return target, log_odds(self.model.predict_proba(data))

    def _fit(self, data: Array, target: Array) -> None:
        self.model.partial_fit(data, target, classes=np.arange(self.classes))

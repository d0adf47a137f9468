"""scikit-learn's models that learn step by step: their weights are averaged as any network's are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from appliance.training.errors import ArgumentInvalidError, PlanInvalidError
from appliance.training.plan import Array, Arrays
from appliance.training.sklearn_learner import StepLearner, log_odds, mean_square, wrong_share
from appliance.training.sklearn_losses import slopes

_TENSORS = ("coef_", "intercept_")


class LinearSteps(StepLearner):
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

    def arrays(self) -> Arrays:
        """See ``StepLearner``."""
        return {name: getattr(self.model, name) for name in _TENSORS}

    def gradients(self, data: Array, target: Array) -> Arrays:
        """See ``StepLearner``: what a step of scikit-learn's follows, here the mean over the batch."""
        model, rows = self.model, np.atleast_2d(self.model.coef_)
        slope = slopes(model.loss, data @ rows.T + model.intercept_, self._signs(target), model.epsilon)
        slope *= self._weights(target) / len(data)
        intercept = slope.sum(axis=0) if model.fit_intercept else np.zeros_like(model.intercept_)
        return {"coef_": (slope.T @ data).reshape(model.coef_.shape) + self._shrinking(), "intercept_": intercept}

    def _signs(self, target: Array) -> Array:
        """What the outputs of shape (n, rows) are to come to."""
        return target[:, np.newaxis]

    def _weights(self, target: Array) -> Array:  # noqa: ARG002 - classes have some
        return np.ones((1, 1))

    def _shrinking(self) -> Array:
        """The penalty's gradient; of an absolute value at 0, it is 0."""
        model, of_l1 = self.model, {None: 0.0, "l2": 0.0, "l1": 1.0, "elasticnet": self.model.l1_ratio}
        weight = 0.0 if model.penalty is None else model.alpha
        part = of_l1[model.penalty]
        shrinking: Array = weight * ((1 - part) * model.coef_ + part * np.sign(model.coef_))
        return shrinking

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

    def _signs(self, target: Array) -> Array:
        """One against the others, as 1 and -1: a column for each class, or for the second of two."""
        return np.where(target[:, np.newaxis] == self._rows(), 1.0, -1.0)

    def _weights(self, target: Array) -> Array:
        """Of several classes, the others weigh 1, as scikit-learn has it."""
        given = self.model.class_weight or {}
        of_class = np.array([given.get(each, 1.0) for each in range(self.classes)])
        if self.classes == 2:
            return of_class[target.astype(np.int64)][:, np.newaxis]
        return np.where(target[:, np.newaxis] == self._rows(), of_class, 1.0)

    def _rows(self) -> Array:
        return np.array([1]) if self.classes == 2 else np.arange(self.classes)


class NetworkSteps(StepLearner):
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

    def arrays(self) -> Arrays:
        """See ``StepLearner``."""
        return self._layers()

    def gradients(self, data: Array, target: Array) -> Arrays:
        """See ``StepLearner``: scikit-learn computes them for its solver, in whose place we listen."""
        listener = _Listener()
        self.model._optimizer = listener  # noqa: SLF001 - as above: there is no other way
        self.update(data, target)
        return dict(zip(self._layers(), listener.gradients, strict=True))

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


class _Listener:
    """What a network takes for its solver, and which changes nothing."""

    gradients: list[Array]

    def update_params(self, params: list[Array], grads: list[Array]) -> None:  # noqa: ARG002 - scikit-learn's signature
        self.gradients = list(grads)

    def iteration_ends(self, time_step: int) -> None:
        """No rate changes here."""


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

"""Training plans for scikit-learn's models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from appliance.training.arguments import TrainingArguments
from appliance.training.data_manager import DataManager
from appliance.training.errors import ArgumentInvalidError, PlanInvalidError, TrainingFailedError
from appliance.training.plan import Array, Arrays, Samples, TrainingPlan
from appliance.training.sklearn_learner import Learner
from appliance.training.sklearn_statistics import Centres, Components, NaiveBayes, NewtonSteps, NormalEquations
from appliance.training.sklearn_steps import LinearClassifierSteps, LinearSteps, NetworkClassifierSteps, NetworkSteps
from appliance.training.split import Indices

# By name: a model's own module is loaded with the model, and nobody waits for the others.
LEARNERS: dict[str, type[Learner]] = {
    "SGDClassifier": LinearClassifierSteps,
    "SGDRegressor": LinearSteps,
    "Perceptron": LinearClassifierSteps,
    "MLPClassifier": NetworkClassifierSteps,
    "MLPRegressor": NetworkSteps,
    "LinearRegression": NormalEquations,
    "LogisticRegression": NewtonSteps,
    "GaussianNB": NaiveBayes,
    "IncrementalPCA": Components,
    "MiniBatchKMeans": Centres,
}


class SklearnTrainingPlan(TrainingPlan):
    """A plan whose model is one of scikit-learn's.

    ``model_args`` holds ``n_features`` and, for a classifier, ``n_classes``; classes are whole numbers from 0.

    Two kinds of model are taken. ``SGDClassifier``, ``SGDRegressor``, ``Perceptron``, ``MLPClassifier`` and
    ``MLPRegressor`` learn by steps, and their weights are averaged. Of ``LinearRegression``, ``LogisticRegression``,
    ``GaussianNB``, ``IncrementalPCA`` and ``MiniBatchKMeans`` the nodes return means over their samples, from which
    follows the model that a fit on pooled data would give; see ``appliance.training.sklearn_statistics``.

    The loss reported is, on the batch before its update, the share of wrong predictions or a mean squared error.

    Example:
        A logistic regression::

            class Logistic(SklearnTrainingPlan):
                def init_model(self, model_args):
                    return SGDClassifier(loss="log_loss", alpha=model_args["alpha"])

                def init_dependencies(self):
                    return ["from sklearn.linear_model import SGDClassifier"]

                def training_data(self):
                    return DataManager(self.dataset.matrix(["age", "bmi"]), self.dataset.column("label"))
    """

    _learner: Learner

    def trained_names(self) -> frozenset[str]:
        """See ``TrainingPlan``: statistics are none of them, so that all aggregators take their mean by samples."""
        return super().trained_names() if self._learner.are_tensors_trained else frozenset()

    def _model_tensors(self, *, copy: bool = True) -> Arrays:  # noqa: ARG002 - nobody changes them in place
        return self._learner.tensors()

    def _fill_model(self, parameters: Mapping[str, Array]) -> None:
        self._learner.load(parameters)

    def _check_arguments(self, arguments: TrainingArguments) -> None:
        if asked := self._aggregator_args.get("correction"):
            raise ArgumentInvalidError(f"The aggregator's correction '{asked}' works with PyTorch plans only.")
        if arguments.fedprox_mu:
            raise ArgumentInvalidError("Training argument 'fedprox_mu' works with PyTorch plans only; leave it out.")
        if arguments.optimizer_args:
            raise ArgumentInvalidError(
                "Training argument 'optimizer_args' works with PyTorch plans only; a scikit-learn model takes its "
                "learning rate (eta0, learning_rate, alpha) in model_args."
            )

    def _adopt(self, model: Any, *, use_gpu: bool) -> Any:  # noqa: ARG002 - scikit-learn has no use for it
        kinds = (kind for kind in type(model).__mro__ if kind.__module__.startswith("sklearn."))
        learner = next((LEARNERS[kind.__name__] for kind in kinds if kind.__name__ in LEARNERS), None)
        if learner is None:
            raise PlanInvalidError(f"init_model must return one of {', '.join(LEARNERS)}.")
        self._learner = learner(model, self._model_args)
        return model

    def _read_samples(self, manager: DataManager) -> Samples:
        learner = self._learner
        if manager.target is None and learner.needs_target:
            raise PlanInvalidError("DataManager needs data and targets: DataManager(X, y).")
        samples = _ArraySamples(manager)
        if samples.data.ndim != 2 or samples.data.shape[1] != learner.features:
            shape = samples.data.shape
            raise ArgumentInvalidError(
                f"Model argument 'n_features' is {learner.features}; the data's shape is {shape}."
            )
        if learner.is_classifier and not np.isin(samples.target, range(learner.classes)).all():
            raise TrainingFailedError("A target is not among the classes 0 to n_classes - 1.")
        return samples

    def _start_training(self) -> None:
        self._learner.begin()

    def _update(self, data: Array, target: Array, *, wants_loss: bool) -> float:
        loss = self._learner.loss(data, target) if wants_loss else 0.0
        self._learner.update(data, target)
        return loss

    def _end_training(self) -> None:
        self._learner.end()

    def _predict(self, data: Array, target: Array) -> tuple[Array, Array]:
        return self._learner.predict(data, target)


class _ArraySamples:
    """Samples that lie in memory as float64 arrays; without targets, zeros stand for them."""

    are_in_memory = True

    def __init__(self, manager: DataManager) -> None:
        target = np.zeros(len(manager)) if manager.target is None else manager.target
        try:
            self.data = np.asarray(manager.dataset, np.float64)
            self.target = np.asarray(target, np.float64).reshape(len(manager), -1)[:, 0]
        except (TypeError, ValueError):
            raise PlanInvalidError("DataManager was given something other than numbers.") from None

    def take(self, indices: Indices) -> tuple[Array, Array]:
        return self.data[indices], self.target[indices]

    def place(self, data: Array, target: Array) -> tuple[Array, Array]:
        return data, target

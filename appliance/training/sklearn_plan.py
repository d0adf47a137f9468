"""Training plans for scikit-learn's linear models that learn batch by batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.linear_model import Perceptron, SGDClassifier, SGDRegressor

from appliance.training.arguments import TrainingArguments
from appliance.training.data_manager import DataManager
from appliance.training.errors import ArgumentInvalidError, PlanInvalidError, TrainingFailedError
from appliance.training.plan import Array, Arrays, Samples, TrainingPlan, require_like
from appliance.training.split import Indices

SUPPORTED = (SGDClassifier, SGDRegressor, Perceptron)
_NAMES = ", ".join(model.__name__ for model in SUPPORTED)
_TENSORS = ("coef_", "intercept_")


class SklearnTrainingPlan(TrainingPlan):
    """A plan whose model is an SGDClassifier, an SGDRegressor or a Perceptron.

    ``model_args`` holds ``n_features`` and, for a classifier, ``n_classes``; classes are whole numbers from 0. The
    parameters are ``coef_`` and ``intercept_``, zero at first. The loss reported is the share of wrong predictions,
    or the mean squared error, on the batch before its update.

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

    def get_parameters(self, *, copy: bool = True) -> Arrays:  # noqa: ARG002 - they are doubles: it is always one
        """Copies of ``coef_`` and ``intercept_`` as float32."""
        return {name: getattr(self.model(), name).astype(np.float32) for name in _TENSORS}

    def set_parameters(self, parameters: Mapping[str, Array]) -> None:
        """Give the model these tensors.

        Raises:
            ParametersInvalidError: They are not exactly the model's: other names or shapes.
        """
        expected = {name: getattr(self.model(), name).shape for name in _TENSORS}
        require_like(parameters, expected)
        for name in expected:
            setattr(self.model(), name, parameters[name].astype(np.float64))

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
        if not isinstance(model, SUPPORTED):
            raise PlanInvalidError(f"init_model must return one of {_NAMES}.")
        if getattr(model, "average", False):
            raise PlanInvalidError("A model with average=True keeps two sets of parameters; leave it out.")
        try:
            self._allocate(model)
        except ValueError:
            name = next(kind.__name__ for kind in SUPPORTED if isinstance(model, kind))
            raise ArgumentInvalidError(f"scikit-learn does not take the arguments given to {name}.") from None
        return model

    def _allocate(self, model: Any) -> None:
        """Let the model make its arrays by one step over zeros, then start from zero."""
        classes = self._count("n_classes", minimum=2) if is_classifier(model) else 1
        samples = np.zeros((classes, self._count("n_features", minimum=1)))
        self._fit(model, samples, np.arange(classes))
        for name in _TENSORS:
            getattr(model, name)[...] = 0.0
        model.t_ = 1.0

    def _count(self, name: str, *, minimum: int) -> int:
        value = self._model_args.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise ArgumentInvalidError(f"Model argument '{name}' must be a whole number from {minimum}.")
        return value

    def _fit(self, model: Any, data: Array, target: Array) -> None:
        if is_classifier(model):
            model.partial_fit(data, target, classes=np.arange(self._count("n_classes", minimum=2)))
        else:
            model.partial_fit(data, target)

    def _read_samples(self, manager: DataManager) -> Samples:
        if manager.target is None:
            raise PlanInvalidError("DataManager needs data and targets: DataManager(X, y).")
        samples = _ArraySamples(manager)
        features = self._count("n_features", minimum=1)
        if samples.data.ndim != 2 or samples.data.shape[1] != features:
            shape = samples.data.shape
            raise ArgumentInvalidError(f"Model argument 'n_features' is {features}; the data's shape is {shape}.")
        if (
            is_classifier(self.model())
            and not np.isin(samples.target, range(self._count("n_classes", minimum=2))).all()
        ):
            raise TrainingFailedError("A target is not among the classes 0 to n_classes - 1.")
        return samples

    def _update(self, data: Array, target: Array, *, wants_loss: bool) -> float:
        loss = self._loss(data, target) if wants_loss else 0.0
        self._fit(self.model(), data, target)
        return loss

    def _loss(self, data: Array, target: Array) -> float:
        predicted = self.model().predict(data)
        wrong = predicted != target if is_classifier(self.model()) else np.square(predicted - target)
        return float(wrong.mean())

    def _predict(self, data: Array, target: Array) -> tuple[Array, Array]:
        model = self.model()
        return target, model.decision_function(data) if is_classifier(model) else model.predict(data)


class _ArraySamples:
    """Samples that lie in memory as float64 arrays."""

    are_in_memory = True

    def __init__(self, manager: DataManager) -> None:
        try:
            self.data = np.asarray(manager.dataset, np.float64)
            self.target = np.asarray(manager.target, np.float64).reshape(len(manager), -1)[:, 0]
        except (TypeError, ValueError):
            raise PlanInvalidError("DataManager was given something other than numbers.") from None

    def take(self, indices: Indices) -> tuple[Array, Array]:
        return self.data[indices], self.target[indices]

    def place(self, data: Array, target: Array) -> tuple[Array, Array]:
        return data, target

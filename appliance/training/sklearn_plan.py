"""Training plans for scikit-learn's models."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from appliance.training.arguments import TrainingArguments
from appliance.training.data_manager import DataManager
from appliance.training.errors import ArgumentInvalidError, PlanInvalidError, TrainingFailedError
from appliance.training.plan import Array, Arrays, Samples, TrainingPlan
from appliance.training.sklearn_learner import Learner, StepLearner
from appliance.training.sklearn_statistics import Centres, Components, NaiveBayes, NewtonSteps, NormalEquations
from appliance.training.sklearn_steps import LinearClassifierSteps, LinearSteps, NetworkClassifierSteps, NetworkSteps
from appliance.training.split import Indices

if TYPE_CHECKING:
    from appliance.training.correction import Correction

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

_NEEDS_OPTIMIZER = "needs a PyTorch plan, or an init_optimizer that returns one of declearn's"


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

        With one of declearn's optimizers in place of the model's own steps::

            class Momentum(Logistic):
                def init_dependencies(self):
                    return [*super().init_dependencies(), "from declearn.optimizer import Optimizer"]

                def init_optimizer(self, optimizer_args):
                    return Optimizer(lrate=optimizer_args["lr"], modules=["momentum"])
    """

    _learner: Learner

    def __init__(self) -> None:
        super().__init__()
        self._correction: Correction | None = None
        self._kept: Mapping[str, Array] = {}  # of the last round
        self._sent: Mapping[str, Array] = {}
        self._to_keep: Arrays = {}

    def init_optimizer(self, optimizer_args: dict[str, Any]) -> Any:  # noqa: ARG002 - for the plans that have one
        """Build one of declearn's optimizers and return it; None: the model makes its own steps.

        With one, each batch is one step along the mean gradient of the model's loss and penalty; the model's own
        learning rate has no meaning then.
        """
        return None

    def trained_names(self) -> frozenset[str]:
        """See ``TrainingPlan``: statistics are none of them, so that all aggregators take their mean by samples."""
        return super().trained_names() if isinstance(self._learner, StepLearner) else frozenset()

    def _model_tensors(self, *, copy: bool = True) -> Arrays:  # noqa: ARG002 - nobody changes them in place
        return self._learner.tensors()

    def _fill_model(self, parameters: Mapping[str, Array]) -> None:
        self._learner.load(parameters)

    def set_kept_tensors(self, kept: Mapping[str, Array], sent: Mapping[str, Array]) -> None:
        """See ``TrainingPlan``."""
        self._kept, self._sent = dict(kept), dict(sent)

    def get_returned_parameters(self) -> Arrays:
        """See ``TrainingPlan``."""
        if self._correction is not None:
            self._correction.turn_into_returned()
        return super().get_returned_parameters()

    def get_kept_tensors(self) -> Arrays:
        """See ``TrainingPlan``."""
        return self._to_keep

    def _check_arguments(self, arguments: TrainingArguments) -> None:
        if type(self).init_optimizer is SklearnTrainingPlan.init_optimizer:
            self._require_own_steps(arguments)

    def _require_own_steps(self, arguments: TrainingArguments) -> None:
        """Refuse what a model cannot do that makes its own steps."""
        if self._aggregator_args.get("correction"):
            raise ArgumentInvalidError(f"The aggregator corrects each step, which {_NEEDS_OPTIMIZER}.")
        if arguments.fedprox_mu:
            raise ArgumentInvalidError(f"Training argument 'fedprox_mu' {_NEEDS_OPTIMIZER}; else leave it out.")
        if arguments.optimizer_args:
            raise ArgumentInvalidError(
                f"Training argument 'optimizer_args' {_NEEDS_OPTIMIZER}; a scikit-learn model that makes its own steps "
                "takes its learning rate (eta0, learning_rate, alpha) in model_args."
            )

    def _adopt(self, model: Any, *, use_gpu: bool) -> Any:  # noqa: ARG002 - scikit-learn has no use for it
        kinds = (kind for kind in type(model).__mro__ if kind.__module__.startswith("sklearn."))
        learner = next((LEARNERS[kind.__name__] for kind in kinds if kind.__name__ in LEARNERS), None)
        if learner is None:
            raise PlanInvalidError(f"init_model must return one of {', '.join(LEARNERS)}.")
        self._learner = learner(model, self._model_args)
        self._correction, self._kept, self._sent, self._to_keep = None, {}, {}, {}
        return model

    def _read_samples(self, manager: DataManager) -> Samples:
        learner = self._learner
        if manager.target is None and learner.needs_target:
            raise PlanInvalidError("DataManager needs data and targets: DataManager(X, y).")
        samples = _ArraySamples(manager)
        if samples.data.ndim != 2 or samples.data.shape[1] != learner.features:
            # Without the shape: it says how many records there are.
            raise ArgumentInvalidError("Model argument 'n_features' is not the number of the data's columns.")
        if learner.is_classifier and not np.isin(samples.target, range(learner.classes)).all():
            raise TrainingFailedError("A target is not among the classes 0 to n_classes - 1.")
        return samples

    def _start_training(self) -> None:
        self._learner.begin()
        self._optimizer = self.init_optimizer(self.optimizer_args())
        if self._optimizer is None:
            self._require_own_steps(self._arguments)
        else:
            self._take_over(self._optimizer)

    def _take_over(self, optimizer: Any) -> None:
        """Let an optimizer make the model's steps."""
        # Only here, where a plan uses it: other plans of scikit-learn's need no PyTorch.
        import torch  # noqa: PLC0415 - as above

        from appliance.training.declearn_steps import (  # noqa: PLC0415 - as above
            DeclearnSteps,
            correction_with,
            is_declearn,
        )

        if not is_declearn(optimizer):
            raise PlanInvalidError("init_optimizer of a scikit-learn plan must return one of declearn's, or None.")
        learner = self._learner
        if not isinstance(learner, StepLearner):
            raise PlanInvalidError("The model is made of statistics, not by steps: leave init_optimizer out.")
        # In the very memory of the model's arrays: what a step changes, the model has.
        trained = {name: torch.nn.Parameter(torch.from_numpy(each)) for name, each in learner.arrays().items()}
        plan = (self.text_sha256, self.model_args())
        self._optimizer = DeclearnSteps(optimizer, trained, plan=plan, kept=_part(self._kept, "optimizer/"))
        self._correction = correction_with(self._optimizer, self._arguments, self._aggregator_args)
        if self._correction is not None:
            sent = {name: torch.tensor(array) for name, array in self._sent.items()}
            kept = {name: torch.tensor(array) for name, array in _part(self._kept, "correction/").items()}
            self._correction.begin(trained, sent, kept)
            self._correction.attach(self._optimizer)

    def _update(self, data: Array, target: Array, *, wants_loss: bool) -> float:
        loss = self._learner.loss(data, target) if wants_loss else 0.0
        if self._optimizer is None:
            self._learner.update(data, target)
        else:
            assert isinstance(self._learner, StepLearner)  # else there is no optimizer
            self._optimizer.follow(self._learner.gradients(data, target))
        return loss

    def _is_optimizer_new(self) -> bool | None:
        return None if self._optimizer is None else self._optimizer.is_new

    def _end_training(self) -> float | None:
        self._learner.end()
        if self._optimizer is None:
            return None
        self._to_keep = {f"optimizer/{name}": array for name, array in self._optimizer.memory().items()}
        if self._correction is None:
            return None
        kept, learning_rates = self._correction.end()
        self._to_keep |= {f"correction/{name}": tensor.numpy() for name, tensor in kept.items()}
        return learning_rates

    def _predict(self, data: Array, target: Array) -> tuple[Array, Array]:
        return self._learner.predict(data, target)


def _part(tensors: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}


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

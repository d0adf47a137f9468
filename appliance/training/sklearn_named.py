"""A plan class for each of scikit-learn's models, under the names that Fed-BioMed's users look for.

``model_args`` holds the counts (``n_features``, ``n_classes``, ``n_samples``), and the model's own arguments.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any, ClassVar

from appliance.protocol.wording import did_you_mean
from appliance.training.errors import ArgumentInvalidError
from appliance.training.sklearn_plan import SklearnTrainingPlan

_COUNTS = ("n_features", "n_classes", "n_samples")


class _NamedPlan(SklearnTrainingPlan):
    """A plan whose model is known."""

    _model_class: ClassVar[str]  # imported when it is needed

    def init_model(self, model_args: dict[str, Any]) -> Any:
        """Build the model of the model arguments.

        Raises:
            ArgumentInvalidError: One that the model does not take.
        """
        module, _, name = self._model_class.rpartition(".")
        kind = getattr(import_module(module), name)
        takes = [*inspect.signature(kind).parameters]
        all_ = ", ".join(takes)
        given = {key: value for key, value in model_args.items() if key not in _COUNTS}
        for key in given:
            if key not in takes:
                hint = did_you_mean(key, [*takes, *_COUNTS])
                raise ArgumentInvalidError(f"{name} takes no model argument '{key}'.{hint} It takes {all_}.")
        return kind(**given)


class FedSGDClassifier(_NamedPlan):
    """Linear classifiers by stochastic gradient descent: a support vector machine, logistic regression and others.

    Example:
        ``model_args={"n_features": 2, "n_classes": 2, "loss": "log_loss", "alpha": 1e-3}``, and::

            class Readmission(FedSGDClassifier):
                def training_data(self):
                    return DataManager(self.dataset.matrix(["age", "bmi"]), self.dataset.column("readmitted"))
    """

    _model_class = "sklearn.linear_model.SGDClassifier"


class FedSGDRegressor(_NamedPlan):
    """Linear regression by stochastic gradient descent.

    Example:
        ``model_args={"n_features": 2, "eta0": 0.01}``, and a class as for ``FedSGDClassifier``.
    """

    _model_class = "sklearn.linear_model.SGDRegressor"


class FedPerceptron(_NamedPlan):
    """The perceptron.

    Example:
        ``model_args={"n_features": 2, "n_classes": 2}``, and a class as for ``FedSGDClassifier``.
    """

    _model_class = "sklearn.linear_model.Perceptron"


class FedLinearRegression(_NamedPlan):
    """Least squares: one round gives what a fit on pooled data would.

    Example:
        ``model_args={"n_features": 2}``, and a class as for ``FedSGDClassifier``.
    """

    _model_class = "sklearn.linear_model.LinearRegression"


class FedLogisticRegression(_NamedPlan):
    """Logistic regression by Newton's method: a handful of rounds give what a fit on pooled data would.

    ``C`` weighs the penalty against the sum over all nodes' samples, whose number ``n_samples`` states; ``"C": None``
    stands for no penalty.

    Example:
        ``model_args={"n_features": 2, "n_classes": 2, "C": 1.0, "n_samples": 1200}``, and a class as for
        ``FedSGDClassifier``.
    """

    _model_class = "sklearn.linear_model.LogisticRegression"

    def init_model(self, model_args: dict[str, Any]) -> Any:
        """Build the model of the model arguments, in which JSON has no infinity."""
        return super().init_model({**model_args, "C": float("inf")} if model_args.get("C", 1) is None else model_args)


class FedGaussianNB(_NamedPlan):
    """Gaussian naive Bayes: one round gives what a fit on pooled data would.

    Example:
        ``model_args={"n_features": 2, "n_classes": 3}``, and a class as for ``FedSGDClassifier``.
    """

    _model_class = "sklearn.naive_bayes.GaussianNB"


class FedMLPClassifier(_NamedPlan):
    """A multi-layer perceptron for classes.

    Example:
        ``model_args={"n_features": 2, "n_classes": 3, "hidden_layer_sizes": [32], "learning_rate_init": 0.01}``, and a
        class as for ``FedSGDClassifier``.
    """

    _model_class = "sklearn.neural_network.MLPClassifier"


class FedMLPRegressor(_NamedPlan):
    """A multi-layer perceptron for numbers.

    Example:
        ``model_args={"n_features": 2, "hidden_layer_sizes": [32]}``, and a class as for ``FedSGDClassifier``.
    """

    _model_class = "sklearn.neural_network.MLPRegressor"


class FedIncrementalPCA(_NamedPlan):
    """Principal components: one round gives those of the pooled data.

    Example:
        ``model_args={"n_features": 20, "n_components": 5}``, and::

            class Patterns(FedIncrementalPCA):
                def training_data(self):
                    return DataManager(self.dataset.matrix(COLUMNS))
    """

    _model_class = "sklearn.decomposition.IncrementalPCA"


class FedMiniBatchKMeans(_NamedPlan):
    """Clusters: with one batch a round, a round is a step of Lloyd's algorithm on the pooled data.

    Example:
        ``model_args={"n_features": 20, "n_clusters": 4}``, and a class as for ``FedIncrementalPCA``.
    """

    _model_class = "sklearn.cluster.MiniBatchKMeans"

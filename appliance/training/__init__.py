"""Training plans, their arguments, and the engine that runs them.

PyTorch and scikit-learn are imported only when a name that needs them is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from appliance.training.arguments import TrainingArguments
from appliance.training.data_manager import DataManager
from appliance.training.errors import (
    ArgumentInvalidError,
    ParametersInvalidError,
    PlanInvalidError,
    TrainingFailedError,
    TrainingStoppedError,
)
from appliance.training.metrics import Metric, evaluate
from appliance.training.plan import Ratio, TestOutcome, TrainingPlan, TrainingProgress, TrainOutcome
from appliance.training.source import PlanSource, describe, load_plan, plan_line, plan_source
from appliance.training.split import derive_seed, fold_indices, split_indices
from appliance.training.standardise import Standardise
from appliance.training.tensor_plan import TensorTrainingPlan

if TYPE_CHECKING:
    from appliance.training.sklearn_named import (
        FedGaussianNB,
        FedIncrementalPCA,
        FedLinearRegression,
        FedLogisticRegression,
        FedMiniBatchKMeans,
        FedMLPClassifier,
        FedMLPRegressor,
        FedPerceptron,
        FedSGDClassifier,
        FedSGDRegressor,
    )
    from appliance.training.sklearn_plan import SklearnTrainingPlan
    from appliance.training.torch_plan import TorchTrainingPlan

__all__ = [
    "ArgumentInvalidError",
    "DataManager",
    "FedGaussianNB",
    "FedIncrementalPCA",
    "FedLinearRegression",
    "FedLogisticRegression",
    "FedMLPClassifier",
    "FedMLPRegressor",
    "FedMiniBatchKMeans",
    "FedPerceptron",
    "FedSGDClassifier",
    "FedSGDRegressor",
    "Metric",
    "ParametersInvalidError",
    "PlanInvalidError",
    "PlanSource",
    "Ratio",
    "SklearnTrainingPlan",
    "Standardise",
    "TensorTrainingPlan",
    "TestOutcome",
    "TorchTrainingPlan",
    "TrainOutcome",
    "TrainingArguments",
    "TrainingFailedError",
    "TrainingPlan",
    "TrainingProgress",
    "TrainingStoppedError",
    "derive_seed",
    "describe",
    "evaluate",
    "fold_indices",
    "load_plan",
    "plan_line",
    "plan_source",
    "split_indices",
]

_NAMED = tuple(name for name in __all__ if name.startswith("Fed"))
_HEAVY = {
    **dict.fromkeys(_NAMED, "appliance.training.sklearn_named"),
    "SklearnTrainingPlan": "appliance.training.sklearn_plan",
    "TorchTrainingPlan": "appliance.training.torch_plan",
}


def __getattr__(name: str) -> Any:
    """Import a framework's plan at its first use (PEP 562)."""
    if name in _HEAVY:
        return getattr(import_module(_HEAVY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""FedWard for researchers: a federated experiment as ordinary Python.

PyTorch and scikit-learn are imported only when a plan that needs them is asked for.
"""

from typing import TYPE_CHECKING, Any

import appliance.training
from appliance.protocol.errors import FedWardError
from appliance.training import DataManager, Metric, Ratio, Standardise, TensorTrainingPlan
from researcher_kit.aggregators import (
    Aggregator,
    ConsensusADMM,
    CoordinateMedian,
    FedAdagrad,
    FedAdam,
    FedAverage,
    FedYogi,
    Krum,
    Scaffold,
    ServerOptimizer,
    TrimmedMean,
)
from researcher_kit.attach import attach
from researcher_kit.campaign import Campaign, cross_validate, sweep
from researcher_kit.early_stopping import EarlyStopping
from researcher_kit.experiment import Experiment
from researcher_kit.federation import Federation
from researcher_kit.jobs import Job, JobState
from researcher_kit.local import LocalDataset, LocalFederation
from researcher_kit.schedules import Cosine, Exponential, Steps
from researcher_kit.simulation import simulate
from researcher_kit.strategies import AdaptiveQuorum, AllNodes, OverSelection, Quorum, RandomFraction, Strategy

if TYPE_CHECKING:
    from appliance.training import (
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
        SklearnTrainingPlan,
        TorchTrainingPlan,
    )

__all__ = [
    "AdaptiveQuorum",
    "Aggregator",
    "AllNodes",
    "Campaign",
    "ConsensusADMM",
    "CoordinateMedian",
    "Cosine",
    "DataManager",
    "EarlyStopping",
    "Experiment",
    "Exponential",
    "FedAdagrad",
    "FedAdam",
    "FedAverage",
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
    "FedWardError",
    "FedYogi",
    "Federation",
    "Job",
    "JobState",
    "Krum",
    "LocalDataset",
    "LocalFederation",
    "Metric",
    "OverSelection",
    "Quorum",
    "RandomFraction",
    "Ratio",
    "Scaffold",
    "ServerOptimizer",
    "SklearnTrainingPlan",
    "Standardise",
    "Steps",
    "Strategy",
    "TensorTrainingPlan",
    "TorchTrainingPlan",
    "TrimmedMean",
    "attach",
    "cross_validate",
    "simulate",
    "sweep",
]


def __getattr__(name: str) -> Any:
    """Import a framework's plan at its first use (PEP 562)."""
    if name in __all__:
        return getattr(appliance.training, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

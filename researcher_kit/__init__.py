"""FedWard for researchers: a federated experiment as ordinary Python."""

from appliance.protocol.errors import FedWardError
from appliance.training import DataManager, SklearnTrainingPlan, TorchTrainingPlan
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
    TrimmedMean,
)
from researcher_kit.early_stopping import EarlyStopping
from researcher_kit.experiment import Experiment
from researcher_kit.federation import Federation
from researcher_kit.schedules import Cosine, Exponential, Steps
from researcher_kit.strategies import AdaptiveQuorum, AllNodes, OverSelection, Quorum, RandomFraction, Strategy

__all__ = [
    "AdaptiveQuorum",
    "Aggregator",
    "AllNodes",
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
    "FedWardError",
    "FedYogi",
    "Federation",
    "Krum",
    "OverSelection",
    "Quorum",
    "RandomFraction",
    "Scaffold",
    "SklearnTrainingPlan",
    "Steps",
    "Strategy",
    "TorchTrainingPlan",
    "TrimmedMean",
]

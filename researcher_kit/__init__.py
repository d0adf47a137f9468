"""FedWard for researchers: a federated experiment as ordinary Python."""

from appliance.protocol.errors import FedWardError
from appliance.training import DataManager, SklearnTrainingPlan, TorchTrainingPlan
from researcher_kit.aggregators import Aggregator, FedAverage
from researcher_kit.experiment import Experiment
from researcher_kit.federation import Federation
from researcher_kit.strategies import AllNodes, Quorum, Strategy

__all__ = [
    "Aggregator",
    "AllNodes",
    "DataManager",
    "Experiment",
    "FedAverage",
    "FedWardError",
    "Federation",
    "Quorum",
    "SklearnTrainingPlan",
    "Strategy",
    "TorchTrainingPlan",
]

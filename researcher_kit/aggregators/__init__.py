"""How updates become the next global parameters."""

from researcher_kit.aggregators.admm import ConsensusADMM
from researcher_kit.aggregators.base import Aggregator, Setting, Tensors, Update, read_part
from researcher_kit.aggregators.fed_average import FedAverage
from researcher_kit.aggregators.fed_opt import FedAdagrad, FedAdam, FedYogi
from researcher_kit.aggregators.robust import CoordinateMedian, Krum, TrimmedMean
from researcher_kit.aggregators.scaffold import Scaffold
from researcher_kit.aggregators.server_optimizer import ServerOptimizer

AGGREGATORS = (
    FedAverage,
    FedAdam,
    FedYogi,
    FedAdagrad,
    Scaffold,
    ConsensusADMM,
    CoordinateMedian,
    TrimmedMean,
    Krum,
    ServerOptimizer,
)

__all__ = [
    "AGGREGATORS",
    "Aggregator",
    "ConsensusADMM",
    "CoordinateMedian",
    "FedAdagrad",
    "FedAdam",
    "FedAverage",
    "FedYogi",
    "Krum",
    "Scaffold",
    "ServerOptimizer",
    "Setting",
    "Tensors",
    "TrimmedMean",
    "Update",
    "read_part",
]

"""How updates become the next global parameters."""

from researcher_kit.aggregators.base import Aggregator, Tensors, Update, read_part
from researcher_kit.aggregators.fed_average import FedAverage

__all__ = ["Aggregator", "FedAverage", "Tensors", "Update", "read_part"]

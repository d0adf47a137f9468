"""Who trains in a round, and when the round is complete."""

from researcher_kit.strategies.adaptive_quorum import AdaptiveQuorum
from researcher_kit.strategies.all_nodes import AllNodes
from researcher_kit.strategies.base import Decision, RoundView, Strategy, Verdict
from researcher_kit.strategies.quorum import Quorum
from researcher_kit.strategies.random_nodes import OverSelection, RandomFraction

STRATEGIES = (AllNodes, Quorum, AdaptiveQuorum, RandomFraction, OverSelection)

__all__ = [
    "STRATEGIES",
    "AdaptiveQuorum",
    "AllNodes",
    "Decision",
    "OverSelection",
    "Quorum",
    "RandomFraction",
    "RoundView",
    "Strategy",
    "Verdict",
]

"""Who trains in a round, and when the round is complete."""

from researcher_kit.strategies.all_nodes import AllNodes
from researcher_kit.strategies.base import Decision, RoundView, Strategy, Verdict
from researcher_kit.strategies.quorum import Quorum

__all__ = ["AllNodes", "Decision", "Quorum", "RoundView", "Strategy", "Verdict"]

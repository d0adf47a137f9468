"""What is killed when, in the training of which plan: the same seed, the same schedule."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

PLAN = Path(__file__).parent.parent / "integration/rounds/plan.py"  # its width decides how its tensors travel
SHARE = 0.2  # of the rounds see somebody killed
CALM = 0.2  # the last rounds in which nobody is killed: what grows then, leaks
_MOMENTS = ("RoundStarted", "ParametersUploaded", "NodeReceived", "NodeReplied", "RoundClosed")
_LATEST_S = 0.15  # after the moment: about a round's time


class Victim(StrEnum):
    """Who can be killed."""

    WARDEN = "warden"
    SUPERVISOR = "supervisor"
    CHILD = "child"  # the process that trains
    NODE = "node"  # all of it, as by a power cut
    NETWORK = "network"
    BROKER = "broker"  # and it forgets all that it stored
    RESEARCHER = "researcher"


@dataclass(frozen=True)
class Kill:
    """One SIGKILL.

    Attributes:
        node: Whose, where the victim is a node's.
        moment: The researcher's event of that round which sets it off.
        delay_s: How long after it.
    """

    victim: Victim
    node: str
    moment: str
    delay_s: float

    def __str__(self) -> str:
        whose = f" of {self.node}" if self.victim in {Victim.WARDEN, Victim.SUPERVISOR, Victim.CHILD} else ""
        name = self.node if self.victim is Victim.NODE else f"{self.victim}{whose}"
        return f"{name}, {1000 * self.delay_s:.0f} ms after {self.moment}"


def make_schedule(seed: int, rounds: int, nodes: Sequence[str]) -> dict[int, Kill]:
    """The kills by round, counted over all experiments from 1; each victim has its turn before any has a second."""
    chance = random.Random(seed)
    eventful = range(1, int(rounds * (1 - CALM)) + 1)
    count = max(len(Victim), int(rounds * SHARE))
    victims: list[Victim] = []
    while len(victims) < count:
        victims += chance.sample([*Victim], len(Victim))
    chosen = sorted(chance.sample(eventful, min(count, len(eventful))))
    return {
        number: _kill(chance, victim, chance.choice([*nodes])) for number, victim in zip(chosen, victims, strict=False)
    }


def _kill(chance: random.Random, victim: Victim, node: str) -> Kill:
    moment, delay_s = chance.choice(_MOMENTS), chance.uniform(0, _LATEST_S)
    if victim is Victim.CHILD:  # it trains for a moment only
        return Kill(victim, node, "NodeReceived", delay_s / 5)
    return Kill(victim, node, moment, delay_s)

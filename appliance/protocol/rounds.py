"""The steps of a round, on both sides, in the one order that they have.

A step is persisted when it is *finished*, unless to repeat it costs less than to record it: then it is persisted with
the next one that is. After a crash a round goes on behind its last persisted step. The steps between nodes (secure
aggregation) have their places now: without it they are passed over.
"""

from __future__ import annotations

from enum import StrEnum


class RoundStep(StrEnum):
    """A node's part in one round."""

    ACCEPTED = "accepted"  # governance said yes; committed before the Receipt was sent
    FETCHED = "fetched"  # the global parameters are here, whole
    ROUNDSPEC = "roundspec"  # secure aggregation: the signed round specification is agreed
    ADVERT = "advert"
    SHARE = "share"
    TRAINED = "trained"  # the runner returned an update
    CHECKED = "checked"  # the egress guard passed it, and it is sealed: in the spool, or enclosed in its reply
    SUBMIT = "submit"  # uploaded, whole, as the network host confirmed
    CONFIRM = "confirm"
    OPEN = "open"
    REPLIED = "replied"  # the TrainReply is in the outbox
    FAILED = "failed"  # an Error is in the outbox instead
    STOPPED = "stopped"  # stopped from either side; an Error is in the outbox

    @property
    def is_final(self) -> bool:
        """True when nothing more is to be done at this node."""
        return self in FINAL_STEPS


FINAL_STEPS = frozenset({RoundStep.REPLIED, RoundStep.FAILED, RoundStep.STOPPED})
SECAGG_STEPS = frozenset({RoundStep.ROUNDSPEC, RoundStep.ADVERT, RoundStep.SHARE, RoundStep.CONFIRM, RoundStep.OPEN})
ALL_STEPS: tuple[RoundStep, ...] = tuple(step for step in RoundStep if step not in FINAL_STEPS - {RoundStep.REPLIED})
PLAIN_STEPS: tuple[RoundStep, ...] = tuple(step for step in ALL_STEPS if step not in SECAGG_STEPS)


class ResearcherStep(StrEnum):
    """The researcher's part in one round."""

    CHOSEN = "chosen"  # the strategy named the nodes
    UPLOADED = "uploaded"  # the global parameters are at the network host, or enclosed in the requests
    REQUESTED = "requested"  # every TrainRequest is in the outbox
    COLLECTED = "collected"  # quorum or deadline: the set of updates is final
    AGGREGATED = "aggregated"  # the new parameters are written
    CLOSED = "closed"  # recorded in the experiment

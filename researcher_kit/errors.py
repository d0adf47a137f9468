"""What can go wrong at the researcher's, each with the member who is at the root of it.

What a node refused keeps the node's own code, rule and remedy.

    FedWardError
    ├── ExperimentArgumentError     an argument of the experiment is wrong, or one is missing
    ├── ExperimentBusyError         another process runs the same experiment
    ├── NetworkUnreachableError     no line to the network host
    ├── NoDatasetError              no node has a dataset that fits
    ├── DatasetChoiceError          a node has several: choose one
    ├── PlanNotApprovedError        some hospital has not approved the training plan
    ├── NodeFailedError             a node failed, and the strategy needs every one
    ├── QuorumMissedError           too few nodes answered
    ├── RoundStoppedError           the round was stopped
    ├── UpdateRefusedError          a node returned no update of this model (from appliance.protocol.errors)
    ├── AggregationError            the aggregator cannot use the updates, or returned another model
    └── BreakpointError             a breakpoint is not whole, or of another version
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.protocol.errors import REMEDIES, Code, FedWardError

RECORD_LINES = 40  # of what a plan printed: the last tell where it failed


@dataclass(frozen=True)
class NodeFailure:
    """Why one node gave no update.

    Attributes:
        institution: The hospital's name in the membership register.
        rule: The node's policy rule that decided, if one did.
        plan_line: The number (from 1) of the line of the training plan that raised.
        plan_text: That line.
        round: In which round.
        record: What the plan printed, with its traceback; of local nodes only, for hospitals keep it.
    """

    node_id: str
    institution: str
    code: Code
    message: str
    rule: str | None = None
    plan_line: int | None = None
    plan_text: str = ""
    record: str = ""
    round: int | None = None

    def __str__(self) -> str:
        parts = [f"{self.institution} ({self.node_id}): {self.message} [{self.code}]"]
        if self.rule:
            parts.append(f"rule: {self.rule}")
        if self.plan_line:
            parts.append(f"line {self.plan_line} of the training plan: {self.plan_text}".rstrip(": "))
        return "\n".join(["; ".join(parts), *self.record.rstrip().splitlines()[-RECORD_LINES:]])

    @property
    def remedy(self) -> str:
        """What the reader can do."""
        return REMEDIES[self.code]


def _in_round(failures: tuple[NodeFailure, ...]) -> str:
    number = failures[0].round if failures else None
    return "" if number is None else f"Round {number}: "


class ExperimentArgumentError(FedWardError):
    """An argument of the experiment is wrong, or one that it needs is missing."""

    code = Code.ARGUMENT_INVALID


class ExperimentBusyError(FedWardError):
    """Another process, or another notebook, runs the same experiment."""

    code = Code.STORE_BUSY


class NetworkUnreachableError(FedWardError):
    """There is no line to the network host."""

    code = Code.NETWORK_UNREACHABLE


class NoDatasetError(FedWardError):
    """No node that answered has a dataset that fits."""

    code = Code.DATASET_UNKNOWN


class DatasetChoiceError(FedWardError):
    """A node has several datasets that fit."""

    code = Code.ARGUMENT_INVALID


class PlanNotApprovedError(FedWardError):
    """Some hospital has not approved the exact text of the training plan."""

    code = Code.PLAN_NOT_APPROVED


class NodeFailedError(FedWardError):
    """One node failed, and the strategy cannot do without it.

    Attributes:
        failures: Every failure of the round, the culprit's first.
    """

    def __init__(self, failures: tuple[NodeFailure, ...]) -> None:
        first = failures[0]
        others = "".join(f"\nAlso: {failure}" for failure in failures[1:])
        super().__init__(f"{_in_round(failures)}{first}{others}", code=first.code, rule=first.rule)
        self.failures = failures


class QuorumMissedError(FedWardError):
    """Fewer nodes answered than the strategy needs.

    Attributes:
        failures: One for each node without an update.
    """

    code = Code.QUORUM_MISSED

    def __init__(self, message: str, failures: tuple[NodeFailure, ...]) -> None:
        super().__init__(_in_round(failures) + "\n".join([message, *(f"- {failure}" for failure in failures)]))
        self.failures = failures


class RoundStoppedError(FedWardError):
    """The round was stopped from this side."""

    code = Code.ROUND_STOPPED


class AggregationError(FedWardError):
    """The aggregator cannot use the updates, or it returned another model than it was given."""

    code = Code.PARAMETERS_INVALID


class BreakpointError(FedWardError):
    """A breakpoint is not whole, or of another version."""

    code = Code.BREAKPOINT_INVALID

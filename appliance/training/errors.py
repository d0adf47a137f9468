"""What can be wrong with a training plan, its arguments, and a training.

    FedWardError
    ├── ArgumentInvalidError      an unknown training argument, or a value that is not allowed
    ├── PlanInvalidError          the plan's text cannot be used; tells the line
    ├── ParametersInvalidError    tensors that are not those of the plan's model
    ├── TrainingFailedError       the plan ran, and what it gave back cannot be used
    │   └── MetricInvalidError        a test's value that is no number
    └── TrainingStoppedError      somebody asked to stop

These messages travel to the researcher: they are in our words, with names from our own code, and never repeat
what a plan or a library wrote as text.
"""

from __future__ import annotations

from appliance.protocol.errors import Code, FedWardError


class ArgumentInvalidError(FedWardError):
    """A training argument is not known, or its value is not allowed."""

    code = Code.ARGUMENT_INVALID


class PlanInvalidError(FedWardError):
    """A training plan's text cannot be used.

    Args:
        message: What is wrong, in our own words.
        line: The line of the plan's text, from 1; None when it concerns the whole.
    """

    code = Code.PLAN_INVALID

    def __init__(self, message: str, *, line: int | None = None) -> None:
        super().__init__(f"Line {line} of the plan: {message}" if line else message)
        self.line = line


class ParametersInvalidError(FedWardError):
    """The parameters given are not those of the plan's model."""

    code = Code.PARAMETERS_INVALID


class TrainingFailedError(FedWardError):
    """The plan ran, and what it gave back cannot be used."""

    code = Code.TRAINING_FAILED


class MetricInvalidError(TrainingFailedError):
    """A plan's ``testing_step`` gave back what is no number, or named it in a way that no metric may be named."""

    code = Code.METRIC_INVALID


class TrainingStoppedError(FedWardError):
    """Training ended early because somebody asked for it."""

    code = Code.ROUND_STOPPED

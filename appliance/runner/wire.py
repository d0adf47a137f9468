"""What the supervisor and a confined child say to each other.

A child is hostile: it parses foreign files and runs foreign code. The supervisor repeats no text of it. Of a failure it
takes the code, the exception's builtin class and the line, each checked, and finds the words itself.
"""

from __future__ import annotations

import builtins
import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from appliance.protocol.errors import Code, MessageRefusedError
from appliance.protocol.local.jobs import Failed, Inspected, Limits, Progress, SandboxLevel, Trained
from appliance.protocol.local.reasons import ARGUMENT_REASONS


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Start(_Message):
    """The supervisor's first word to a child: how it is to confine itself.

    Attributes:
        supervisor_pid: The child dies with it.
        scratch: The one folder that it may write.
        readable: What it may read besides the Python installation.
        level: The defences that must work; one that does not ends the child.
        uid: The user to become; None: stay.
        threads: For the arithmetic libraries.
    """

    supervisor_pid: int
    scratch: str
    readable: tuple[str, ...]
    limits: Limits
    level: SandboxLevel
    uid: int | None = None
    use_gpu: bool = False
    threads: int = Field(default=1, ge=1)


class Crashed(_Message):
    """The job came to nothing inside the child.

    Attributes:
        message: Repeated only when it is one of our own sentences, word for word.
        exception: The nearest builtin class of the exception.
        plan_line: The plan's line where it arose.
        detail: For the hospital's staff.
    """

    kind: Literal["crashed"] = "crashed"
    job_id: str = Field(max_length=64)
    code: Code
    message: str = Field(default="", max_length=2000)
    exception: str | None = Field(default=None, max_length=64)
    plan_line: int | None = Field(default=None, ge=1)
    detail: str = Field(default="", max_length=4000)


FromChild = Progress | Trained | Inspected | Crashed
_FROM_CHILD: TypeAdapter[FromChild] = TypeAdapter(Annotated[FromChild, Field(discriminator="kind")])


def parse_from_child(payload: bytes) -> FromChild:
    """Read a child's message.

    Raises:
        MessageRefusedError: It is not one; the child's text is not repeated.
    """
    try:
        return _FROM_CHILD.validate_json(payload)
    except ValidationError:
        raise MessageRefusedError("The training process sent what no honest one sends.") from None


_WORDS: dict[Code, str] = {
    Code.TRAINING_FAILED: "The training plan failed{exception}.",
    Code.TRAINING_DIVERGED: "The loss is not finite any more.",
    Code.METRIC_INVALID: "The plan's testing_step returned what is no number, or gave it a name that no metric has.",
    Code.PLAN_INVALID: "The training plan's text does not load{exception}.",
    Code.ARGUMENT_INVALID: "A training or model argument is not valid for this plan{exception}.",
    Code.DATASET_INVALID: "The dataset cannot be read as its loading plan says; the hospital's record says where.",
    Code.LOADING_PLAN_INVALID: "The dataset's loading plan cannot be used; the hospital's record says why.",
    Code.DATASET_CHANGED: "The dataset's files are not those that the hospital registered.",
    Code.PARAMETERS_INVALID: "The parameters do not fit the plan's model.",
    Code.RUNNER_LIMIT: "The training plan needed more than its limits allow{exception}.",
    Code.SANDBOX_INCOMPLETE: "The training process could not be confined.",
    Code.SANDBOX_DENIED: "The training plan tried what the sandbox denies.",
    Code.TOO_FEW_SAMPLES: "The dataset has too few samples for this split.",
}


# What our own training room says of a plan, with small numbers at most: no plan can hide more than those in them.
_OWN_SENTENCES = re.compile(
    r"""
      The\ loss\ is\ not\ finite\ at\ update\ \d{1,9}\ of\ \d{1,9}\.
    | No\ sample\ is\ left\ to\ train\ on:\ all\ \d{1,9}\ are\ held\ out\.
    | training_step\ must\ return\ the\ loss:\ one\ number,\ with\ its\ gradient\.
    | init_model\ must\ return\ a\ torch\.nn\.Module\.
    | training_update\ must\ return\ the\ loss:\ one\ number\.
    | init_optimizer\ must\ return\ an\ optimizer\ with\ step\(\)\ and\ zero_grad\(\),\ or\ several\.
    | init_scheduler\ must\ return\ a\ scheduler\ with\ step\(\),\ or\ several\.
    | training_data\ must\ return\ a\ DataManager\.
    | (?:Line\ \d{1,6}\ of\ the\ plan:\ )?the\ text\ is\ not\ Python\.
    """,
    re.VERBOSE,
)


def failed_from(crashed: Crashed, *, plan_lines: int) -> Failed:
    """What may be told of a child's failure.

    Args:
        crashed: The child's own account.
        plan_lines: How many lines the plan has; a line beyond is dropped.
    """
    code = crashed.code if crashed.code in _WORDS else Code.TRAINING_FAILED
    line = crashed.plan_line if crashed.plan_line and crashed.plan_line <= plan_lines else None
    is_own = crashed.message in ARGUMENT_REASONS or _OWN_SENTENCES.fullmatch(crashed.message)
    own = crashed.message if is_own else None
    return Failed(
        job_id=crashed.job_id,
        code=code,
        message=own or _WORDS[code].format(exception=_named(crashed.exception)),
        plan_line=line,
        detail=crashed.detail,
    )


def builtin_name(error: BaseException) -> str:
    """The nearest class of ``error`` that is Python's own: a plan's own class could be named after a record."""
    return next(kind.__name__ for kind in type(error).__mro__ if kind.__module__ == "builtins")


def _named(exception: str | None) -> str:
    kind = getattr(builtins, exception or "", None)
    return f" with {exception}" if isinstance(kind, type) and issubclass(kind, BaseException) else ""

"""The messages between a node's warden and its runner.

A request opens a connection's job; replies follow on the same connection: any number of Progress, then one of Trained,
Inspected, Failed, Ended or HelloReply. Closing the connection ends the job and the process that works on it.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from appliance.protocol.errors import Code, MessageRefusedError
from appliance.protocol.local.process import ProcessUse
from appliance.protocol.messages import Finite, Identifier, Metrics, Reached, Seconds, Sha256

MAX_RECORD = 1 << 18  # characters of captured text

_Parsed = TypeVar("_Parsed")


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class SandboxLevel(_Message):
    """What confines a child here, or what policy demands at least.

    Attributes:
        landlock: The kernel's Landlock ABI; 0: none. What early versions leave open, seccomp denies.
        seccomp: System calls are filtered: no socket, no program, no tracing.
        cgroup: Each child has a control group, so that it ends with all its descendants in one step.
        own_uid: Each child runs as a user of its own.
    """

    landlock: int = Field(default=0, ge=0)
    seccomp: bool = False
    cgroup: bool = False
    own_uid: bool = False

    def lacks(self, required: SandboxLevel) -> tuple[str, ...]:
        """The names of what ``required`` demands and this level does not give."""
        names = ("landlock", "seccomp", "cgroup", "own_uid")
        return tuple(name for name in names if getattr(self, name) < getattr(required, name))


# What policy may demand, each more than the one before.
SANDBOX_LEVELS = {
    # No network, no program, no other process, whatever the kernel's Landlock.
    "partial": SandboxLevel(seccomp=True),
    # Each of these held twice: by seccomp, and by a Landlock that knows of it.
    "full": SandboxLevel(landlock=6, seccomp=True),
    # And each experiment apart from the others by its own user and control group.
    "isolated": SandboxLevel(landlock=6, seccomp=True, cgroup=True, own_uid=True),
}


class Limits(_Message):
    """What one round may use.

    Attributes:
        seconds: Of wall time, from the job's arrival.
        memory_bytes: Beyond what the idle runner has.
        file_bytes: In scratch, each file and all together.
        processes: Besides the child itself; 0 denies making any.
    """

    seconds: float = Field(default=3600.0, gt=0, allow_inf_nan=False)
    memory_bytes: int = Field(default=4 << 30, gt=0)
    file_bytes: int = Field(default=1 << 30, ge=0)
    processes: int = Field(default=0, ge=0, le=1024)


class DatasetSource(_Message):
    """Where a dataset lies and how it is read."""

    dataset_id: Identifier
    kind: str = Field(max_length=32)
    path: str = Field(pattern=r"^/")
    loading_plan: dict[str, JsonValue] = {}
    fingerprint: Sha256 | None = None  # None: not to be checked, as when it is being registered


class Hello(_Message):
    """Are you ready, and how well do you confine?"""

    kind: Literal["hello"] = "hello"


class TrainJob(_Message):
    """Train one round.

    The frame carries sealed memory files, as safetensors: the parameters, with the aggregator's tensors for nodes among
    them, and, where the node kept something of an earlier round, that.
    """

    kind: Literal["train"] = "train"
    job_id: Identifier
    experiment_id: Identifier
    node_id: Identifier
    round: int = Field(ge=1)
    dataset: DatasetSource
    plan_source: str = Field(min_length=1, max_length=500_000)
    plan_class: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")
    model_args: dict[str, JsonValue] = {}
    training_args: dict[str, JsonValue] = {}
    aggregator_args: dict[str, JsonValue] = {}
    train: bool = True  # False: test the parameters only
    use_gpu: bool = False
    limits: Limits = Limits()
    sandbox: SandboxLevel = SANDBOX_LEVELS["partial"]  # what must confine it at least


class InspectJob(_Message):
    """Look at a data file. Whatever parses it is foreign code too."""

    kind: Literal["inspect"] = "inspect"
    job_id: Identifier
    action: Literal["check", "preview", "profile", "fingerprint", "headers"]
    dataset: DatasetSource
    rows: int = Field(default=20, ge=1, le=1000)  # of a preview
    limits: Limits = Limits(seconds=300.0)
    sandbox: SandboxLevel = SANDBOX_LEVELS["partial"]


class StopExperiment(_Message):
    """End what this experiment runs, with all its descendants."""

    kind: Literal["stop"] = "stop"
    experiment_id: Identifier


class Gpu(_Message):
    """A GPU that the runner may give to a plan.

    Attributes:
        memory_bytes: All of it; None where nothing tells it, like ``driver``.
    """

    name: str = Field(max_length=128)
    memory_bytes: int | None = None
    driver: str | None = Field(default=None, max_length=64)


class HelloReply(_Message):
    """Ready."""

    kind: Literal["hello-reply"] = "hello-reply"
    pid: int
    sandbox: SandboxLevel
    gpus: tuple[Gpu, ...] = ()
    processes: tuple[ProcessUse, ...] = ()  # the runner's own, each child with its descendants


class Progress(Reached):
    """How far a round is; at most about one a second."""

    kind: Literal["progress"] = "progress"
    job_id: Identifier


class RoundTiming(_Message):
    """Where a round's time went in the runner."""

    start_s: Seconds = 0.0  # the child's start, the data's loading, the model's building
    train_s: Seconds = 0.0


class Trained(_Message):
    """A round's outcome.

    Unless only a test was asked for, the frame carries sealed memory files: the update, and what the node shall keep
    for the experiment's next round, if anything.
    ``record`` is what the plan printed: it stays at the node. ``reached`` tells of the last update,
    of which there is no Progress. ``memory_bytes`` is the most that the round's processes held, as seen from outside.
    """

    kind: Literal["trained"] = "trained"
    job_id: Identifier
    sample_count: int = Field(ge=0)
    metrics: tuple[Metrics, ...] = Field(default=(), max_length=4)
    timing: RoundTiming = RoundTiming()
    reached: Reached | None = None
    learning_rates: Finite | None = None
    is_optimizer_new: bool | None = None
    record: str = Field(default="", max_length=MAX_RECORD)
    memory_bytes: int | None = Field(default=None, ge=0)
    is_warm: bool = False


class Inspected(_Message):
    """What was seen in a data file; for the hospital's staff."""

    kind: Literal["inspected"] = "inspected"
    job_id: Identifier
    result: dict[str, JsonValue]
    record: str = Field(default="", max_length=MAX_RECORD)


class Failed(_Message):
    """A job came to nothing.

    ``message`` is in our own words and may leave the node; ``detail`` is for the hospital's staff and ``record`` is
    what the plan printed, with the traceback: both stay.
    """

    kind: Literal["failed"] = "failed"
    job_id: Identifier | None = None
    code: Code
    message: str = Field(max_length=2000)
    plan_line: int | None = Field(default=None, ge=1)
    detail: str = Field(default="", max_length=4000)
    record: str = Field(default="", max_length=MAX_RECORD)
    memory_bytes: int | None = Field(default=None, ge=0)


class Ended(_Message):
    """Nothing of this experiment runs any more."""

    kind: Literal["ended"] = "ended"
    experiment_id: Identifier
    was_running: bool  # a process of it was alive, at work or idle
    ended_at: Finite | None = None  # when the last of them was seen dead, seconds since the epoch


Request = Annotated[Hello | TrainJob | InspectJob | StopExperiment, Field(discriminator="kind")]
Reply = Annotated[HelloReply | Progress | Trained | Inspected | Failed | Ended, Field(discriminator="kind")]
_REQUEST: TypeAdapter[Hello | TrainJob | InspectJob | StopExperiment] = TypeAdapter(Request)
_REPLY: TypeAdapter[HelloReply | Progress | Trained | Inspected | Failed | Ended] = TypeAdapter(Reply)


def parse_request(payload: bytes) -> Hello | TrainJob | InspectJob | StopExperiment:
    """Read a request; raises MessageRefusedError naming the field."""
    return _parse(_REQUEST, payload)


def parse_reply(payload: bytes) -> HelloReply | Progress | Trained | Inspected | Failed | Ended:
    """Read a reply; raises MessageRefusedError. Replies of a confined child are foreign text too."""
    return _parse(_REPLY, payload)


def _parse(adapter: TypeAdapter[_Parsed], payload: bytes) -> _Parsed:
    try:
        return adapter.validate_json(payload)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        # A name in the location may be the peer's own text: only the fields that we know are repeated.
        where = ".".join(str(step)[:40] for step in first["loc"][:2])
        raise MessageRefusedError(f"The runner's message is malformed at '{where}' ({first['type']}).") from None

"""The messages between members: what each may say, who may send it to whom, and whether it must arrive.

All are JSON objects inside a signed envelope (``envelope.py``). Values of a patient record have no place in any
of them, and neither has text that a plan or a library wrote.
"""

from __future__ import annotations

import hashlib
import json
import re
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from appliance.protocol.counts import MAX_COUNTS, Counts
from appliance.protocol.errors import Code, MessageRefusedError, SealError
from appliance.protocol.keys import unb64url
from appliance.protocol.register import Role

MAJOR, MINOR = 1, 7
FROZEN_SINCE = 7  # the minor version from which on a node takes frozen layers that come apart (``Train.frozen``)
MAX_ENCLOSED_BYTES = 1 << 15  # a sealed file up to this size travels inside its message
VERSION = f"{MAJOR}.{MINOR}"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Tag = Annotated[str, Field(min_length=1, max_length=64)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=(1 << 53) - 1)]  # what every JSON reader and every database can hold
Ordinal = Annotated[int, Field(ge=1, le=(1 << 31) - 1)]
_VERSION = re.compile(r"([0-9]{1,5})\.([0-9]{1,5})")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Body(_Part):
    """What an envelope carries. Subclasses name their kind, their routes and their delivery."""

    kind: ClassVar[str]
    routes: ClassVar[frozenset[tuple[Role, Role]]]
    is_durable: ClassVar[bool] = False  # True: in the sender's outbox until the recipient's Receipt
    is_broadcast: ClassVar[bool] = False  # True: may be addressed to the whole consortium
    lifetime_s: ClassVar[int] = 60  # how long after sending the message may act

    def critical(self) -> tuple[str, ...]:
        """The fields that a reader of an older minor version must not leave out: it refuses the message instead."""
        return ()


_ASKERS = (Role.RESEARCHER, Role.FEDERATOR)
# What a federator needs no answer to: its jobs name the datasets, and hospitals review plans for researchers.
_IN_PERSON, _ANSWER_IN_PERSON = frozenset({(Role.RESEARCHER, Role.NODE)}), frozenset({(Role.NODE, Role.RESEARCHER)})
_TO_NODE = frozenset((asker, Role.NODE) for asker in _ASKERS)
_FROM_NODE = frozenset((Role.NODE, asker) for asker in _ASKERS)
_ANY = frozenset((a, b) for a in Role for b in Role)
_DAY = 86_400


class SealedFile(_Part):
    """An encrypted tensor file, and the key that opens it for this message's recipient.

    A small one is enclosed: a round on a small model then needs no transfer beside its messages.

    Attributes:
        upload_id: The file's id at the network host (UUID), or None for an enclosed one.
        content: The encrypted file itself, base64url, if it is enclosed.
        sha256: Of the encrypted file.
        size_bytes: Of the encrypted file.
        content_key: The file's key, sealed to the recipient (HPKE, RFC 9180); base64url.
    """

    upload_id: Identifier | None = None
    content: str | None = Field(default=None, max_length=MAX_ENCLOSED_BYTES * 4 // 3 + 4)
    sha256: Sha256
    size_bytes: Count
    content_key: str = Field(pattern=r"^[A-Za-z0-9_-]+$", max_length=256)

    @model_validator(mode="after")
    def _is_somewhere(self) -> SealedFile:
        if (self.upload_id is None) == (self.content is None):
            raise ValueError("a sealed file is either enclosed or uploaded")
        return self

    def enclosed(self) -> bytes | None:
        """The encrypted file if it is enclosed.

        Raises:
            SealError: It is not the one whose hash and size stand beside it.
        """
        if self.content is None:
            return None
        try:
            content = unb64url(self.content)
        except ValueError as error:
            raise SealError("The enclosed file is not base64url.") from error
        if len(content) != self.size_bytes or hashlib.sha256(content).hexdigest() != self.sha256:
            raise SealError("The enclosed file is not the one whose hash stands beside it.")
        return content


class Ping(Body):
    """Are you there?"""

    kind = "ping"
    routes = _TO_NODE
    sequence: Count


class Pong(Body):
    """Yes."""

    kind = "pong"
    routes = _FROM_NODE
    sequence: Count


class Heartbeat(Body):
    """Signed presence, addressed to the consortium. The last one heard is what liveness rests on."""

    kind = "heartbeat"
    routes = _ANY
    is_broadcast = True
    every_s: Seconds
    running_rounds: Count


class Search(Body):
    """Which of your datasets that I may use carry all these tags?"""

    kind = "search"
    routes = _IN_PERSON
    tags: tuple[Tag, ...] = Field(min_length=1, max_length=16)


class ListDatasets(Body):
    """Which of your datasets may I use?"""

    kind = "list"
    routes = _IN_PERSON


class Column(_Part):
    """A column as the data loading plan presents it."""

    name: str = Field(min_length=1, max_length=128)
    type: str = Field(max_length=32)


class DatasetInfo(_Part):
    """What a permitted researcher sees of a dataset: never a path, a value or a statistic."""

    dataset_id: Identifier
    name: str = Field(max_length=128)
    kind: str = Field(max_length=32)
    description: str = Field(max_length=2000)
    tags: tuple[Tag, ...]
    rows: Count
    columns: tuple[Column, ...]
    fingerprint: Sha256
    until: Count | None = None  # when the permission ends, seconds since the epoch


class Datasets(Body):
    """Answer to Search and ListDatasets; an empty one is an answer, silence is not."""

    kind = "datasets"
    routes = _ANSWER_IN_PERSON
    datasets: tuple[DatasetInfo, ...]


class PlanState(StrEnum):
    """Where a training plan stands at a node."""

    UNKNOWN = "unknown"
    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"
    REVOKED = "revoked"
    NOT_REQUIRED = "not-required"  # the text is here and this site has approval switched off


class ArgumentRange(_Part):
    """What values an argument may take. ``name`` is dotted: ``optimizer_args.lr``."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.]{0,127}$")
    minimum: Finite | None = None
    maximum: Finite | None = None
    # Also from the lists of a policy file and of a store, which are no JSON text any more.
    allowed: tuple[JsonValue, ...] | None = Field(default=None, strict=False)

    @model_validator(mode="after")
    def _says_something(self) -> ArgumentRange:
        if self.minimum is None and self.maximum is None and self.allowed is None:
            raise ValueError("a range needs a minimum, a maximum or allowed values")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"the minimum {self.minimum} is above the maximum {self.maximum}")
        return self


class PlanApproval(Body):
    """Please review this plan. Its exact text is what is hashed and approved."""

    kind = "plan-approval"
    routes = _IN_PERSON
    is_durable = True
    lifetime_s = 30 * _DAY
    name: str = Field(min_length=1, max_length=128)
    description: str = Field(max_length=4000)
    source: str = Field(min_length=1, max_length=500_000)
    sha256: Sha256
    ranges: tuple[ArgumentRange, ...] = ()


class PlanStatus(Body):
    """Where does this plan stand with you?"""

    kind = "plan-status"
    routes = _IN_PERSON
    sha256: Sha256


class PlanStanding(Body):
    """Answer to PlanStatus and PlanApproval. ``note`` is what the hospital's reviewer wrote."""

    kind = "plan-standing"
    routes = _ANSWER_IN_PERSON
    sha256: Sha256
    state: PlanState
    note: str = Field(default="", max_length=4000)
    until: Count | None = None


class SecAggTerms(_Part):
    """Secure aggregation as the researcher asks for it; its messages come with a later release."""

    scheme: str
    min_nodes: int = Field(ge=3, le=10_000)


class PrivacyTerms(_Part):
    """Differential privacy as the researcher asks for it."""

    guarantee: str
    epsilon: Finite = Field(gt=0)
    delta: Finite = Field(gt=0, lt=1)


class Train(Body):
    """Train one round on one dataset (Fed-BioMed's train message).

    ``frozen`` are layers of the model that no round trains, where they do not travel with ``parameters``: the same
    file in each round, so that a node fetches it once. A node before protocol 1.7 refuses a request that has them.
    """

    kind = "train"
    routes = _TO_NODE
    is_durable = True
    lifetime_s = 7 * _DAY
    experiment_id: Identifier
    round: Ordinal
    round_limit: Ordinal
    dataset_id: Identifier
    plan_sha256: Sha256
    plan_class: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")
    model_args: dict[str, JsonValue] = {}
    training_args: dict[str, JsonValue] = {}
    aggregator_args: dict[str, JsonValue] = {}
    parameters: SealedFile
    frozen: SealedFile | None = None
    train: bool = True  # False: test the global parameters only
    deadline: Count | None = None  # seconds since the epoch, after which a reply is of no use
    secagg: SecAggTerms | None = None
    privacy: PrivacyTerms | None = None
    mandate: str | None = None  # a researcher's signed mandate (``mandate.py``), when a federator asks

    def critical(self) -> tuple[str, ...]:
        """See ``Body``: without its frozen layers a model is another one."""
        return () if self.frozen is None else ("frozen",)


class Override(_Part):
    """An argument that the node changed, and by which rule."""

    argument: str
    asked: JsonValue
    used: JsonValue
    rule: str


class Metrics(_Part):
    """Numbers that a plan's test returned, over ``samples`` records.

    ``counts`` are what each metric of all nodes together is made of, where the node's policy lets them leave; a node of
    protocol 1.4 does not say them.
    """

    stage: str = Field(pattern=r"^(global|local)$")  # before or after local training
    samples: Count
    values: dict[Identifier, Finite] = Field(max_length=64)
    counts: dict[Identifier, Counts] = Field(default={}, max_length=16)

    @model_validator(mode="after")
    def _counts_what_it_tested(self) -> Metrics:
        if sum(len(counts.cells) for counts in self.counts.values()) > MAX_COUNTS:
            raise ValueError(f"a test has at most {MAX_COUNTS} counts")
        for name, counts in self.counts.items():
            if fault := counts.fault(self.samples):
                raise ValueError(f"the counts of {name} cannot be: {fault}")
        return self


class Timing(_Part):
    """Where a round's time went at the node, in seconds."""

    queued_s: Seconds = 0.0
    fetch_s: Seconds = 0.0
    start_s: Seconds = 0.0  # the child's start and the data's loading; near zero when warm
    train_s: Seconds = 0.0
    check_s: Seconds = 0.0
    upload_s: Seconds = 0.0


class Reached(_Part):
    """How far a training has come, and what it measured there."""

    split: str = Field(default="train", pattern=r"^(train|test)$")
    iteration: Count
    iterations: Count
    epoch: Count = 0
    values: dict[Identifier, Finite] = Field(default={}, max_length=16)


class TrainReply(Body):
    """One node's update. Sample count and metrics are absent where secure aggregation carries them.

    ``reached`` tells of the last update; a node of protocol 1.0 sends it as a Scalar. ``learning_rates`` is their sum
    over all updates of the model, where the plan's optimizer had one; a node of protocol 1.2 does not say it.
    ``is_optimizer_new`` tells, of an optimizer that goes on where its last round ended, whether it had no memory of one
    at this node; a node of protocol 1.5 does not say it.
    """

    kind = "train-reply"
    routes = _FROM_NODE
    is_durable = True
    lifetime_s = 7 * _DAY
    experiment_id: Identifier
    round: Ordinal
    dataset_id: Identifier
    update: SealedFile | None  # None when only a test was asked for
    sample_count: Count | None = None
    metrics: tuple[Metrics, ...] = ()
    timing: Timing = Timing()
    overrides: tuple[Override, ...] = ()
    reached: Reached | None = None
    learning_rates: Finite | None = None
    is_optimizer_new: bool | None = None


# What a release is made of, by the field of the message that names it: a node takes and keeps these files alone.
MODEL_FILE, CARD_FILE, CARD_TEXT = "model.safetensors", "model_card.json", "model_card.md"
RELEASE_FILES = {"model": MODEL_FILE, "card": CARD_FILE, "card_text": CARD_TEXT}


class Release(Body):
    """Here is an experiment's model, for the hospital's staff. A node before protocol 1.4 does not know it.

    There is no archive and no name of a file in it: ``RELEASE_FILES`` says what each part is kept as.
    """

    kind = "release"
    routes = _IN_PERSON
    is_durable = True
    lifetime_s = 7 * _DAY
    experiment_id: Identifier
    name: str = Field(min_length=1, max_length=128)
    model: SealedFile
    card: SealedFile
    card_text: SealedFile


class ModelKept(Body):
    """Answer to Release: the staff have it, as the file with this hash."""

    kind = "model-kept"
    routes = _ANSWER_IN_PERSON
    is_durable = True
    lifetime_s = _DAY
    experiment_id: Identifier
    model_sha256: Sha256


class Receipt(Body):
    """I have committed your message; you may forget it. Receipts have no receipts."""

    kind = "receipt"
    routes = _ANY
    lifetime_s = 7 * _DAY
    received: Identifier  # the jti


class Scalar(Reached, Body):
    """Progress inside a round, at most one a second; losing one harms nothing.

    ``paused_since`` is there while the round waits because the hospital paused its experiment (seconds since the
    epoch): it has not begun, and says so again with each heartbeat. Before protocol 1.2 that looks like no progress.
    """

    kind = "scalar"
    routes = _FROM_NODE
    experiment_id: Identifier
    round: Ordinal
    paused_since: Count | None = None


class Stop(Body):
    """End this experiment's work now; answered with Stopped when the child was seen dead.

    It means what was asked for before it was written: one that arrives late ends nothing that is newer.
    """

    kind = "stop"
    routes = _TO_NODE
    is_durable = True
    lifetime_s = _DAY
    experiment_id: Identifier


class Stopped(Body):
    """Nothing that the Stop meant runs here any more."""

    kind = "stopped"
    routes = _FROM_NODE
    is_durable = True
    lifetime_s = _DAY
    experiment_id: Identifier
    was_running: bool
    ended_at: Finite | None  # when the last process was seen dead, seconds since the epoch


class ErrorReply(Body):
    """Why something was refused or failed, in our own words and numbers only."""

    kind = "error"
    routes = _FROM_NODE | _TO_NODE
    is_durable = True
    lifetime_s = 7 * _DAY
    code: Code
    message: str = Field(max_length=2000)
    rule: str | None = Field(default=None, max_length=500)
    experiment_id: Identifier | None = None
    round: Ordinal | None = None
    plan_line: Ordinal | None = None


BODIES: dict[str, type[Body]] = {
    body.kind: body
    for body in (
        Ping, Pong, Heartbeat, Search, ListDatasets, Datasets, PlanApproval, PlanStatus, PlanStanding,
        Train, TrainReply, Release, ModelKept, Receipt, Scalar, Stop, Stopped, ErrorReply,
    )
}  # fmt: skip


def parse_body(kind: str, data: object, *, version: str) -> tuple[Body, tuple[str, ...]]:
    """Read a body of a stated protocol version.

    Unknown fields are refused at our own or an older minor version. From a newer minor they are left out.

    Returns:
        The body, and what was left out of it: dotted names, without the places in lists.

    Raises:
        MessageRefusedError: Unknown kind, another major version, or fields that are not as they must be.
    """
    newer = is_newer_minor(version)
    model = BODIES.get(kind)
    if model is None:
        raise MessageRefusedError(f"Unknown kind of message {kind[:40]!r}.")
    try:
        return _validate(model, data), ()
    except ValidationError as error:
        unknown = [e["loc"] for e in error.errors() if e["type"] == "extra_forbidden"]
        if not newer or len(unknown) < error.error_count():
            raise _refusal(kind, error) from None
    pruned = json.loads(json.dumps(data))
    for place in unknown:
        _remove(pruned, place)
    names = {".".join(step for step in place if isinstance(step, str)) for place in unknown}
    try:
        return _validate(model, pruned), tuple(sorted(names))
    except ValidationError as error:  # rules over several fields run only once there is nothing unknown
        raise _refusal(kind, error) from None


def is_newer_minor(version: str) -> bool:
    """True for a newer minor version of our major; raises MessageRefusedError for another major."""
    return minor_of(version) > MINOR


def minor_of(version: str) -> int:
    """The minor version of a protocol version of our major; raises MessageRefusedError for another major."""
    match = _VERSION.fullmatch(version)
    if match is None or int(match[1]) != MAJOR:
        raise MessageRefusedError(
            f"The message speaks protocol {version[:12]!r}; this side speaks {VERSION}.", code=Code.MESSAGE_VERSION
        )
    return int(match[2])


def _validate(model: type[Body], data: object) -> Body:
    # JSON mode: lists become tuples and strings become enums, yet "1" never becomes 1.
    try:
        text = json.dumps(data, allow_nan=False)
    except (ValueError, RecursionError) as error:
        raise MessageRefusedError(f"{model.kind}: the body is not JSON.") from error
    return model.model_validate_json(text)


def _refusal(kind: str, error: ValidationError) -> MessageRefusedError:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the body"
    # Names come from the message: cut short and escaped, for this goes into logs.
    return MessageRefusedError(f"{kind}: {where.encode('unicode_escape').decode()[:100]}: {first['msg']}.")


def _remove(data: Any, location: tuple[int | str, ...]) -> None:
    for step in location[:-1]:
        data = data[step]
    del data[location[-1]]

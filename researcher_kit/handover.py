"""What researcher and federator hand to each other: an experiment as a breakpoint, sealed file by file.

The network host keeps the files and the words about them, and can read no file. The words (which files, of which job,
in which round) are in their author's signature, so that it can put no other ones in their place.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from appliance.protocol.envelope import Signer, open_statement
from appliance.protocol.errors import Code, FedWardError, MessageRefusedError
from appliance.protocol.jose import write_json
from appliance.protocol.keys import MemberKeys
from appliance.protocol.messages import Finite, Identifier, SealedFile
from appliance.protocol.register import Member, Register
from appliance.protocol.sealing import open_key, read_chunks, seal, seal_key, unseal
from researcher_kit import breakpoints
from researcher_kit.wire import Files

SUBMISSION_TYPE, REPORT_TYPE = "fedward-submission+jws", "fedward-report+jws"
FileName = Annotated[str, Field(pattern=r"^(breakpoint\.json|(parameters|aggregator|best)\.safetensors)$")]
_NAMES = (breakpoints.PARAMETERS_FILE, breakpoints.AGGREGATOR_FILE, breakpoints.BEST_FILE, breakpoints.STATE_FILE)
_MESSAGE = 4000  # characters of a failure


class _Statement(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    job_id: Identifier
    files: dict[FileName, SealedFile] = {}


class Submission(_Statement):
    """A researcher's: what the federator begins with."""


class Failure(BaseModel):
    """Why a federator gave a job up."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    code: Code = Field(strict=False)
    message: str = Field(max_length=_MESSAGE)
    rule: str | None = Field(default=None, max_length=500)

    @classmethod
    def of(cls, error: FedWardError) -> Failure:
        """As much of an error as is told."""
        return cls(code=error.code, message=error.message[:_MESSAGE], rule=error.rule and error.rule[:500])

    def error(self) -> FedWardError:
        """The same, to be raised at the researcher's."""
        return FedWardError(self.message, code=self.code, rule=self.rule)


class Report(_Statement):
    """A federator's: how far the experiment is, and its newest breakpoint.

    Attributes:
        round: How many rounds are closed.
        written_at: Seconds since the epoch.
        is_over: Nothing more will come.
        failure: Why it is over before its time.
    """

    round: int = Field(ge=0)
    written_at: Finite
    is_over: bool = False
    failure: Failure | None = None


_Kind = TypeVar("_Kind", bound=_Statement)
_TYPES: dict[type[_Statement], str] = {Submission: SUBMISSION_TYPE, Report: REPORT_TYPE}


def sign(statement: _Statement, signer: Signer) -> str:
    """A statement in its author's signature."""
    return signer.sign_statement(_TYPES[type(statement)], statement.model_dump(mode="json"))


def read(kind: type[_Kind], text: object, register: Register, *, author: str, job_id: str) -> _Kind:
    """A statement that was checked.

    Args:
        kind: ``Submission`` or ``Report``.
        text: As it came.
        register: The membership register in force.
        author: Who must have signed it.
        job_id: Of which job it must speak.

    Raises:
        FedWardError: It is not theirs, not of this job, or malformed (NETWORK_REFUSED: the network host altered it).
    """
    try:
        signer, claims = open_statement(str(text), _TYPES[kind], register)
        statement = kind.model_validate_json(write_json(claims))
    except (MessageRefusedError, ValidationError, ValueError) as error:
        raise _altered(f"what '{author}' wrote about it cannot be believed", job_id) from error
    if signer.id != author or statement.job_id != job_id:
        raise _altered(f"'{signer.id}' wrote this about job {statement.job_id}", job_id)
    return statement


def send(
    folder: Path, files: Files, recipient: Member, *, job_id: str, experiment_id: str, scratch: Path
) -> dict[FileName, SealedFile]:
    """Upload a breakpoint, each file of it sealed to ``recipient`` alone.

    Raises:
        FedWardError: The network host or this disk takes no file.
    """
    sent: dict[FileName, SealedFile] = {}
    for name in _NAMES:
        path = folder / name
        if not path.exists():
            continue
        with tempfile.TemporaryDirectory(dir=scratch, prefix=".sealed-") as aside:
            target, upload_id = Path(aside) / name, str(uuid.uuid4())
            with path.open("rb", buffering=0) as plain, target.open("wb") as out:
                sealed = seal(plain, out)
            files.upload(
                target,
                upload_id=upload_id,
                sha256=sealed.sha256,
                recipients=[recipient.id],
                purpose="breakpoint",
                experiment_id=experiment_id,
            )
        key = seal_key(sealed.content_key, recipient.sealing, context=_context(job_id, name))
        sent[name] = SealedFile(
            upload_id=upload_id, sha256=sealed.sha256, size_bytes=sealed.size_bytes, content_key=key
        )
    return sent


def fetch(
    sent: Mapping[FileName, SealedFile],
    files: Files,
    keys: MemberKeys,
    *,
    job_id: str,
    experiment: Path,
    require: Callable[[breakpoints.Breakpoint], None],
) -> Path:
    """Download a breakpoint into an experiment's folder, beside those that are there or over one of the same round.

    Args:
        require: Raises unless it is the one that was expected; called before it is in its place.

    Returns:
        The breakpoint's folder; it is whole.

    Raises:
        FedWardError: A file is gone, altered, or none of a breakpoint.
    """
    experiment.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = experiment / f".incoming-{uuid.uuid4().hex}"
    part.mkdir(mode=0o700)
    try:
        for name in _NAMES:
            if name in sent:
                fetch_file(sent, name, part / name, files, keys, job_id=job_id)
        require(breakpoints.read_state(part / breakpoints.STATE_FILE))
        return breakpoints.place(part, experiment)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def fetch_file(
    sent: Mapping[FileName, SealedFile],
    name: str,
    target: Path,
    files: Files,
    keys: MemberKeys,
    *,
    job_id: str,
) -> None:
    """Download and open one file of a breakpoint."""
    sealed = sent[name]
    key = open_key(sealed.content_key, keys.sealing, context=_context(job_id, name))
    with files.download(sealed) as source, target.open("wb") as out:
        unseal(read_chunks(source), key, out)


def _context(job_id: str, name: str) -> str:
    return f"job/{job_id}/{name}"


def _altered(what: str, job_id: str) -> FedWardError:
    return FedWardError(
        f"Job {job_id}: {what}.",
        code=Code.NETWORK_REFUSED,
        remedy="Tell the operator: the network host, or who can write there, altered what it keeps.",
    )

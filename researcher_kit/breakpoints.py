"""Breakpoints: an experiment between two rounds, as a folder without code objects and without pickle.

    breakpoint_0003/
      breakpoint.json          settings, the plan's exact text, the history of rounds
      parameters.safetensors   the global parameters after round 3
      aggregator.safetensors   what the aggregator remembers, if it does
      best.safetensors         the best parameters so far, if they are kept

Written beside its place and moved there when the disk has it all: a breakpoint is whole, or it is not there.
Reading one executes nothing; the plan's text is run when ``training_plan()`` or new parameters ask for it.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, model_validator

from appliance.protocol.errors import Code, FedWardError, TensorFileError
from appliance.protocol.messages import Identifier, Sha256, Tag
from appliance.protocol.tensors import Array, TensorFile, write_tensors
from researcher_kit.errors import BreakpointError
from researcher_kit.history import RoundRecord
from researcher_kit.schedules import Schedule
from researcher_kit.spool import sync

STATE_FILE, PARAMETERS_FILE, AGGREGATOR_FILE = "breakpoint.json", "parameters.safetensors", "aggregator.safetensors"
BEST_FILE = "best.safetensors"
VERSION = 1


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SavedPlan(_Part):
    """A training plan's exact text."""

    class_name: str
    text: str
    sha256: Sha256

    @model_validator(mode="after")
    def _is_whole(self) -> SavedPlan:
        if hashlib.sha256(self.text.encode()).hexdigest() != self.sha256:
            raise ValueError("the training plan's text does not match its hash")
        return self


class SavedPart(_Part):
    """An aggregator or a strategy: its class's name, and what it remembers."""

    name: str
    state: dict[str, JsonValue]


class _Version(BaseModel):
    version: int


class Breakpoint(_Part):
    """``breakpoint.json``."""

    version: Literal[1] = 1
    experiment_id: Identifier
    saved_at: float
    name: str
    tags: tuple[Tag, ...]
    nodes: tuple[str, ...] | None
    datasets: dict[str, str]
    plan: SavedPlan
    model_args: dict[str, JsonValue]
    training_args: dict[str, JsonValue]
    seed: int
    round: int = Field(ge=0)
    round_limit: int | None
    aggregator: SavedPart
    strategy: SavedPart
    save_breakpoints: bool
    history: tuple[RoundRecord, ...]
    parameters_sha256: Sha256
    trained: tuple[str, ...] | None = None  # tensors that are no buffers; unknown in breakpoints of the first release
    frozen: tuple[str, ...] = ()
    aggregator_sha256: Sha256 | None = None
    schedules: dict[str, Schedule] = {}
    early_stopping: dict[str, JsonValue] | None = None
    best_sha256: Sha256 | None = None
    fingerprints: dict[str, Sha256] = {}
    tensorboard: bool | str = False


def folder_of(experiment: Path, round_: int) -> Path:
    """Where an experiment keeps the breakpoint of a round."""
    return experiment / f"breakpoint_{round_:04d}"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save(
    state: Breakpoint,
    parameters: Path,
    experiment: Path,
    *,
    aggregator: Mapping[str, Array] | None = None,
    best: Path | None = None,
) -> Path:
    """Write a breakpoint into an experiment's folder, over one of the same round.

    Args:
        parameters: The tensor file to keep with it.
        aggregator: The tensors that the aggregator remembers.
        best: The tensor file of the best parameters so far.

    Raises:
        FedWardError: The disk refuses (DISK_FULL).
    """
    target = folder_of(experiment, state.round)
    part = experiment / f".{target.name}-{uuid.uuid4().hex}"
    try:
        part.mkdir(mode=0o700, parents=True)
        _link_or_copy(parameters, part / PARAMETERS_FILE)
        sync(part / PARAMETERS_FILE)
        if aggregator:
            write_tensors(aggregator, part / AGGREGATOR_FILE)
            sync(part / AGGREGATOR_FILE)
            state = state.model_copy(update={"aggregator_sha256": file_sha256(part / AGGREGATOR_FILE)})
        if best:
            _link_or_copy(best, part / BEST_FILE)
            sync(part / BEST_FILE)
            state = state.model_copy(update={"best_sha256": file_sha256(part / BEST_FILE)})
        (part / STATE_FILE).write_text(state.model_dump_json(indent=1))
        sync(part / STATE_FILE)
        sync(part)
        _move(part, target)
        sync(experiment)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise FedWardError(f"{target}: {error.strerror}.", code=Code.DISK_FULL) from error
    return target


def load(folder: Path) -> tuple[Breakpoint, Path]:
    """A breakpoint's state, and the folder that it was read from.

    Args:
        folder: A breakpoint, or an experiment's folder: then the breakpoint saved last.

    Raises:
        BreakpointError: There is none, it is not whole, or it is of another version; names the file.
    """
    found = folder if (folder / STATE_FILE).is_file() else _newest(folder)
    state = read_state(found / STATE_FILE)
    hashes = {
        PARAMETERS_FILE: state.parameters_sha256,
        AGGREGATOR_FILE: state.aggregator_sha256,
        BEST_FILE: state.best_sha256,
    }
    for name, sha256 in hashes.items():
        if sha256 is not None:
            _require_same(found / name, sha256)
    return state, found


def latest(experiments: Path) -> Path:
    """The experiment below this folder whose breakpoint was saved last.

    Raises:
        BreakpointError: There is none.
    """
    states = experiments.glob(f"*/*/{STATE_FILE}")
    newest = max(states, key=lambda state: state.stat().st_mtime_ns, default=None)
    if newest is None:
        raise BreakpointError(f"{experiments}: there is no experiment with a breakpoint in this folder.")
    return newest.parent.parent


def is_begun(experiment: Path) -> bool:
    """Whether an experiment's folder holds a breakpoint."""
    return bool(_all(experiment))


def place(part: Path, experiment: Path) -> Path:
    """Check a breakpoint that came from elsewhere, and move it to its place in an experiment's folder.

    Raises:
        BreakpointError: It is not whole, or of another version.
    """
    state, _ = load(part)
    for path in part.iterdir():
        sync(path)
    sync(part)
    target = folder_of(experiment, state.round)
    _move(part, target)
    sync(experiment)
    return target


def delete(folder: Path) -> None:
    """Delete a breakpoint; one that is half gone is not taken for one."""
    (folder / STATE_FILE).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _require_same(path: Path, sha256: str) -> None:
    try:
        is_same = file_sha256(path) == sha256
        TensorFile(path)
    except (OSError, TensorFileError) as error:
        raise BreakpointError(f"{path}: missing, or no tensor file.") from error
    if not is_same:
        raise BreakpointError(f"{path}: altered since it was saved.")


def read_state(path: Path) -> Breakpoint:
    """A ``breakpoint.json``, without the files beside it; raises BreakpointError."""
    try:
        text = path.read_bytes()
        version = _Version.model_validate_json(text).version
        if version == VERSION:
            return Breakpoint.model_validate_json(text)
    except OSError as error:
        raise BreakpointError(f"{path}: {error.strerror}.") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BreakpointError(f"{path}: {where}: {first['msg']}.") from error
    raise BreakpointError(
        f"{path}: a breakpoint of version {version}; this release reads version {VERSION}.",
        remedy="Load it with the release that saved it, or choose another breakpoint.",
    )


def _newest(experiment: Path) -> Path:
    folders = _all(experiment)
    if not folders:
        raise BreakpointError(f"{experiment}: there is no breakpoint in this folder.")
    # By time and not by number: whoever went back to an earlier round is now ahead of the later ones.
    return max(folders, key=lambda folder: read_state(folder / STATE_FILE).saved_at)


def _all(experiment: Path) -> list[Path]:
    return sorted(path.parent for path in experiment.glob(f"breakpoint_*/{STATE_FILE}"))


def _link_or_copy(source: Path, target: Path) -> None:
    """The same file by another name: tensor files are written once and never changed."""
    try:
        target.hardlink_to(source)
    except OSError:  # a file system without links
        shutil.copyfile(source, target)


def _move(part: Path, target: Path) -> None:
    if target.exists():
        old = part.with_name(f"{part.name}-old")
        target.rename(old)
        part.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        part.rename(target)

"""The three kinds of steps, and how each is carried out."""

from __future__ import annotations

import os
import shutil
import tarfile
from dataclasses import dataclass, field
from pathlib import Path

from appliance.doctor.commands import CommandError, Run
from appliance.leaving.errors import LeavingError
from appliance.protocol.files import sync_folder

COMMAND_LIMIT_S = 120.0
# Keys and passwords, what was in passing, and what never was the node's.
_NOT_KEPT = frozenset({"keys", "tls", "gui", "run", "spool", "kept", "data"})


@dataclass(frozen=True)
class Command:
    """Run a tool.

    Attributes:
        may_be_gone: An earlier step may have done it already.
    """

    words: tuple[str, ...]
    says: str
    may_be_gone: bool = False


@dataclass(frozen=True)
class Keep:
    """Put a part's records into an archive: its store (audit log, ledger, history), logs and settings, and no key."""

    home: Path
    archive: Path

    @property
    def says(self) -> str:
        """In words."""
        return f"Keep the records of {self.home} in {self.archive.parent} (audit log, ledger, history; no keys)"


@dataclass(frozen=True)
class Remove:
    """Remove a file, a link, or a folder with all that is in it."""

    path: Path
    told: str = field(default="")

    @property
    def says(self) -> str:
        """In words."""
        return self.told or f"Remove {self.path}"


Step = Command | Keep | Remove


def carry_out(step: Step, run: Run) -> Path | None:
    """Do one step; again, it does no harm.

    Returns:
        The archive, where the step made one.

    Raises:
        LeavingError: It could not be done.
    """
    try:
        match step:
            case Command():
                _run(step, run)
            case Keep():
                return _keep(step)
            case Remove():
                _remove(step.path)
    except CommandError as error:
        raise LeavingError(f"{step.says}: {error.text}.") from error
    except (OSError, tarfile.TarError) as error:
        raise LeavingError(f"{step.says}: {getattr(error, 'strerror', None) or error}.") from error
    return None


def _run(step: Command, run: Run) -> None:
    try:
        run(*step.words, limit_s=COMMAND_LIMIT_S)
    except CommandError:
        if not step.may_be_gone:
            raise


def _keep(step: Keep) -> Path:
    """Whole under its name, or not at all; an earlier one is never replaced."""
    folder = step.archive.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    target, number = step.archive, 1
    while target.exists():
        number += 1
        target = folder / step.archive.name.replace(".tar.gz", f"-{number}.tar.gz")
    part = folder / f".{target.name}.part"
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            for path in sorted(step.home.iterdir()):
                if path.name not in _NOT_KEPT:
                    archive.add(path, arcname=f"{step.home.name}/{path.name}", filter=_records)
        file.flush()
        os.fsync(file.fileno())
    part.rename(target)
    sync_folder(folder)
    return target


def _records(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Files, folders and links; a link is kept as one and not followed."""
    return entry if entry.isfile() or entry.isdir() or entry.issym() else None


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

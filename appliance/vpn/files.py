"""Files that are their owner's alone, whole or not there."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

_MODE = 0o600


def replace_private(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` (mode 0600) in one step that survives a power cut."""
    fresh = _write_beside(path, content)
    try:
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
    _sync_folder(path.parent)


def create_private(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` (mode 0600), whole; raises FileExistsError rather than replace a file."""
    fresh = _write_beside(path, content)
    try:
        os.link(fresh, path)  # unlike a rename it fails where something is, also when two do it at once
    finally:
        fresh.unlink()
    _sync_folder(path.parent)


def _write_beside(path: Path, content: bytes) -> Path:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), _MODE)  # whatever the umask takes away
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    return fresh


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

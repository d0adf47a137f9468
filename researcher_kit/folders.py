"""A folder that one process works in at a time, on a disk that may be full."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from appliance.protocol.errors import Code, FedWardError, takes_no_more
from researcher_kit.errors import ExperimentBusyError


@contextmanager
def locked(folder: Path, why: str, remedy: str) -> Iterator[None]:
    """Make a folder and have it alone, against other processes and other threads.

    Args:
        folder: Only its owner may look inside.
        why: What to say of a folder that is in use.
        remedy: What to do then.

    Raises:
        ExperimentBusyError: It is in use.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ExperimentBusyError(f"{folder}: {why}", remedy=remedy) from error
        yield


@contextmanager
def disk_named(folder: Path) -> Iterator[None]:
    """Inside, a disk that takes no more is said to be the researcher's own.

    Raises:
        FedWardError: It is full or read-only (DISK_FULL); names the file, or ``folder`` where the system names none.
    """
    try:
        yield
    except OSError as error:
        if not takes_no_more(error):
            raise
        raise FedWardError(f"{error.filename or folder}: {error.strerror}.", code=Code.DISK_FULL) from error

"""Ends what outlived a supervisor that was killed.

A child dies with its supervisor, for the kernel was told so; processes that it forked do not. Each child's session is
therefore noted beside its scratch folder: the nursery ends the sessions noted there when it finds itself orphaned, and
so does the next supervisor, should both have been killed at once.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from appliance.runner.processes import Process, end_family, family, read_process

_END_S = 5.0
_SUFFIX = ".leader"


def note_leader(scratch: Path, pid: int) -> None:
    """Write down who leads the session of the child that owns ``scratch``."""
    if (leader := read_process(pid)) is not None:
        _note(scratch).write_text(f"{_boot()} {pid} {leader.started} {os.getpid()}")


def forget_leader(scratch: Path) -> None:
    """Nothing of the session lives any more."""
    _note(scratch).unlink(missing_ok=True)


def end_leftovers(root: Path, *, supervisor_pid: int | None = None) -> None:
    """End every session that is noted in the folder of all scratch folders, or those of one supervisor's children."""
    for note in root.glob(f"*{_SUFFIX}"):
        with suppress(ValueError, OSError):  # a note cut short by the end that it was written for
            boot, pid, started, owner = note.read_text().split()
            if supervisor_pid not in (None, int(owner)):
                continue  # the next supervisor is at work already
            if boot == _boot() and _is_ours(int(pid), int(started)):
                end_family(int(pid), time.monotonic() + _END_S)
        note.unlink(missing_ok=True)


def _is_ours(pid: int, started: int) -> bool:
    """Whether a session is still the one noted: the kernel gives its number to nobody while a process is in it."""
    leader = read_process(pid)
    if leader is not None:
        return leader.started == started
    members = family(pid)
    return bool(members) and all(map(_is_confined, members))  # else the number was given away, and that one ended, too


def _is_confined(process: Process) -> bool:
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except OSError:
        return True
    return "\nNoNewPrivs:\t1\n" in status and "\nSeccomp:\t2\n" in status


def _note(scratch: Path) -> Path:
    return scratch.with_name(scratch.name + _SUFFIX)


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()

"""Finds and ends every process that a child has left behind.

A child leads a session of its own, which neither it nor its descendants can leave (the sandbox denies ``setsid``). So
the session finds them all, however often they forked and whoever their parent is by now.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True)
class Process:
    """A line of ``/proc/PID/stat``."""

    pid: int
    state: str
    parent: int
    session: int
    started: int  # clock ticks since the machine's start

    @property
    def is_dead(self) -> bool:
        """True when only its parent's ``wait`` is missing."""
        return self.state in "ZX"


def become_subreaper() -> None:
    """Become the parent of orphans among the descendants, so that none gets out of sight."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def read_process(pid: int) -> Process | None:
    """The process with this id, or None when there is none."""
    try:
        # The name before it may hold spaces and brackets.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Process(pid, fields[0], int(fields[1]), int(fields[3]), int(fields[19]))


def family(leader: int) -> list[Process]:
    """The child with this id and all its descendants, the dead ones that were not waited for among them."""
    everyone = [process for process in _everyone() if process is not None]
    members = {process.pid for process in everyone if leader in (process.pid, process.session)}
    while found := {process.pid for process in everyone if process.parent in members} - members:
        members |= found
    return [process for process in everyone if process.pid in members]


def _everyone() -> Iterator[Process | None]:
    return (read_process(int(path.name)) for path in Path("/proc").iterdir() if path.name.isdigit())


def end_family(leader: int, deadline: float) -> bool:
    """Kill a child and all its descendants, and wait until each is dead.

    The leader itself stays to be waited for by its parent, which is the caller.

    Args:
        deadline: When to give up, on the monotonic clock.

    Returns:
        True when none is left.
    """
    while True:
        members = family(leader)
        for process in members:
            if process.is_dead and process.pid != leader:
                with suppress(ChildProcessError):
                    os.waitpid(process.pid, os.WNOHANG)
        alive = [process for process in members if not process.is_dead]
        if not alive:
            return True
        if not _kill(alive, leader, deadline):
            return False


def _kill(processes: list[Process], leader: int, deadline: float) -> bool:
    """Kill these and wait for their deaths; False when the deadline passed first."""
    poll, fds = select.poll(), []
    try:
        for process in processes:
            with suppress(ProcessLookupError):
                fds.append(fd := os.pidfd_open(process.pid))
                now = read_process(process.pid)  # the descriptor keeps the id from meaning another from here on
                if now is not None and (now.session == process.session or process.pid == leader):
                    signal.pidfd_send_signal(fd, signal.SIGKILL)
                    poll.register(fd, select.POLLIN)
        waiting = set(fds)
        while waiting and (dead := poll.poll(max(0.0, deadline - time.monotonic()) * 1000)):
            for fd, _ in dead:
                poll.unregister(fd)
                waiting.discard(fd)
        return not waiting
    finally:
        for fd in fds:
            os.close(fd)

"""Runs one program and sees to it that nothing of it stays behind: a process of its own, of the standard library only.

    python -I -S keeper.py GRACE_SECONDS PROGRAM ARGUMENT...

Orders come through standard input: ``T`` ends the program (SIGTERM, and SIGKILL after the grace), ``K`` kills it at
once. The end of the input means that whoever started us is gone, even if by SIGKILL, and counts as ``T``. Whatever the
program started is killed with it, in whichever session or group it hides: orphans become our children, because we are
their subreaper (prctl(2)). Ends with the program's exit status, or 128 and its signal.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None)


def main() -> int:
    """Run the program; returns the exit status."""
    grace_s, command = float(sys.argv[1]), sys.argv[2:]
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        program = _start(command)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return 127
    try:
        _keep(program, grace_s)
    finally:
        statuses = end_descendants()
        program.returncode = statuses[program.pid]
    return 128 - program.returncode if program.returncode < 0 else program.returncode


def _start(command: list[str]) -> subprocess.Popen[bytes]:
    """Should we be killed ourselves, the kernel kills the program."""
    return subprocess.Popen(  # noqa: S603 - our own command line
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),  # noqa: PLW1509 - one thread
    )


def _keep(program: subprocess.Popen[bytes], grace_s: float) -> None:
    """Return when the program ended, was told to and did not within the grace, or is to be killed."""
    ended = os.pidfd_open(program.pid)
    watched, limit_s = [0, ended], None
    while True:
        ready, _, _ = select.select(watched, [], [], limit_s)
        if not ready or ended in ready:
            break
        order = os.read(0, 1)
        if order == b"K":
            break
        if limit_s is None:
            program.terminate()
            limit_s = grace_s
        if not order:
            watched = [ended]
    os.close(ended)


def end_descendants() -> dict[int, int]:
    """Kill every process that descends from us, wait until none is left, and return our children's exit statuses."""
    statuses: dict[int, int] = {}
    while True:
        for pid in descendants(os.getpid()):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return statuses
        statuses[pid] = os.waitstatus_to_exitcode(status)


def descendants(ancestor: int) -> list[int]:
    """The ids of all processes below ``ancestor``, nearest first."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in brackets may hold anything; the parent's id is the second field after its last bracket.
            parent = int(path.read_bytes().rpartition(b")")[2].split()[1])
        except (OSError, IndexError):
            continue  # it ended while we looked
        children.setdefault(parent, []).append(int(path.parent.name))
    found = list(children.get(ancestor, ()))
    for pid in found:
        found += children.get(pid, ())  # grows while it is walked: breadth first
    return found


if __name__ == "__main__":
    sys.exit(main())

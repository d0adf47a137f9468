"""One playbook at a time: notes whose run it is in FOLDER/run.lock, and refuses while another one lives.

Usage: one_run.py FOLDER. The lock is the running ansible-playbook's own process: when it ends, however it does, the
lock is void. Prints 'changed' or 'unchanged'.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from pathlib import Path


def main(folder: Path) -> int:
    """Take the lock; 1 when another run has it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    here = os.open(folder, os.O_RDONLY)
    fcntl.flock(here, fcntl.LOCK_EX)  # of two that start together one reads after the other has written
    path = folder / "run.lock"
    mine = _playbook()
    held = _read(path)
    if held == mine:
        print("unchanged")
        return 0
    if held is not None and _started(held["pid"]) == held["started"]:
        sys.stderr.write(
            f"Another playbook of this consortium runs (process {held['pid']}): wait until it has ended.\n"
        )
        return 1
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(mine))
    fresh.replace(path)
    print("unchanged")  # nothing of the site
    return 0


def _playbook() -> dict[str, int]:
    """The outermost process above this one that is ansible's."""
    found, pid = os.getpid(), os.getppid()
    while pid > 1:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        if b"ansible" in command.partition(b"\0")[2].partition(b"\0")[0] or b"ansible" in command.partition(b"\0")[0]:
            found = pid
        pid = int(_stat(pid)[1])
    return {"pid": found, "started": _started(found) or 0}


def _started(pid: int) -> int | None:
    try:
        return int(_stat(pid)[19])
    except OSError:
        return None


def _stat(pid: int) -> list[str]:
    """The fields behind the command's name, which may hold anything (proc(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _read(path: Path) -> dict[str, int] | None:
    try:
        held: dict[str, int] = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return held


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

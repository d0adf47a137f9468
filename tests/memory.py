"""How much memory a process took at the worst moment, as the kernel counts: no allocator is left out."""

from __future__ import annotations

from pathlib import Path


def resident(pid: int | str, *, peak: bool = False) -> int:
    """Bytes of a process in memory: now, or the most that there ever were at once; 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    field = "VmHWM:" if peak else "VmRSS:"
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


class HighWater:
    """How far a process rises above what it had when this was made."""

    def __init__(self, pid: int | str = "self") -> None:
        self._pid = pid
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # the peak starts again from here: man 5 proc_pid_clear_refs
        self._start = resident(pid)

    def rise(self) -> int:
        """In bytes."""
        return resident(self._pid, peak=True) - self._start

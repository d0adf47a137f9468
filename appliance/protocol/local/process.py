"""What a process of the node uses, and since when: each part tells of its own, for it may see no other's."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

_PAGE, _TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")


class ProcessUse(BaseModel):
    """A process that runs.

    Attributes:
        part: ``warden``, ``runner``, ``gui``; a child that trains has its experiment's id.
        since: Seconds since the epoch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    part: str = Field(max_length=128)
    memory_bytes: int = Field(ge=0)
    since: float


def process_use(part: str, pid: int | None = None) -> ProcessUse:
    """The memory and the age of a process, of this one if none is named (proc(5), ``statm`` and ``stat``)."""
    pid = os.getpid() if pid is None else pid
    return ProcessUse(part=part, memory_bytes=resident_bytes(pid), since=_started_at(pid))


def resident_bytes(pid: int) -> int:
    """A process's own memory, pages that it shares with others among them; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def _started_at(pid: int) -> float:
    try:
        # The name before it may hold spaces and brackets; the clock's ticks are counted from the machine's start.
        ticks = int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return time.time()  # gone meanwhile
    return time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / _TICKS)

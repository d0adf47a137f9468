"""What a child's processes use, measured from outside: the kernel's own limits count neither sums nor nameless files.

A file that was deleted while it is open, or mapped, takes its space still; a memory file takes memory in no process's
size. Both are found where the process holds them, which needs the right to look (``/proc/PID/fd``): the same user's, or
root's.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_BLOCK = 512  # of st_blocks, whatever the file system's own


@dataclass(frozen=True)
class Nameless:
    """Bytes in files that no folder names.

    Attributes:
        memory_bytes: In memory files.
        disk_bytes: In files deleted from the scratch folder's file system.
    """

    memory_bytes: int
    disk_bytes: int


def resident_bytes(pid: int) -> int:
    """A process's own memory, pages that it shares with others among them; 0 when it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def shared_out_bytes(pid: int) -> int:
    """A process's memory, each page divided by those who share it; where that is hidden, ``resident_bytes``."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return resident_bytes(pid)


def nameless(pids: Iterable[int], scratch: Path) -> Nameless:
    """What processes hold in files without a name; each file counts once."""
    disk = scratch.stat().st_dev
    sizes: dict[tuple[int, int], tuple[bool, int]] = {}
    for pid in pids:
        # A memory file that is mapped as well counts in the process's size, too: that errs to the safe side.
        for key, size in [*_open_files(pid), *_mapped_files(pid)]:
            is_disk = key[0] == disk
            sizes[key] = (is_disk, max(size, sizes.get(key, (is_disk, 0))[1]))
    return Nameless(
        memory_bytes=sum(size for is_disk, size in sizes.values() if not is_disk),
        disk_bytes=sum(size for is_disk, size in sizes.values() if is_disk),
    )


def _open_files(pid: int) -> Iterable[tuple[tuple[int, int], int]]:
    with suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found = Path(entry.path).stat()  # through the link, to a file that no path leads to
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                    yield (found.st_dev, found.st_ino), found.st_blocks * _BLOCK


def _mapped_files(pid: int) -> Iterable[tuple[tuple[int, int], int]]:
    """Deleted files, by the length to which they are mapped: their size itself is hidden."""
    with suppress(OSError):
        mappings = Path(f"/proc/{pid}/maps").read_text(errors="replace").splitlines()
        for line in (line for line in mappings if line.endswith(" (deleted)")):  # of a thousand, few
            place, _, offset, device, inode, path = line.split(maxsplit=5)
            if not path.startswith(("/memfd:", "/dev/zero", "/SYSV")):
                start, end = (int(address, 16) for address in place.split("-"))
                major, minor = (int(part, 16) for part in device.split(":"))
                yield (os.makedev(major, minor), int(inode)), int(offset, 16) + end - start

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

from appliance.protocol.local.process import resident_bytes

_BLOCK = 512  # of st_blocks, whatever the file system's own
_HIDDEN = 1 << 62  # bytes
_File = tuple[bool, int]  # whether it is on the disk, and its inode


@dataclass(frozen=True)
class Nameless:
    """Bytes in files that no folder names.

    Attributes:
        memory_bytes: In memory files.
        disk_bytes: In files deleted from the scratch folder's file system.
    """

    memory_bytes: int
    disk_bytes: int


def shared_out_bytes(pid: int) -> int:
    """A process's memory, each page divided by those who share it; where that is hidden, ``resident_bytes``."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))
    except (OSError, StopIteration):
        return resident_bytes(pid)


def nameless(pids: Iterable[int], scratch: Path) -> Nameless:
    """What processes hold in files without a name; each file counts once.

    One that is mapped and no longer open hides its size, and counts as more than any limit. The processes run on while
    we look: only what is mapped before and after the look at what is open, and was not among it, was never open.
    """
    place, everyone = scratch.resolve(), [*pids]
    mapped = _mapped_files(everyone, place)
    sizes: dict[_File, int] = {}
    for pid in everyone:
        for file, size in _open_files(pid, place):
            sizes[file] = max(size, sizes.get(file, 0))
    if hidden := mapped - sizes.keys():
        sizes |= dict.fromkeys(hidden & _mapped_files(everyone, place), _HIDDEN)
    return Nameless(
        memory_bytes=sum(size for (is_disk, _), size in sizes.items() if not is_disk),
        disk_bytes=sum(size for (is_disk, _), size in sizes.items() if is_disk),
    )


def _open_files(pid: int, scratch: Path) -> Iterable[tuple[_File, int]]:
    """Each with its size."""
    with suppress(OSError):
        disk = scratch.stat().st_dev
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                found = Path(entry.path).stat()  # through the link, to a file that no path leads to
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                    yield (found.st_dev == disk, found.st_ino), found.st_blocks * _BLOCK


def _mapped_files(pids: Iterable[int], scratch: Path) -> set[_File]:
    """Of the disk's only those of scratch: a library may be replaced."""
    found: set[_File] = set()
    for pid in pids:
        with suppress(OSError):
            # Not splitlines: of all that ends a line for it, the kernel escapes only the newline in a name.
            for line in Path(f"/proc/{pid}/maps").read_text(errors="replace").split("\n"):
                if line.endswith(" (deleted)"):  # of a thousand, few
                    *_, inode, path = line.split(maxsplit=5)
                    is_disk = path.startswith(f"{scratch}/")
                    if is_disk or path.startswith("/memfd:"):
                        found.add((is_disk, int(inode)))
    return found

"""Tells cheaply whether a file may have changed."""

from __future__ import annotations

from pathlib import Path

Stamp = tuple[int, int, int, int, int]


def stamp(path: str) -> Stamp:
    """What changes with a file: device, inode, size, and its two times to the nanosecond.

    The second time, of the inode, is the kernel's own: nobody sets it back.
    """
    status = Path(path).stat()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

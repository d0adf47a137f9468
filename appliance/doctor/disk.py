"""Space and inodes where FedWard writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from appliance.doctor.finding import Finding, State
from appliance.doctor.host import Host, is_there

GIB = 1 << 30
_PLACES = ("var/lib/fedward", "var/lib/docker", "var/log")
_TOPIC = "disk"
_REMEDY = "Free space or make the disk larger; 'du -xh --max-depth=2 PLACE | sort -h' shows what takes it."


def check(host: Host) -> Iterator[Finding]:
    """Each file system once, under the first of our places that it holds."""
    seen = set()
    for place in [*([host.home] if host.home else []), *map(host.path, _PLACES)]:
        path = existing(place)
        device = path.stat().st_dev
        if device not in seen:
            seen.add(device)
            yield _judge(str(place), os.statvfs(path))


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that is there: where it would be made."""
    while not is_there(path):
        path = path.parent
    return path


def _judge(name: str, found: os.statvfs_result) -> Finding:
    free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    share = free / total if total else 0.0
    inodes = found.f_favail / found.f_files if found.f_files else 1.0  # some file systems have no fixed number
    said = f"{free / GIB:.1f} of {total / GIB:.0f} GiB free"
    if free < GIB:
        return Finding(_TOPIC, name, State.FAILED, f"{said}: rounds wait until there is more", _REMEDY)
    if inodes < 0.01:
        return Finding(_TOPIC, name, State.FAILED, "hardly an inode is free: no new file can be made", _REMEDY)
    if share < 0.1 or free < 10 * GIB:
        return Finding(_TOPIC, name, State.WEAKER, said, _REMEDY)
    if inodes < 0.05:
        return Finding(_TOPIC, name, State.WEAKER, f"{inodes:.0%} of its inodes are free", _REMEDY)
    return Finding(_TOPIC, name, State.OK, said)

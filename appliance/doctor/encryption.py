"""Whether the disks below data and keys are encrypted, as far as this machine can see it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from appliance.doctor.disk import existing
from appliance.doctor.finding import Finding, State
from appliance.doctor.host import Host, Kind

_TOPIC = "encryption at rest"
_DATA = "srv/fedward/data"
_REMEDY = "Put the folder onto a LUKS volume (cryptsetup), or note that the storage below encrypts."


def check(host: Host) -> Iterator[Finding]:
    """The part's folder, and at a node the data's."""
    if host.kind is Kind.OPERATOR:
        return
    places = [host.home or host.path("var/lib/fedward")]
    if host.kind in (Kind.NODE, Kind.NOTHING):
        places.append(host.path(_DATA))
    for place in places:
        yield _judge(host, place)


def _judge(host: Host, place: Path) -> Finding:
    device = _device(host, existing(place))
    if device is None:
        because = "the folder lies on no disk of this machine's own (network, memory or a container's file system)"
        return Finding(_TOPIC, str(place), State.UNKNOWN, because, "Ask whoever runs the storage.")
    layers = list(_layers(host.path("sys/dev/block") / device))
    if any(_text(layer / "dm/uuid").startswith("CRYPT-") for layer in layers):
        return Finding(_TOPIC, str(place), State.OK, "lies on an encrypted volume (dm-crypt)")
    because = "this machine does not encrypt the disk; whether the storage below does, it cannot see"
    return Finding(_TOPIC, str(place), State.WEAKER, because, _REMEDY)


def _device(host: Host, path: Path) -> str | None:
    """The block device below a path as ``MAJOR:MINOR``, or None.

    From the mount table, where ``stat`` gives the made-up numbers of file systems that span devices.
    """
    try:
        lines = host.path("proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    inside = Path("/") / path.resolve().relative_to(host.root.resolve())
    found = None
    for line in lines:  # the deepest mount point wins, and of two at one place the later
        fields = line.split()
        point = Path(fields[4].replace("\\040", " "))
        if inside.is_relative_to(point) and (found is None or len(point.parts) >= len(found[0].parts)):
            found = (point, fields[2])
    if found is None or found[1].startswith("0:") or not (host.path("sys/dev/block") / found[1]).exists():
        return None
    return found[1]


def _layers(device: Path) -> Iterator[Path]:
    """A device and those that it is made of: LVM on LUKS on a partition, say."""
    yield device
    slaves = device / "slaves"
    for below in sorted(slaves.iterdir()) if slaves.is_dir() else ():
        yield from _layers(below)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""

"""Memory and graphics processors."""

from __future__ import annotations

import re
from collections.abc import Iterator

from appliance.doctor.commands import CommandError
from appliance.doctor.finding import Finding, State, UnknowableError
from appliance.doctor.host import Host, Kind

_GIB = 1 << 20  # of the kernel's kB
_NVIDIA = "0x10de"


def check_memory(host: Host) -> Iterator[Finding]:
    """All of the machine's, against what its part needs."""
    found = re.search(r"^MemTotal:\s+(\d+) kB", "".join(host.texts("proc/meminfo")), re.MULTILINE)
    if found is None:
        raise UnknowableError("the kernel does not say how much there is")
    least, enough = (0.5, 2) if host.kind in (Kind.HUB, Kind.OPERATOR) else (2, 8)
    total = int(found[1]) / _GIB
    said = f"{total:.1f} GiB"
    if total < least:
        yield Finding("memory", "", State.FAILED, f"{said}, and {least:g} are needed", "Give the machine more memory.")
    elif total < enough:
        yield Finding("memory", "", State.WEAKER, f"{said}: large models will not fit", f"{enough} GiB serve well.")
    else:
        yield Finding("memory", "", State.OK, said)


def check_graphics(host: Host) -> Iterator[Finding]:
    """NVIDIA's, and whether their driver works; no processor is no fault."""
    if host.kind in (Kind.HUB, Kind.OPERATOR):
        return
    cards = [path for path in host.root.glob("sys/bus/pci/devices/*") if _is_card(host, path.name)]
    try:
        names = re.findall(r"GPU \d+: ([^(\n]+)", host.run("nvidia-smi", "-L"))
    except CommandError as error:
        if cards:
            because = f"{len(cards)} NVIDIA cards, and their driver does not work: {error.text}"
            remedy = "apt install nvidia-driver (non-free), restart, and look again; until then training uses the CPU."
            yield Finding("graphics", "", State.WEAKER, because, remedy)
            return
        names = []
    said = ", ".join(name.strip() for name in names) or "none that can be used: training uses the CPU"
    yield Finding("graphics", "", State.OK, said)


def _is_card(host: Host, device: str) -> bool:
    folder = f"sys/bus/pci/devices/{device}"
    vendor, kind = ("".join(host.texts(f"{folder}/{name}")).strip() for name in ("vendor", "class"))
    return vendor == _NVIDIA and kind.startswith("0x03")  # a display controller

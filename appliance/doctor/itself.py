"""What this host is, and which FedWard it has."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from appliance.doctor.finding import AS_ROOT, Finding, State
from appliance.doctor.host import Host, Kind
from appliance.protocol.messages import VERSION


def check(host: Host) -> Iterator[Finding]:
    """Who it is, what of its settings cannot be read, and its versions."""
    for path, fault in host.faults:
        yield Finding("host", path.name, State.FAILED, fault, "Run the playbook again, or correct the file.")
    if closed := host.closed():
        yield Finding("host", "", State.UNKNOWN, f"{closed} is closed to this user", AS_ROOT)
    elif host.kind is Kind.NOTHING:
        because = "nothing of FedWard is set up here yet: judged as a machine that is to become a node"
        yield Finding("host", "", State.OK, because)
    else:
        name = f" '{host.member.id}'" if host.member else ""
        yield Finding("host", "", State.OK, f"this is the {host.kind}{name}")
    yield Finding("host", "version", State.OK, f"FedWard {own_version()}, protocol {VERSION}")


def own_version() -> str:
    """The version of the program that runs."""
    try:
        return version("fedward")
    except PackageNotFoundError:  # run from its source
        return "(not installed)"

"""Whether the hub's names resolve."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from appliance.doctor.deadline import within
from appliance.doctor.finding import AS_ROOT, Finding, State, UnknowableError
from appliance.doctor.host import Host, Kind

LIMIT_S = 4.0
_TOPIC = "names"


def check(host: Host) -> Iterator[Finding]:
    """The names among the hub's endpoints."""
    if host.kind in (Kind.HUB, Kind.OPERATOR) and not host.hubs:
        return
    if not host.hubs:
        if host.endpoints:  # a consortium without VPN
            return
        raise no_hub(host)
    for name in dict.fromkeys(hub.host for hub in host.hubs if hub.literal is None):
        yield _name(name)
    if all(hub.literal for hub in host.hubs):
        yield Finding(_TOPIC, "", State.OK, "the hub is known by its address: no name is needed")


def no_hub(host: Host) -> UnknowableError:
    """Why the hub is not known: its settings are closed to us, or not there yet."""
    if closed := host.closed():
        return UnknowableError(f"{closed} is closed to this user", AS_ROOT)
    return UnknowableError(
        "no hub is known here yet", "Give the hub's endpoint, as the operator says it: --hub vpn.example.org:51820"
    )


def addresses(name: str, port: int) -> list[str]:
    """What a name resolves to; raises OSError, also when the resolver does not answer."""
    found = within(LIMIT_S, lambda: socket.getaddrinfo(name, port, type=socket.SOCK_DGRAM))
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def _name(name: str) -> Finding:
    remedy = "Ask the hospital's network team to let this machine's DNS server resolve the name (/etc/resolv.conf)."
    try:
        found = addresses(name, 0)
    except TimeoutError:
        return Finding(_TOPIC, name, State.FAILED, f"the DNS server did not answer within {LIMIT_S:g} s", remedy)
    except OSError as error:
        return Finding(_TOPIC, name, State.FAILED, f"does not resolve: {error.strerror or error}", remedy)
    return Finding(_TOPIC, name, State.OK, f"resolves to {', '.join(found)}")

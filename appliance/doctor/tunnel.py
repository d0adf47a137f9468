"""Whether packets reach the hub, and of which size."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from appliance.doctor.commands import CommandError
from appliance.doctor.finding import AS_ROOT, Finding, State, UnknowableError
from appliance.doctor.host import Host, Kind
from appliance.doctor.names import addresses, no_hub

if TYPE_CHECKING:
    from appliance.vpn.config import Endpoint, VpnSettings

STALE_S = 135  # as appliance.vpn.host has it, which needs a library that may not be here
OVERHEAD = 80  # bytes that WireGuard adds to a packet over IPv6, the larger of the two
_ICMP = 28  # bytes of IPv4's and ICMP's headers
_ANSWER_S = 1.0
_TOPIC = "tunnel"
_ASK = "Ask the hospital's firewall team to let UDP out to the hub: 'fedward doctor --letter' writes the request."


def check(host: Host) -> Iterator[Finding]:
    """The handshake's age; before there is a tunnel, whether a packet can be sent at all."""
    if host.vpn is None:
        yield from _before(host)
        return
    name = host.vpn.interface
    try:
        said = host.run("wg", "show", name, "latest-handshakes")
    except CommandError as error:
        if error.is_refused:
            raise UnknowableError(f"{name}: WireGuard shows itself to root alone", AS_ROOT) from None
        remedy = f"systemctl enable --now wg-quick@{name}; then: fedward vpn status"
        yield Finding(_TOPIC, name, State.FAILED, f"the interface is not up: {error.text}", remedy)
        return
    heard = [int(line.split()[-1]) for line in said.splitlines() if line.split()]
    yield _hub(name, heard) if host.vpn.hub is not None else _member(name, heard)


def check_packet_size(host: Host) -> Iterator[Finding]:
    """Whether the line outside carries the tunnel's packets whole, and the tunnel a full packet of its own."""
    if host.kind is Kind.OPERATOR:
        return
    if host.hubs:
        inside = host.vpn.mtu if host.vpn else 1420
        yield _outside(host, host.hubs[0], inside)
    if host.vpn is not None and host.vpn.member is not None and host.endpoints:
        yield _inside(host, host.vpn, urlsplit(host.endpoints[0].rest_url).hostname or "")


def _member(name: str, heard: list[int]) -> Finding:
    last = max(heard, default=0)
    age = time.time() - last
    if last and age <= STALE_S:
        return Finding(_TOPIC, name, State.OK, f"the hub was heard {max(0, age):.0f} s ago")
    because = f"the hub was heard {age / 60:.0f} minutes ago" if last else "the hub was never heard"
    return Finding(_TOPIC, name, State.FAILED, because, _ASK)


def _hub(name: str, heard: list[int]) -> Finding:
    now = time.time()
    live = sum(1 for moment in heard if moment and now - moment <= STALE_S)
    if live or not heard:
        return Finding(_TOPIC, name, State.OK, f"{live} of {len(heard)} members are heard")
    because = f"none of {len(heard)} members is heard"
    return Finding(_TOPIC, name, State.WEAKER, because, "Let UDP in to the hub's port, also in front of this machine.")


def _before(host: Host) -> Iterator[Finding]:
    if host.kind is Kind.HUB:
        return
    if not host.hubs:
        if host.endpoints or host.kind is Kind.OPERATOR:
            return
        raise no_hub(host)
    for hub in host.hubs:
        yield _probe(hub)


def _probe(hub: Endpoint) -> Finding:
    """A packet that WireGuard passes over in silence; only a refusal says something."""
    try:
        found = addresses(hub.host, hub.port)
        with socket.socket(socket.AF_INET6 if ":" in found[0] else socket.AF_INET, socket.SOCK_DGRAM) as line:
            line.settimeout(_ANSWER_S)
            line.connect((found[0], hub.port))
            line.send(b"\0")
            line.recv(1)
    except TimeoutError:
        because = "a packet was sent and nobody refused it; whether it arrived shows the first handshake"
        return Finding(_TOPIC, str(hub), State.UNKNOWN, because, _ASK)
    except OSError as error:
        return Finding(_TOPIC, str(hub), State.FAILED, f"UDP does not get out: {error.strerror or error}", _ASK)
    return Finding(_TOPIC, str(hub), State.WEAKER, "something that is no WireGuard answers", "Check the hub's port.")


def _outside(host: Host, hub: Endpoint, inside: int) -> Finding:
    topic, needed = "packet size", inside + OVERHEAD
    try:
        route = json.loads(host.run("ip", "-j", "route", "get", addresses(hub.host, hub.port)[0]))[0]
        learnt = [int(each["mtu"]) for each in route.get("metrics", []) if "mtu" in each]
        link = json.loads(host.run("ip", "-j", "link", "show", "dev", route["dev"]))[0]
    except (CommandError, OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UnknowableError(f"the route to the hub was not to be found: {error}") from None
    carries = min([int(link["mtu"]), *learnt])
    if carries >= needed:
        return Finding(topic, "outside", State.OK, f"the line carries {carries} bytes, and {needed} are needed")
    because = f"the line carries {carries} bytes, and the tunnel's packets have up to {needed}: they are cut in pieces"
    return Finding(topic, "outside", State.WEAKER, because, f"Set mtu = {carries - OVERHEAD} in vpn.toml on this host.")


def _inside(host: Host, vpn: VpnSettings, hub: str) -> Finding:
    topic, size = "packet size", vpn.mtu - _ICMP
    ping = ("ping", "-n", "-q", "-c", "1", "-W", "2", "-M", "do")
    try:
        host.run(*ping, "-s", str(size), hub)
    except CommandError as error:
        if error.is_missing:
            raise UnknowableError("'ping' is not installed here", "apt install iputils-ping") from None
    else:
        return Finding(topic, "inside", State.OK, f"a packet of {vpn.mtu} bytes reaches the hub whole")
    try:
        host.run(*ping, "-s", "64", hub)
    except CommandError:
        raise UnknowableError("the hub answers no ping inside the tunnel") from None
    because = f"small packets reach the hub, and those of {vpn.mtu} bytes do not"
    return Finding(topic, "inside", State.FAILED, because, "Set a smaller mtu in vpn.toml (1280 is the least).")

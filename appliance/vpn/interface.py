"""The live interface: what it is, and the smallest change that makes it what it should be.

It is read and changed by ``wg`` and ``ip``, which speak to the kernel's WireGuard and to wireguard-go alike. Changes go
peer by peer: ``wg syncconf`` would also set the port anew, by which wireguard-go opens its socket again, and would
erase the private key and take another port wherever its file does not name them.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import ip_interface, ip_network
from typing import Any

from appliance.vpn.addresses import InterfaceAddress, Network, Range, routed_ranges
from appliance.vpn.config import Endpoint, Peer, Tunnel, render_peers
from appliance.vpn.errors import InterfaceError
from appliance.vpn.keys import PresharedKey

_LIMIT_S = 20
_ABSENT = ("does not exist", "Cannot find device")
_KEY = re.compile(r"[A-Za-z0-9+/]{43}=")


@dataclass(frozen=True)
class LivePeer:
    """A peer as the interface has it.

    Attributes:
        endpoint: Where it was last heard or is looked for; empty when that is not known.
        handshake_at: Seconds since the epoch; 0: never.
        received_bytes: From it, since the interface is up.
        sent_bytes: To it.
    """

    public_key: str
    preshared_key: PresharedKey | None
    endpoint: str
    allowed: frozenset[Network]
    handshake_at: int
    received_bytes: int
    sent_bytes: int
    keepalive_s: int | None


@dataclass(frozen=True)
class LiveInterface:
    """An interface that is up; ``peers`` by public key."""

    name: str
    public_key: str | None
    listen_port: int
    mtu: int
    addresses: frozenset[InterfaceAddress]
    peers: dict[str, LivePeer]


def read_interface(name: str) -> LiveInterface | None:
    """The interface; None when there is none of this name.

    Raises:
        InterfaceError: A tool is missing, or refuses.
    """
    links = _ip_json("address", "show", "dev", name)
    if not links:
        return None
    own, *peers = _run("wg", "show", name, "dump").splitlines()
    _private_key, public_key, listen_port, _mark = own.split("\t")
    found = frozenset(
        ip_interface(f"{each['local']}/{each['prefixlen']}")
        for each in links[0]["addr_info"]
        if each.get("scope") == "global"
    )
    live = (_live_peer(line.split("\t")) for line in peers)
    return LiveInterface(
        name=name,
        public_key=None if public_key == "(none)" else public_key,
        listen_port=int(listen_port),
        mtu=links[0]["mtu"],
        addresses=found,
        peers={peer.public_key: peer for peer in live},
    )


def host_routes(*, besides: str) -> list[Range]:
    """What this machine routes, but for its defaults and the interface ``besides``.

    Raises:
        InterfaceError: ``ip`` is missing, or prints something unknown.
    """
    try:
        return [
            used
            for family in ("-4", "-6")
            for used in routed_ranges(_run("ip", "-j", family, "route", "show", "table", "all"), besides=besides)
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InterfaceError("'ip -j route show table all' printed something unknown.") from error


@dataclass(frozen=True)
class Change:
    """What separates an interface from the tunnel that it should be."""

    tunnel: Tunnel
    live: LiveInterface

    @property
    def gone(self) -> list[str]:
        """Public keys of peers that may no longer be there."""
        wanted = {peer.public_key for peer in self.tunnel.peers}
        return [key for key in self.live.peers if key not in wanted]

    @property
    def set_anew(self) -> tuple[Peer, ...]:
        """Peers that are missing, or differ in more than their endpoint, which is theirs to change."""
        return tuple(peer for peer in self.tunnel.peers if not self._is_so(peer))

    @property
    def stray_addresses(self) -> frozenset[InterfaceAddress]:
        """On the interface and not in the plan."""
        return self.live.addresses - frozenset(self.tunnel.addresses)

    @property
    def missing_addresses(self) -> frozenset[InterfaceAddress]:
        """In the plan and not on the interface."""
        return frozenset(self.tunnel.addresses) - self.live.addresses

    @property
    def has_other_key(self) -> bool:
        """Whether the interface works with another private key, or none."""
        return self.live.public_key != self.tunnel.private_key.public

    @property
    def has_other_port(self) -> bool:
        """Whether it listens elsewhere; a member's port is anybody's choice."""
        return self.tunnel.listen_port not in (None, self.live.listen_port)

    def sentences(self, names: dict[str, str]) -> list[str]:
        """The change for people, without secrets.

        Args:
            names: Members' ids by public key, for those that go.
        """
        told = [f"peer {names.get(key, key)}: is removed" for key in self.gone]
        told += [
            f"peer {peer.name}: is {'changed' if peer.public_key in self.live.peers else 'added'}"
            for peer in self.set_anew
        ]
        if self.has_other_key:
            told.append("private key: is set from its file")
        if self.has_other_port:
            told.append(f"port: {self.live.listen_port} becomes {self.tunnel.listen_port}")
        if self.live.mtu != self.tunnel.mtu:
            told.append(f"MTU: {self.live.mtu} becomes {self.tunnel.mtu}")
        told += [f"address {address}: is removed" for address in sorted(self.stray_addresses, key=str)]
        told += [f"address {address}: is added" for address in sorted(self.missing_addresses, key=str)]
        return told

    def make(self) -> None:
        """Change the interface. Who may no longer be there goes first, and nobody else notices.

        Raises:
            InterfaceError: A tool refuses; what was done before stays done, and the next call does the rest.
        """
        name = self.live.name
        if self.gone:
            _run("wg", "set", name, *(word for key in self.gone for word in ("peer", key, "remove")))
        if self.has_other_key:
            _run("wg", "set", name, "private-key", "/dev/stdin", given=self.tunnel.private_key.reveal())
        if self.has_other_port:
            _run("wg", "set", name, "listen-port", str(self.tunnel.listen_port))
        if self.set_anew:
            _run("wg", "addconf", name, "/dev/stdin", given=render_peers(self.set_anew))
        if self.live.mtu != self.tunnel.mtu:
            _run("ip", "link", "set", "dev", name, "mtu", str(self.tunnel.mtu))
        for address in self.stray_addresses:
            _run("ip", "address", "delete", str(address), "dev", name)
        for address in self.missing_addresses:
            _run("ip", "address", "replace", str(address), "dev", name)

    def _is_so(self, peer: Peer) -> bool:
        live = self.live.peers.get(peer.public_key)
        return (
            live is not None
            and live.preshared_key == peer.preshared_key
            and live.allowed == frozenset(map(ip_network, peer.addresses))
            and live.keepalive_s == peer.keepalive_s
        )


def set_endpoint(name: str, public_key: str, endpoint: Endpoint) -> None:
    """Look for a peer elsewhere; raises InterfaceError if ``wg`` refuses."""
    _run("wg", "set", name, "peer", public_key, "endpoint", str(endpoint))


def resolve(endpoints: Iterable[Endpoint]) -> tuple[list[Endpoint], list[str]]:
    """Every address behind the endpoints, in their order, and the names that could not be resolved."""
    found: dict[Endpoint, None] = {}
    failed = []
    for endpoint in endpoints:
        try:
            answers = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_DGRAM)
        except (OSError, UnicodeError):
            failed.append(endpoint.host)
        else:
            found |= {Endpoint(str(answer[4][0]), endpoint.port): None for answer in answers}
    return list(found), failed


def _live_peer(fields: list[str]) -> LivePeer:
    """A peer's line of ``wg show … dump`` (wg(8))."""
    public_key, preshared, endpoint, allowed, handshake, received, sent, keepalive = fields
    return LivePeer(
        public_key=public_key,
        preshared_key=None if preshared == "(none)" else PresharedKey.from_text(preshared),
        endpoint="" if endpoint == "(none)" else endpoint,
        allowed=frozenset() if allowed == "(none)" else frozenset(map(ip_network, allowed.split(","))),
        handshake_at=int(handshake),
        received_bytes=int(received),
        sent_bytes=int(sent),
        keepalive_s=None if keepalive == "off" else int(keepalive),
    )


def _ip_json(*words: str) -> list[dict[str, Any]]:
    try:
        return list(json.loads(_run("ip", "-j", *words) or "[]"))
    except InterfaceError as error:
        if any(text in error.message for text in _ABSENT):
            return []
        raise


def _run(*command: str, given: str = "") -> str:
    """What a tool prints. Secrets reach it on its standard input alone, and none comes back in an error."""
    try:
        done = subprocess.run(  # noqa: S603 - our own words and checked names, no shell
            command, input=given, capture_output=True, text=True, timeout=_LIMIT_S, check=False, env=_ENVIRONMENT
        )
    except FileNotFoundError:
        raise InterfaceError(
            f"'{command[0]}' is not installed on this machine.",
            remedy="Debian: apt install wireguard-tools iproute2.",
        ) from None
    except subprocess.TimeoutExpired:
        raise InterfaceError(f"'{' '.join(command[:3])}' did not end within {_LIMIT_S} s.") from None
    if done.returncode != 0:
        said = _KEY.sub("(key)", done.stderr.strip().split("\n")[-1])
        raise InterfaceError(f"'{_KEY.sub('(key)', ' '.join(command))}' failed: {said or f'code {done.returncode}'}")
    return done.stdout


_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}

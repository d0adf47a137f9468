"""The consortium's address plan: which member has which address inside the VPN.

One IPv4 network and, if wanted, one IPv6 network. The hub is number 1 in both. A member's number is free as long as the
register has no entry with it, in whatever state: an address is never given twice, so that an old log, a firewall rule
or a revoked member's stray packet never speaks of somebody else.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_interface,
    ip_network,
)

from appliance.vpn.errors import NetworkRefusedError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
InterfaceAddress = IPv4Interface | IPv6Interface

_HUB = 1
_DEFAULT_ROUTES = 1  # bits: 0.0.0.0/0, and its two halves, by which some VPNs replace it
_NOWHERE = frozenset({"blackhole", "prohibit", "unreachable", "throw", "broadcast", "multicast", "anycast", "local"})


@dataclass(frozen=True)
class Range:
    """A range that somebody uses.

    Attributes:
        what: Who or what, to stand behind the range: "which this machine routes over eth0".
    """

    network: Network
    what: str

    def __str__(self) -> str:
        return f"{self.network}, {self.what}"


def _ranges(what: str, *texts: str) -> tuple[Range, ...]:
    return tuple(Range(ip_network(text), what) for text in texts)


_MAY_BE_OURS = tuple(
    ip_network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fd00::/8")
)
NEVER_OURS = (
    *_ranges("which every machine has for itself", "127.0.0.0/8", "0.0.0.0/8", "::1/128", "::/128"),
    *_ranges("which is for one link only", "169.254.0.0/16", "fe80::/10"),
    *_ranges("which is for multicast", "224.0.0.0/4", "ff00::/8"),
    *_ranges("which is reserved", "240.0.0.0/4"),
    # Docker's own pools (daemon.json, default-address-pools): a network that it makes tomorrow lies in one of them.
    *_ranges(
        "which Docker gives its networks",
        *("172.17.0.0/16", "172.18.0.0/15", "172.20.0.0/14", "172.24.0.0/13", "192.168.0.0/16"),
    ),
)
_LARGEST_SUGGESTED = 24  # bits: 253 members
_SUGGESTED_IN = ("100.64.0.0/10", "172.16.0.0/16", "10.0.0.0/8")


class AddressPlan:
    """Who has which address.

    Args:
        networks: One IPv4 network (RFC 1918 or 100.64.0.0/10) and at most one IPv6 network (fd00::/8, RFC 4193).

    Attributes:
        networks: IPv4 first.
        hub: The hub's addresses, one in each network.

    Raises:
        NetworkRefusedError: Networks that are too small, public, or in use on every machine.
    """

    def __init__(self, networks: Iterable[Network]) -> None:
        self.networks = tuple(sorted(networks, key=lambda network: network.version))
        if [network.version for network in self.networks] not in ([4], [4, 6]):
            given = ", ".join(map(str, self.networks)) or "nothing"
            raise NetworkRefusedError(
                f"The VPN's networks are {given}; expected one IPv4 network and at most one IPv6 network.",
                remedy="Name for example '100.80.0.0/24' and '" + _own_ula() + "'.",
            )
        for network in self.networks:
            self._require_ours(network)
        self.require_free(NEVER_OURS)
        self._last = min(n.num_addresses - (2 if n.version == 4 else 1) for n in self.networks)
        if self._last <= _HUB:
            raise NetworkRefusedError(f"{_listed(self.networks)}: no room for a hub and a member.")
        self.hub = self._at(_HUB)

    def next_free(self, taken: Collection[Address]) -> tuple[Address, ...]:
        """The addresses of the next member, one in each network, with the same number in both.

        Args:
            taken: Every address that the register holds, revoked members' too.

        Raises:
            NetworkRefusedError: All are taken.
        """
        numbers = {int(a) - int(n.network_address) for a in taken for n in self.networks if a in n}
        number = next((n for n in range(_HUB + 1, self._last + 1) if n not in numbers), None)
        if number is None:
            raise NetworkRefusedError(
                f"{_listed(self.networks)}: all {self._last - _HUB} members' addresses are taken.",
                remedy="Addresses are never given twice. Plan a larger network, and enrol the members in it anew.",
            )
        return self._at(number)

    def why_not(self, addresses: Collection[Address]) -> str | None:
        """Why these cannot be a member's addresses; None if they can."""
        if not addresses or len(addresses) != len({address.version for address in addresses}):
            return "a member has one address in each network"
        for address in addresses:
            network = next((network for network in self.networks if address in network), None)
            if network is None:
                return f"{address} lies outside {_listed(self.networks)}"
            if address in self.hub:
                return f"{address} is the hub's"
            if not _HUB < int(address) - int(network.network_address) <= self._last:
                return f"{address} is no machine's address in {network}"
        return None

    def on_interface(self, addresses: Iterable[Address]) -> tuple[InterfaceAddress, ...]:
        """Addresses with their network's length, as an interface carries them.

        The whole network then leads into the tunnel, also where nobody answers: what is meant for another member never
        strays to a hospital's own gateway.
        """
        return tuple(
            ip_interface(f"{address}/{network.prefixlen}")
            for address in addresses
            for network in self.networks
            if address in network
        )

    def overlaps(self, ranges: Iterable[Range]) -> Iterator[tuple[Network, Range]]:
        """Each of our networks with each range that it overlaps."""
        for used in ranges:
            for network in self.networks:
                if network.version == used.network.version and network.overlaps(used.network):
                    yield network, used

    def require_free(self, ranges: Collection[Range]) -> None:
        """Refuse a plan that would take a range from those who use it.

        Raises:
            NetworkRefusedError: Names both ranges, who uses the other, and one that is free of these.
        """
        for network, used in self.overlaps(ranges):
            raise NetworkRefusedError(
                f"The VPN's network {network} overlaps {used}.",
                remedy=f"Choose a network that no member uses, here for example {suggestion(network, ranges)}, "
                "and give it to all hosts of the consortium.",
            )

    def _at(self, number: int) -> tuple[Address, ...]:
        return tuple(network.network_address + number for network in self.networks)

    @staticmethod
    def _require_ours(network: Network) -> None:
        if not any(network.version == r.version and network.subnet_of(r) for r in _MAY_BE_OURS):  # type: ignore[arg-type]
            ranges = "fd00::/8" if network.version == 6 else "10.0.0.0/8, 172.16.0.0/16 or 100.64.0.0/10"
            raise NetworkRefusedError(
                f"The VPN's network {network} is not private: it may be somebody's on the Internet.",
                remedy=f"Choose a network inside {ranges}, for example {suggestion(network, ())}.",
            )


def suggestion(network: Network, ranges: Collection[Range]) -> str:
    """A network of the same size, or smaller, that overlaps none of the ranges."""
    if network.version == 6:
        return _own_ula()
    used = [r.network for r in (*ranges, *NEVER_OURS) if r.network.version == 4]
    size = 2 ** (32 - max(network.prefixlen, _LARGEST_SUGGESTED))
    for pool in map(IPv4Network, _SUGGESTED_IN):
        first = int(pool.network_address)
        while first <= int(pool.broadcast_address):
            candidate = IPv4Network((first, 33 - size.bit_length()))
            in_the_way = next((each for each in used if candidate.overlaps(each)), None)
            if in_the_way is None:
                return str(candidate)
            first = (int(in_the_way.broadcast_address) // size + 1) * size
    return "one that your network's administrator names"


def routed_ranges(routes_json: str, *, besides: str) -> list[Range]:
    """The ranges in what ``ip -j route show table all`` printed.

    Args:
        besides: An interface whose routes do not count: the VPN's own.

    Raises:
        ValueError: It is not what ``ip`` prints.
    """
    ranges = []
    for route in json.loads(routes_json or "[]"):
        if route.get("type") in _NOWHERE or route.get("dev") == besides or route["dst"] == "default":
            continue
        network = ip_network(route["dst"])
        if network.prefixlen > _DEFAULT_ROUTES and not _is_kernels_own(network):
            over = f" over {route['dev']}" if "dev" in route else ""
            ranges.append(Range(network, f"which this machine routes{over}"))
    return ranges


def _is_kernels_own(network: Network) -> bool:
    return network.is_link_local or network.is_multicast or network.is_loopback


def _own_ula() -> str:
    """A fresh IPv6 network with ten random digits (RFC 4193, section 3.2), so that no two consortia share one."""
    digits = secrets.token_hex(5)
    return f"fd{digits[:2]}:{digits[2:6]}:{digits[6:]}::/64"


def _listed(networks: Iterable[Network]) -> str:
    return " and ".join(map(str, networks))

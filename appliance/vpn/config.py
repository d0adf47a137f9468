"""What WireGuard is told: settings in, a configuration for ``wg-quick`` out, and back.

The ``wireguard-tools`` package writes and reads the format. It takes nearly any text for a configuration, and its
objects show keys in ``repr`` and ``str``: so what is read is checked line by line first, and its objects do not leave
this file.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_interface
from pathlib import Path
from typing import Annotated, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from wireguard_tools import WireguardConfig, WireguardPeer

from appliance.vpn.addresses import Address, AddressPlan, InterfaceAddress, Range
from appliance.vpn.errors import ConfigInvalidError, KeyFileError
from appliance.vpn.keys import PresharedKey, PrivateKey, require_public

HUB = "hub"  # the name of a member's one peer
KEEPALIVE_S = 25  # keeps a hospital's firewall from forgetting the way back; most do so after 30 s or more
HEADER = "# Written by 'fedward vpn apply'. It holds keys, and what is changed here is overwritten.\n"
HIDDEN = "(hidden)"

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"(?=.{{1,253}}$){_LABEL}(?:\.{_LABEL})*")  # RFC 1123, section 2.1
_FRIENDLY = "# friendly_name"  # a comment to WireGuard; the package reads it
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_ONCE = {
    "Interface": {"PrivateKey", "ListenPort", "MTU", "Table"},
    "Peer": {_FRIENDLY, "PublicKey", "PresharedKey", "Endpoint", "PersistentKeepalive"},
}
_KEYS = {"PrivateKey", "PublicKey", "PresharedKey"}
_OFTEN = {"Interface": {"Address"}, "Peer": {"AllowedIPs"}}
_NEEDED = {
    "Interface": {"PrivateKey", "MTU", "Address"},
    "Peer": {_FRIENDLY, "PublicKey", "PresharedKey", "AllowedIPs"},
}
_SECRET_LINE = re.compile(r"^(PrivateKey|PresharedKey) = .*$", re.MULTILINE)


@dataclass(frozen=True)
class Endpoint:
    """Where a hub is reached from outside: a name or an address, and a UDP port."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """From ``vpn.example.org:51820``, ``192.0.2.1:51820`` or ``[2001:db8::1]:51820``; else ValueError."""
        host, _, port = text.rpartition(":")
        if not re.fullmatch(r"[1-9][0-9]{0,4}", port) or int(port) > 65535:
            raise ValueError(f"{text!r} does not end in a port, as in vpn.example.org:51820")
        if host.startswith("[") and host.endswith("]"):
            return cls(str(_outside(IPv6Address(host[1:-1]))), int(port))
        if re.fullmatch(r"[0-9.]+", host):
            return cls(str(_outside(IPv4Address(host))), int(port))
        if not _HOST.fullmatch(host):
            raise ValueError(f"{host!r} is no host name; an IPv6 address stands in brackets, as in [2001:db8::1]:51820")
        return cls(host.lower(), int(port))

    @property
    def literal(self) -> Address | None:
        """The address, where it is one and not a name."""
        try:
            return ip_address(self.host)
        except ValueError:
            return None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _outside(address: Address) -> Address:
    if address.is_unspecified or address.is_multicast or getattr(address, "scope_id", None):
        raise ValueError(f"{address} is no address of a hub")
    return address


def _endpoint(value: object) -> object:
    return Endpoint.parse(value) if isinstance(value, str) else value


class HubPart(BaseModel):
    """``[hub]`` of vpn.toml: this host is the one that all members reach."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    listen_port: int = Field(default=51820, ge=1, le=65535)


class MemberPart(BaseModel):
    """``[member]`` of vpn.toml: this host reaches the hub, and nobody reaches it."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    addresses: tuple[IPv4Address | IPv6Address, ...] = Field(min_length=1, max_length=2)
    hub_public_key: str
    hub_endpoints: tuple[Annotated[Endpoint, BeforeValidator(_endpoint)], ...] = Field(min_length=1)


class VpnSettings(BaseModel):
    """``vpn.toml``.

    Attributes:
        interface: The interface's name.
        networks: The consortium's networks, the same on every host.
        mtu: Bytes in a packet inside; 80 less than the way outside carries, 1280 at least for IPv6.
        routed: Ranges that this site uses beside those that its routes show.
        wg_quick_folder: Where ``wg-quick`` looks for its configuration.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    interface: str = Field(default="fedward0", pattern=r"^[a-z][a-z0-9-]{0,14}$")
    networks: tuple[IPv4Network | IPv6Network, ...]
    mtu: int = Field(default=1420, ge=1280, le=9000)
    routed: tuple[IPv4Network | IPv6Network, ...] = ()
    wg_quick_folder: Path = Path("/etc/wireguard")
    hub: HubPart | None = None
    member: MemberPart | None = None

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if (self.hub is None) == (self.member is None):
            raise ValueError("exactly one of [hub] and [member] must be there")
        return self

    @property
    def file(self) -> Path:
        """The configuration that ``wg-quick`` starts the interface from."""
        return self.wg_quick_folder / f"{self.interface}.conf"

    @property
    def routed_ranges(self) -> list[Range]:
        """What ``routed`` lists."""
        return [Range(network, "which vpn.toml lists as routed") for network in self.routed]


@dataclass(frozen=True)
class Peer:
    """One peer, as WireGuard knows it.

    Attributes:
        name: The member's id; on a member, ``hub``.
        addresses: From where it may send, and what is sent to it; single addresses, never a network.
        endpoint: Where to begin, if it is known as an address.
        keepalive_s: Seconds between two signs of life; None: none are sent.
    """

    name: str
    public_key: str
    preshared_key: PresharedKey
    addresses: tuple[Address, ...]
    endpoint: Endpoint | None = None
    keepalive_s: int | None = None


@dataclass(frozen=True)
class Tunnel:
    """One end of the VPN: this host's interface and its peers, in the order of their names."""

    private_key: PrivateKey
    addresses: tuple[InterfaceAddress, ...]
    mtu: int
    listen_port: int | None = None
    peers: tuple[Peer, ...] = field(default=())


def hub_tunnel(settings: VpnSettings, plan: AddressPlan, key: PrivateKey, peers: tuple[Peer, ...]) -> Tunnel:
    """The hub's end."""
    port = settings.hub.listen_port if settings.hub else None
    ordered = tuple(sorted(peers, key=lambda peer: peer.name))
    return Tunnel(key, plan.on_interface(plan.hub), settings.mtu, port, ordered)


def member_tunnel(member: MemberPart, mtu: int, plan: AddressPlan, key: PrivateKey, shared: PresharedKey) -> Tunnel:
    """A member's end: the hub is its one peer, with the hub's own addresses and nothing of the network behind them.

    Raises:
        ConfigInvalidError: Addresses or the hub's key cannot be so.
    """
    if reason := plan.why_not(member.addresses):
        raise ConfigInvalidError(f"vpn.toml: member.addresses: {reason}.")
    try:
        hub_key = require_public(member.hub_public_key)
    except KeyFileError as error:
        raise ConfigInvalidError(f"vpn.toml: member.hub_public_key: {error.message}") from None
    if hub_key == key.public:
        raise ConfigInvalidError("vpn.toml: member.hub_public_key is this machine's own key.")
    versions = {address.version for address in member.addresses}
    first = member.hub_endpoints[0]
    hub = Peer(
        name=HUB,
        public_key=hub_key,
        preshared_key=shared,
        addresses=tuple(address for address in plan.hub if address.version in versions),
        endpoint=first if first.literal else None,  # wg-quick gives up at boot while a name is not resolved yet
        keepalive_s=KEEPALIVE_S,
    )
    return Tunnel(key, plan.on_interface(member.addresses), mtu, None, (hub,))


def render(tunnel: Tunnel) -> str:
    """The file for ``wg-quick``. It holds the keys; no command of ours runs from it, and no route is set by it."""
    config = WireguardConfig(
        private_key=tunnel.private_key.reveal(),
        listen_port=tunnel.listen_port,
        addresses=list(tunnel.addresses),
        mtu=tunnel.mtu,
        table="off",  # the addresses' networks lead into the tunnel; nothing else does
    )
    for peer in tunnel.peers:
        config.add_peer(_for_package(peer))
    return HEADER + _bracketed(config.to_wgconfig(wgquick_format=True))


def render_hidden(tunnel: Tunnel) -> str:
    """The same for people, with the keys left out."""
    return _SECRET_LINE.sub(rf"\1 = {HIDDEN}", render(tunnel))


def render_peers(peers: tuple[Peer, ...]) -> str:
    """The peers alone, as ``wg addconf`` takes them."""
    return _bracketed("\n".join(line for peer in peers for line in _for_package(peer).as_wgconfig_snippet()) + "\n")


def parse(text: str) -> Tunnel:
    """What ``render`` wrote.

    Raises:
        ConfigInvalidError: It is anything else; names the line's number and never its value.
    """
    _require_form(text)
    try:
        config = WireguardConfig.from_wgconfig(io.StringIO(text))
        return Tunnel(
            private_key=PrivateKey.from_text(str(config.private_key)),
            addresses=tuple(config.addresses),
            mtu=config.mtu or 0,
            listen_port=config.listen_port,
            peers=tuple(_from_package(peer) for peer in config.peers.values()),
        )
    except (ValueError, TypeError, KeyFileError):
        raise ConfigInvalidError("The WireGuard configuration has a value that is not of its kind.") from None


def _for_package(peer: Peer) -> WireguardPeer:
    return WireguardPeer(
        friendly_name=peer.name,
        public_key=peer.public_key,
        preshared_key=peer.preshared_key.reveal(),
        endpoint_host=peer.endpoint.host if peer.endpoint else None,
        endpoint_port=peer.endpoint.port if peer.endpoint else None,
        persistent_keepalive=peer.keepalive_s,
        allowed_ips=[ip_interface(address) for address in peer.addresses],
    )


def _bracketed(text: str) -> str:
    """The package writes an IPv6 endpoint without its brackets."""
    return re.sub(r"^Endpoint = ([0-9a-f]*:[0-9a-f:]*):(\d+)$", r"Endpoint = [\1]:\2", text, flags=re.MULTILINE)


def _from_package(peer: WireguardPeer) -> Peer:
    endpoint = None if peer.endpoint_host is None else Endpoint(str(peer.endpoint_host), int(peer.endpoint_port or 0))
    networks = [each.network for each in peer.allowed_ips]
    if any(network.num_addresses != 1 for network in networks):
        raise ValueError("a network where one address is expected")
    return Peer(
        name=str(peer.friendly_name),
        public_key=require_public(str(peer.public_key)),
        preshared_key=PresharedKey.from_text(str(peer.preshared_key)),
        addresses=tuple(network.network_address for network in networks),
        endpoint=endpoint,
        keepalive_s=peer.persistent_keepalive,
    )


def _require_form(text: str) -> None:
    """Sections, keys and their number, before a parser that takes anything sees the text."""
    sections = _sections(text)
    if [section.name for section in sections] != ["Interface"] + ["Peer"] * (len(sections) - 1):
        raise ConfigInvalidError("Expected one [Interface] and then [Peer] sections.")
    for section in sections:
        _require_section(section)
    for what in ("PublicKey", _FRIENDLY):
        values = [value for section in sections for _, key, value in section.lines if key == what]
        if len(values) != len(set(values)):
            raise ConfigInvalidError(f"Two peers have the same {what.lstrip('# ')}.")


def _require_section(section: _Section) -> None:
    keys = [key for _, key, _ in section.lines]
    for number, key, value in section.lines:
        if "#" in value or key not in _ONCE[section.name] | _OFTEN[section.name]:
            raise ConfigInvalidError(f"Line {number}: not one that 'fedward vpn' writes into [{section.name}].")
        if key in _ONCE[section.name] and keys.count(key) > 1:
            raise ConfigInvalidError(f"Line {number}: {key} stands twice in one [{section.name}].")
        if key in _KEYS and not _is_key(value):  # the package takes several spellings, and what is left of a key
            raise ConfigInvalidError(f"Line {number}: {key} is not the base64 of 32 bytes.")
        if key == _FRIENDLY and not _NAME.fullmatch(value):
            raise ConfigInvalidError(f"Line {number}: not a member's id.")
    if missing := _NEEDED[section.name] - set(keys):
        raise ConfigInvalidError(f"Line {section.number}: [{section.name}] lacks {', '.join(sorted(missing))}.")


def _is_key(text: str) -> bool:
    try:
        PresharedKey.from_text(text)
    except KeyFileError:
        return False
    return True


class _Section(NamedTuple):
    number: int  # of its first line
    name: str
    lines: list[tuple[int, str, str]]  # number, key, value


def _sections(text: str) -> list[_Section]:
    found: list[_Section] = []
    for number, line in enumerate(text.split("\n"), start=1):
        key, equals, value = line.partition(" = ")
        if header := re.fullmatch(r"\[(Interface|Peer)\]", line):
            found.append(_Section(number, header[1], []))
        elif line and (key == _FRIENDLY or not line.startswith("#")):
            if not (equals and value and found):
                raise ConfigInvalidError(f"Line {number}: expected a setting, as in 'MTU = 1420', inside a section.")
            found[-1].lines.append((number, key, value))
    return found

"""This host's end of the VPN: from its folder to its interface.

HOME/              /etc/fedward/vpn
vpn.toml           settings
private.key        0600, made here, never copied
preshared.key      at a member: what it shares with the hub, 0600
peers.json         at the hub: the register of peers
preshared/         at the hub: one key a member, 0600
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from appliance.vpn.addresses import Address, AddressPlan, InterfaceAddress
from appliance.vpn.config import (
    Endpoint,
    MemberPart,
    Peer,
    Tunnel,
    VpnSettings,
    hub_tunnel,
    member_tunnel,
    parse,
    render,
)
from appliance.vpn.errors import ConfigInvalidError, PeersUnreadableError, VpnError
from appliance.vpn.files import replace_private
from appliance.vpn.interface import Change, LiveInterface, LivePeer, host_routes, read_interface, resolve, set_endpoint
from appliance.vpn.keys import PresharedKey, PrivateKey
from appliance.vpn.peers import FILE, PeerBook, PeerState

STALE_S = 135  # after 120 s of traffic WireGuard shakes hands again: one that is older has failed


@dataclass(frozen=True)
class Outcome:
    """What a command did, or would do: sentences without secrets."""

    changes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PeerStatus:
    """A line of ``fedward vpn status``; ``live`` is None for one that is not on the interface."""

    member: str
    state: str
    addresses: str
    live: LivePeer | None


@dataclass(frozen=True)
class Status:
    """How the VPN stands at this host."""

    is_up: bool
    peers: list[PeerStatus]
    warnings: list[str]


class VpnHost:
    """One host's end, in the folder ``root``.

    Args:
        clock: Seconds since the epoch.

    Raises:
        NetworkRefusedError: The settings' networks cannot be the consortium's.
    """

    def __init__(self, root: Path, settings: VpnSettings, *, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._settings = settings
        self._clock = clock
        self.plan = AddressPlan(settings.networks)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Alone with the folder: two playbooks at once take turns."""
        descriptor = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """This host's own addresses inside the VPN, as vpn.toml and the address plan say; it need not be up."""
        return self.plan.hub if self._settings.member is None else self._settings.member.addresses

    def key(self) -> PrivateKey:
        """This host's private key; raises KeyFileError."""
        return PrivateKey.load(self._root / "private.key")

    def book(self) -> PeerBook:
        """The hub's register of peers.

        Raises:
            ConfigInvalidError: This host is no hub.
            PeersUnreadableError, KeyFileError: The register or the hub's key cannot be read.
        """
        if self._settings.hub is None:
            raise ConfigInvalidError("This host is a member: the register of peers is kept at the hub.")
        return PeerBook(self._root, self.plan, self.key().public)

    def change_state(self, member: str, state: PeerState) -> Outcome:
        """At the hub: suspend, resume or revoke a member, and apply at once.

        A member is let in once the register is on the disk. It is cut off first and written down then, so that a full
        disk keeps nobody in.

        Raises:
            VpnError: There is no such member, it is revoked, or as for ``apply``.
            OSError: The disk refused; who was to be cut off is cut off, until the next ``apply`` or start: repeat it.
        """
        book = self.book()
        is_changed = book.set_state(member, state)
        if state is PeerState.ACTIVE:
            book.save()
        try:
            outcome = self.apply(book=book)
        finally:
            if is_changed:
                book.save()
        changes = [f"{FILE}: '{member}' is {state}"] if is_changed else []
        return Outcome(outcome.changes + changes, outcome.warnings)

    def tunnel(self, book: PeerBook | None = None) -> tuple[Tunnel, list[str]]:
        """What the interface should be, and warnings.

        Args:
            book: The hub's register, where it is not as on the disk.

        Raises:
            VpnError: Settings, keys or the register cannot be used.
        """
        member = self._settings.member
        if member is not None:
            shared = PresharedKey.load(self._root / "preshared.key")
            return member_tunnel(member, self._settings.mtu, self.plan, self.key(), shared), []
        last, _, warnings = self._last()
        book = book or self.book()
        if last and not book.exists:
            raise PeersUnreadableError(
                f"{self._root / FILE} is gone, and {self._settings.file} still has {len(last)} peers.",
                remedy="Restore the register from the last backup: without it every member would be cut off.",
            )
        peers, findings = book.peers(last)
        return hub_tunnel(self._settings, self.plan, self.key(), peers), warnings + [str(each) for each in findings]

    def apply(self, *, check: bool = False, book: PeerBook | None = None) -> Outcome:
        """Make interface and file what settings and register say, by the smallest change; twice changes nothing.

        The interface first: a revoked member is cut off even where the disk is full. An interface that is not up is
        left to ``wg-quick``, which starts it from the file.

        Args:
            check: Only say what would change.
            book: As for ``tunnel``.

        Raises:
            VpnError: Nothing was changed; or, where a tool or the disk refused half-way, the next call does the rest.
        """
        tunnel, warnings = self.tunnel(book)
        live = read_interface(self._settings.interface)
        warnings += self._overlaps(tunnel, live)
        changes = []
        if live is None:
            warnings.append(f"The interface is not up: systemctl enable --now wg-quick@{self._settings.interface}")
        else:
            change = Change(tunnel, live)
            changes += change.sentences(self._names())
            if not check:
                change.make()
            if self._settings.member and not (check and changes):
                followed = self._follow(self._settings.member, tunnel.peers[0], turn=False, check=check)
                changes += followed.changes
                warnings += followed.warnings
        text = render(tunnel).encode()
        if not self._file_is(text):
            changes.append(f"{self._settings.file}: is written")
            if not check:
                replace_private(self._settings.file, text)
        return Outcome(changes, warnings)

    def resolve_hub(self) -> Outcome:
        """At a member whose hub is not heard: look it up again, and try its next address.

        Raises:
            VpnError: This host is no member, or a tool refused.
        """
        member = self._settings.member
        if member is None:
            raise ConfigInvalidError("This host is the hub: members look for it, it looks for nobody.")
        return self._follow(member, self.tunnel()[0].peers[0], turn=True, check=False)

    def status(self) -> Status:
        """How the VPN stands; what is wrong is among the warnings."""
        live = read_interface(self._settings.interface)
        warnings = [] if live else [f"The interface '{self._settings.interface}' is not up."]
        peers: dict[str, Peer] = {}
        try:
            tunnel, found = self.tunnel()
            warnings += found + self._overlaps(tunnel, live, is_set=True)
            peers = {peer.name: peer for peer in tunnel.peers}
            if live:
                left = Change(tunnel, live).sentences(self._names())
                warnings += [f"Not yet applied: {each}." for each in left]
        except VpnError as error:
            warnings.append(error.message)
        rows = [self._row(peer, "active", live) for peer in peers.values()]
        if self._settings.hub:
            rows += self._closed(set(peers))
        elif live and rows and self._is_stale(rows[0].live):
            warnings.append("The hub is not heard: is UDP to its endpoint let through, and does its name resolve?")
        return Status(live is not None, sorted(rows, key=lambda row: row.member), warnings)

    def _row(self, peer: Peer, state: str, live: LiveInterface | None) -> PeerStatus:
        found = live.peers.get(peer.public_key) if live else None
        return PeerStatus(peer.name, state, ", ".join(map(str, peer.addresses)), found)

    def _closed(self, shown: set[str]) -> list[PeerStatus]:
        try:
            entries = [(member, entry) for member, entry in self.book() if member not in shown]
        except VpnError:
            return []  # told among the warnings
        return [
            PeerStatus(member, "bad entry", "", None)
            if isinstance(entry, str)
            else PeerStatus(member, str(entry.state), ", ".join(map(str, entry.addresses)), None)
            for member, entry in entries
        ]

    def _follow(self, member: MemberPart, hub: Peer, *, turn: bool, check: bool) -> Outcome:
        """The hub's endpoint is left alone while it is heard, and else set to one of those that its names have now."""
        live = read_interface(self._settings.interface)
        if live is None or hub.public_key not in live.peers:
            return Outcome(warnings=["The hub is not on the interface yet: fedward vpn apply"] if turn else [])
        known = live.peers[hub.public_key]
        if not self._is_stale(known):
            return Outcome()
        found, failed = resolve(member.hub_endpoints)
        warnings = [f"'{name}' does not resolve now." for name in failed]
        here = [str(endpoint) for endpoint in found]
        if not found or (known.endpoint in here and (not turn or len(found) == 1)):
            return Outcome(warnings=warnings)
        chosen: Endpoint = found[(here.index(known.endpoint) + 1) % len(found) if known.endpoint in here else 0]
        if not check:
            set_endpoint(self._settings.interface, hub.public_key, chosen)
        return Outcome([f"endpoint of the hub: {known.endpoint or 'none'} becomes {chosen}"], warnings)

    def _is_stale(self, peer: LivePeer | None) -> bool:
        return peer is None or not 0 <= self._clock() - peer.handshake_at <= STALE_S

    def _overlaps(self, tunnel: Tunnel, live: LiveInterface | None, *, is_set: bool = False) -> list[str]:
        """Refuse a network that is in use before it is set up; warn of one that is set up.

        A hospital's new route must not stand between the operator and a revocation.
        """
        ranges = self._settings.routed_ranges + host_routes(besides=self._settings.interface)
        known = (live.addresses if live else frozenset()) | self._last()[1]
        if not is_set and not known >= set(tunnel.addresses):
            self.plan.require_free(ranges)
        return [f"The VPN's network {network} overlaps {used}." for network, used in self.plan.overlaps(ranges)]

    def _last(self) -> tuple[dict[str, Peer], frozenset[InterfaceAddress], list[str]]:
        """What was last written: the peers by name, this host's own addresses; and what is wrong with the file."""
        nothing: frozenset[InterfaceAddress] = frozenset()
        try:
            tunnel = parse(self._settings.file.read_text("utf-8"))
        except FileNotFoundError:
            return {}, nothing, []
        except UnicodeDecodeError:
            return {}, nothing, [f"{self._settings.file}: not a text. It is written anew."]
        except ConfigInvalidError as error:
            return {}, nothing, [f"{self._settings.file}: {error.message} It is written anew."]
        return {peer.name: peer for peer in tunnel.peers}, frozenset(tunnel.addresses), []

    def _names(self) -> dict[str, str]:
        return {peer.public_key: name for name, peer in self._last()[0].items()}

    def _file_is(self, text: bytes) -> bool:
        try:
            return self._settings.file.read_bytes() == text and not self._settings.file.stat().st_mode & 0o077
        except FileNotFoundError:
            return False

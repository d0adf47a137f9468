"""The hub's register of peers: one entry a member, on the hub's own disk.

Who is a peer is what stands here, never who happened to be in reach when a playbook ran. A bad entry harms nobody
else: it is reported, and as long as it says that its member is active, that member keeps what it last had.

    {"format": 1, "members": {"north": {"addresses": ["100.80.0.2"], "preshared_key": "north.key",
                                        "public_key": "…", "state": "active"}}}
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from appliance.vpn.addresses import Address, AddressPlan
from appliance.vpn.config import Peer
from appliance.vpn.errors import KeyFileError, PeerRefusedError, PeersUnreadableError
from appliance.vpn.files import replace_private
from appliance.vpn.keys import PresharedKey, require_public

FORMAT = 1
FILE = "peers.json"
SECRETS = "preshared"  # the folder of the preshared keys, beside the register
_MAX_BYTES = 4 * 1024 * 1024
_MEMBER_ID = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_EXPECTED = {
    "addresses": "a list of IP addresses",
    "preshared_key": "the name of a file in preshared/, as north.key",
    "public_key": "a key in base64",
    "state": "active, suspended or revoked",
}
_SHOWN = 64  # characters of a stranger's text


class PeerState(StrEnum):
    """Whether a member may use the VPN. Revoked is for good: its addresses and its key are never given again."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


class PeerEntry(BaseModel):
    """One member's entry."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    addresses: tuple[IPv4Address | IPv6Address, ...]
    preshared_key: str = Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,79})\.key$")
    public_key: str
    state: PeerState


@dataclass(frozen=True)
class Finding:
    """An entry that cannot be used.

    Attributes:
        kept: Whether the member keeps what it last had.
    """

    member: str
    what: str
    kept: bool

    def __str__(self) -> str:
        kept = "It keeps the tunnel that it had." if self.kept else "It has no tunnel."
        return f"{FILE}: '{self.member}': {self.what}. {kept}"


class PeerBook:
    """The register of peers in ``root``, and the changes that can be made to it.

    Args:
        root: The folder with ``peers.json`` and ``preshared/``.
        plan: Who may have which address.
        hub_key: The hub's own public key.

    Raises:
        PeersUnreadableError: The file as a whole is no register.
    """

    def __init__(self, root: Path, plan: AddressPlan, hub_key: str) -> None:
        self._root = root
        self._plan = plan
        self._hub_key = hub_key
        self.exists = (root / FILE).exists()
        self._members = _read(root / FILE) if self.exists else {}
        self._spent: list[Path] = []

    def __iter__(self) -> Iterator[tuple[str, PeerEntry | str]]:
        """Each member's id with its entry, or with what is wrong with that."""
        entries = {member: self._entry(member, raw) for member, raw in self._members.items()}
        claims = Counter(claim for entry in entries.values() for claim in _claims(entry))
        for member, entry in sorted(entries.items()):
            shared = next((claim for claim in _claims(entry) if claims[claim] > 1), None)
            if shared is not None and isinstance(entry, PeerEntry) and entry.state is PeerState.ACTIVE:
                yield member, f"{shared} stands in another entry, too"
            else:
                yield member, entry

    def peers(self, last: Mapping[str, Peer]) -> tuple[tuple[Peer, ...], tuple[Finding, ...]]:
        """Who is to be on the interface, in the order of their names, and which entries could not be used.

        Args:
            last: The peers that were last put there, by name: for entries that have gone bad since.
        """
        good: dict[str, Peer] = {}
        bad: dict[str, str] = {}
        closed: set[str] = set()
        for member, entry in self:
            if isinstance(entry, str):
                bad[member] = entry
            elif entry.state is not PeerState.ACTIVE:
                closed |= _claims(entry)
            else:
                try:
                    good[member] = self._peer(member, entry)
                except KeyFileError as error:
                    bad[member] = error.message.rstrip(".")
        findings = []
        for member, what in bad.items():
            peer = last.get(member) if _says_active(self._members[member]) else None
            used = closed.union(*map(_peer_claims, good.values()))
            kept = peer is not None and not used & _peer_claims(peer) and self._plan.why_not(peer.addresses) is None
            findings.append(Finding(_shown(member), what, kept))
            if peer is not None and kept:
                good[member] = peer
        return tuple(good[member] for member in sorted(good)), tuple(findings)

    def admit(
        self, member: str, public_key: str, *, replace_key: bool = False, check: bool = False
    ) -> tuple[tuple[Address, ...], bool]:
        """Enter a member, with the next free addresses and a fresh preshared key, and save.

        Args:
            replace_key: A known member has a new key: it keeps its addresses and gets a new preshared key.
            check: Change nothing.

        Returns:
            The member's addresses, and whether the register was changed, or would be.

        Raises:
            PeerRefusedError: The id or the key cannot be taken, or belongs to another or to a revoked member.
            NetworkRefusedError: No address is free.
        """
        if not _MEMBER_ID.fullmatch(member):
            raise PeerRefusedError(
                f"'{_shown(member)}' is no member id: small letters, digits and hyphens, 63 at most."
            )
        try:
            require_public(public_key)
        except KeyFileError as error:
            raise PeerRefusedError(f"'{member}': {error.message}") from None
        self._require_nobodys(member, public_key)
        if member not in self._members:
            addresses = self._plan.next_free(self._taken())
            if not check:
                self._enter(member, addresses, public_key, old=None)
            return addresses, True
        known = self.entry(member)
        if known.state is PeerState.REVOKED:
            raise PeerRefusedError(f"'{member}' is revoked.", remedy="Enrol the member anew, under another id.")
        if known.public_key == public_key:
            return known.addresses, False
        if not replace_key:
            raise PeerRefusedError(
                f"'{member}' has another public key in the register.",
                remedy="If its machine was set up anew, say --replace-key; else somebody else asks in its name.",
            )
        if not check:
            self._enter(member, known.addresses, public_key, old=known)
        return known.addresses, True

    def set_state(self, member: str, state: PeerState) -> bool:
        """Suspend, resume or revoke a member; says whether that changed the register. ``save`` puts it on the disk.

        Raises:
            PeerRefusedError: There is no such member, or it is revoked, which is for good.
        """
        raw = self._members.get(member)
        if raw is None:
            raise PeerRefusedError(
                f"'{_shown(member)}' is not in {FILE}.", remedy="Choose a member listed by 'fedward vpn status'."
            )
        before = raw.get("state") if isinstance(raw, dict) else None
        if before == state:
            return False
        if before == PeerState.REVOKED:
            raise PeerRefusedError(f"'{member}' is revoked.", remedy="Enrol the member anew, under another id.")
        entry = dict(self)[member]
        if state is PeerState.ACTIVE and isinstance(entry, str):  # only what is whole is opened again
            raise PeerRefusedError(f"{FILE}: '{_shown(member)}': {entry}.")
        kept = raw if isinstance(raw, dict) else {"addresses": list(_texts(raw))}
        self._members = self._members | {member: kept | {"state": str(state)}}
        if state is PeerState.REVOKED and isinstance(entry, PeerEntry):
            self._spent.append(self.secret_file(entry))
        return True

    def save(self) -> None:
        """Put the register on the disk, and remove the preshared keys that nobody needs any more."""
        text = json.dumps({"format": FORMAT, "members": self._members}, indent=2, sort_keys=True)
        replace_private(self._root / FILE, f"{text}\n".encode())
        self.exists = True
        while self._spent:
            self._spent.pop().unlink(missing_ok=True)

    def secret_file(self, entry: PeerEntry) -> Path:
        """Where the preshared key of an entry lies."""
        return self._root / SECRETS / entry.preshared_key

    def entry(self, member: str) -> PeerEntry:
        """A member's entry; raises PeerRefusedError if there is none, or it is bad."""
        entry = dict(self).get(member, "no such member")
        if isinstance(entry, str):
            raise PeerRefusedError(f"{FILE}: '{_shown(member)}': {entry}.")
        return entry

    def _entry(self, member: str, raw: object) -> PeerEntry | str:
        """The entry, or what is wrong with it; never a value of it, which may be a secret in the wrong place."""
        if not _MEMBER_ID.fullmatch(member):
            return "not a member id"
        try:
            entry = PeerEntry.model_validate_json(json.dumps(raw), strict=True)
        except ValidationError as error:
            return _fault(error)
        except (ValueError, RecursionError):
            return "not an entry"
        if reason := self._plan.why_not(entry.addresses):
            return reason
        try:
            require_public(entry.public_key)
        except KeyFileError as error:
            return f"public_key: {error.message.rstrip('.')}"
        return "public_key is the hub's own" if entry.public_key == self._hub_key else entry

    def _peer(self, member: str, entry: PeerEntry) -> Peer:
        secret = PresharedKey.load(self.secret_file(entry))
        return Peer(member, entry.public_key, secret, entry.addresses)

    def _require_nobodys(self, member: str, public_key: str) -> None:
        if public_key == self._hub_key:
            raise PeerRefusedError(f"'{member}': this is the hub's own public key.")
        for other, raw in self._members.items():
            if other != member and isinstance(raw, dict) and raw.get("public_key") == public_key:
                raise PeerRefusedError(
                    f"'{member}': this public key is in the register for '{_shown(other)}'.",
                    remedy="Make a new key on the new member's machine: 'fedward vpn keygen'.",
                )

    def _taken(self) -> set[Address]:
        """Every address that any entry names, bad ones and revoked ones too."""
        texts = (text for raw in self._members.values() for text in _texts(raw))
        return {address for text in texts if (address := _address(text)) is not None}

    def _enter(self, member: str, addresses: tuple[Address, ...], public_key: str, *, old: PeerEntry | None) -> None:
        """A new preshared key first, then the entry that names it."""
        secret = self._new_secret(member)
        new = {
            "addresses": [str(address) for address in addresses],
            "preshared_key": secret.name,
            "public_key": public_key,
            "state": str(old.state if old else PeerState.ACTIVE),
        }
        self._members = self._members | {member: new}
        if old is not None:
            self._spent.append(self.secret_file(old))
        self.save()

    def _new_secret(self, member: str) -> Path:
        number = 1
        while True:
            path = self._root / SECRETS / (f"{member}.key" if number == 1 else f"{member}-{number}.key")
            if not any(
                isinstance(raw, dict) and raw.get("preshared_key") == path.name for raw in self._members.values()
            ):
                try:
                    PresharedKey.generate().save(path)
                except FileExistsError:  # left by a crash, or by a member struck from the register by hand
                    pass
                else:
                    return path
            number += 1


def _read(path: Path) -> dict[str, Any]:
    """The entries, unchecked; an object that names a key twice stands there as the text that says so."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise PeersUnreadableError(f"{path}: {error.strerror}.") from error
    if len(content) > _MAX_BYTES:
        raise PeersUnreadableError(f"{path}: larger than {_MAX_BYTES} bytes.")
    try:
        whole = json.loads(content, object_pairs_hook=_once_each)
    except (ValueError, RecursionError) as error:
        what = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise PeersUnreadableError(f"{path}: {what}.") from None
    members = whole.get("members") if isinstance(whole, dict) and whole.get("format") == FORMAT else None
    if not isinstance(members, dict):
        raise PeersUnreadableError(f"{path}: not a register of peers in format {FORMAT}.")
    return members


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        twice = Counter(key for key, _ in pairs)
        return found | {key: _twice(key, pairs) for key, count in twice.items() if count > 1}
    return found


def _twice(key: str, pairs: Iterable[tuple[str, Any]]) -> list[Any]:
    return [value for name, value in pairs if name == key]


def _says_active(raw: object) -> bool:
    """Whether a bad entry leaves no doubt that its member is to have a tunnel."""
    each = raw if isinstance(raw, list) and raw else [raw]  # a list: the id stands twice
    return all(isinstance(entry, dict) and entry.get("state") == PeerState.ACTIVE for entry in each)


def _claims(entry: PeerEntry | str) -> set[str]:
    if isinstance(entry, str):
        return set()
    return {*map(str, entry.addresses), f"the public key {entry.public_key}"}


def _peer_claims(peer: Peer) -> set[str]:
    return {*map(str, peer.addresses), f"the public key {peer.public_key}"}


def _fault(error: ValidationError) -> str:
    """Where and what, in words of ours: pydantic's own repeat the value, which may be a secret in the wrong place."""
    first = error.errors(include_input=False, include_url=False)[0]
    place = str(first["loc"][0]) if first["loc"] else ""
    if place not in _EXPECTED:
        return f"'{_shown(place)}' is no field of an entry" if place else "not an entry"
    return f"{place} is missing" if first["type"] == "missing" else f"{place}: expected {_EXPECTED[place]}"


def _texts(raw: object) -> Iterator[str]:
    """Every text under ``addresses`` in an entry of any form."""
    for entry in raw if isinstance(raw, list) else [raw]:
        found = entry.get("addresses") if isinstance(entry, dict) else None
        for each in found if isinstance(found, list) else [found]:
            if isinstance(each, str):
                yield each


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _shown(text: str) -> str:
    """A stranger's text, short and without signs that steer a terminal."""
    plain = text.encode("unicode_escape").decode("ascii")
    return plain if len(plain) <= _SHOWN else f"{plain[: _SHOWN - 1]}…"

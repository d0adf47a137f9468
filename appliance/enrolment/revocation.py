"""What the hub does so that the register acts: certificates, VPN peers, open lines.

The register alone ends a membership: from its next version on nobody takes a message or a call of whoever it does not
list as active. All that is here only shuts the doors behind them, so that they cannot even connect. Each step may be
repeated, and finishes what a crash left half done.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from appliance.enrolment.authority import Authority, listed_serials
from appliance.enrolment.authority_home import AuthorityHome
from appliance.enrolment.errors import EnrolmentError
from appliance.protocol.files import locked, replace_file
from appliance.protocol.register import MemberState, Register
from appliance.protocol.settings import read_settings, read_text

if TYPE_CHECKING:  # the VPN's needs wireguard-tools, which only a site's hosts have
    from appliance.vpn.host import Outcome as VpnOutcome

_PENDING = "enforcing"  # at the authority, while the hub has not done it all: whose lines are to be cut
_TOOL_S = 30.0
_ANSWER_S = 5.0

Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


@dataclass(frozen=True)
class Hub:
    """Where things are at the hub.

    Attributes:
        home: The network host's folder; its register.jws is the register to enforce.
        authority: The transport authority's folder.
        crl: The revocation list as Mosquitto and nginx read it.
        vpn: The folder of the VPN; without a vpn.toml in it there is none.
        rest_socket: Where the REST service listens.
        reload: The command after which Mosquitto and nginx have read the list.
        restart: The command that ends all lines, for where single ones cannot be cut.
    """

    home: Path
    authority: Path
    crl: Path
    vpn: Path
    rest_socket: Path
    reload: tuple[str, ...]
    restart: tuple[str, ...]


@dataclass
class Outcome:
    """What was done, what is worth knowing, and what failed: sentences."""

    changes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def run_tool(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a program of this machine's, at most half a minute; one that is missing ends with 127."""
    try:
        return subprocess.run(  # noqa: S603 - fixed programs, and what the deployment names
            command,
            env={**os.environ, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TOOL_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", type(error).__name__)


def publish_list(authority: Path, crl: Path) -> bool:
    """Put the revocation list of the register in force where servers read it; says whether it changed.

    Raises:
        EnrolmentError: The authority has issued nothing yet.
    """
    register = AuthorityHome(authority).register()
    held = crl.read_text() if crl.exists() else ""
    text = Authority.open(authority, register.consortium).revocation_list(register, held)
    if text != held:
        replace_file(crl, text, mode=0o644)
    return text != held


def enforce(hub: Hub, run: Run = run_tool) -> Outcome:
    """Let the register in the hub's folder act. A second time changes nothing.

    Raises:
        EnrolmentError: The authority has issued nothing yet.
        ConfigurationError: The register is not the operator's, or older than the one in force: nothing was done.
    """
    with locked(hub.authority):
        register = AuthorityHome(hub.authority).take_newer(read_text(hub.home / "register.jws"))
        outcome = Outcome()
        departing = _shut_certificates(hub, register, run, outcome)
        addresses = _set_peers(hub, register, outcome)
        absent = {member.id for member in register.members if member.state is not MemberState.ACTIVE}
        # Their tunnels are gone by now, so that nobody is back before the servers have read the list.
        known = [address for member in absent | departing for address in addresses.get(member, ())]
        is_cut = cut_lines(known, run, outcome)
        if departing and (not is_cut or not departing <= addresses.keys()):
            _restart(hub, run, outcome)
        _tell_network(hub, register, outcome)
        if not outcome.failures:
            (hub.authority / _PENDING).unlink(missing_ok=True)
    return outcome


def cut_lines(addresses: Iterable[str], run: Run, outcome: Outcome) -> bool:
    """End every TCP connection with these addresses; says whether none is left.

    A server that has read a revocation list lets whoever is connected stay. Closing the sockets from outside (ss -K,
    the kernel's INET_DIAG_DESTROY) ends a single member's lines and nobody else's.
    """
    is_cut = True
    for address in sorted(set(addresses)):
        killed = run(["ss", "-HKtn", "dst", address])
        left = run(["ss", "-Htn", "state", "established", "dst", address])
        is_cut = is_cut and left.returncode == 0 and not left.stdout.strip()
        count = len(killed.stdout.splitlines())
        if count and is_cut:
            outcome.changes.append(f"lines: {count} of {address} cut")
    return is_cut


def _shut_certificates(hub: Hub, register: Register, run: Run, outcome: Outcome) -> set[str]:
    """Publish the revocation list; returns the members whose certificates have been closed since all was last done."""
    pending = hub.authority / _PENDING
    is_pending = pending.exists()
    departing = set(pending.read_text().split()) if is_pending else set()
    authority = Authority.open(hub.authority, register.consortium)
    held = hub.crl.read_text() if hub.crl.exists() else ""
    text = authority.revocation_list(register, held)
    if text != held:
        closed = listed_serials(text)
        owners = {int(each.serial, 16): each.member for each in authority.issued()}
        departing |= {owners[serial] for serial in closed.keys() - listed_serials(held).keys()}
        replace_file(pending, "".join(f"{member}\n" for member in sorted(departing)))
        replace_file(hub.crl, text, mode=0o644)
        outcome.changes.append(f"certificates: {len(closed)} open no lines")
    if text != held or is_pending:
        _must(run, hub.reload, "Mosquitto and nginx have not read the revocation list", outcome)
    return departing


def _set_peers(hub: Hub, register: Register, outcome: Outcome) -> dict[str, tuple[str, ...]]:
    """Let the VPN's peers have the states of the register; returns the addresses of each."""
    if not (hub.vpn / "vpn.toml").exists():
        return {}
    from appliance.vpn.config import VpnSettings  # noqa: PLC0415 - needs wireguard-tools, which a hub alone has
    from appliance.vpn.errors import VpnError  # noqa: PLC0415
    from appliance.vpn.host import VpnHost  # noqa: PLC0415
    from appliance.vpn.peers import PeerState  # noqa: PLC0415

    addresses, is_whole = {}, True
    try:
        host = VpnHost(hub.vpn, read_settings(hub.vpn / "vpn.toml", VpnSettings))
        with host.locked():
            for peer, entry in host.book():
                held = None if isinstance(entry, str) else entry.state  # None: a bad entry, which is closed at most
                if not isinstance(entry, str):
                    addresses[peer] = tuple(map(str, entry.addresses))
                member = register.find(peer)
                state = PeerState(member.state) if member else held
                if state is held or state is None or (held is None and state is PeerState.ACTIVE):
                    continue
                if held is PeerState.REVOKED:
                    outcome.warnings.append(f"VPN: '{peer}' was revoked here, and is {state} in the register.")
                    continue
                try:
                    _note(host.change_state(peer, state), outcome)
                except VpnError as error:
                    is_whole = False
                    outcome.failures.append(f"VPN: '{peer}' is not {state}: {error.message}")
            if is_whole:
                _note(host.apply(), outcome)  # what an earlier call wrote down and could not do
    except VpnError as error:
        outcome.failures.append(f"VPN: {error.message}")
    return addresses


def _note(done: VpnOutcome, outcome: Outcome) -> None:
    outcome.changes += [f"VPN: {change}" for change in done.changes]
    outcome.warnings += done.warnings


def _restart(hub: Hub, run: Run, outcome: Outcome) -> None:
    outcome.changes.append(
        "lines: all ended, since single ones cannot be cut here; members connect again by themselves"
    )
    _must(run, hub.restart, "The lines of those who left are still open", outcome)


def _tell_network(hub: Hub, register: Register, outcome: Outcome) -> None:
    """A call, whichever, lets the REST service look at its register file; its audit log tells of it."""
    if not hub.rest_socket.exists():
        outcome.warnings.append("The REST service is not up; it takes the register when it starts.")
        return
    try:
        version = _health(hub.rest_socket).get("register")
    except (OSError, http.client.HTTPException, ValueError) as error:
        outcome.failures.append(f"The REST service does not answer ({type(error).__name__}).")
        return
    if version != register.version:
        outcome.failures.append(f"The REST service holds the register's version {version}, not {register.version}.")


def _health(path: Path) -> dict[str, object]:
    connection = http.client.HTTPConnection("localhost", timeout=_ANSWER_S)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(_ANSWER_S)
        connection.sock.connect(str(path))
        connection.request("GET", "/api/v1/health")
        return dict(json.loads(connection.getresponse().read(1 << 16)))
    finally:
        connection.close()


def _must(run: Run, command: Sequence[str], otherwise: str, outcome: Outcome) -> None:
    done = run(command)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
        outcome.failures.append(f"{otherwise}: '{' '.join(command)}': {reason}.")


def require_done(outcome: Outcome) -> None:
    """Raises EnrolmentError when a step failed."""
    if outcome.failures:
        raise EnrolmentError(
            " ".join(outcome.failures),
            remedy="Mend what is said and run 'fedward hub enforce' again: it does the rest.",
        )

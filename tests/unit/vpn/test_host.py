"""One host's end: from its folder to its interface, again and again."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from appliance.vpn import interface
from appliance.vpn.config import Endpoint, MemberPart, VpnSettings
from appliance.vpn.errors import (
    ConfigInvalidError,
    InterfaceError,
    KeyFileError,
    NetworkRefusedError,
    PeersUnreadableError,
)
from appliance.vpn.host import STALE_S, VpnHost
from appliance.vpn.keys import PresharedKey, PrivateKey
from appliance.vpn.peers import PeerState
from tests.unit.vpn.conftest import HUB_KEY, NORTH, SOUTH, Machine

NOW = 1_770_000_000
EVE = PrivateKey(b"e" * 32)
HERE, THERE = "192.0.2.1:51820", "[2001:db8::1]:51820"


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names resolve to; addresses resolve to themselves, and other names to nothing."""
    known: dict[str, list[str]] = {}

    def getaddrinfo(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        if host not in known and not host[-1].isdigit():
            raise OSError("no such name")
        return [(0, 0, 0, "", (address, port)) for address in known.get(host, [host])]

    monkeypatch.setattr(interface.socket, "getaddrinfo", getaddrinfo)
    return known


@pytest.fixture
def north(tmp_path: Path, settings: VpnSettings, machine: Machine, names: dict[str, list[str]]) -> VpnHost:
    """A member with two endpoints, applied and up; the hub was heard just now."""
    NORTH.save(tmp_path / "private.key")
    PresharedKey.generate().save(tmp_path / "preshared.key")
    member = MemberPart(addresses=("100.80.0.2",), hub_public_key=HUB_KEY.public, hub_endpoints=(HERE, THERE))
    own = settings.model_copy(update={"hub": None, "member": member})
    host = VpnHost(tmp_path, own, clock=lambda: NOW)
    host.apply()
    machine.boot(own.file)
    heard(machine, NOW)
    return host


def heard(machine: Machine, at: int) -> None:
    """The hub shook hands at this moment."""
    machine.peers[HUB_KEY.public][3] = str(at)


def test_applying_twice_changes_nothing(hub: VpnHost, machine: Machine) -> None:
    """Neither the interface nor the file: Ansible says so."""
    first, second = hub.apply(), hub.apply()

    assert (first.changes, second.changes, second.warnings) == ([], [], [])
    assert machine.commands == []


def test_what_boots_is_what_was_applied(hub: VpnHost, machine: Machine, settings: VpnSettings) -> None:
    """After a power cut nothing of ours has to run."""
    hub.book().admit("eve", EVE.public)
    hub.apply()
    peers, addresses = dict(machine.peers), set(machine.addresses)
    machine.peers, machine.addresses = {}, set()
    machine.boot(settings.file)

    assert (machine.peers, machine.addresses) == (peers, addresses)
    assert hub.apply().changes == []
    assert settings.file.stat().st_mode & 0o777 == 0o600


def test_a_new_member_touches_no_other(hub: VpnHost, machine: Machine) -> None:
    """Training goes on meanwhile."""
    hub.book().admit("eve", EVE.public)
    outcome = hub.apply()

    assert outcome.changes == ["peer eve: is added", f"{hub._settings.file}: is written"]
    assert machine.commands == ["wg addconf fedward0 /dev/stdin"]
    assert machine.given[0].count("[Peer]") == 1


def test_a_revoked_member_goes_first_and_alone(hub: VpnHost, machine: Machine) -> None:
    """Even when the disk takes no more."""
    set_state(hub, "north", PeerState.REVOKED)
    hub.book().admit("eve", EVE.public)
    outcome = hub.apply()

    assert machine.commands[0] == f"wg set fedward0 peer {NORTH.public} remove"
    assert outcome.changes[:2] == ["peer north: is removed", "peer eve: is added"]
    assert sorted(machine.peers) == sorted([SOUTH.public, EVE.public])


def test_a_revocation_holds_on_a_full_disk(
    hub: VpnHost, machine: Machine, monkeypatch: pytest.MonkeyPatch, settings: VpnSettings
) -> None:
    """The interface comes before register and file; a second run does the rest."""
    with monkeypatch.context() as full:
        full.setattr("appliance.vpn.host.replace_private", _full)
        full.setattr("appliance.vpn.peers.replace_private", _full)
        with pytest.raises(OSError, match="No space left"):
            hub.change_state("north", PeerState.REVOKED)
        assert list(machine.peers) == [SOUTH.public]

    told = hub.change_state("north", PeerState.REVOKED).changes
    assert told == [f"{settings.file}: is written", "peers.json: 'north' is revoked"]
    assert hub.apply().changes == []


def test_a_member_comes_back_only_with_the_register(
    hub: VpnHost, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not on the disk lets nobody in."""
    hub.change_state("north", PeerState.SUSPENDED)
    monkeypatch.setattr("appliance.vpn.peers.replace_private", _full)

    with pytest.raises(OSError, match="No space left"):
        hub.change_state("north", PeerState.ACTIVE)
    assert list(machine.peers) == [SOUTH.public]


def set_state(hub: VpnHost, member: str, state: PeerState) -> None:
    """Change the register alone, as by a command that ended before it applied."""
    book = hub.book()
    book.set_state(member, state)
    book.save()


def _full(path: Path, _content: bytes) -> None:
    raise OSError(28, "No space left on device", str(path))


@pytest.mark.parametrize("step", ["remove", "private-key", "listen-port", "addconf", "link set", "delete", "replace"])
def test_a_run_that_ends_half_way_is_mended_by_the_next(hub: VpnHost, machine: Machine, step: str) -> None:
    """Wherever it ends: everything is compared anew."""
    machine.peers = {EVE.public: ["(none)", "(none)", "100.80.0.9/32", "0", "0", "0", "off"]}
    machine.private_key, machine.port, machine.mtu = EVE.reveal(), "7", 1300
    machine.addresses = {"100.80.0.7/24"}
    machine.fails_at = step
    with pytest.raises(InterfaceError):
        hub.apply()
    machine.fails_at = "\0"
    hub.apply()

    assert hub.apply().changes == []
    assert (machine.private_key, machine.port, machine.mtu) == (HUB_KEY.reveal(), "51820", 1420)
    assert sorted(machine.peers) == sorted([NORTH.public, SOUTH.public])


def test_checking_changes_nothing(hub: VpnHost, machine: Machine, settings: VpnSettings) -> None:
    """And says what applying then says."""
    set_state(hub, "north", PeerState.SUSPENDED)
    before = settings.file.read_text()
    would = hub.apply(check=True)

    assert machine.commands == []
    assert settings.file.read_text() == before
    assert hub.apply() == would


def test_the_session_is_left_alone_when_only_the_endpoint_moved(hub: VpnHost, machine: Machine) -> None:
    """Where a member is heard from is its own to change."""
    machine.peers[NORTH.public][1:6] = ["198.51.100.9:4711", machine.peers[NORTH.public][2], "1770000000", "7", "7"]

    assert hub.apply().changes == []


@pytest.mark.parametrize("column", [0, 2])
def test_a_peer_that_was_changed_by_hand_is_mended(hub: VpnHost, machine: Machine, column: int) -> None:
    """Its preshared key, or what it may send from."""
    before = machine.peers[NORTH.public][column]
    machine.peers[NORTH.public][column] = ["(none)", "", "(none)"][column]

    assert hub.apply().changes == ["peer north: is changed"]
    assert machine.peers[NORTH.public][column] == before


def test_a_bad_entry_keeps_what_was_written(hub: VpnHost, tmp_path: Path, machine: Machine) -> None:
    """Over a reboot, too: the file that boots is the memory."""
    (tmp_path / "preshared/north.key").unlink()
    outcome = hub.apply()

    assert outcome.changes == []
    assert "'north': " in outcome.warnings[0]
    assert "It keeps the tunnel that it had." in outcome.warnings[0]


def test_a_register_that_is_gone_cuts_nobody_off(hub: VpnHost, tmp_path: Path, machine: Machine) -> None:
    """Somebody restored a backup, and forgot it."""
    (tmp_path / "peers.json").unlink()

    with pytest.raises(PeersUnreadableError, match="still has 2 peers"):
        hub.apply()
    assert machine.commands == []


def test_a_damaged_file_is_told_and_written_anew(hub: VpnHost, settings: VpnSettings, machine: Machine) -> None:
    """Nobody depends on it while the register is whole."""
    settings.file.write_text("hello")
    outcome = hub.apply()

    assert "It is written anew" in outcome.warnings[0]
    assert outcome.changes == [f"{settings.file}: is written"]
    settings.file.write_bytes(b"\xff")
    assert "not a text" in hub.apply().warnings[0]
    assert machine.commands == []


def test_a_file_that_others_may_read_is_closed_again(hub: VpnHost, settings: VpnSettings) -> None:
    """It holds the private key."""
    settings.file.chmod(0o644)

    assert hub.apply().changes == [f"{settings.file}: is written"]
    assert settings.file.stat().st_mode & 0o777 == 0o600


def test_a_network_in_use_is_refused_before_anything_is_set_up(
    tmp_path: Path, settings: VpnSettings, machine: Machine
) -> None:
    """Both ranges are named; nothing was written."""
    HUB_KEY.save(tmp_path / "private.key")
    machine.routes.append({"dst": "100.80.0.0/12", "dev": "eth0"})

    with pytest.raises(NetworkRefusedError, match=r"100\.80\.0\.0/24 overlaps 100\.80\.0\.0/12, which this machine"):
        VpnHost(tmp_path, settings).apply()
    assert not settings.file.exists()
    listed = settings.model_copy(update={"routed": (ip_network("100.80.0.128/25"),)})
    machine.routes.pop()
    with pytest.raises(NetworkRefusedError, match=r"which vpn\.toml lists as routed"):
        VpnHost(tmp_path, listed).apply()


def test_a_route_that_came_later_does_not_stand_before_a_revocation(hub: VpnHost, machine: Machine) -> None:
    """It is warned of instead."""
    machine.routes.append({"dst": "100.80.0.0/16", "dev": "eth0"})
    machine.addresses.clear()  # nor does an interface that lost its addresses
    outcome = hub.change_state("north", PeerState.REVOKED)

    assert list(machine.peers) == [SOUTH.public]
    assert "overlaps 100.80.0.0/16" in outcome.warnings[0]


def test_an_interface_that_is_down_is_left_to_wg_quick(hub: VpnHost, machine: Machine) -> None:
    """The file is made, and the next step is said."""
    machine.is_up = False
    hub.book().admit("eve", EVE.public)
    outcome = hub.apply()

    assert outcome.changes == [f"{hub._settings.file}: is written"]
    assert "systemctl enable --now wg-quick@fedward0" in outcome.warnings[0]


def test_two_commands_take_turns(hub: VpnHost) -> None:
    """A playbook that runs twice at once admits two members at two addresses."""
    given: list[str] = []

    def admit(member: str) -> None:
        with hub.locked():
            given.append(str(hub.book().admit(member, PrivateKey.generate().public)[0][0]))

    threads = [threading.Thread(target=admit, args=(f"member-{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(given) == sorted(f"100.80.0.{number}" for number in range(4, 12))


def test_a_member_that_hears_the_hub_changes_nothing(north: VpnHost, machine: Machine) -> None:
    """Not even after the hub moved: WireGuard follows by itself."""
    machine.peers[HUB_KEY.public][1] = "198.51.100.77:51820"

    assert north.apply().changes == []
    assert north.resolve_hub().changes == []
    assert machine.commands == []


@pytest.mark.parametrize("at", [0, NOW - STALE_S - 1, NOW + 60], ids=["never", "long ago", "before the clock was set"])
def test_a_member_that_hears_no_hub_goes_round_its_endpoints(north: VpnHost, machine: Machine, at: int) -> None:
    """One after another, and from the last to the first."""
    heard(machine, at)
    told = [north.resolve_hub().changes for _ in range(2)]

    assert told == [[f"endpoint of the hub: {HERE} becomes {THERE}"], [f"endpoint of the hub: {THERE} becomes {HERE}"]]
    assert machine.commands == [f"wg set fedward0 peer {HUB_KEY.public} endpoint {each}" for each in (THERE, HERE)]


def test_a_name_is_looked_up_again(north: VpnHost, machine: Machine, names: dict[str, list[str]]) -> None:
    """The hub's line got another address; what was set before leads nowhere."""
    names["vpn.example.org"] = ["203.0.113.5"]
    own = north._settings.member.model_copy(update={"hub_endpoints": (Endpoint("vpn.example.org", 51820),)})
    moved = VpnHost(north._root, north._settings.model_copy(update={"member": own}), clock=lambda: NOW)
    heard(machine, NOW - 200)

    assert moved.apply().changes[0] == f"endpoint of the hub: {HERE} becomes 203.0.113.5:51820"
    assert moved.apply().changes == []
    names["vpn.example.org"] = ["203.0.113.6"]
    assert moved.resolve_hub().changes == ["endpoint of the hub: 203.0.113.5:51820 becomes 203.0.113.6:51820"]
    del names["vpn.example.org"]
    assert moved.resolve_hub().warnings == ["'vpn.example.org' does not resolve now."]
    assert machine.peers[HUB_KEY.public][1] == "203.0.113.6:51820"


def test_hub_and_member_are_told_apart(hub: VpnHost, settings: VpnSettings, tmp_path: Path) -> None:
    """Each has its own commands."""
    member = MemberPart(addresses=("100.80.0.2",), hub_public_key=HUB_KEY.public, hub_endpoints=(HERE,))
    other = VpnHost(tmp_path, settings.model_copy(update={"hub": None, "member": member}))

    with pytest.raises(ConfigInvalidError, match="This host is the hub"):
        hub.resolve_hub()
    with pytest.raises(ConfigInvalidError, match="This host is a member"):
        other.book()
    with pytest.raises(KeyFileError, match=r"preshared\.key: No such file"):
        other.tunnel()


def test_the_status_says_who_was_heard_and_what_is_wrong(hub: VpnHost, machine: Machine, tmp_path: Path) -> None:
    """Members that may not come in are listed, too."""
    machine.peers[NORTH.public][1:6] = ["198.51.100.9:4711", machine.peers[NORTH.public][2], "1769999990", "70", "80"]
    set_state(hub, "south", PeerState.SUSPENDED)
    whole = json.loads((tmp_path / "peers.json").read_text())
    whole["members"]["eve"] = {}
    (tmp_path / "peers.json").write_text(json.dumps(whole))
    status = hub.status()

    assert [(row.member, row.state) for row in status.peers] == [
        ("eve", "bad entry"),
        ("north", "active"),
        ("south", "suspended"),
    ]
    assert status.peers[1].live.received_bytes == 70
    assert [warning for warning in status.warnings if "peer south: is removed" in warning]
    assert [warning for warning in status.warnings if "'eve'" in warning]
    machine.is_up = False
    assert "is not up" in hub.status().warnings[0]


def test_a_host_that_is_not_set_up_says_so(tmp_path: Path, settings: VpnSettings, machine: Machine) -> None:
    """In sentences, each with what is missing."""
    status = VpnHost(tmp_path, settings).status()

    assert (status.is_up, status.peers) == (False, [])
    assert "private.key: No such file or directory" in status.warnings[1]


def test_a_member_is_told_when_the_hub_is_silent(north: VpnHost, machine: Machine) -> None:
    """Most often a firewall in between."""
    assert north.status().warnings == []
    heard(machine, 0)

    assert "is UDP to its endpoint let through" in north.status().warnings[0]


def test_no_secret_is_in_what_is_said_or_logged(
    hub: VpnHost, machine: Machine, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Whatever goes wrong on the way."""
    secrets = [HUB_KEY.reveal(), *(path.read_text().strip() for path in (tmp_path / "preshared").iterdir())]
    said = []
    with caplog.at_level(logging.DEBUG):
        for fault in ("\0", "addconf", "show", "private-key"):
            machine.private_key, machine.fails_at = "", fault
            machine.peers.pop(SOUTH.public, None)
            for work in (lambda: hub.apply(check=True), hub.apply, hub.status, hub.tunnel, hub.book):
                try:
                    said.append(repr(work()) + str(work()))
                except (InterfaceError, ConfigInvalidError) as error:
                    said.append(str(error) + repr(error) + repr(error.__dict__))

    assert [text for text in [*said, caplog.text] if any(secret in text for secret in secrets)] == []
    assert [line for line in machine.commands if any(secret in line for secret in secrets)] == []
    assert replace(hub.tunnel()[0]).private_key == HUB_KEY

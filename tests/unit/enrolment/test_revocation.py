"""What the hub does with a register, on a machine whose tools are played."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509

from appliance.enrolment.authority import CRL_DAYS, listed_serials
from appliance.enrolment.authority_home import AuthorityHome
from appliance.enrolment.revocation import Hub, Outcome, cut_lines, enforce, require_done
from appliance.protocol.errors import ConfigurationError, FedWardError
from appliance.protocol.keys import MemberKeys
from appliance.protocol.register import sign_register
from appliance.protocol.settings import read_settings
from appliance.vpn import interface
from appliance.vpn.config import VpnSettings
from appliance.vpn.host import VpnHost
from appliance.vpn.keys import PrivateKey
from tests.unit.vpn.conftest import Machine as Tunnels


class Machine:
    """Sockets by address, and what was called."""

    def __init__(self) -> None:
        self.sockets: dict[str, int] = {}
        self.called: list[str] = []
        self.can_cut, self.reloads = True, True

    def __call__(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        """Play one command."""
        self.called.append(" ".join(command))
        if command[0] != "ss":
            return subprocess.CompletedProcess(command, 0 if self.reloads else 1, "", "no such unit")
        lines = "ESTAB\n" * self.sockets.get(command[-1], 0)
        if "K" in command[1]:
            if not self.can_cut:
                return subprocess.CompletedProcess(command, 0, "", "")
            self.sockets.pop(command[-1], None)
        return subprocess.CompletedProcess(command, 0, lines, "")


@pytest.fixture
def machine() -> Machine:
    """A hub's."""
    return Machine()


@pytest.fixture
def hub(operator, ask, tmp_path: Path) -> Hub:
    """North and south have certificates; the register lies in the hub's folder."""
    for member in ("north", "south"):
        answer = operator.admit(ask(tmp_path / member, member))
    AuthorityHome(tmp_path / "authority").take(answer.register_text, answer.operator)
    hub = Hub(
        home=tmp_path / "network",
        authority=tmp_path / "authority",
        crl=tmp_path / "crl.pem",
        vpn=tmp_path / "vpn",
        rest_socket=tmp_path / "rest.sock",
        reload=("reload",),
        restart=("restart",),
    )
    hub.home.mkdir()
    carry(operator, hub)
    enforce(hub, Machine())
    return hub


@pytest.fixture
def tunnels(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Tunnels:
    """The hub's VPN with both members in it: north at 100.80.0.2, south at 100.80.0.3."""
    made = Tunnels()
    monkeypatch.setattr(interface, "_run", made.run)
    PrivateKey(b"h" * 32).save(hub.vpn / "private.key")
    folder = hub.vpn / "wireguard"
    (hub.vpn / "vpn.toml").write_text(f'networks = ["100.80.0.0/24"]\nwg_quick_folder = "{folder}"\n[hub]\n')
    host = VpnHost(hub.vpn, read_settings(hub.vpn / "vpn.toml", VpnSettings))
    host.book().admit("north", PrivateKey(b"n" * 32).public)
    host.book().admit("south", PrivateKey(b"s" * 32).public)
    host.apply()
    made.boot(folder / "fedward0.conf")
    return made


def carry(operator, hub: Hub) -> None:
    """The operator's next register reaches the hub's folder."""
    (hub.home / "register.jws").write_text(operator.book.issue())


def serials(hub: Hub, member: str) -> set[int]:
    """What was issued to a member."""
    lines = (hub.authority / "issued.jsonl").read_text().splitlines()
    return {int(line["serial"], 16) for line in map(json.loads, lines) if line["member"] == member}


def test_a_suspended_members_certificates_wait_and_a_revoked_ones_end(operator, hub: Hub, machine: Machine) -> None:
    """Both open no line; the reasons differ, for whoever reads the list."""
    operator.book.suspend("north")
    operator.book.revoke("south")
    carry(operator, hub)
    enforce(hub, machine)

    listed = listed_serials(hub.crl.read_text())
    held, ended = x509.ReasonFlags.certificate_hold, x509.ReasonFlags.privilege_withdrawn
    assert listed == dict.fromkeys(serials(hub, "north"), held) | dict.fromkeys(serials(hub, "south"), ended)


def test_a_resumed_member_is_off_the_list(operator, hub: Hub, machine: Machine) -> None:
    """It comes back with the certificate that it has."""
    operator.book.suspend("north")
    carry(operator, hub)
    enforce(hub, machine)
    operator.book.resume("north")
    carry(operator, hub)

    assert enforce(hub, machine).changes == ["certificates: 0 open no lines"]
    assert listed_serials(hub.crl.read_text()) == {}


def test_servers_are_reloaded_only_for_a_list_that_changed(operator, ask, hub: Hub, machine: Machine, tmp_path) -> None:
    """A further hospital disturbs nobody."""
    operator.admit(ask(tmp_path / "east", "east"))
    carry(operator, hub)

    assert enforce(hub, machine).changes == []
    assert machine.called == []


def test_where_addresses_are_unknown_all_lines_end(operator, hub: Hub, machine: Machine) -> None:
    """Better that the others connect again than that one who left stays."""
    operator.book.revoke("south")
    carry(operator, hub)
    outcome = enforce(hub, machine)

    assert machine.called == ["reload", "restart"]
    assert "members connect again by themselves" in outcome.changes[-1]


def test_single_lines_are_cut(machine: Machine) -> None:
    """By address, and nobody else's."""
    machine.sockets = {"100.80.0.2": 2, "100.80.0.3": 1}
    outcome = Outcome()

    assert cut_lines(["100.80.0.2"], machine, outcome)
    assert machine.sockets == {"100.80.0.3": 1}
    assert outcome.changes == ["lines: 2 of 100.80.0.2 cut"]


def test_a_revoked_members_tunnel_ends_with_its_lines(operator, hub: Hub, machine: Machine, tunnels: Tunnels) -> None:
    """First the tunnel: it must not be back before the servers have read the list. Nobody else notices."""
    machine.sockets = {"100.80.0.2": 3, "100.80.0.3": 3}
    operator.book.revoke("south")
    carry(operator, hub)
    outcome = enforce(hub, machine)

    assert outcome.failures == []
    assert list(tunnels.peers) == [PrivateKey(b"n" * 32).public]
    assert machine.sockets == {"100.80.0.2": 3}
    assert "restart" not in machine.called
    assert enforce(hub, machine).changes == []


def test_a_resumed_members_tunnel_is_there_again(operator, hub: Hub, machine: Machine, tunnels: Tunnels) -> None:
    """One command at the operator; nobody types anything at the hub."""
    for verb in ("suspend", "resume"):
        getattr(operator.book, verb)("south")
        carry(operator, hub)
        enforce(hub, machine)

    assert set(tunnels.peers) == {PrivateKey(b"n" * 32).public, PrivateKey(b"s" * 32).public}


def test_a_tunnel_that_cannot_be_ended_is_a_failure(operator, hub: Hub, machine: Machine, tunnels: Tunnels) -> None:
    """It must not pass for a revocation; all else is done."""
    tunnels.fails_at = "wg set"
    operator.book.revoke("south")
    carry(operator, hub)
    outcome = enforce(hub, machine)

    assert "VPN: 'south' is not revoked" in outcome.failures[0]
    assert listed_serials(hub.crl.read_text())
    tunnels.fails_at = "\0"
    assert enforce(hub, machine).failures == []
    assert list(tunnels.peers) == [PrivateKey(b"n" * 32).public]


def test_a_kernel_that_cannot_cut_is_noticed(machine: Machine) -> None:
    """Its tool says nothing of it; the sockets are still there."""
    machine.sockets, machine.can_cut = {"100.80.0.2": 1}, False

    assert not cut_lines(["100.80.0.2"], machine, Outcome())


def test_what_failed_is_said_and_done_by_the_next_call(operator, hub: Hub, machine: Machine) -> None:
    """The list is as it should be by then, and the servers have not read it."""
    operator.book.revoke("south")
    carry(operator, hub)
    machine.reloads = False
    with pytest.raises(FedWardError, match="have not read the revocation list: 'reload': no such unit"):
        require_done(enforce(hub, machine))
    machine.reloads, machine.called = True, []

    assert enforce(hub, machine).failures == []
    assert machine.called == ["reload", "restart"]


@pytest.mark.parametrize("lie", ["forged", "older"])
def test_a_register_that_is_not_in_force_does_nothing(lie: str, operator, hub: Hub, machine: Machine) -> None:
    """Whoever can write a file at the hub must not decide who is a member."""
    old = (hub.home / "register.jws").read_text()
    operator.book.revoke("south")
    carry(operator, hub)
    enforce(hub, machine)
    listed, machine.called = hub.crl.read_text(), []
    stranger = MemberKeys.generate()
    forged = sign_register(operator.book.register, stranger)
    (hub.home / "register.jws").write_text({"forged": forged, "older": old}[lie])

    with pytest.raises(ConfigurationError, match="membership register"):
        enforce(hub, machine)
    assert (hub.crl.read_text(), machine.called) == (listed, [])


def test_a_certificate_of_replaced_keys_opens_no_more(operator, ask, hub: Hub, machine: Machine, tmp_path) -> None:
    """Somebody may have found the machine that was lost."""
    old, new = serials(hub, "north"), ask(tmp_path / "second", "north")
    operator.book.rotate("north", identity=new.identity, sealing=new.sealing)
    carry(operator, hub)
    enforce(hub, machine)

    assert listed_serials(hub.crl.read_text()) == dict.fromkeys(old, x509.ReasonFlags.superseded)


def test_the_list_is_signed_anew_long_before_it_is_overdue(operator, hub: Hub, time_machine) -> None:
    """An overdue list shuts everybody out."""
    first = x509.load_pem_x509_crl(hub.crl.read_bytes())
    time_machine.move_to(dt.datetime.now(dt.UTC) + dt.timedelta(days=CRL_DAYS / 2 + 2))
    enforce(hub, Machine())

    assert x509.load_pem_x509_crl(hub.crl.read_bytes()).next_update_utc > first.next_update_utc


def test_a_half_line_of_a_crash_hides_nothing(operator, ask, hub: Hub, tmp_path) -> None:
    """Its certificate was never handed out; those before and after it were."""
    with (hub.authority / "issued.jsonl").open("a") as file:
        file.write('{"serial": "12')
    operator.admit(ask(tmp_path / "north", "north"))

    assert [each.member for each in operator.authority.issued()] == ["north", "south", "north"]

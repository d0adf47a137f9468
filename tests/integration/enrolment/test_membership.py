"""From the operator's first command to a member's last: with the commands, files, sockets and servers of a real hub."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from cryptography import x509

from appliance.enrolment.joining import JoinRequest, take_certificate
from appliance.enrolment.renewal import RenewalDesk
from appliance.enrolment.revocation import Outcome, cut_lines, run_tool
from appliance.protocol.home import MemberHome
from appliance.protocol.register import MemberState
from appliance.transport.mqtt import MqttLink
from appliance.transport.register import RegisterPull
from appliance.transport.rest import RefusedError
from appliance.transport.tls import client_context
from tests.integration.enrolment.site import HOST, Front, Site, fedward
from tests.integration.network.hosts import wait_until

WAIT_S = 20


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Everybody enrolled; no server runs yet."""
    made = Site(tmp_path)
    made.enrol()
    yield made
    made.stop()


class Line:
    """A member's session at the broker."""

    def __init__(self, site: Site, member: str, address: str = HOST) -> None:
        self.up, self.down = threading.Event(), threading.Event()
        self.client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id=f"{member}-1", protocol=paho.MQTTv311)
        self.client.tls_set_context(client_context(MemberHome(site.home(member)).tls))
        self.client.on_connect = lambda *_: self.up.set()
        self.client.on_disconnect = lambda *_: self.down.set()
        self.client.connect(HOST, site.broker_port, keepalive=2, bind_address=address)
        self.client.loop_start()
        assert self.up.wait(WAIT_S)

    def close(self) -> None:
        """Say goodbye."""
        self.client.disconnect()
        self.client.loop_stop()


def serial(home: Path) -> int:
    """The certificate that a member shows."""
    return x509.load_pem_x509_certificate((home / "tls/cert.pem").read_bytes()).serial_number


def test_a_playbook_that_runs_again_changes_nothing(site: Site) -> None:
    """Whoever runs it must see at a glance that all is as it was."""
    assert set(site.enrol()) == {"unchanged"}
    assert MemberHome(site.home("north")).register().version == 2  # the operator's own, then all at once


def test_a_further_hospital_touches_no_other(site: Site) -> None:
    """Its neighbours' administrators must not be asked for anything."""
    site.enrol(["east"])

    assert {site.issue(member) for member in ("north", "south", "alice")} == {"unchanged"}
    assert MemberHome(site.home("east")).register().version == 3


def test_the_hub_shuts_a_revoked_member_out_and_a_resumed_one_in(site: Site) -> None:
    """A broker that has read a revocation list keeps whoever is connected: the line itself must end."""
    site.start_broker()
    site.change("suspend", "south")
    south = Line(site, "south")

    outcome = site.enforce()

    assert south.down.wait(WAIT_S), outcome
    south.close()
    assert (is_let_in(site, "south"), is_let_in(site, "north")) == (False, True)
    site.change("resume", "south")
    site.enforce()
    wait_until(lambda: is_let_in(site, "south"))  # a reload takes the broker a moment


def is_let_in(site: Site, member: str) -> bool:
    """Whether the broker welcomes a member; a refusal is an alert or a broken line, whichever comes first."""
    context = client_context(MemberHome(site.home(member)).tls)
    try:
        with (
            socket.create_connection((HOST, site.broker_port), WAIT_S) as plain,
            context.wrap_socket(plain, server_hostname=HOST) as line,
        ):
            line.sendall(b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05probe")
            return line.recv(4) == b"\x20\x02\x00\x00"
    except OSError:
        return False


def test_one_members_lines_are_cut_and_nobody_elses(site: Site) -> None:
    """Where the kernel does not let us, all lines end; members come back by themselves, and the one does not."""
    site.start_broker()
    south, north = Line(site, "south", "127.0.0.77"), Line(site, "north")

    is_cut = cut_lines(["127.0.0.77"], run_tool, Outcome())
    if not is_cut:
        site._run(["restart"])

    assert south.down.wait(WAIT_S)
    assert north.client.is_connected() or not is_cut
    south.close()
    north.close()


def test_enforcing_twice_changes_nothing(site: Site) -> None:
    """It is called by playbooks, by a path unit and by a timer."""
    site.change("revoke", "south")
    first, second = site.enforce(), site.enforce()

    assert (len(first.changes), second.changes) == (2, [])


def test_what_failed_is_done_by_the_next_call(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that did not read the list must read it later, though the list itself is as it should be."""
    site.change("revoke", "south")
    with monkeypatch.context() as broken:
        broken.setattr(site, "_run", lambda command: subprocess.CompletedProcess(command, 1, "", "no such unit"))
        failed = site.enforce()

    again = site.enforce()

    assert "have not read the revocation list: 'reload': no such unit" in failed.failures[0]
    assert (again.failures, len(again.changes)) == ([], 1)


def test_the_network_host_follows_the_operators_register(site: Site) -> None:
    """Behind its socket it takes what the operator brings, and says in its log what became of whom."""
    site.start_rest()
    site.client("south").register()
    site.change("revoke", "south")

    assert site.enforce().failures == []
    with pytest.raises(RefusedError, match="revoked"):
        site.client("south").register()
    log = fedward("network", "audit", "export", "--home", site.home("network"))
    imported = [json.loads(line.split(" ", 1)[1]) for line in log if "register.imported" in line]
    assert imported[-1]["details"]["changes"] == {"south": "revoked"}


def test_a_certificate_is_renewed_over_the_line_and_used_at_once(site: Site) -> None:
    """A hospital that nobody visits for a year must not fall silent; a line that is up keeps its certificate."""
    site.start_rest()
    site.start_authority()
    client, old = site.client("north"), serial(site.home("north"))
    client.register()

    assert fedward("join", "renew", "--home", site.home("north")) == ["unchanged"]
    assert fedward("join", "renew", "--home", site.home("north"), "--force") == ["changed"]

    client.register()
    new = serial(site.home("north"))
    assert site.front is not None
    assert [int(shown, 16) for shown in site.front.shown] == [old, old, new]
    assert site.complete("north") == "unchanged"  # the older one in the answer does not come back
    client.close()


def test_a_line_to_the_broker_shows_a_renewed_certificate(site: Site) -> None:
    """A warden runs for years, and its first certificate for thirty days."""
    broker = Front(MemberHome(site.home("network")).tls, site.broker_port, site.root / "nobody.sock")
    home = MemberHome(site.home("north"))
    link = MqttLink(home.settings.endpoints[0], member_id="north", client_id="north-1", tls=home.tls)
    link.open()
    wait_until(lambda: bool(broker.shown))
    take_certificate(home.root, RenewalDesk(site.authority).renew(JoinRequest.read(site.request("north").read_text())))
    old, new = broker.shown[0], serial(home.root)

    def is_shown() -> bool:
        list(link.receive(0.1))  # its owner's turn: it finds the line broken and makes another
        return new in [int(shown, 16) for shown in broker.shown]

    wait_until(is_shown)
    link.close()
    broker.close()
    assert int(old, 16) != new


def test_the_hubs_own_certificate_keeps_its_names(site: Site) -> None:
    """They came from the operator's word; a renewal has no other."""
    site.start_rest()
    site.start_authority()

    assert fedward("join", "renew", "--home", site.home("network"), "--force") == ["changed"]
    renewed = x509.load_pem_x509_certificate((site.home("network") / "tls/cert.pem").read_bytes())
    names = renewed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(name.value) for name in names] == [HOST]


def test_a_newer_register_reaches_members_by_itself(site: Site) -> None:
    """A new member or a revocation must not wait until somebody has visited every hospital."""
    site.start_rest()
    home, taken, client = MemberHome(site.home("alice")), threading.Event(), site.client("alice")
    pull = RegisterPull(home, client, taken.set, every_s=0.05)
    pull.start()
    site.change("suspend", "south")

    assert taken.wait(WAIT_S)
    pull.close()
    client.close()
    assert home.register().find("south").state is MemberState.SUSPENDED


def test_a_member_that_lost_its_machine_comes_back_under_its_name(site: Site) -> None:
    """Its permissions and history hang on the id; whoever found the machine is shut out."""
    lost = site.home("north").rename(site.root / "lost")
    site.prepare("north")
    site.change("rotate", "north", site.request("north"))
    assert (site.issue("north"), site.complete("north")) == ("changed", "changed")

    site.enforce()

    listed: Any = x509.load_pem_x509_crl((site.root / "crl.pem").read_bytes())
    assert [entry.serial_number for entry in listed] == [serial(lost)]

"""Hub and members over real WireGuard, on machines that are network namespaces of this one."""

from __future__ import annotations

import hashlib
import json
import secrets
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

import pytest

from tests.integration.vpn.conftest import HUB, PORT, Site
from tests.integration.vpn.machines import Machine, command, eventually, why_not_here

WHY_NOT = why_not_here()
pytestmark = pytest.mark.skipif(WHY_NOT != "", reason=WHY_NOT)

DEAD = 51999  # a port on which nobody listens
ENDPOINT, HANDSHAKE, RECEIVED, SENT = 1, 3, 4, 5  # columns behind a peer's key in ``wg show dump``
CHUNK = 32 * 1024


def arrives(sender: socket.socket, receiver: socket.socket) -> str:
    """From where the receiver hears the sender; asked again until the handshake is done."""
    token = secrets.token_bytes(16)

    def heard() -> str | None:
        sender.sendto(token, receiver.getsockname()[:2])
        try:
            content, source = receiver.recvfrom(100)
        except TimeoutError:
            return None
        return source[0] if content == token else None

    return eventually(heard, "a datagram arrives")


def reaches_hub(machine: Machine, hub: Machine, own: str) -> str:
    """From where the hub hears a machine inside the tunnel."""
    with machine.udp(own) as sender, hub.udp(HUB[":" in own]) as receiver:
        return arrives(sender, receiver)


def waiting(receiver: socket.socket) -> bytes | None:
    """What has arrived; None for nothing."""
    receiver.setblocking(False)
    try:
        return receiver.recv(100)
    except BlockingIOError:
        return None


def is_refused(probe: socket.socket) -> bool:
    """Whether the other end says that the port is closed."""
    try:
        probe.send(b"x")
        probe.recv(1)
    except ConnectionRefusedError:
        return True
    except TimeoutError:
        pass
    return False


class Line:
    """A hospital's router: the hub sees its address in the place of the member's, and it may change."""

    def __init__(self, machine: Machine, hub: Machine) -> None:
        self._machine = machine
        self._hub = (hub.outside, PORT)
        self._to_member = machine.udp(machine.outside)
        self._to_hub = [machine.udp(machine.outside)]
        self._member: tuple[str, int] | None = None
        self._is_over = False
        self._thread = threading.Thread(target=self._carry)

    @property
    def inside(self) -> str:
        """The endpoint for the member behind it."""
        return _endpoint(self._to_member)

    @property
    def outside(self) -> str:
        """What the hub sees."""
        return _endpoint(self._to_hub[-1])

    def change(self) -> None:
        """Another address outside; what is still sent to the old one is lost."""
        self._machine.ip("address", "add", "198.51.100.200/24", "dev", "eth0")
        self._to_hub.append(self._machine.udp("198.51.100.200"))

    def _carry(self) -> None:
        while not self._is_over:
            outer = self._to_hub[-1]
            for ready in select.select([self._to_member, outer], [], [], 0.1)[0]:
                content, source = ready.recvfrom(2048)
                if ready is outer and self._member:
                    self._to_member.sendto(content, self._member)
                elif ready is self._to_member:
                    self._member = source
                    outer.sendto(content, self._hub)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()
        for each in (self._to_member, *self._to_hub):
            each.close()


def _endpoint(bound: socket.socket) -> str:
    return "{}:{}".format(*bound.getsockname())


class Transfer:
    """One TCP connection from a member to the hub that is never idle."""

    def __init__(self, source: Machine, own: str, hub: Machine) -> None:
        self._listener = hub.tcp(HUB[0])
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * CHUNK)
        self._listener.listen()
        self._sending = source.tcp(own)
        self._sending.settimeout(60)
        self._sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * CHUNK)
        self._sent, self._received = hashlib.sha256(), hashlib.sha256()
        self._over = threading.Event()
        self.received_bytes = 0
        self.error: OSError | None = None
        self._threads = [threading.Thread(target=self._guard, args=(work,)) for work in (self._receive, self._send)]

    def _guard(self, work) -> None:
        try:
            work()
        except OSError as error:
            self.error = error
            self._over.set()

    def _send(self) -> None:
        self._sending.connect(self._listener.getsockname())
        with self._sending:
            while not self._over.wait(0.01):  # leaves the processor to the others, too
                block = secrets.token_bytes(CHUNK)
                self._sent.update(block)
                self._sending.sendall(block)

    def _receive(self) -> None:
        self._listener.settimeout(60)
        connection, _ = self._listener.accept()
        connection.settimeout(60)
        with connection:
            while block := connection.recv(CHUNK):
                self._received.update(block)
                self.received_bytes += len(block)

    def goes_on(self) -> bool:
        """Whether much more arrives than can have been under way."""
        goal = self.received_bytes + 40 * CHUNK
        return eventually(lambda: self.error or self.received_bytes > goal, "the transfer goes on") is True

    def is_whole(self) -> bool:
        """End it; whether all that was sent has arrived, on this one connection."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        return self.error is None and self._sent.digest() == self._received.digest()

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_whole()
        self._listener.close()


@contextmanager
def register_as_text(site: Site) -> Iterator[dict]:
    """The hub's register, to be changed by hand; as it was afterwards."""
    file = site.hub.home / "peers.json"
    before = file.read_text()
    whole = json.loads(before)
    yield whole
    file.write_text(before)
    site.hub.does("apply")


@pytest.mark.parametrize("name", ["north", "south"])
@pytest.mark.parametrize("version", [0, 1], ids=["IPv4", "IPv6"])
def test_a_member_reaches_the_hub(site: Site, name: str, version: int) -> None:
    """Inside on both, whichever is spoken outside; and the hub sees the address that the plan gave."""
    member = site.members[name]
    own = member.addresses[version]

    assert reaches_hub(member.machine, site.hub, own) == own
    outside = site.hub.peer(member.public_key)[ENDPOINT]
    expected = member.machine.outside if name == "north" else f"[{member.machine.outside_v6}]"
    assert outside.rpartition(":")[0] == expected


def test_applying_twice_changes_nothing(site: Site) -> None:
    """A playbook runs often: sessions must not be made anew, nor files written."""
    north = site.members["north"]
    reaches_hub(north.machine, site.hub, north.addresses[0])
    before = site.hub.peer(north.public_key)
    written = (site.hub.home / f"{site.hub.interface}.conf").stat().st_mtime_ns

    for machine in (site.hub, north.machine):
        machine.does("apply")
        assert machine.does("apply") == "unchanged\n"
    reaches_hub(north.machine, site.hub, north.addresses[0])
    after = site.hub.peer(north.public_key)
    assert after[ENDPOINT] == before[ENDPOINT]
    assert int(after[RECEIVED]) > int(before[RECEIVED])  # a peer that was made anew counts from zero
    assert (site.hub.home / f"{site.hub.interface}.conf").stat().st_mtime_ns == written


def test_one_member_does_not_reach_another(site: Site) -> None:
    """The hub passes nothing on, and a member's own tunnel leads to the hub alone."""
    north, south = site.members["north"], site.members["south"]
    reaches_hub(south.machine, site.hub, south.addresses[0])
    with north.machine.udp(north.addresses[0]) as sender, south.machine.udp(south.addresses[0]) as receiver:
        with suppress(OSError):  # the kernel's WireGuard says that no peer has this address; wireguard-go is silent
            sender.sendto(b"hello", receiver.getsockname())
        reaches_hub(north.machine, site.hub, north.addresses[0])
        reaches_hub(south.machine, site.hub, south.addresses[0])

        assert waiting(receiver) is None


def test_a_member_takes_nothing_from_another_even_through_a_hub_that_passes_it_on(site: Site) -> None:
    """Docker switches forwarding on. Mallory aims at north; north's tunnel knows the hub's own addresses alone."""
    north, mallory = site.members["north"], site.members["mallory"]
    own = north.addresses[0]
    reaches_hub(north.machine, site.hub, own)
    reaches_hub(mallory.machine, site.hub, mallory.addresses[0])
    wg = ("ip", "netns", "exec", mallory.machine.space, "wg", "set", mallory.machine.interface)
    command(*wg, "peer", site.hub_key, "allowed-ips", "100.80.0.0/24")
    site.hub.forward(True)
    try:
        with mallory.machine.udp(mallory.addresses[0]) as sender, north.machine.udp(own) as receiver:
            before = int(site.hub.peer(north.public_key)[SENT])

            def passed_on() -> bool:
                sender.sendto(b"x" * 1000, receiver.getsockname())
                return int(site.hub.peer(north.public_key)[SENT]) > before + 3000  # more than handshakes are

            eventually(passed_on, "the hub passes packets on")
            with site.hub.udp(HUB[0]) as after, north.machine.udp(own) as control:
                assert arrives(after, control) == HUB[0]
            assert waiting(receiver) is None
    finally:
        site.hub.forward(False)
    assert mallory.machine.does("apply").startswith("changed\npeer hub: is changed\n")


def test_an_unknown_key_gets_no_answer(site: Site) -> None:
    """To whoever is no member, the port looks like any that drops what it gets."""
    eve = site.wire.machine("eve")
    eve.does("keygen")
    (eve.home / "preshared.key").write_text((site.members["west"].machine.home / "preshared.key").read_text())
    (eve.home / "preshared.key").chmod(0o600)
    site.point(eve, ["100.80.0.99"], f"{site.hub.outside}:{PORT}")
    eve.does("apply")
    eve.up()
    with eve.udp(eve.outside) as knock, eve.udp(eve.outside) as closed, eve.udp("100.80.0.99") as sender:
        knock.connect((site.hub.outside, PORT))
        closed.connect((site.hub.outside, DEAD))
        for size in (0, 1, 148, 1400):
            knock.send(b"\x01\0\0\0"[:size] + b"x" * max(size - 4, 0))

        def tried() -> bool:
            sender.sendto(b"hello", (HUB[0], 9))
            return int(eve.peer(site.hub_key)[SENT]) > 0

        eventually(tried, "eve's WireGuard has asked for a handshake")
        assert eventually(lambda: is_refused(closed), "an answer of any kind is heard")
        north = site.members["north"]
        reaches_hub(north.machine, site.hub, north.addresses[0])

        assert waiting(knock) is None
        assert eve.peer(site.hub_key)[HANDSHAKE : RECEIVED + 1] == ["0", "0"]


def test_a_member_whose_outside_address_changes_keeps_its_connections(site: Site) -> None:
    """A hospital's line gets another address in the middle of a training."""
    with Line(site.wire.machine("line"), site.hub) as line:
        member = site.join("roaming", line.inside)
        with Transfer(member.machine, member.addresses[0], site.hub) as transfer:
            assert transfer.goes_on()
            assert site.hub.peer(member.public_key)[ENDPOINT] == line.outside
            line.change()

            assert transfer.goes_on()
            assert site.hub.peer(member.public_key)[ENDPOINT] == line.outside
            assert transfer.is_whole()


def test_a_revoked_member_is_cut_off_at_once_and_others_notice_nothing(site: Site) -> None:
    """One command, in the middle of another's transfer."""
    north, west = site.members["north"], site.members["west"]
    reaches_hub(west.machine, site.hub, west.addresses[0])
    with (
        Transfer(north.machine, north.addresses[0], site.hub) as transfer,
        site.hub.udp(HUB[0]) as receiver,
        west.machine.udp(west.addresses[0]) as sender,
    ):
        assert transfer.goes_on()
        before = int(site.hub.peer(north.public_key)[RECEIVED])
        said = site.hub.does("revoke", "west")
        for _ in range(20):
            sender.sendto(b"still here", receiver.getsockname())

        assert said.startswith("changed\npeer west: is removed\n")
        assert site.hub.peer(west.public_key) == []
        assert transfer.goes_on()
        assert int(site.hub.peer(north.public_key)[RECEIVED]) > before  # a peer that was made anew counts from zero
        assert transfer.is_whole()
        assert waiting(receiver) is None
    assert site.hub.does("revoke", "west") == "unchanged\n"
    assert west.addresses[0] not in (site.hub.home / f"{site.hub.interface}.conf").read_text()
    assert "'west' is revoked" in site.hub.fedward("resume", "west").output


def test_a_bad_entry_cuts_nobody_off(site: Site) -> None:
    """It is reported; its own member keeps what it had, and all others are untouched."""
    with register_as_text(site) as register:
        register["members"]["south"]["addresses"] = ["300.0.0.1"]
        register["members"]["stranger"] = "?"
        (site.hub.home / "peers.json").write_text(json.dumps(register))
        said = site.hub.fedward("apply")

        assert said.stdout == "unchanged\n"
        assert "'south': addresses" in said.stderr
        assert "It keeps the tunnel that it had." in said.stderr
        assert "'stranger'" in said.stderr
        for name in ("north", "south"):
            member = site.members[name]
            assert reaches_hub(member.machine, site.hub, member.addresses[0]) == member.addresses[0]


def test_an_interface_that_was_changed_by_hand_is_mended(site: Site) -> None:
    """The private key erased, a peer gone, another let in, an address more: one apply, and it is as planned."""
    south, hub = site.members["south"], site.hub
    wg = ("ip", "netns", "exec", hub.space, "wg", "set", hub.interface)
    command(*wg, "private-key", "/dev/null", "peer", south.public_key, "remove")
    command(*wg, "peer", south.machine.does("pubkey").strip()[:-2] + "0=", "allowed-ips", "100.80.0.200/32")
    hub.ip("address", "add", "100.80.0.5/24", "dev", hub.interface)
    hub.ip("link", "set", "dev", hub.interface, "mtu", "1300")
    would = hub.does("apply", "--check")
    did = hub.does("apply")

    assert would == did
    assert "private key: is set from its file\nMTU: 1300 becomes 1420\naddress 100.80.0.5/24: is removed\n" in did
    assert hub.does("apply") == "unchanged\n"
    south.machine.reboot()  # else it waits 15 s for answers in the session that the hub lost
    assert reaches_hub(south.machine, hub, south.addresses[0]) == south.addresses[0]


def test_a_member_tries_the_hubs_next_address(site: Site) -> None:
    """The first may be gone for good; while one is heard, nothing is changed."""
    first = f"{site.hub.outside}:{DEAD}"
    member = site.join("east", first, f"{site.hub.outside}:{PORT}")
    said = member.machine.does("resolve")

    assert said == f"changed\nendpoint of the hub: {first} becomes {site.hub.outside}:{PORT}\n"
    assert reaches_hub(member.machine, site.hub, member.addresses[0]) == member.addresses[0]
    assert member.machine.does("resolve") == "unchanged\n"
    assert member.machine.does("apply") == "unchanged\n"


def test_a_network_that_a_host_routes_already_is_refused(site: Site) -> None:
    """Before anything is set up there: else the hospital would lose what it has in that range."""
    late = site.wire.machine("late")
    late.ip("route", "add", "100.80.0.0/16", "dev", "eth0")
    late.does("keygen")
    (late.home / "preshared.key").write_text((site.members["north"].machine.home / "preshared.key").read_text())
    (late.home / "preshared.key").chmod(0o600)
    site.point(late, ["100.80.0.98"], f"{site.hub.outside}:{PORT}")
    said = late.fedward("apply")

    assert said.exit_code == 1
    assert "100.80.0.0/24 overlaps 100.80.0.0/16, which this machine routes over eth0" in said.stderr
    assert sorted(path.name for path in late.home.iterdir()) == ["preshared.key", "private.key", "vpn.toml"]


def test_no_command_shows_a_secret(site: Site) -> None:
    """Playbooks log what commands print."""
    north = site.members["north"].machine
    secret = [(north.home / name).read_text().strip() for name in ("private.key", "preshared.key")]
    secret.append((site.hub.home / "private.key").read_text().strip())
    said = [
        machine.fedward(*words).output
        for machine in (site.hub, north)
        for words in (("render",), ("status",), ("status", "--json"), ("apply", "--check"), ("keygen",), ("resolve",))
    ]

    assert [text for text in said if any(each in text for each in secret)] == []
    assert "PrivateKey = (hidden)" in said[0]

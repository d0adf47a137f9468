"""The way to the hub: names, clock, tunnel, packets."""

from __future__ import annotations

import json
import socket
import time

import pytest

from appliance.doctor import clock, names, tunnel
from appliance.doctor.commands import CommandError
from appliance.doctor.finding import Finding, State, UnknowableError
from tests.unit.doctor.conftest import Machine

HANDSHAKES = "wg show fedward0 latest-handshakes"


def test_a_name_that_does_not_resolve_fails(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commonest fault in a new network."""

    def nobody(*_args: object, **_options: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    (found,) = names.check(machine.host(hubs=["vpn.example.org:51820"]))

    assert (found.state, found.name) == (State.FAILED, "vpn.example.org")
    assert "Name or service not known" in found.because


def test_a_name_that_resolves_is_shown_with_its_addresses(machine: Machine) -> None:
    """Loopback's name is in every hosts file."""
    (found,) = names.check(machine.host(hubs=["localhost:51820"]))

    assert found.state is State.OK
    assert "127.0.0.1" in found.because or "::1" in found.because


def test_without_a_hub_it_says_how_to_give_one(machine: Machine) -> None:
    """Before the installation nothing on the machine names it."""
    with pytest.raises(UnknowableError, match="no hub") as raised:
        list(names.check(machine.host()))

    assert "--hub" in raised.value.remedy


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("NTP=yes\nNTPSynchronized=yes\n", State.OK),
        ("NTP=yes\nNTPSynchronized=no\n", State.WEAKER),
        ("NTP=no\nNTPSynchronized=no\n", State.WEAKER),
    ],
)
def test_the_time_service_is_asked(said: str, state: State, machine: Machine) -> None:
    """A virtual machine may have its time from its host: that alone is no failure."""
    machine.said["timedatectl show"] = said
    (found,) = clock.check(machine.host())

    assert found.state is state


@pytest.mark.parametrize(
    ("offset_s", "state", "said"),
    [(1, State.OK, "1 s"), (60, State.WEAKER, "60 s behind"), (-600, State.FAILED, "600 s ahead")],
)
def test_a_clock_that_is_two_minutes_off_fails(offset_s: float, state: State, said: str) -> None:
    """Its messages would be refused."""
    found = clock.against_hub(offset_s)

    assert found.state is state
    assert said in found.because


def handshake(machine: Machine, *ages_s: float) -> Finding:
    """What is said of peers that were heard so long ago; 0 of one that never was."""
    lines = (f"key=\t{int(time.time() - age) if age else 0}" for age in ages_s)
    machine.said[HANDSHAKES] = "\n".join(lines) + "\n"
    (found,) = tunnel.check(machine.host())
    return found


def test_a_hub_that_is_heard_is_fine(node: Machine) -> None:
    """By the age of the last handshake: WireGuard has no other sign."""
    assert handshake(node, 30).state is State.OK
    assert handshake(node, 3600).state is State.FAILED
    assert "never heard" in handshake(node, 0).because
    assert "--letter" in handshake(node, 0).remedy


def test_a_hub_counts_its_members(machine: Machine) -> None:
    """One that is off is the member's own affair; all of them are not."""
    machine.write("etc/fedward/vpn/vpn.toml", 'networks = ["100.80.0.0/24"]\n[hub]\n')

    assert handshake(machine, 30, 9999).because == "1 of 2 members are heard"
    assert handshake(machine, 9999, 0).state is State.WEAKER


def test_an_interface_that_is_down_fails(node: Machine) -> None:
    """With the command that starts it."""
    node.said[HANDSHAKES] = CommandError("Unable to access interface: No such device")
    (found,) = tunnel.check(node.host())

    assert found.state is State.FAILED
    assert "wg-quick@fedward0" in found.remedy


def test_an_interface_that_only_root_may_see_is_unknown(node: Machine) -> None:
    """Not failed: the doctor is often run by an ordinary user first."""
    node.said[HANDSHAKES] = CommandError("Unable to access interface: Operation not permitted")

    with pytest.raises(UnknowableError, match="root"):
        list(tunnel.check(node.host()))


def test_before_the_installation_a_refused_packet_fails(machine: Machine) -> None:
    """A port that nobody listens on answers at once; silence proves nothing, and is called unknown."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        (silent,) = tunnel.check(machine.host(hubs=[f"127.0.0.1:{port}"]))
    (refused,) = tunnel.check(machine.host(hubs=["127.0.0.1:1"]))

    assert silent.state is State.UNKNOWN
    assert refused.state is State.FAILED


@pytest.mark.parametrize(("mtu", "state"), [(1500, State.OK), (1400, State.WEAKER)])
def test_the_line_must_carry_the_tunnels_packets(mtu: int, state: State, node: Machine) -> None:
    """Fragments are lost by many firewalls; the remedy names the value that fits."""
    node.said["ip -j route get"] = json.dumps([{"dev": "eth0"}])
    node.said["ip -j link show"] = json.dumps([{"mtu": mtu}])
    node.said["ping"] = ""
    outside, inside = tunnel.check_packet_size(node.host())

    assert (outside.state, inside.state) == (state, State.OK)
    assert ("mtu = 1320" in outside.remedy) == (mtu == 1400)


def test_small_packets_that_arrive_where_large_ones_do_not_are_a_failure(node: Machine) -> None:
    """The line looks up, and every upload hangs."""
    node.said["ip -j route get"] = json.dumps([{"dev": "eth0", "metrics": [{"mtu": 1500}]}])
    node.said["ip -j link show"] = json.dumps([{"mtu": 9000}])
    node.said["ping"] = ""
    node.said["ping -n -q -c 1 -W 2 -M do -s 1392"] = CommandError("1 packets transmitted, 0 received")
    _, inside = tunnel.check_packet_size(node.host())

    assert inside.state is State.FAILED

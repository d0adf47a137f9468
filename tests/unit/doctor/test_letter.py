"""The letter to the firewall team, from a machine's own files."""

from __future__ import annotations

import datetime as dt
import json

import pytest

from appliance.doctor import host as hosts
from appliance.doctor import letter, sources
from appliance.protocol.errors import ConfigurationError
from tests.unit.doctor.conftest import Machine

DAY = dt.date(2026, 11, 21)


@pytest.fixture
def hospital(node: Machine) -> Machine:
    """A node in a hospital with a proxy, a time server and a DNS server of its own."""
    node.write("etc/resolv.conf", "search hospital.example\nnameserver 10.0.0.53\n")
    node.write("etc/systemd/timesyncd.conf.d/hospital.conf", "[Time]\nNTP=time.hospital.example\n")
    node.write(
        "etc/apt/sources.list",
        "# deb http://old.example/debian x\ndeb [arch=amd64] http://mirror.example.org/debian bookworm main\n",
    )
    node.write(
        "etc/apt/sources.list.d/debian.sources", "Types: deb\nURIs: https://updates.example.org/debian-security\n"
    )
    node.write(
        "var/lib/fedward/node/join-request.json",
        json.dumps({"institution": "North Hospital", "contact": "Dr. Weiss, +49 1"}),
    )
    return node


def test_it_asks_for_what_this_machine_is_set_to_reach_and_nothing_inbound(hospital: Machine) -> None:
    """Read from its own files: a list from a manual would be wrong in every hospital."""
    text = letter.write(hospital.host(), today=DAY, machine="fl-node")

    assert "| out | UDP | 51820 | 127.0.0.1 |" in text
    assert "| out | UDP | 123 | time.hospital.example |" in text
    assert "| out | UDP and TCP | 53 | 10.0.0.53 |" in text
    assert "| out | TCP | 80 | mirror.example.org |" in text
    assert "| out | TCP | 443 | updates.example.org |" in text
    assert "North Hospital; Dr. Weiss, +49 1" in text
    assert "nothing inbound" in text
    assert "TCP 8444" in text
    assert "| in |" not in text
    assert "old.example" not in text
    assert "2026-11-21" in text


def test_behind_a_proxy_it_asks_for_the_proxy_alone_and_never_shows_its_password(hospital: Machine) -> None:
    """The letter is sent by mail."""
    hospital.write(
        "etc/apt/apt.conf.d/80proxy", 'Acquire::http::Proxy "http://me:secret@proxy.hospital.example:3128";\n'
    )
    text = letter.write(hospital.host(), today=DAY)

    assert "| out | TCP | 3128 | proxy.hospital.example |" in text
    assert "mirror.example.org" not in text
    assert "secret" not in text


def test_before_the_installation_the_caller_names_the_hub(machine: Machine) -> None:
    """The letter is what one has to send first of all."""
    with pytest.raises(ConfigurationError, match="No hub is known"):
        letter.write(machine.host(), today=DAY)

    assert "| out | UDP | 51821 | 127.0.0.1 |" in letter.write(machine.host(hubs=["127.0.0.1:51821"]), today=DAY)


def test_who_may_not_see_the_settings_is_told_to_ask_as_root(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed machine knows its hub, but tells only root."""
    monkeypatch.setattr(hosts, "is_closed", lambda path: path.name == "vpn")

    with pytest.raises(ConfigurationError, match="only root may look into"):
        letter.write(machine.host(), today=DAY)


def test_the_hub_writes_no_letter(machine: Machine) -> None:
    """It is the one that is reached."""
    machine.write("etc/fedward/vpn/vpn.toml", 'networks = ["100.80.0.0/24"]\n[hub]\n')

    with pytest.raises(ConfigurationError, match="This host is the hub"):
        letter.write(machine.host(), today=DAY)


def test_systemds_resolver_is_asked_whom_it_asks(machine: Machine) -> None:
    """127.0.0.53 is of no use to a firewall team."""
    machine.write("etc/resolv.conf", "nameserver 127.0.0.53\n")
    machine.write("run/systemd/resolve/resolv.conf", "nameserver 10.0.0.1\nnameserver 10.0.0.2\n")

    assert sources.name_servers(machine.host()) == ["10.0.0.1", "10.0.0.2"]


@pytest.mark.parametrize(
    ("place", "text", "servers"),
    [
        (
            "etc/chrony/chrony.conf",
            "pool 2.debian.pool.ntp.org iburst\nserver a.example\n",
            ["2.debian.pool.ntp.org", "a.example"],
        ),
        ("etc/chrony/sources.d/own.sources", "server b.example\n", ["b.example"]),
        ("usr/lib/systemd/systemd-timesyncd", "", [f"{number}.debian.pool.ntp.org" for number in range(4)]),
    ],
)
def test_time_servers_are_those_of_the_service_that_is_there(
    place: str, text: str, servers: list[str], machine: Machine
) -> None:
    """systemd-timesyncd, where nobody set it, asks Debian's own pool."""
    machine.write(place, text)

    assert sources.time_servers(machine.host()) == servers

"""Nobody reaches what is not meant for them: from outside, between members, and out of the containers.

Runs on the live site, after the hardening role.
"""

from __future__ import annotations

import json
import re
import socket
from xml.etree import ElementTree as ET

import pytest

from tests.site.stage import FEDERATOR, HOSPITALS, HUB, OUTSIDER, RESEARCHER, address, on

MEMBERS = (*HOSPITALS, RESEARCHER, FEDERATOR)
PORTS = (8883, 8443)  # broker and REST, on the hub's VPN address
CONNECT = """
import socket, sys
from concurrent.futures import ThreadPoolExecutor
def state(target):
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
    except OSError as error:
        return type(error).__name__
    return "open"
with ThreadPoolExecutor(len(sys.argv)) as pool:
    for target, found in zip(sys.argv[1:], pool.map(state, sys.argv[1:])):
        print(target, found)
"""


def vpn_address(name: str) -> str:
    """A host's address inside the VPN."""
    links = json.loads(on(name, "ip", "-json", "-4", "address", "show", "fedward0"))
    return str(links[0]["addr_info"][0]["local"])


def reached(name: str, container: str | None, targets: list[str]) -> list[str]:
    """Which of the targets (address:port) open from a host, or from one of its containers."""
    words = ["docker", "exec", "-i", container, "python"] if container else ["python3"]
    said = on(name, *words, "-c", CONNECT, *targets)
    return [target for target, _, state in (line.partition(" ") for line in said.splitlines()) if state == "open"]


@pytest.mark.timeout(600)
def test_every_tcp_port_of_every_host_is_filtered_from_outside(outsider: str) -> None:
    """Filtered, not closed: whoever knocks does not learn that somebody lives there. The scanner sees its own door."""
    scanned = [address(name) for name in (HUB, *MEMBERS, OUTSIDER)]
    scan = ("nmap", "-n", "-Pn", "-sS", "-p-", "-T5", "--min-rate", "15000", "--max-retries", "1", "-oX", "-")
    report = ET.fromstring(on(outsider, *scan, *scanned, timeout_s=600))

    found = {
        host.find("address").get("addr"): {
            int(port.get("portid")): port.find("state").get("state")
            for port in host.iter("port")
            if port.find("state").get("state") != "filtered"
        }
        for host in report.iter("host")
    }
    silent = {host.find("address").get("addr"): host.find("ports/extraports").attrib for host in report.iter("host")}

    assert found == {where: {} for where in scanned[:-1]} | {address(OUTSIDER): {22: "open"}}
    assert all(silent[where] == {"state": "filtered", "count": "65535"} for where in scanned[:-1])


def test_an_administrator_reaches_ssh_and_staff_reach_the_gui() -> None:
    """This machine stands in both networks."""
    doors = [(address(name), 22) for name in (HUB, *MEMBERS)] + [(address(name), 8444) for name in HOSPITALS]
    for door in [*doors, (address(RESEARCHER), 8888)]:
        socket.create_connection(door, timeout=5).close()

    assert len(doors) == 9


def test_wireguard_answers_only_known_keys(outsider: str) -> None:
    """A stranger who knows the hub's address, port and public key gets not a byte."""
    hub_key = on(HUB, "fedward", "vpn", "pubkey").strip()
    script = f"""
    ip link del strange 2>/dev/null; ip link add strange type wireguard 2>/dev/null || wireguard-go strange
    wg genkey > /root/key; chmod 600 /root/key
    wg set strange private-key /root/key
    wg set strange peer {hub_key} allowed-ips 10.98.0.0/24 endpoint {address(HUB)}:51820 persistent-keepalive 1
    ip address add 10.98.0.99/24 dev strange; ip link set strange up
    ping -c 4 -W 1 10.98.0.1 > /dev/null; wg show strange transfer; wg show strange latest-handshakes
    """
    transfer, handshake = on(outsider, "sh", "-c", script).strip().splitlines()
    _, received, sent = transfer.split()

    assert int(sent) > 0
    assert received == "0"
    assert handshake.split()[1] == "0"


@pytest.mark.parametrize("name", MEMBERS)
def test_a_member_reaches_the_hubs_two_ports_and_no_other_member(name: str) -> None:
    """Neither inside the VPN nor outside of it."""
    hub = vpn_address(HUB)
    others = [other for other in MEMBERS if other != name]
    targets = [f"{hub}:{port}" for port in (*PORTS, 22, 5432)]
    targets += [
        f"{where}:{port}"
        for other in others
        for where in (vpn_address(other), address(other))
        for port in (22, 8444, 8888)
    ]

    assert reached(name, None, targets) == [f"{hub}:{port}" for port in PORTS]


@pytest.mark.parametrize(
    ("name", "container"),
    [("harlem", "fedward-warden"), (RESEARCHER, "fedward-kit"), (FEDERATOR, "fedward-federator")],
)
def test_a_container_reaches_the_hubs_two_ports_alone(name: str, container: str) -> None:
    """Not its own host, not the Internet, not another member."""
    hub = vpn_address(HUB)
    own = json.loads(on(name, "ip", "-json", "-4", "address", "show"))
    here = [info["local"] for link in own for info in link["addr_info"] if info["local"] != "127.0.0.1"]
    targets = [f"{hub}:{port}" for port in (*PORTS, 22)] + [f"{where}:22" for where in here]
    targets += [f"{address(HUB)}:22", f"{address('hennepin')}:22", f"{vpn_address('hennepin')}:22", "1.1.1.1:443"]

    assert reached(name, container, targets) == [f"{hub}:{port}" for port in PORTS]


@pytest.mark.parametrize(("name", "container"), [("harlem", "fedward-runner"), (HUB, "fedward-network")])
def test_a_container_has_no_network_at_all(name: str, container: str) -> None:
    """Only the loopback that every container has."""
    assert on(name, "docker", "exec", container, "ls", "/sys/class/net").split() == ["lo"]


TLS = "/var/lib/fedward/node/tls"
ASK = "GET /api/v1/register HTTP/1.1\r\nHost: post\r\nConnection: close\r\n\r\n"


def s_client(options: str, port: int) -> str:
    """What OpenSSL's client says when it asks the hub for the register from a hospital's host."""
    target = f"-connect {vpn_address(HUB)}:{port} -CAfile {TLS}/ca.pem"
    return on("harlem", "sh", "-c", f"timeout 10 openssl s_client -quiet {options} {target} 2>&1; true", stdin=ASK)


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_1"])
def test_tls_below_1_3_is_refused(port: int, version: str) -> None:
    """By broker and REST service alike."""
    said = s_client(f"{version} -cert {TLS}/cert.pem -key {TLS}/key.pem", port)

    assert re.search(r"alert protocol version|no protocols available|handshake failure|wrong version", said)


@pytest.mark.parametrize("port", PORTS)
def test_a_client_without_a_certificate_is_refused(port: int) -> None:
    """It may finish the handshake, as TLS 1.3 lets it; it gets no answer but a refusal."""
    said = s_client("", port)

    assert "certificate required" in said or "400 No required SSL certificate" in said
    assert "eyJ" not in said

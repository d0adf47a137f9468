"""A hub's folder with two members, and an interface that obeys WireGuard's rules."""

from __future__ import annotations

import json
import re
from ipaddress import ip_network
from pathlib import Path

import pytest

from appliance.vpn import interface
from appliance.vpn.addresses import AddressPlan
from appliance.vpn.config import HubPart, VpnSettings
from appliance.vpn.errors import InterfaceError
from appliance.vpn.host import VpnHost
from appliance.vpn.keys import PrivateKey

NETWORKS = ("100.80.0.0/24", "fd42:6665:6477::/64")
HUB_KEY = PrivateKey(b"h" * 32)
NORTH = PrivateKey(b"n" * 32)
SOUTH = PrivateKey(b"s" * 32)


class Machine:
    """What ``wg`` and ``ip`` do with one interface; the integration tests hold that the real ones do the same.

    Attributes:
        peers: Public key to the fields of ``wg show dump``: preshared key, endpoint, addresses, handshake, received,
            sent, keepalive.
        commands: What was asked, without what only looks.
    """

    def __init__(self) -> None:
        self.is_up = False
        self.private_key = self.port = ""
        self.mtu = 1420
        self.addresses: set[str] = set()
        self.peers: dict[str, list[str]] = {}
        self.routes: list[dict[str, str]] = [{"dst": "default", "dev": "eth0"}]
        self.commands: list[str] = []
        self.given: list[str] = []
        self.fails_at = "\0"

    def boot(self, file: Path) -> None:
        """What ``wg-quick up`` does."""
        text = file.read_text()
        self.is_up = True
        self.private_key, self.port = _value(text, "PrivateKey"), _value(text, "ListenPort") or "40000"
        self.addresses = set(re.findall(r"Address = (.*)", text))
        self._add(text)

    def run(self, *command: str, given: str = "") -> str:
        """One command."""
        line = " ".join(command)
        if self.fails_at in line:
            raise InterfaceError(f"'{line}' failed: no")
        if command[:3] == ("ip", "-j", "address"):
            if not self.is_up:
                raise InterfaceError('Device "fedward0" does not exist.')
            split = [address.split("/") for address in sorted(self.addresses)]
            found = [{"local": local, "prefixlen": int(length), "scope": "global"} for local, length in split]
            return json.dumps([{"mtu": self.mtu, "addr_info": found}])
        if command[:2] == ("ip", "-j"):
            return json.dumps([route for route in self.routes if (":" in route["dst"]) == ("-6" in command)])
        if command[:2] == ("wg", "show"):
            public = PrivateKey.from_text(self.private_key).public if self.private_key else "(none)"
            own = (self.private_key or "(none)", public, self.port, "off")
            return "\n".join("\t".join(row) for row in (own, *((key, *rest) for key, rest in self.peers.items())))
        self.commands.append(line)
        self.given.append(given)
        self._change(command, given)
        return ""

    def _change(self, command: tuple[str, ...], given: str) -> None:
        if command[:2] == ("wg", "addconf"):
            self._add(given)
        elif command[1] == "set" and "private-key" in command:
            self.private_key = given
        elif command[1] == "set" and "listen-port" in command:
            self.port = command[-1]
        elif command[-2:-1] == ("endpoint",):
            self.peers[command[4]][1] = command[-1]
        elif command[1] == "set":
            for key in command[4::3]:
                self.peers.pop(key)
        elif command[1] == "link":
            self.mtu = int(command[-1])
        elif command[2] == "delete":
            self.addresses.remove(command[3])
        else:
            self.addresses.add(command[3])

    def _add(self, text: str) -> None:
        for part in text.split("[Peer]")[1:]:
            key, allowed = _value(part, "PublicKey"), re.findall(r"AllowedIPs = (.*)", part)
            for other in self.peers.values():  # an address belongs to the peer that claimed it last
                other[2] = ",".join(each for each in other[2].split(",") if each not in allowed)
            old = self.peers.get(key, ["(none)", "(none)", "", "0", "0", "0", "off"])
            endpoint = _value(part, "Endpoint") or old[1]
            keepalive = _value(part, "PersistentKeepalive") or old[6]
            self.peers[key] = [_value(part, "PresharedKey"), endpoint, ",".join(allowed), *old[3:6], keepalive]


def _value(text: str, key: str) -> str:
    found = re.search(rf"^{key} = (.*)$", text, re.MULTILINE)
    return found[1] if found else ""


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The machine that all commands go to."""
    made = Machine()
    monkeypatch.setattr(interface, "_run", made.run)
    return made


@pytest.fixture
def plan() -> AddressPlan:
    """The consortium's plan."""
    return AddressPlan(map(ip_network, NETWORKS))


@pytest.fixture
def settings(tmp_path: Path) -> VpnSettings:
    """The hub's settings."""
    return VpnSettings(networks=NETWORKS, wg_quick_folder=tmp_path / "wireguard", hub=HubPart())


@pytest.fixture
def hub(tmp_path: Path, settings: VpnSettings, machine: Machine) -> VpnHost:
    """A hub that knows north and south, applied and up."""
    HUB_KEY.save(tmp_path / "private.key")
    host = VpnHost(tmp_path, settings, clock=lambda: 1_770_000_000)
    host.book().admit("north", NORTH.public)
    host.book().admit("south", SOUTH.public)
    host.apply()
    machine.boot(settings.file)
    return host

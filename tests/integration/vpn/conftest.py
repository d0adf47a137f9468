"""A hub with four members, over real WireGuard: the kernel's, or wireguard-go where the kernel has none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.integration.vpn.machines import NETWORKS, Machine, Wire

HUB = tuple(str(ip_network(network)[1]) for network in NETWORKS)
PORT = 51820


@dataclass
class Member:
    """A member: its machine, its addresses inside, its public key."""

    machine: Machine
    addresses: list[str]
    public_key: str


class Site:
    """The hub and who has joined it."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.hub = wire.machine("hub")
        self.hub.configure(f"[hub]\nlisten_port = {PORT}\n")
        self.hub.does("keygen")
        self.hub_key = self.hub.does("pubkey").strip()
        self.hub.does("apply")
        self.hub.up()
        self.members: dict[str, Member] = {}

    def join(self, name: str, *endpoints: str) -> Member:
        """A machine that becomes a member, as a playbook does it."""
        machine = self.wire.machine(name)
        machine.does("keygen")
        public_key = machine.does("pubkey").strip()
        given = json.loads(self.hub.does("admit", name, public_key).splitlines()[1])
        self.hub.does("apply")
        shutil.copy(given["preshared_key_file"], machine.home / "preshared.key")
        self.point(machine, given["addresses"], *(endpoints or (f"{self.hub.outside}:{PORT}",)))
        machine.does("apply")
        machine.up()
        self.members[name] = Member(machine, given["addresses"], public_key)
        return self.members[name]

    def point(self, machine: Machine, addresses: list[str], *endpoints: str) -> None:
        """Write a member's settings."""
        machine.configure(
            f'[member]\naddresses = {addresses}\nhub_public_key = "{self.hub_key}"\nhub_endpoints = {list(endpoints)}\n'
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """North and mallory are outside on IPv4, south on IPv6; west is there to be cut off."""
    folder: Path = tmp_path_factory.mktemp("vpn")
    wire = Wire(folder)
    try:
        wire.plug_in()
        site = Site(wire)
        site.join("north")
        site.join("south", f"[{site.hub.outside_v6}]:{PORT}")
        site.join("mallory")
        site.join("west")
        yield site
    finally:
        wire.close()

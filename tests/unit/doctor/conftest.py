"""A machine that is a folder, and tools that are played."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from appliance.doctor import names, reach, services
from appliance.doctor.commands import CommandError
from appliance.doctor.host import Host, find_host
from appliance.enrolment.authority import Authority, open_transport_key, signing_request
from appliance.protocol.keys import MemberKeys

OPERATOR = MemberKeys.generate().public.identity
VPN = """networks = ["100.80.0.0/24"]
[member]
addresses = ["100.80.0.2"]
hub_public_key = "aGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGhoaGg="
hub_endpoints = ["127.0.0.1:51820"]
"""


class Machine:
    """A file system in ``root``, and what each tool prints.

    Attributes:
        said: What is printed, by the beginning of the command; a CommandError is raised.
        asked: Every command.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.said: dict[str, str | CommandError] = {}
        self.asked: list[str] = []

    def run(self, *command: str, limit_s: float = 5.0) -> str:
        """Play a command."""
        line = " ".join(command)
        self.asked.append(line)
        fitting = [start for start in self.said if line.startswith(start)]
        if not fitting:
            raise CommandError(f"'{command[0]}' is not installed", is_missing=True)
        said = self.said[max(fitting, key=len)]
        if isinstance(said, CommandError):
            raise said
        return said

    def write(self, place: str, text: str) -> Path:
        """A file on it."""
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def join(self, part: str = "node", member: str = "north", rest: str = "https://127.0.0.1:1") -> Path:
        """Its part's folder, of a member that has joined."""
        member_toml = f"""id = "{member}"
operator = "{OPERATOR}"
[[endpoints]]
route = "udp"
broker_host = "127.0.0.1"
broker_port = 1
rest_url = "{rest}"
"""
        return self.write(f"var/lib/fedward/{part}/member.toml", member_toml).parent

    def docker(self, **changes: Any) -> None:
        """A Docker as the playbook sets it up."""
        facts = {
            "ServerVersion": "20.10.24",
            "LiveRestoreEnabled": True,
            "SecurityOptions": ["name=seccomp", "name=userns"],
        }
        self.said["docker info"] = json.dumps(facts | changes)

    def host(self, **options: Any) -> Host:
        """As the checks see it."""
        return find_host(self.root, **{"run": self.run, "environment": {}} | options)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that runs many tests at once may take longer than a doctor should."""
    for room in (names, reach, services):
        monkeypatch.setattr(room, "LIMIT_S", 60.0)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine with nothing of ours on it."""
    return Machine(tmp_path)


@pytest.fixture
def node(machine: Machine) -> Machine:
    """A hospital's machine after the playbook."""
    machine.write("etc/fedward/vpn/vpn.toml", VPN)
    machine.join()
    machine.docker()
    return machine


@pytest.fixture
def federator(machine: Machine) -> Machine:
    """A federator's machine after the playbook."""
    machine.write("etc/fedward/vpn/vpn.toml", VPN)
    machine.join("federator", "steward")
    machine.docker()
    return machine


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A folder with a server's cert.pem and key.pem, by an authority that nobody knows."""
    folder = tmp_path / "authority"
    key = open_transport_key(folder / "key.pem")
    issued = Authority.open(folder, "inspector").issue(signing_request(key, "proxy"), "proxy", names=["127.0.0.1"])
    (folder / "cert.pem").write_text(issued)
    return folder

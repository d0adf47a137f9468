"""``fedward vpn``, on a machine whose tools are played."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from appliance.cli.main import app
from appliance.protocol.errors import Code
from appliance.vpn import errors, interface
from appliance.vpn.keys import PrivateKey
from tests.unit.vpn.conftest import Machine

NORTH = PrivateKey(b"n" * 32)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Where ``wg`` and ``ip`` are."""
    made = Machine()
    monkeypatch.setattr(interface, "_run", made.run)
    return made


@pytest.fixture
def home(tmp_path: Path, machine: Machine) -> Path:
    """A hub's folder with its settings."""
    text = f'networks = ["100.80.0.0/24"]\nwg_quick_folder = "{tmp_path / "wireguard"}"\n[hub]\n'
    (tmp_path / "vpn.toml").write_text(text)
    return tmp_path


def say(home: Path, *words: str) -> Any:
    """The command's end."""
    return CliRunner().invoke(app, ["vpn", *words], env={"FEDWARD_VPN_HOME": str(home), "COLUMNS": "200"})


def test_a_hub_is_set_up_command_by_command(home: Path, machine: Machine) -> None:
    """What a role calls, and what it reads."""
    assert say(home, "keygen").stdout == "changed\n"
    assert say(home, "keygen").stdout == "unchanged\n"
    assert len(say(home, "pubkey").stdout) == 45
    admitted = say(home, "admit", "north", NORTH.public)
    assert json.loads(admitted.stdout.splitlines()[1]) == {
        "addresses": ["100.80.0.2"],
        "preshared_key_file": str(home / "preshared/north.key"),
    }
    assert say(home, "admit", "north", NORTH.public).stdout.startswith("unchanged\n")
    applied = say(home, "apply")
    assert applied.stdout == f"changed\n{home / 'wireguard/fedward0.conf'}: is written\n"
    assert "systemctl enable --now wg-quick@fedward0" in applied.stderr
    machine.boot(home / "wireguard/fedward0.conf")

    assert say(home, "apply").stdout == "unchanged\n"
    assert say(home, "suspend", "north").stdout.startswith("changed\npeer north: is removed\n")
    assert say(home, "resume", "north").stdout.startswith("changed\npeer north: is added\n")
    assert say(home, "revoke", "north").stdout.startswith("changed\npeer north: is removed\n")
    assert say(home, "revoke", "north").stdout == "unchanged\n"


def test_the_status_is_a_table_and_json(home: Path, machine: Machine) -> None:
    """It ends with 1 when something is wrong."""
    say(home, "keygen")
    say(home, "admit", "north", NORTH.public)
    say(home, "apply")
    machine.boot(home / "wireguard/fedward0.conf")
    machine.peers[NORTH.public][1:6] = ["198.51.100.9:4711", "100.80.0.2/32", "1000", "2500000", "80"]
    shown, machines = say(home, "status"), say(home, "status", "--json")

    assert (shown.exit_code, machines.exit_code) == (0, 0)
    assert "north" in shown.stdout
    assert "hours ago" in shown.stdout
    assert "2.50 MB" in shown.stdout
    assert json.loads(machines.stdout)["peers"][0]["last_handshake_at"] == 1000
    machine.is_up = False
    down = say(home, "status")
    assert (down.exit_code, "Warning: The interface 'fedward0' is not up." in down.stdout) == (1, True)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("pubkey",), "KEY_UNUSABLE"),
        (("admit", "north", "x"), "VPN_PEER_REFUSED"),
        (("revoke", "nobody"), "VPN_PEER_REFUSED"),
        (("resolve",), "CONFIGURATION_INVALID"),
        (("apply", "--home", "/nowhere"), "CONFIGURATION_INVALID"),
    ],
)
def test_an_error_says_what_to_do(home: Path, words: tuple[str, ...], code: str) -> None:
    """A sentence, a remedy and a code; never a traceback."""
    if words != ("pubkey",):
        say(home, "keygen")
    result = say(home, *words)

    assert result.exit_code == 1
    assert "What to do: " in result.stderr
    assert f"({code})" in result.stderr
    assert result.stdout == ""


def test_a_network_in_use_is_told_with_both_ranges(home: Path, machine: Machine) -> None:
    """And with one that is free."""
    say(home, "keygen")
    machine.routes.append({"dst": "100.64.0.0/10", "dev": "eth0"})
    result = say(home, "apply")

    assert result.exit_code == 1
    assert "100.80.0.0/24 overlaps 100.64.0.0/10, which this machine routes over eth0" in result.stderr
    assert "for example 172.16.0.0/24" in result.stderr


def test_every_error_of_the_room_has_a_code_of_the_product() -> None:
    """The room knows no other, so it names its codes as texts."""
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.VpnError)]

    assert len(kinds) == 7
    assert [kind for kind in kinds if kind.code not in set(Code)] == []


def test_hosts_without_wireguard_need_no_package_for_it() -> None:
    """A node's own container has none; its other commands must start."""
    program = "import sys; sys.modules['wireguard_tools'] = None; from appliance.cli.main import app; app(['version'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=False)

    assert (done.returncode, done.stdout.startswith("fedward ")) == (0, True)


def test_the_hubs_addresses_are_printed_before_it_is_up(home: Path) -> None:
    """The roles of the services there ask for them."""
    assert say(home, "addresses").stdout == "100.80.0.1\n"


def test_who_would_be_admitted_is_asked_without_admitting(home: Path) -> None:
    """For a playbook in check mode: with a member's addresses, and without a key's file."""
    say(home, "keygen")
    asked = say(home, "admit", "north", NORTH.public, "--check")

    assert asked.stdout.splitlines()[0] == "changed"
    assert json.loads(asked.stdout.splitlines()[1]) == {"addresses": ["100.80.0.2"], "preshared_key_file": None}
    assert not (home / "peers.json").exists()
    say(home, "admit", "north", NORTH.public)
    assert say(home, "admit", "north", NORTH.public, "--check").stdout.startswith("unchanged\n")

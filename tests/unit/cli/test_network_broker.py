"""``fedward network broker``: what the role writes Mosquitto's files with."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from appliance.cli.main import app

ADDRESSES = ("--address", "100.80.0.1", "--address", "fd00::1")


def say(folder: Path, *words: str) -> str:
    """The command's words."""
    servers = ("--tls", "/etc/fedward/tls", "--crl", "/etc/fedward/crl.pem", "--key", "/run/key.pem")
    places = (*servers, "--store", "/var/lib/fedward/broker")
    return CliRunner().invoke(app, ["network", "broker", str(folder), *places, *ADDRESSES, *words]).stdout


def test_the_files_are_written_once(tmp_path: Path) -> None:
    """A second run restarts no broker."""
    assert say(tmp_path, "--check") == "changed\n"
    assert list(tmp_path.iterdir()) == []
    assert say(tmp_path) == "changed\n"
    assert say(tmp_path) == "unchanged\n"
    assert say(tmp_path, "--port", "8884") == "changed\n"
    assert "listener 8884 fd00::1" in (tmp_path / "mosquitto.conf").read_text()

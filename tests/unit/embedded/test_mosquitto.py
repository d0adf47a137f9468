"""Where the broker's program comes from."""

from __future__ import annotations

import pytest

from appliance.embedded.errors import BrokerMissingError
from appliance.embedded.mosquitto import find_mosquitto


def _program(path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_an_installed_broker_is_taken(tmp_path) -> None:
    """Whoever has one needs no download."""
    _program(tmp_path / "bin/mosquitto", "echo mosquitto version 2.0.18")

    program = find_mosquitto(tmp_path / "cache", search=str(tmp_path / "bin"))
    assert (program.path, program.version()) == (tmp_path / "bin/mosquitto", "2.0.18")


def test_an_unpacked_broker_is_found_again(tmp_path) -> None:
    """The second demo must not need the package server."""
    _program(tmp_path / "root/usr/sbin/mosquitto", "echo mosquitto version 2.0.18")

    assert find_mosquitto(tmp_path, search="").path == tmp_path / "root/usr/sbin/mosquitto"


def test_an_unpacked_broker_that_does_not_start_is_fetched_again(tmp_path, monkeypatch) -> None:
    """After an upgrade of the system its libraries may be gone; and a copy that others use is never half there."""
    cache = tmp_path / "cache"
    _program(cache / "root/usr/sbin/mosquitto", "exit 127")
    _program(tmp_path / "bin/apt-get", "touch mosquitto.deb")
    works = "mkdir -p $3/usr/sbin; printf '#!/bin/sh\\necho mosquitto version 2.0.18\\n' > $3/usr/sbin/mosquitto"
    _program(tmp_path / "bin/dpkg-deb", f"{works}; chmod +x $3/usr/sbin/mosquitto")
    _program(tmp_path / "bin/apt-cache", "exit 0")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")

    program = find_mosquitto(cache, search=str(tmp_path / "nowhere"))

    assert (program.path, program.version()) == (cache / "root/usr/sbin/mosquitto", "2.0.18")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "cache"]


def test_a_machine_without_debian_packages_gets_a_sentence(tmp_path, monkeypatch) -> None:
    """It says how to get a broker, as nothing else can be done."""
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(BrokerMissingError, match="Mosquitto is not installed") as caught:
        find_mosquitto(tmp_path / "cache", search="")
    assert "Mosquitto 2.0 or newer" in caught.value.remedy


def test_a_package_server_that_does_not_answer_gets_a_sentence(tmp_path, monkeypatch) -> None:
    """Apt's own reason is passed on."""
    _program(tmp_path / "bin/apt-get", "echo 'E: Unable to fetch some archives' >&2; exit 100")
    for tool in ("apt-cache", "dpkg-deb", "dpkg-query"):
        _program(tmp_path / "bin" / tool, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    with pytest.raises(BrokerMissingError, match="Unable to fetch some archives"):
        find_mosquitto(tmp_path / "cache", search="")

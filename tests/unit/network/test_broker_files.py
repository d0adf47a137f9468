"""The broker's files as text; tests/integration has them in use."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.network.broker import Broker, render_acl, render_config
from appliance.protocol.errors import ConfigurationError
from appliance.protocol.home import TlsFiles

TLS = TlsFiles(Path("/tls/ca.pem"), Path("/tls/cert.pem"), Path("/tls/key.pem"))


def broker(**changes: object) -> Broker:
    """A broker with a change."""
    return Broker(**{"hosts": ("127.0.0.1",), "port": 8883, "tls": TLS, "acl_file": Path("/acl"), **changes})


@pytest.mark.parametrize(
    "line",
    [
        "tls_version tlsv1.3",
        "require_certificate true",
        "use_identity_as_username true",
        "allow_anonymous false",
        "set_tcp_nodelay true",
        "message_size_limit 2097152",
        "per_listener_settings false",
        "persistence false",
        "log_dest stderr",
    ],
)
def test_the_configuration_says(line: str) -> None:
    """Each of these, left out, opens a door or costs 40 ms a message."""
    assert line in render_config(broker()).splitlines()


def test_every_address_has_the_whole_of_tls() -> None:
    """Mosquitto takes these for the listener above them: a second one without them would be open to anybody."""
    first, second = render_config(broker(hosts=("10.0.0.1", "fd00::1"), crl=Path("/crl"))).split("listener ")[1:]

    assert first.splitlines()[0] == "8883 10.0.0.1"
    assert second.splitlines()[0] == "8883 fd00::1"
    for line in ("cafile /tls/ca.pem", "crlfile /crl", "tls_version tlsv1.3", "require_certificate true"):
        assert line in first.splitlines()
        assert line in second.splitlines()


def test_sessions_survive_a_restart_when_there_is_a_store() -> None:
    """Mosquitto as shipped forgets."""
    text = render_config(broker(store=Path("/var/store")))

    assert "persistence true" in text
    assert "persistence_location /var/store/" in text


def test_no_payload_is_logged() -> None:
    """Types that show packets are not among those asked for."""
    types = [line for line in render_config(broker()).splitlines() if line.startswith("log_type")]

    assert types == ["log_type error", "log_type warning", "log_type notice"]


def test_a_path_cannot_bring_a_setting_of_its_own() -> None:
    """A line break in a name would be one."""
    with pytest.raises(ConfigurationError, match="control character"):
        render_config(broker(acl_file=Path("/acl\nallow_anonymous true")))


def test_the_access_list_gives_each_member_its_own_topics() -> None:
    """By the name in its certificate; presence is everybody's to read."""
    assert render_acl().splitlines() == [
        "pattern read to/%u/from/+/+",
        "pattern read to/consortium/from/+/+",
        "pattern write to/+/from/%u/+",
    ]

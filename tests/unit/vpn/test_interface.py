"""The tools: how they are called, and how they fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.vpn import interface
from appliance.vpn.config import Endpoint
from appliance.vpn.errors import InterfaceError
from appliance.vpn.interface import host_routes, read_interface, resolve


def tools(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """A machine with these tools and no others."""
    for name, script in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setattr(interface, "_ENVIRONMENT", {"PATH": str(folder)})


def test_a_machine_without_the_tools_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else can be done."""
    tools(tmp_path, monkeypatch)

    with pytest.raises(InterfaceError, match="'ip' is not installed") as caught:
        read_interface("fedward0")
    assert "apt install wireguard-tools" in caught.value.remedy


def test_a_tools_own_words_are_passed_on_without_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some tools repeat the key that they refuse."""
    key = "A" * 43 + "="
    tools(tmp_path, monkeypatch, ip="echo '[{}]'", wg=f"echo 'Key is not right: {key}' >&2; exit 1")

    with pytest.raises(InterfaceError, match="'wg show fedward0 dump' failed: Key is not right: ") as caught:
        read_interface("fedward0")
    assert key not in str(caught.value)


def test_an_interface_that_is_not_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no fault: wg-quick makes it."""
    tools(tmp_path, monkeypatch, ip="echo 'Device \"fedward0\" does not exist.' >&2; exit 1")

    assert read_interface("fedward0") is None


def test_what_is_no_permission_is_no_absence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a file would be written for an interface that runs."""
    tools(tmp_path, monkeypatch, ip="echo 'RTNETLINK answers: Operation not permitted' >&2; exit 2")

    with pytest.raises(InterfaceError, match="Operation not permitted"):
        read_interface("fedward0")


def test_an_interface_is_read_as_the_tools_print_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that was never heard, and one that was; an address of the link's own does not count."""
    secret, one, two = ("K" * 42 + "E=", "L" * 42 + "E=", "M" * 42 + "E=")
    address = (
        '[{"mtu":1420,"addr_info":[{"local":"100.80.0.1","prefixlen":24,"scope":"global"},'
        '{"local":"fe80::1","prefixlen":64,"scope":"link"}]}]'
    )
    rows = (
        f"{secret}\\t{one}\\t51820\\toff",
        f"{one}\\t(none)\\t(none)\\t(none)\\t0\\t0\\t0\\toff",
        f"{two}\\t{secret}\\t[2001:db8::1]:7\\t100.80.0.2/32,fd42::2/128\\t1770000000\\t5\\t6\\t25",
    )
    script = "\n".join(f"printf '{row}\\n'" for row in rows)
    tools(tmp_path, monkeypatch, ip=f"echo '{address}'", wg=script)
    found = read_interface("fedward0")

    assert (found.public_key, found.listen_port, found.mtu) == (one, 51820, 1420)
    assert list(map(str, found.addresses)) == ["100.80.0.1/24"]
    assert (found.peers[one].endpoint, found.peers[one].allowed, found.peers[one].keepalive_s) == (
        "",
        frozenset(),
        None,
    )
    assert found.peers[two].preshared_key.reveal() == secret
    assert (found.peers[two].endpoint, found.peers[two].handshake_at) == ("[2001:db8::1]:7", 1_770_000_000)
    assert sorted(map(str, found.peers[two].allowed)) == ["100.80.0.2/32", "fd42::2/128"]
    assert secret not in repr(found)


@pytest.mark.parametrize("printed", ["{", "[7]", '[{"dst": "x"}]', "[{}]"])
def test_routes_that_are_not_understood_are_no_free_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: str
) -> None:
    """To take them for none would let a network in that is in use."""
    tools(tmp_path, monkeypatch, ip=f"echo '{printed}'")

    with pytest.raises(InterfaceError, match="printed something unknown"):
        host_routes(besides="fedward0")


def test_addresses_need_no_name_server() -> None:
    """And what does not resolve is named."""
    found, failed = resolve([Endpoint("192.0.2.1", 7), Endpoint("2001:db8::1", 8), Endpoint("x" * 70, 9)])

    assert list(map(str, found)) == ["192.0.2.1:7", "[2001:db8::1]:8"]
    assert failed == ["x" * 70]  # refused before any name server is asked

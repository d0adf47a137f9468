"""What the firewall's template asks about networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_network

from ansible.errors import AnsibleFilterError


def of_version(networks: Iterable[str], version: int) -> list[str]:
    """The networks of one IP version, in nftables' spelling."""
    return [str(one) for one in _read(networks) if one.version == version]


def first_addresses(networks: Iterable[str]) -> list[str]:
    """The first host address of each network: the hub's."""
    return [str(one[1]) for one in _read(networks)]


def _read(networks: Iterable[str]) -> list[object]:
    try:
        return [ip_network(one) for one in networks]
    except ValueError as error:
        raise AnsibleFilterError(f"firewall: {error}") from error


class FilterModule:
    """How Ansible finds them."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        """By the names that templates use."""
        return {"firewall_of_version": of_version, "firewall_first_addresses": first_addresses}

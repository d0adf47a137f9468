"""What types cannot say about an inventory: whether its hosts fit together.

Runs where the playbook runs, on what the inventory says and nothing else; no host is asked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from appliance.protocol.wording import did_you_mean
from appliance.vpn.addresses import AddressPlan
from appliance.vpn.config import Endpoint
from appliance.vpn.errors import VpnError

_MEMBER = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_TAKEN = {"hub", "network", "operator", "consortium", "localhost"}
RENAMED: dict[str, str] = {}  # a variable's old name and its present one; an old name stays here for good
_NOT_YET = {"fedward_secagg": ("required", "Secure aggregation"), "fedward_dp": (None, "Differential privacy")}

_GROUPS = ("hub", "nodes", "researchers", "federator")  # the last one may be empty, or missing

Values = Mapping[str, Any]


def inventory_findings(
    hosts: Mapping[str, Values], groups: Mapping[str, list[str]], root: str, renamed: Mapping[str, str] = RENAMED
) -> list[str]:
    """Every fault of an inventory, each as a sentence with its place and what to do.

    Args:
        hosts: Each host's variables.
        groups: Each group's hosts.
        root: The folder that holds roles/ and inventory/variables.yml; a variable that begins as theirs must be one.
        renamed: Variables' old names, each with its present one.
    """
    specs = {
        path.parents[1].name: _options(path) for path in sorted(Path(root).glob("roles/*/meta/argument_specs.yml"))
    }
    specs["fedward"] = yaml.safe_load(Path(root, "inventory/variables.yml").read_text())
    known = {name: spec for options in specs.values() for name, spec in options.items()}
    prefixes = tuple(f"{role}_" for role in specs)
    return [
        *_group_faults(groups),
        *_unknown(hosts, set(known), prefixes, renamed),
        *_wrong_types(hosts, known),
        *_shared(hosts, "ansible_host", "address"),
        *_shared(hosts, "fedward_gui_address", "address in browsers"),
        *_network_faults(hosts),
        *_not_yet(hosts),
    ]


def _group_faults(groups: Mapping[str, list[str]]) -> Iterator[str]:
    hub, nodes, researchers, federator = (groups.get(name, []) for name in _GROUPS)
    if len(hub) != 1:
        yield f"The group 'hub' has {len(hub)} hosts; it needs exactly one."
    if not nodes:
        yield "The group 'nodes' is empty; name each hospital's host in it."
    seen: dict[str, str] = {}
    for group, members in zip(_GROUPS, (hub, nodes, researchers, federator), strict=True):
        for name in members:
            if name in seen:
                yield f"'{name}' is in the groups '{seen[name]}' and '{group}'; a host is one member and has one part."
            seen[name] = group
            if group != "hub" and (not _MEMBER.fullmatch(name) or name in _TAKEN):
                yield (
                    f"'{name}' cannot be a member's id: use lower-case letters, digits and hyphens, and none of "
                    f"{', '.join(sorted(_TAKEN))}."
                )


def _unknown(
    hosts: Mapping[str, Values], known: set[str], prefixes: tuple[str, ...], renamed: Mapping[str, str]
) -> Iterator[str]:
    for variable in sorted({name for values in hosts.values() for name in values}):
        if variable.startswith(prefixes) and variable not in known:
            if variable in renamed:
                yield f"'{variable}' is called '{renamed[variable]}' now; give it that name."
                continue
            where = [host for host, values in hosts.items() if variable in values]
            at = "every host" if len(where) == len(hosts) else ", ".join(where)
            yield f"'{variable}' (at {at}) is no variable of FedWard.{did_you_mean(variable, known)}"


def _wrong_types(hosts: Mapping[str, Values], known: Mapping[str, Any]) -> Iterator[str]:
    """The roles check the same when they run; here nothing was changed yet."""
    said: set[str] = set()
    for host, values in hosts.items():
        for name, spec in known.items():
            if name not in values:
                if spec.get("required") and name.startswith("fedward_"):
                    yield f"'{host}': {name} is missing. {spec['description']}"
                continue
            for error in ArgumentSpecValidator({name: _checkable(spec)}).validate({name: values[name]}).error_messages:
                if error not in said:
                    yield f"'{host}': {error}"
                said.add(error)


def _checkable(spec: Mapping[str, Any]) -> dict[str, Any]:
    """What the validator knows of an option's declaration."""
    return {
        key: {name: _checkable(option) for name, option in value.items()} if key == "options" else value
        for key, value in spec.items()
        if key in {"type", "elements", "choices", "options"}
    }


def _options(specs: Path) -> dict[str, Any]:
    """The variables that a role declares, at all its entry points."""
    points = yaml.safe_load(specs.read_text())["argument_specs"].values()
    return {name: spec for point in points for name, spec in point.get("options", {}).items()}


def _shared(hosts: Mapping[str, Values], variable: str, what: str) -> Iterator[str]:
    owners: dict[str, str] = {}
    for host, values in hosts.items():
        if value := values.get(variable):
            if value in owners:
                yield f"'{owners[value]}' and '{host}' have the same {what}, {value} ({variable})."
            owners.setdefault(value, host)


def _network_faults(hosts: Mapping[str, Values]) -> Iterator[str]:
    """Site-wide values are looked at once for each way in which hosts state them."""
    for value in _distinct(hosts, "fedward_vpn_networks"):
        yield from _tried(
            "fedward_vpn_networks", lambda texts: AddressPlan([ip_network(text) for text in texts]), value
        )
    for variable in ("fedward_admin_networks", "fedward_gui_networks"):
        for value in _distinct(hosts, variable):
            yield from _tried(variable, lambda texts: [ip_network(text) for text in texts], value)
            if not value:
                yield f"{variable}: is empty, so that nobody could reach anything; name at least one network."
    for value in _distinct(hosts, "fedward_hub_endpoints"):
        yield from _tried("fedward_hub_endpoints", lambda texts: [Endpoint.parse(text) for text in texts], value)
        if not value:
            yield "fedward_hub_endpoints: is empty; name where members reach the hub, as vpn.example.org:51820."
    yield from _overlaps(hosts)


def _overlaps(hosts: Mapping[str, Values]) -> Iterator[str]:
    for value in _distinct(hosts, "fedward_vpn_networks"):
        for variable in ("fedward_admin_networks", "fedward_gui_networks"):
            for other in _distinct(hosts, variable):
                for one in filter(None, map(_network, value)):
                    for two in filter(None, map(_network, other)):
                        if one.version == two.version and one.overlaps(two) and two.prefixlen > 0:
                            said = f"{two} overlaps with the VPN's network {one}"
                            yield f"{variable}: {said}; choose another for the VPN."


def _not_yet(hosts: Mapping[str, Values]) -> Iterator[str]:
    for variable, (refused, what) in _NOT_YET.items():
        for value in _distinct(hosts, variable):
            if value == refused or (refused is None and value != "off"):
                yield f"{variable}: {what} is not in this release; leave it '{'allowed' if refused else 'off'}'."


def _distinct(hosts: Mapping[str, Values], variable: str) -> list[Any]:
    found: list[Any] = []
    for values in hosts.values():
        if variable in values and values[variable] not in found:
            found.append(values[variable])
    return found


def _network(text: str) -> Any:
    try:
        return ip_network(text)
    except ValueError:
        return None  # said where it is parsed


def _tried(variable: str, attempt: Callable[[list[str]], object], value: list[str]) -> Iterator[str]:
    try:
        attempt(value)
    except VpnError as error:
        yield f"{variable}: {error.message} {error.remedy}"
    except ValueError as error:
        yield f"{variable}: {error}."


def missing_files(files: Mapping[str, str]) -> list[str]:
    """A sentence for each file that the inventory names, by its variable, and that is not there."""
    return [f"{name}: {path} does not exist." for name, path in files.items() if path and not Path(path).exists()]


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., object]]:
        """The filters' names."""
        return {"fedward_inventory_findings": inventory_findings, "fedward_missing_files": missing_files}

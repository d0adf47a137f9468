"""An inventory that cannot work is refused with a sentence for each fault, before any host is touched."""

from __future__ import annotations

import importlib.util
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[3]
MEANING = "The institution that a host belongs to; all members see it. Set for each host."
PLAYBOOKS = ROOT / "appliance/playbooks"


def _call(name: str, *arguments: Any) -> Any:
    """One of the plugin's functions, loaded as Ansible does: by its path."""
    path = PLAYBOOKS / "filter_plugins/inventory_findings.py"
    spec = importlib.util.spec_from_file_location("inventory_findings", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, name)(*arguments)


@pytest.fixture(scope="module")
def plugin() -> Iterator[Callable[..., Any]]:
    """The filter plugin in a process of its own: Ansible changes the interpreter that imports it (sys.intern)."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        yield lambda name, *arguments: pool.submit(_call, name, *arguments).result(timeout=60)


def inventory(name: str = "example") -> tuple[dict[str, dict[str, Any]], dict[str, list[str]]]:
    """An inventory's hosts with their variables, and its groups."""
    folder = ROOT / "inventory" / name
    shared = yaml.safe_load((folder / "group_vars/all.yml").read_text())
    tree = yaml.safe_load((folder / "hosts.yml").read_text())["all"]
    groups = {group: list(part["hosts"]) for group, part in tree["children"].items()}
    hosts = {
        host: shared | tree.get("vars", {}) | own
        for part in tree["children"].values()
        for host, own in part["hosts"].items()
    }
    return hosts, groups


def findings(
    plugin: Callable[..., Any], *, everywhere: dict[str, Any] | None = None, **by_host: dict[str, Any]
) -> list[str]:
    """The example's faults, once these values stand in it."""
    hosts, groups = inventory()
    hosts = {host: values | (everywhere or {}) | by_host.get(host, {}) for host, values in hosts.items()}
    found: list[str] = plugin("inventory_findings", hosts, groups, str(ROOT))
    return found


@pytest.mark.parametrize("name", ["example", "local"])
def test_the_inventories_that_are_shipped_have_no_fault(plugin: Callable[..., Any], name: str) -> None:
    """What people copy must be right."""
    hosts, groups = inventory(name)

    assert plugin("inventory_findings", hosts, groups, str(ROOT)) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"fedward_minimum_samples": "many"}, "fedward_minimum_samples"),
        ({"fedward_plan_approval": "sometimes"}, "value of fedward_plan_approval must be one of: required, off"),
        ({"fedward_kernel_sysctls": "perhaps"}, "fedward_kernel_sysctls"),
        ({"node_runner_pids": "all"}, "node_runner_pids"),
        ({"fedward_gui_network": []}, "Did you mean 'fedward_gui_networks'?"),
        ({"node_runner_memry": "2g"}, "Did you mean 'node_runner_memory'?"),
        ({"fedward_vpn_networks": ["8.8.8.0/24"]}, "8.8.8.0/24 is not private"),
        ({"fedward_vpn_networks": ["100.80.0.1/24"]}, "has host bits set"),
        ({"fedward_vpn_networks": ["172.20.0.0/24"]}, "which Docker gives its networks"),
        ({"fedward_admin_networks": ["100.80.0.0/30"]}, "overlaps with the VPN's network 100.80.0.0/24"),
        ({"fedward_admin_networks": []}, "fedward_admin_networks: is empty"),
        ({"fedward_hub_endpoints": ["vpn.example.org"]}, "does not end in a port"),
        ({"fedward_hub_endpoints": []}, "fedward_hub_endpoints: is empty"),
        ({"fedward_secagg": "required"}, "Secure aggregation is not in this release"),
        ({"fedward_dp": "record"}, "Differential privacy is not in this release"),
    ],
)
def test_a_wrong_value_is_said_once_with_its_name(plugin: Callable[..., Any], wrong: dict[str, Any], said: str) -> None:
    """Five hosts with one wrong value are one fault."""
    found = findings(plugin, everywhere=wrong)

    assert len(found) == 1
    assert said in found[0]


def test_two_hosts_with_one_address_are_named(plugin: Callable[..., Any]) -> None:
    """Both would be set up on one machine, the second over the first."""
    found = findings(plugin, south={"ansible_host": "fedward.north-hospital.example"})

    assert found == ["'north' and 'south' have the same address, fedward.north-hospital.example (ansible_host)."]


def test_a_variable_that_is_missing_is_named_with_its_meaning(plugin: Callable[..., Any]) -> None:
    """So that nobody has to look it up."""
    hosts, groups = inventory()
    del hosts["north"]["fedward_institution"]

    found = plugin("inventory_findings", hosts, groups, str(ROOT))

    assert found == [f"'north': fedward_institution is missing. {MEANING}"]


def test_a_renamed_variable_is_reported_with_its_new_name(plugin: Callable[..., Any]) -> None:
    """An old inventory must not be half understood."""
    hosts, groups = inventory()
    hosts["north"]["fedward_staff_networks"] = []
    found = plugin("inventory_findings", hosts, groups, str(ROOT), {"fedward_staff_networks": "fedward_gui_networks"})

    assert found == ["'fedward_staff_networks' is called 'fedward_gui_networks' now; give it that name."]


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"hub": []}, "The group 'hub' has 0 hosts; it needs exactly one."),
        ({"nodes": []}, "The group 'nodes' is empty"),
        ({"researchers": ["north"]}, "'north' is in the groups 'nodes' and 'researchers'"),
        ({"nodes": ["operator"]}, "'operator' cannot be a member's id"),
        ({"nodes": ["North_1"]}, "'North_1' cannot be a member's id"),
    ],
)
def test_groups_that_cannot_be_a_consortium(
    plugin: Callable[..., Any], groups: dict[str, list[str]], said: str
) -> None:
    """A host is one member, and a member has an id."""
    hosts, real = inventory()
    found = plugin("inventory_findings", hosts, real | groups, str(ROOT))

    assert any(said in sentence for sentence in found)


def test_a_file_that_is_missing_is_named(plugin: Callable[..., Any], tmp_path: Path) -> None:
    """Before the playbook needs it half-way."""
    there = tmp_path / "there.pem"
    there.touch()

    found = plugin("missing_files", {"fedward_extra_ca_bundle": str(tmp_path / "ca.pem"), "a": "", "b": str(there)})

    assert found == [f"fedward_extra_ca_bundle: {tmp_path}/ca.pem does not exist."]


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    """The lock, as the playbook takes it."""
    return subprocess.run(
        [sys.executable, PLAYBOOKS / "files/one_run.py", folder], capture_output=True, text=True, check=False
    )


def start_time(pid: int) -> int:
    """When a process began, in clock ticks since the boot."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def test_a_second_run_is_refused_while_the_first_lives(tmp_path: Path) -> None:
    """Two at once would each undo what the other does."""
    (tmp_path / "run.lock").write_text(json.dumps({"pid": os.getpid(), "started": start_time(os.getpid())}))

    refused = run(tmp_path)

    assert refused.returncode == 1
    assert f"runs (process {os.getpid()}): wait until it has ended" in refused.stderr


@pytest.mark.parametrize("left", ['{"pid": 4194300, "started": 1}', '{"pid": 1, "started": -1}', "{"])
def test_what_a_killed_run_left_stops_nobody(tmp_path: Path, left: str) -> None:
    """A lock belongs to a process that lives."""
    (tmp_path / "run.lock").write_text(left)

    assert run(tmp_path).returncode == 0
    assert json.loads((tmp_path / "run.lock").read_text())["pid"] != 4194300


@pytest.mark.parametrize("limit", [[], ["--limit", "north"]])
def test_the_playbook_refuses_a_faulty_inventory_whoever_it_is_limited_to(limit: list[str], tmp_path: Path) -> None:
    """A run for one host looks at all of the inventory, and at the lock, like one for every host."""
    shutil.copytree(ROOT / "inventory/example", tmp_path / "inventory")
    settings = tmp_path / "inventory/group_vars/all.yml"
    settings.write_text(settings.read_text() + "\nfedward_nonsense: 1\n")
    command = [Path(sys.executable).with_name("ansible-playbook"), "-i", tmp_path / "inventory", *limit]

    done = subprocess.run([*command, PLAYBOOKS / "site.yml"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode != 0
    assert "Nothing was changed on any host" in done.stdout
    assert "fedward_nonsense" in done.stdout
    assert "PLAY [Prepare every host]" not in done.stdout

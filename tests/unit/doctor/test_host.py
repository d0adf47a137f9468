"""What a machine is, by what lies on it."""

from __future__ import annotations

import pytest

from appliance.doctor import host as hosts
from appliance.doctor import itself, names, services, tunnel
from appliance.doctor.finding import AS_ROOT, State, UnknowableError
from appliance.doctor.host import Kind
from appliance.protocol.errors import ConfigurationError
from tests.unit.doctor.conftest import Machine


def test_an_empty_machine_is_nothing_yet(machine: Machine) -> None:
    """It is judged all the same: that is what the check before an installation is for."""
    assert machine.host().kind is Kind.NOTHING


@pytest.mark.parametrize(
    ("part", "kind"), [("node", Kind.NODE), ("researcher", Kind.RESEARCHER), ("network", Kind.HUB)]
)
def test_a_parts_folder_tells_what_a_host_is(part: str, kind: Kind, machine: Machine) -> None:
    """Nobody has to say it."""
    machine.join(part, "somebody")
    host = machine.host()

    assert host.kind is kind
    assert host.member is not None
    assert host.member.id == "somebody"
    assert host.is_site


def test_the_vpns_hub_is_the_hub(machine: Machine) -> None:
    """Also before its other parts are there."""
    machine.write("etc/fedward/vpn/vpn.toml", 'networks = ["100.80.0.0/24"]\n[hub]\n')

    assert machine.host().kind is Kind.HUB


def test_the_operator_has_a_home_elsewhere(machine: Machine) -> None:
    """The controller is no host of the site."""
    assert machine.host(environment={"FEDWARD_OPERATOR_HOME": "/home/op/fedward"}).kind is Kind.OPERATOR


def test_the_hub_is_known_from_the_vpn_or_from_the_caller(
    node: Machine, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Before the installation the operator's word is all there is."""
    bare = Machine(tmp_path_factory.mktemp("bare"))

    assert [str(hub) for hub in node.host().hubs] == ["127.0.0.1:51820"]
    assert [str(hub) for hub in bare.host(hubs=["vpn.example.org:51820"]).hubs] == ["vpn.example.org:51820"]


def test_an_endpoint_that_is_none_is_refused(machine: Machine) -> None:
    """With an example of one."""
    with pytest.raises(ConfigurationError, match="does not end in a port"):
        machine.host(hubs=["vpn.example.org"])


def test_settings_that_cannot_be_read_are_findings(machine: Machine) -> None:
    """The doctor is for hosts that are not well."""
    machine.write("etc/fedward/vpn/vpn.toml", "networks = 7\n")
    machine.write("var/lib/fedward/node/member.toml", "id = \n")
    failed = [finding for finding in itself.check(machine.host()) if finding.state is State.FAILED]

    assert {finding.name for finding in failed} == {"vpn.toml", "member.toml"}


def test_what_is_closed_to_this_user_is_unknown_and_asks_for_root(
    node: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for a hub or a playbook that are there already."""
    (node.root / "etc/fedward/vpn/vpn.toml").unlink()
    (node.root / "var/lib/fedward/node/member.toml").unlink()
    monkeypatch.setattr(hosts, "is_closed", lambda path: path.name == "vpn")
    host = node.host()

    for check in (names.check, tunnel.check, services.check):
        with pytest.raises(UnknowableError, match="closed to this user") as raised:
            list(check(host))
        assert raised.value.remedy == AS_ROOT
    assert next(itself.check(host)).remedy == AS_ROOT

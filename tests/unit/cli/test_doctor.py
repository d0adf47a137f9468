"""``fedward doctor``, on machines of every kind."""

from __future__ import annotations

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from appliance.cli.main import app
from appliance.protocol.local.jobs import SandboxLevel
from appliance.runner import doctor
from tests.unit.warden.conftest import Node


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> SandboxLevel:
    """A machine like Debian 12's."""
    level = SandboxLevel(landlock=2, seccomp=True)
    monkeypatch.setattr(doctor, "probe", lambda **_: level)
    return level


def say(*words: str, home: str = "") -> Any:
    """The command's end."""
    return CliRunner().invoke(app, ["doctor", *words], env={"FEDWARD_NODE_HOME": home or None, "COLUMNS": "300"})


def test_an_older_kernel_is_good_enough_unless_more_is_required() -> None:
    """It says what is weaker in any case."""
    said = say()

    assert said.exit_code == 0
    assert "weaker" in said.output
    assert "Level reached: partial; required: partial." in said.output
    assert say("--require", "full").exit_code == 1


def test_machines_read_it_as_json() -> None:
    """For a site's monitoring."""
    said = say("--json", "--require", "isolated")
    result = json.loads(said.output)

    assert said.exit_code == 1
    assert (result["reached"], result["required"]) == ("partial", "isolated")
    assert result["lacking"] == ["landlock", "cgroup", "own_uid"]
    assert {"name", "state", "because", "remedy"} == result["findings"][0].keys()


def test_a_machine_without_filters_reaches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them there is no ban on networks."""
    monkeypatch.setattr(doctor, "probe", lambda **_: SandboxLevel(landlock=7))
    said = say()

    assert said.exit_code == 1
    assert "Level reached: none" in said.output


def test_a_node_is_judged_by_its_own_runner_and_policy(node: Node) -> None:
    """Not by what the person at the keyboard may do."""
    node.services.policy.change({"sandbox": "isolated"}, lambda _connection: None)
    said = say("--json", home=str(node.root))
    result = json.loads(said.output)

    assert said.exit_code == 1
    assert (result["reached"], result["required"], result["lacking"]) == ("full", "isolated", ["cgroup", "own_uid"])


def test_a_level_that_does_not_exist_is_named() -> None:
    """With those that do."""
    said = say("--require", "best")

    assert said.exit_code == 1
    assert "'best' is none of partial, full, isolated" in said.output + said.stderr

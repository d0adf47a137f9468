"""``fedward doctor``: what it says of sandboxes of every kind, how it ends, and its letter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from appliance.cli import doctor as command
from appliance.cli.main import app
from appliance.doctor.finding import Finding, State
from appliance.protocol.local.jobs import SandboxLevel
from appliance.runner import doctor
from tests.unit.warden.conftest import Node


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> SandboxLevel:
    """A machine like Debian 12's."""
    level = SandboxLevel(landlock=2, seccomp=True)
    monkeypatch.setattr(doctor, "probe", lambda **_: level)
    return level


@pytest.fixture(autouse=True)
def other_checks(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What this machine happens to lack has tests of its own."""
    checks: dict[str, Any] = {}
    monkeypatch.setattr(command, "CHECKS", checks)
    return checks


def say(*words: str, home: str = "") -> Any:
    """The command's end."""
    return CliRunner().invoke(app, ["doctor", *words], env={"FEDWARD_NODE_HOME": home or None, "COLUMNS": "300"})


def level(said: Any) -> dict[str, str]:
    """What ``--json`` says of the sandbox's level."""
    findings = json.loads(said.output)["findings"]
    return next(finding for finding in findings if finding["name"] == "level")


def test_an_older_kernel_is_good_enough_unless_more_is_required() -> None:
    """It says what is weaker in any case."""
    said = say()

    assert said.exit_code == 0
    assert "weaker" in said.output
    assert "reached: partial; required: partial" in said.output
    assert say("--require", "full").exit_code == 1


def test_machines_read_it_as_json() -> None:
    """For a site's monitoring."""
    said = say("--json", "--require", "isolated")

    assert said.exit_code == 1
    assert json.loads(said.output)["failed"] == 1
    assert level(said)["state"] == "failed"
    assert level(said)["because"] == ("reached: partial; required: isolated; missing: landlock, cgroup, own_uid")
    assert {"topic", "name", "state", "because", "remedy"} == level(said).keys()


def test_a_machine_without_filters_reaches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them there is no ban on networks."""
    monkeypatch.setattr(doctor, "probe", lambda **_: SandboxLevel(landlock=7))
    said = say()

    assert said.exit_code == 1
    assert "reached: none" in said.output


def test_a_node_is_judged_by_its_own_runner_and_policy(node: Node) -> None:
    """Not by what the person at the keyboard may do."""
    node.services.policy.change({"sandbox": "isolated"}, lambda _connection: None)
    said = say("--json", home=str(node.root))

    assert said.exit_code == 1
    assert level(said)["because"] == "reached: full; required: isolated; missing: cgroup, own_uid"


def test_a_node_that_does_not_answer_has_failed(tmp_path: Path) -> None:
    """Whoever names a node wants to know of that one."""
    said = say("--json", home=str(tmp_path))
    (found,) = json.loads(said.output)["findings"]

    assert (said.exit_code, found["state"]) == (1, "failed")
    assert "fedward node start" in found["remedy"]


def test_a_level_that_does_not_exist_is_named() -> None:
    """With those that do."""
    said = say("--require", "best")

    assert said.exit_code == 1
    assert "'best' is none of partial, full, isolated" in said.output + said.stderr


def test_only_what_failed_ends_it_with_one(other_checks: dict[str, Any]) -> None:
    """A playbook ends with it: what is weaker must not stop a deployment."""

    def weaker(_host: object) -> Iterator[Finding]:
        yield Finding("disk", "/", State.WEAKER, "little", "more")
        yield Finding("clock", "", State.UNKNOWN, "who knows", "look")

    def failed(_host: object) -> Iterator[Finding]:
        yield Finding("disk", "/", State.FAILED, "none [bold]left[/]", "more")

    other_checks["weaker"] = weaker
    well = say("--as", "hub")
    other_checks["failed"] = failed
    ill = say("--as", "hub")

    assert (well.exit_code, ill.exit_code) == (0, 1)
    assert "Nothing failed." in well.output
    assert "1 failed." in ill.output
    assert "none [bold]left[/]" in ill.output  # nobody's text is markup


def test_no_plan_runs_at_the_hub() -> None:
    """So its sandbox is nobody's question, unless somebody asks."""
    assert json.loads(say("--as", "hub", "--json").output)["findings"] == []
    assert "level" in say("--as", "hub", "--require", "partial").output


def test_the_letter_goes_to_a_file_or_to_the_screen(tmp_path: Path) -> None:
    """As it is: an administrator sends it."""
    shown = say("--letter", "--hub", "127.0.0.1:51820")
    written = say("--letter", "--hub", "127.0.0.1:51820", "--out", str(tmp_path / "letter.md"))

    assert (shown.exit_code, written.exit_code) == (0, 0)
    assert shown.output == (tmp_path / "letter.md").read_text()
    assert "| out | UDP | 51820 | 127.0.0.1 |" in shown.output

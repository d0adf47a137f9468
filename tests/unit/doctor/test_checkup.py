"""All checks together."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator

import pytest

from appliance.doctor.checkup import CHECKS, examine
from appliance.doctor.commands import CommandError, run
from appliance.doctor.deadline import Pending
from appliance.doctor.finding import Finding, State
from appliance.doctor.host import Host
from tests.unit.doctor.conftest import Machine


def one(host: Host) -> Iterator[Finding]:
    """A check."""
    yield Finding("one", "", State.OK, f"this is {host.kind}")


def test_waiting_for_what_hangs_ends() -> None:
    """The work itself is left behind."""
    let_go = threading.Event()

    with pytest.raises(TimeoutError):
        Pending(let_go.wait).result(0.01)

    let_go.set()


def test_a_check_that_does_not_answer_is_unknown_and_harms_no_other(machine: Machine) -> None:
    """A name server that does not answer must not hide a full disk."""

    def hangs(_host: Host) -> Iterator[Finding]:
        raise TimeoutError

    found = examine(machine.host(), {"hangs": hangs, "one": one}, limit_s=60)

    assert [(finding.topic, finding.state) for finding in found] == [("hangs", State.UNKNOWN), ("one", State.OK)]
    assert "no answer within 60 s" in found[0].because


def test_checks_run_side_by_side(machine: Machine) -> None:
    """Each waits for the other: one after another they would wait for ever."""
    here, there = threading.Event(), threading.Event()

    def first(_host: Host) -> Iterator[Finding]:
        here.set()
        assert there.wait(60)
        yield Finding("first", "", State.OK, "")

    def second(_host: Host) -> Iterator[Finding]:
        there.set()
        assert here.wait(60)
        yield Finding("second", "", State.OK, "")

    found = examine(machine.host(), {"first": first, "second": second}, limit_s=60)

    assert [finding.state for finding in found] == [State.OK, State.OK]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError(13, "no", "/etc/fedward"), "sudo"),
        (CommandError("Got permission denied while trying to connect"), "sudo"),
        (KeyError("x"), "operator"),
    ],
)
def test_a_check_that_fails_is_unknown_with_a_remedy(error: Exception, said: str, machine: Machine) -> None:
    """Where root is needed, it says so."""

    def fails(_host: Host) -> Iterator[Finding]:
        raise error

    found = examine(machine.host(), {"fails": fails, "one": one}, limit_s=60)

    assert [finding.state for finding in found] == [State.UNKNOWN, State.OK]
    assert said in found[0].remedy


def test_every_finding_that_is_not_good_says_what_to_do(node: Machine) -> None:
    """A table of faults without a way out helps nobody."""
    found = examine(node.host())

    assert {finding.topic for finding in found} >= {"host", "tunnel", "services", "disk", "docker", "containers"}
    assert [finding for finding in found if finding.state is State.FAILED and not finding.remedy] == []


def test_every_topic_is_its_checks_name(machine: Machine) -> None:
    """A person finds the check by the word in the table; the services also tell the clock against the hub's."""
    found = examine(machine.host(hubs=["127.0.0.1:9"]))

    assert {finding.topic for finding in found} <= set(CHECKS)


def test_a_tool_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker's client waits for ever for a daemon that does not answer."""

    def hang(*_args: object, **options: float) -> None:
        raise subprocess.TimeoutExpired("docker", options["timeout"])

    monkeypatch.setattr(subprocess, "run", hang)

    with pytest.raises(CommandError, match="did not answer within 5 s"):
        run("docker", "info")


def test_a_tool_that_is_missing_or_refuses_says_so() -> None:
    """In one line, whatever it printed."""
    with pytest.raises(CommandError, match="is not installed") as missing:
        run("fedward-there-is-no-such-tool")
    with pytest.raises(CommandError, match="one two") as failed:
        run("sh", "-c", "echo one >&2; echo two >&2; exit 3")

    assert missing.value.is_missing
    assert not failed.value.is_missing

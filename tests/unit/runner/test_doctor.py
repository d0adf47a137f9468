"""What the doctor says of machines that are not this one, and of this one."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.protocol.local.jobs import SANDBOX_LEVELS, SandboxLevel
from appliance.runner.doctor import Finding, Machine, examine, reached
from appliance.runner.sandbox import probe

BEST = Machine(
    kernel="6.12.0",
    level=SandboxLevel(landlock=6, seccomp=True, cgroup=True, own_uid=True),
    controllers=frozenset({"cpu", "memory", "pids"}),
    is_root=True,
    memory_bytes=16 << 30,
    free_bytes=100 << 30,
)


def found(name: str, **changes: object) -> Finding:
    """What is said of one part when the level, or the machine, is another."""
    level = {key: value for key, value in changes.items() if key in SandboxLevel.model_fields}
    others = {key: value for key, value in changes.items() if key not in level}
    machine = replace(BEST, level=BEST.level.model_copy(update=level), **others)
    return next(finding for finding in examine(machine) if finding.name == name)


def test_the_best_machine_lacks_only_a_quota() -> None:
    """Nothing is called good that is only measured now and then."""
    assert [finding.name for finding in examine(BEST) if finding.state != "ok"] == ["disk limit"]


@pytest.mark.parametrize(
    ("version", "state", "said"),
    [
        (0, "missing", "can read and write what the runner's user can"),
        (1, "weaker", "links between folders, truncation, TCP, control of devices, signals and abstract sockets"),
        (2, "weaker", "truncation, TCP, control of devices, signals and abstract sockets"),
        (4, "weaker", "does not know control of devices, signals and abstract sockets"),
        (5, "weaker", "does not know signals and abstract sockets:"),
        (6, "ok", "version 6"),
        (99, "ok", "version 99"),
    ],
)
def test_an_older_landlock_is_weaker_because(version: int, state: str, said: str) -> None:
    """Debian 12's kernel has the second version; its administrator must know what that means."""
    finding = found("landlock", landlock=version)

    assert finding.state == state
    assert said in finding.because
    assert bool(finding.remedy) is (state != "ok")


@pytest.mark.parametrize(
    ("name", "changes", "state"),
    [
        ("seccomp", {"seccomp": False}, "missing"),
        ("own users", {"own_uid": False}, "weaker"),
        ("own users", {"own_uid": False, "landlock": 0}, "missing"),
        ("control groups", {"cgroup": False}, "weaker"),
        ("control groups", {"controllers": frozenset({"cpu"})}, "weaker"),
        ("memory limit", {"controllers": frozenset()}, "weaker"),
        ("memory limit", {"cgroup": False}, "weaker"),
    ],
)
def test_what_lacks_is_said_with_a_remedy(name: str, changes: dict[str, object], state: str) -> None:
    """A report without one leaves people where they were."""
    finding = found(name, **changes)

    assert finding.state == state
    assert finding.because
    assert finding.remedy


@pytest.mark.parametrize(
    ("level", "name"),
    [
        (SandboxLevel(), None),
        (SandboxLevel(landlock=7), None),
        (SandboxLevel(seccomp=True), "partial"),
        (SandboxLevel(landlock=5, seccomp=True, cgroup=True, own_uid=True), "partial"),
        (SandboxLevel(landlock=6, seccomp=True), "full"),
        (SandboxLevel(landlock=6, seccomp=True, cgroup=True), "full"),
        (BEST.level, "isolated"),
    ],
)
def test_a_level_is_reached_with_all_its_parts(level: SandboxLevel, name: str | None) -> None:
    """What policy demands by name must be whole."""
    assert reached(level) == name


def test_each_level_demands_more_than_the_one_before() -> None:
    """The tighter of two names is then the later one."""
    levels = list(SANDBOX_LEVELS.values())

    assert all(not after.lacks(before) and before.lacks(after) for before, after in itertools.pairwise(levels))


def test_this_machine_is_read(tmp_path: Path) -> None:
    """And as the runner reads it."""
    machine = Machine.this(tmp_path)

    assert machine.level.landlock == probe().landlock
    assert machine.memory_bytes > 1 << 28
    assert {finding.name for finding in examine(machine)} == {finding.name for finding in examine(BEST)}

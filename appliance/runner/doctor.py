"""Says what this machine gives the sandbox, what that means, and what would mend it.

It looks with the eyes of whoever calls it: a runner that is started by another user, or by a service manager, may have
more.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from appliance.protocol.local.jobs import SANDBOX_LEVELS, SandboxLevel
from appliance.runner.cgroup import ControlGroups, own_group
from appliance.runner.sandbox import probe

State = Literal["ok", "weaker", "missing"]
_FULL = SANDBOX_LEVELS["full"].landlock
# What each of Landlock's versions added, with the kernel that brought it.
_LANDLOCK = {
    1: ("files", "5.13"),
    2: ("links between folders", "5.19"),
    3: ("truncation", "6.2"),
    4: ("TCP", "6.7"),
    5: ("control of devices", "6.10"),
    6: ("signals and abstract sockets", "6.12"),
}


@dataclass(frozen=True)
class Finding:
    """One part of the sandbox on this machine.

    Attributes:
        state: ``ok``; ``weaker``: something else stands in for it; ``missing``: nothing does.
        because: What was found, and what follows.
        remedy: What to do about it; empty where nothing needs to be done.
    """

    name: str
    state: State
    because: str
    remedy: str = ""


@dataclass(frozen=True)
class Machine:
    """What is to be known of a machine.

    Attributes:
        kernel: Its release.
        level: What can confine a child.
        controllers: The control group controllers that a child's group would have.
        is_root: Whether this process could give a child another user.
        memory_bytes: All of it.
        free_bytes: On the file system where scratch folders lie.
    """

    kernel: str
    level: SandboxLevel
    controllers: frozenset[str]
    is_root: bool
    memory_bytes: int
    free_bytes: int

    @classmethod
    def this(cls, scratch: Path) -> Machine:
        """The machine that this process runs on."""
        group = own_group()
        groups = ControlGroups(group)
        return cls(
            kernel=os.uname().release,
            level=probe(cgroup=groups.is_usable, own_uid=os.geteuid() == 0),
            controllers=groups.controllers(),
            is_root=os.geteuid() == 0,
            memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            free_bytes=shutil.disk_usage(scratch).free,
        )

    def with_level(self, level: SandboxLevel) -> Machine:
        """The same machine, as a runner sees it that reaches another level."""
        return replace(self, level=level)


def reached(level: SandboxLevel) -> str | None:
    """The strictest named level that is reached, or None: not even training by default."""
    names = [name for name, required in SANDBOX_LEVELS.items() if not level.lacks(required)]
    return names[-1] if names else None


def examine(machine: Machine) -> list[Finding]:
    """Each part of the sandbox, as this machine has it."""
    level = machine.level
    return [
        Finding("kernel", "ok", f"Linux {machine.kernel}"),
        _landlock(level.landlock),
        _seccomp(level),
        _own_users(level, is_root=machine.is_root),
        _groups(level, machine.controllers),
        _memory(level, machine),
        _disk(machine),
    ]


def _landlock(version: int) -> Finding:
    if version >= _FULL:
        return Finding("landlock", "ok", f"version {version}")
    if version == 0:
        return Finding(
            "landlock", "missing", "the kernel has none: a plan can read and write what the runner's user can",
            "Boot Linux 5.13 or newer with 'landlock' among the kernel's lsm= (in a container: let its seccomp profile "
            "allow landlock_*).",
        )  # fmt: skip
    lacking = ", ".join(what for number, (what, _) in _LANDLOCK.items() if number > version)
    return Finding(
        "landlock", "weaker", f"version {version} does not know {lacking}: these are denied by seccomp alone",
        f"Boot Linux {_LANDLOCK[_FULL][1]} or newer.",
    )  # fmt: skip


def _seccomp(level: SandboxLevel) -> Finding:
    if level.seccomp:
        return Finding("seccomp", "ok", "system calls are filtered: no socket, no program, no tracing")
    return Finding(
        "seccomp", "missing", "the kernel or libseccomp does not filter system calls: nothing is trained here",
        "Install libseccomp (Debian: apt install libseccomp2) on a kernel with seccomp filters.",
    )  # fmt: skip


def _own_users(level: SandboxLevel, *, is_root: bool) -> Finding:
    if level.own_uid:
        return Finding("own users", "ok", "each child can be a user of its own ('--own-uids' of the runner says which)")
    stand_in = "Landlock" if level.landlock else "nothing"
    why = "no users are set aside" if is_root else "only root can give a process another user"
    return Finding(
        "own users", "weaker" if level.landlock else "missing",
        f"{why}: children run as the runner's user, and {stand_in} keeps them apart",
        "Start the runner as root, with --own-uids.",
    )  # fmt: skip


def _groups(level: SandboxLevel, controllers: frozenset[str]) -> Finding:
    name = "control groups"
    if not level.cgroup:
        return Finding(
            name, "weaker", "none can be made here: a child's processes are found by their session, and ended singly",
            "Start the runner in a delegated control group, version 2 (systemd: Delegate=yes).",
        )  # fmt: skip
    if lacking := {"memory", "pids"} - controllers:
        return Finding(
            name, "weaker", f"they end children, but lack the controllers {', '.join(sorted(lacking))}",
            "Delegate these controllers to the runner's group.",
        )  # fmt: skip
    return Finding(name, "ok", "version 2, with memory and pids")


def _memory(level: SandboxLevel, machine: Machine) -> Finding:
    total = f"{machine.memory_bytes / 2**30:.1f} GiB in all"
    if level.cgroup and "memory" in machine.controllers:
        return Finding("memory limit", "ok", f"held by the kernel; {total}")
    return Finding(
        "memory limit", "weaker",
        f"each process's is held by the kernel, their sum and shared memory are measured twice a second; {total}",
        "Delegate a control group with the memory controller.",
    )  # fmt: skip


def _disk(machine: Machine) -> Finding:
    return Finding(
        "disk limit", "weaker",
        "each file's size is held by the kernel, their sum is measured twice a second; "
        f"{machine.free_bytes / 2**30:.1f} GiB free",
        "Give the scratch folder a file system of its own.",
    )  # fmt: skip

"""A control group for each child, where the kernel lets us make one: limits that hold, and an end in one step."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from appliance.protocol.local.jobs import Limits
from appliance.runner.sandbox import MAX_THREADS


class ControlGroup:
    """One child's group (version 2)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def limit(self, limits: Limits) -> bool:
        """Set the limits that the group's controllers know; True when memory is among them."""
        with suppress(OSError):
            (self.path / "pids.max").write_text(str(limits.processes + MAX_THREADS))
        try:
            (self.path / "memory.max").write_text(str(limits.memory_bytes))
            (self.path / "memory.oom.group").write_text("1")
        except OSError:
            return False
        with suppress(OSError):
            (self.path / "memory.swap.max").write_text("0")
        return True

    def add(self, pid: int) -> None:
        """Put a process into the group; what it forks is in it, too."""
        (self.path / "cgroup.procs").write_text(str(pid))

    def kill(self) -> None:
        """Kill every process of the group at once (Linux 5.14)."""
        with suppress(OSError):
            (self.path / "cgroup.kill").write_text("1")

    def remove(self) -> None:
        """Remove the group, which must be empty."""
        with suppress(OSError):
            self.path.rmdir()


class ControlGroups:
    """The group in which children's groups are made: the supervisor's own, or one delegated to it."""

    def __init__(self, parent: Path | None) -> None:
        self._parent = parent

    @classmethod
    def find(cls) -> ControlGroups:
        """The supervisor's own group; what a supervisor that was killed left there is ended."""
        parent = own_group()
        if parent is not None:
            for path in parent.glob("fedward-*-*"):
                _end_leftover(path)
        return cls(parent)

    def make(self, name: str) -> ControlGroup | None:
        """A fresh group, or None where none can be made."""
        if self._parent is None:
            return None
        path = self._parent / f"fedward-{os.getpid()}-{name}"
        try:
            path.mkdir()
        except OSError:
            return None
        return ControlGroup(path)

    def controllers(self) -> frozenset[str]:
        """The controllers that a group made here would have."""
        try:
            return (
                frozenset((self._parent / "cgroup.subtree_control").read_text().split())
                if self._parent
                else frozenset()
            )
        except OSError:
            return frozenset()

    @property
    def is_usable(self) -> bool:
        """True when a group can be made and a process put into it."""
        group = self.make("probe")
        if group is None:
            return False
        try:
            pid = os.fork()
            if pid == 0:
                _join_and_exit(group)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        finally:
            group.remove()


def _end_leftover(path: Path) -> None:
    supervisor = path.name.split("-")[1]
    if not Path("/proc", supervisor).exists():
        ControlGroup(path).kill()
        ControlGroup(path).remove()


def _join_and_exit(group: ControlGroup) -> None:
    try:
        group.add(os.getpid())
    except OSError:
        os._exit(1)
    os._exit(0)


def own_group() -> Path | None:
    """This process's group in the one tree of version 2, or None where there is none."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    root = next((Path(fields[1]) for fields in mounts if fields[2] == "cgroup2"), None)
    own = next((line[3:] for line in groups if line.startswith("0::")), None)
    return None if root is None or own is None else root / own.lstrip("/")

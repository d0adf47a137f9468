"""How the long-lived processes' memory and open files grow."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from appliance.embedded.consortium import BROKER, NETWORK, EmbeddedConsortium

WARM = 10  # rounds that a process may take to fill its caches and pools
MEMORY_LIMIT, FILES_LIMIT = 16 << 20, 24  # a network host opens its database once for each of its threads
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Life:
    """One process, from its first warm sample to its last.

    Attributes:
        memory: Bytes that belong to it alone, then and now.
        files: Open descriptors, then and now.
    """

    kind: str
    born: int
    rounds: int = 0
    memory: tuple[int, int] = (0, 0)
    files: tuple[int, int] = (0, 0)

    def add(self, number: int, memory: int, files: int) -> None:
        """Take a sample after round ``number``."""
        is_first = number - self.born < WARM or not self.rounds
        self.rounds = max(1, number - self.born) if number - self.born >= WARM else 0
        self.memory = (memory if is_first else self.memory[0], memory)
        self.files = (files if is_first else self.files[0], files)


@dataclass(frozen=True)
class Growth:
    """The most that a process of one kind grew by, over so many rounds."""

    kind: str
    lives: int
    rounds: int
    memory: int
    files: int

    @property
    def is_leak(self) -> bool:
        """Whether it is more than a process may gather."""
        return self.memory > MEMORY_LIMIT or self.files > FILES_LIMIT


class Watch:
    """Samples of every process of a consortium, and of its researcher."""

    def __init__(self, consortium: EmbeddedConsortium, nodes: Iterable[str]) -> None:
        self._consortium = consortium
        self._parts = (BROKER, NETWORK, *nodes)
        self._lives: dict[tuple[int, str], Life] = {}

    def sample(self, number: int, researcher: int) -> None:
        """Look at everybody after round ``number``."""
        found = {researcher: "researcher"}
        for part in self._parts:
            for pid, command in self._consortium.processes(part).items():
                found[pid] = _kind(part, pid, command)
        for pid, kind in found.items():
            try:
                started = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
                _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
                files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
            except OSError:
                continue  # killed at this moment
            life = self._lives.setdefault((pid, started), Life(kind, number))
            life.add(number, (resident - shared) * _PAGE, files)

    def growth(self) -> list[Growth]:
        """By kind of process, of those that lived long enough."""
        kinds: dict[str, list[Life]] = defaultdict(list)
        for life in self._lives.values():
            if life.rounds > WARM:
                kinds[life.kind].append(life)
        return [
            Growth(
                kind,
                len(lives),
                max(life.rounds for life in lives),
                max(life.memory[1] - life.memory[0] for life in lives),
                max(life.files[1] - life.files[0] for life in lives),
            )
            for kind, lives in sorted(kinds.items())
        ]


def _kind(part: str, pid: int, command: str) -> str:
    if part in {BROKER, NETWORK}:
        return part
    if "appliance.warden" in command:
        return "warden"
    if "appliance.runner" in command:
        return "runner" if os.getsid(pid) == _session_of_parent(pid) else "child or nursery"
    return "node"


def _session_of_parent(pid: int) -> int:
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        return os.getsid(parent)
    except (OSError, ProcessLookupError):
        return -1

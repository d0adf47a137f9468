"""How much memory the parts of a consortium take up beyond what they need when idle, at the worst moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

SAMPLE_S = 0.01
MEMORY_FILES = "the node's memory files"

Pids = Mapping[str, list[int]]  # by kind: a kind's processes are counted together


class Peak:
    """The most that each kind of process had above its first sample, in bytes."""

    def __init__(self, pids: Callable[[], Pids]) -> None:
        self._pids = pids
        self._idle = self._sample()
        self.above_idle = dict.fromkeys(self._idle, 0)

    def _sample(self) -> dict[str, int]:
        pids = self._pids()
        held = {kind: _held(of_kind) for kind, of_kind in pids.items()}
        return held | {MEMORY_FILES: _memory_files([pid for of_kind in pids.values() for pid in of_kind])}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Sample until the end, in a thread."""
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(SAMPLE_S):
                for kind, held in self._sample().items():
                    self.above_idle[kind] = max(self.above_idle[kind], held - self._idle[kind])

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


def _held(pids: list[int]) -> int:
    """Proportional set sizes, so that what a fork shares counts once."""
    total = 0
    for pid in pids:
        with suppress(OSError):  # it has ended
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += 1024 * sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total


def _memory_files(pids: list[int]) -> int:
    """The memory files that processes hold open, each counted once: they belong to none, and are not mapped."""
    found = {}
    for pid in pids:
        with suppress(OSError):
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    if str(entry.readlink()).startswith("/memfd:"):
                        status = entry.stat()
                        found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())

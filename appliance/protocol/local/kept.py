"""What stays at this node between an experiment's rounds.

**Kept tensors**: local layers, and what an aggregator's method needs. They never leave. A round gets those of the last
round before it, so that a round that is asked for again, or a researcher who went back to a breakpoint, goes on from
where it was. Only a few rounds are kept; a researcher who goes back further begins without.

**Frozen layers**: those of the global model that no round trains, as the researcher sealed them. The key comes with
each request; without it nobody reads them. One file is kept of each experiment, the last that was asked for: a node
that has it not, or not whole, fetches it again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from appliance.protocol.local.sealed import create_memfd, seal_memfd

ROUNDS = 3  # kept of each experiment
UNUSED_S = 60 * 24 * 3600.0  # an experiment that was not heard of for so long is over
_SUFFIX, _SEALED = ".safetensors", ".sealed"


@dataclass(frozen=True)
class KeptTensors:
    """The folder with them: ``researcher/experiment/dataset/``, and there ``round.safetensors`` and ``sha256.sealed``.

    Args:
        folder: Only this node's user can read it.
    """

    folder: Path

    def before(self, owner: tuple[str, str, str], round_: int) -> int | None:
        """The tensors of the last round before ``round_``, as a sealed memory file; None if there are none.

        Args:
            owner: Researcher, experiment and dataset, by id.
        """
        earlier = [(number, path) for number, path in self._rounds(owner) if number < round_]
        if not earlier:
            return None
        memory = create_memfd("kept")
        try:
            with max(earlier)[1].open("rb") as source, os.fdopen(os.dup(memory), "wb") as out:
                shutil.copyfileobj(source, out)
            return seal_memfd(memory)
        except BaseException:
            os.close(memory)
            raise

    def keep(self, owner: tuple[str, str, str], round_: int, memory: int) -> None:
        """Keep a round's tensors; those of the same and later rounds belong to a past that was undone."""
        place = self.folder.joinpath(*owner)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        part = place / ".part"
        with open(f"/proc/self/fd/{memory}", "rb", buffering=0) as source, part.open("wb") as out:  # noqa: PTH123
            shutil.copyfileobj(source, out)
            out.flush()
            os.fsync(out.fileno())
        part.replace(place / f"{round_}{_SUFFIX}")
        others = sorted(path for path in self._rounds(owner) if path[0] != round_)
        earlier = [path for number, path in others if number < round_]
        for path in (*earlier[: -(ROUNDS - 1)], *(path for number, path in others if number > round_)):
            path.unlink(missing_ok=True)

    def frozen(self, owner: tuple[str, str, str], sha256: str) -> Path | None:
        """The sealed file of frozen layers with this hash; None if it is not here, or not as it was."""
        path = self.folder.joinpath(*owner) / f"{sha256}{_SEALED}"
        try:
            with path.open("rb") as file:
                is_whole = hashlib.file_digest(file, "sha256").hexdigest() == sha256
        except FileNotFoundError:
            return None
        os.utime(path.parent)  # the experiment goes on: see ``tidy``
        return path if is_whole else None

    def keep_frozen(self, owner: tuple[str, str, str], sha256: str, source: BinaryIO) -> Path:
        """Keep a sealed file of frozen layers, in place of the experiment's last one.

        Args:
            owner: Researcher, experiment and dataset, by id.
            sha256: Of the file.
            source: Its bytes; the read that reaches their end checks their hash.
        """
        place = self.folder.joinpath(*owner)
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        target, part = place / f"{sha256}{_SEALED}", place / f".part{_SEALED}"
        try:
            with part.open("wb") as out:
                shutil.copyfileobj(source, out)
                out.flush()
                os.fsync(out.fileno())
        except BaseException:  # a full disk shall have it back
            part.unlink(missing_ok=True)
            raise
        part.replace(target)
        for other in place.glob(f"*{_SEALED}"):
            if other != target:
                other.unlink(missing_ok=True)
        return target

    def tidy(self) -> None:
        """Forget experiments that nobody went on with."""
        for place in self.folder.glob("*/*/*"):
            if place.stat().st_mtime < time.time() - UNUSED_S:
                shutil.rmtree(place, ignore_errors=True)

    def _rounds(self, owner: tuple[str, str, str]) -> Iterator[tuple[int, Path]]:
        for path in self.folder.joinpath(*owner).glob(f"*{_SUFFIX}"):
            yield int(path.name.removesuffix(_SUFFIX)), path

"""What stays at a node between an experiment's rounds."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from appliance.protocol.local.kept import ROUNDS, UNUSED_S, KeptTensors
from appliance.protocol.local.sealed import sealed_memfd

OWNER = ("alice", "e-1", "d-1")


@pytest.fixture
def kept(tmp_path: Path) -> KeptTensors:
    """An empty folder of a node."""
    return KeptTensors(tmp_path)


def keep(kept: KeptTensors, round_: int, content: bytes, owner: tuple[str, str, str] = OWNER) -> None:
    """A round ends, and leaves something."""
    memory = sealed_memfd("kept", content)
    kept.keep(owner, round_, memory)
    os.close(memory)


def read(kept: KeptTensors, round_: int, owner: tuple[str, str, str] = OWNER) -> bytes | None:
    """What a round begins with."""
    memory = kept.before(owner, round_)
    if memory is None:
        return None
    with os.fdopen(memory, "rb") as file:
        file.seek(0)
        return file.read()


def test_a_round_begins_with_what_the_last_one_before_it_left(kept: KeptTensors) -> None:
    """Also when the node was left out of a round in between, and when a round is asked for again."""
    keep(kept, 1, b"one")
    keep(kept, 3, b"three")

    assert read(kept, 1) is None
    assert (read(kept, 2), read(kept, 3), read(kept, 4)) == (b"one", b"one", b"three")


def test_others_see_nothing_of_it(kept: KeptTensors) -> None:
    """Another researcher, another experiment and another dataset begin without."""
    keep(kept, 1, b"one")

    for owner in (("bob", "e-1", "d-1"), ("alice", "e-2", "d-1"), ("alice", "e-1", "d-2")):
        assert read(kept, 2, owner) is None


def test_a_round_that_is_done_again_undoes_what_came_after(kept: KeptTensors) -> None:
    """The researcher went back to the breakpoint of round 1."""
    for number in (1, 2, 3):
        keep(kept, number, str(number).encode())
    keep(kept, 2, b"two again")

    assert (read(kept, 2), read(kept, 3), read(kept, 9)) == (b"1", b"two again", b"two again")


def test_only_a_few_rounds_are_kept(kept: KeptTensors) -> None:
    """A disk that fills up with the past would stop the node."""
    for number in range(1, 10):
        keep(kept, number, str(number).encode())

    assert sorted(path.stem for path in kept.folder.rglob("*.safetensors")) == ["7", "8", "9"]
    assert len(list(kept.folder.rglob("*.safetensors"))) == ROUNDS


def test_an_experiment_that_nobody_went_on_with_is_forgotten(kept: KeptTensors) -> None:
    """Its researcher is long elsewhere."""
    keep(kept, 1, b"old")
    keep(kept, 1, b"new", ("alice", "e-2", "d-1"))
    long_ago = time.time() - UNUSED_S - 60
    os.utime(kept.folder.joinpath(*OWNER), (long_ago, long_ago))

    kept.tidy()

    assert read(kept, 2) is None
    assert read(kept, 2, ("alice", "e-2", "d-1")) == b"new"

"""A child that cannot be started leaves nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.local.jobs import SANDBOX_LEVELS, DatasetSource, Limits
from appliance.runner.child import Child, Purpose
from appliance.runner.processes import read_process
from appliance.runner.scratch import make_scratch
from appliance.runner.stamp import stamp


class Cradle:
    """Stands for the nursery: gives a process that only waits, or none."""

    def __init__(self, *, is_gone: bool = False) -> None:
        self.is_gone = is_gone
        self.process: subprocess.Popen[bytes] | None = None

    def fork(self, channel_fd: int, record_fd: int) -> int:
        """A process that leads its own session."""
        if self.is_gone:
            raise FedWardError("The runner cannot make a training process.", code=Code.RUNNER_UNAVAILABLE)
        self.process = subprocess.Popen(["sleep", "60"], start_new_session=True, pass_fds=[channel_fd, record_fd])
        return self.process.pid


def begin(nursery: Any, scratch: Path) -> Child:
    """A child as the supervisor begins it."""
    dataset = DatasetSource(dataset_id="north-1", kind="tabular", path=str(scratch.parent))
    return Child(
        "e-1",
        Purpose(dataset, stamp(dataset.path), Limits(seconds=30.0)),
        nursery,
        scratch=scratch,
        group=None,
        uid=None,
        level=SANDBOX_LEVELS["full"],
        threads=1,
    )


def descriptors() -> set[Path]:
    """What this process holds open."""
    return set(Path("/proc/self/fd").iterdir())


def test_a_full_disk_leaves_neither_process_nor_descriptor_nor_file(tmp_path: Path) -> None:
    """It stays full for hours, and each round that is tried meanwhile must not take something with it."""
    scratch, nursery, before = make_scratch(tmp_path, "e-1", None), Cradle(), descriptors()
    note = tmp_path / "e-1.leader"
    note.symlink_to("/dev/full")

    with pytest.raises(OSError, match="No space left"):
        begin(nursery, scratch)

    assert nursery.process is not None
    assert read_process(nursery.process.pid) is None
    nursery.process.wait()  # for its own records: it was waited for
    assert descriptors() <= before
    assert list(tmp_path.iterdir()) == []


def test_without_a_process_no_descriptor_stays(tmp_path: Path) -> None:
    """The nursery may be gone for long."""
    scratch, before = make_scratch(tmp_path, "e-1", None), descriptors()

    with pytest.raises(FedWardError, match="cannot make"):
        begin(Cradle(is_gone=True), scratch)

    assert descriptors() <= before

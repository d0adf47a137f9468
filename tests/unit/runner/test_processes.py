"""Finding and ending all of a family."""

from __future__ import annotations

import subprocess
import time

from appliance.runner.processes import end_family, family, read_process

TREE = ["sh", "-c", "(sleep 60 & sleep 60) & sleep 60 & wait"]


def test_a_family_ends_with_its_descendants() -> None:
    """Whoever is left would go on with the data in its memory."""
    with subprocess.Popen(TREE, start_new_session=True) as leader:
        while len(family(leader.pid)) < 4:
            pass
        members = [member.pid for member in family(leader.pid)]

        assert end_family(leader.pid, time.monotonic() + 5)
    left = [process for process in map(read_process, members) if process and not process.is_dead]
    assert not left


def test_a_name_with_brackets_and_spaces_is_read(tmp_path) -> None:
    """A process chooses its own name, and the kernel writes it between the numbers."""
    script = tmp_path / ") R 1 1 ("
    script.write_text("#!/bin/sh\nsleep 60\n")
    script.chmod(0o755)
    with subprocess.Popen([script], start_new_session=True) as odd:
        process = read_process(odd.pid)
        assert end_family(odd.pid, time.monotonic() + 5)

    assert process is not None
    assert process.session == odd.pid


def test_nobody_is_none() -> None:
    """A process may end between two looks at it."""
    assert read_process(1 << 30) is None

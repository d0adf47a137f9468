"""One process of the consortium."""

from __future__ import annotations

import os
import queue
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.embedded.errors import PartDiedError
from appliance.embedded.part import Part

UP = "import pathlib, time; pathlib.Path('up').touch(); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + UP
# A child in a session of its own, whose parent has gone: no signal to a process group reaches it.
HIDING = """
import os, pathlib, time
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    pathlib.Path("hidden").write_text(str(os.getpid()))
    time.sleep(60)
while not pathlib.Path("hidden").exists():
    time.sleep(0.01)
pathlib.Path("up").touch()
time.sleep(60)
"""


def _wait(part: Part, folder: Path) -> None:
    part.wait_until((folder / "up").exists, timeout_s=20)


def _is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_stopped_part_leaves_no_process(start, tmp_path) -> None:
    """Also none that hides in a session of its own."""
    part = start(HIDING)
    _wait(part, tmp_path)
    part.stop()

    assert not _is_running(int((tmp_path / "hidden").read_text()))
    assert part.processes() == []


def test_a_part_that_ignores_the_signal_is_ended(start, tmp_path, monkeypatch) -> None:
    """A hanging part must not keep the demo from ending."""
    monkeypatch.setattr("appliance.embedded.part.GRACE_S", 0.2)
    part = start(STUBBORN)
    _wait(part, tmp_path)
    part.stop()

    assert not part.is_running


def test_what_a_dying_part_left_behind_is_ended_too(start, tmp_path) -> None:
    """The program itself is gone; its children must go with it."""
    part = start(HIDING.replace('pathlib.Path("up").touch()\ntime.sleep(60)', 'pathlib.Path("up").touch()'))
    with pytest.raises(PartDiedError):
        part.wait_until(lambda: False, timeout_s=20)

    assert not _is_running(int((tmp_path / "hidden").read_text()))


def test_a_death_is_explained_by_the_end_of_the_log(start) -> None:
    """Whoever started the demo reads why, not only that."""
    part = start("import sys; print('disk on fire'); sys.exit(3)")

    with pytest.raises(PartDiedError, match=r"north ended with status 3.*\n.*disk on fire"):
        part.wait_until(lambda: False, timeout_s=20)


def test_a_death_by_signal_is_named(start) -> None:
    """SIGKILL out of nowhere means that memory ran out."""
    part = start("import os; os.kill(os.getpid(), 9)")

    with pytest.raises(PartDiedError, match="was ended by SIGKILL"):
        part.wait_until(lambda: False, timeout_s=20)


def test_an_old_death_is_not_told_again(start, tmp_path) -> None:
    """The log is added to; what an earlier run said explains nothing now."""
    (tmp_path / "log").mkdir()
    (tmp_path / "log/north.log").write_text("an old story\n")
    part = start("import sys; sys.exit(1)")

    with pytest.raises(PartDiedError) as caught:
        part.wait_until(lambda: False, timeout_s=20)
    assert "an old story" not in caught.value.message


def test_a_part_that_does_not_come_up_is_named(start) -> None:
    """Waiting for ever tells nobody anything."""
    part = start("import time; time.sleep(60)")

    with pytest.raises(PartDiedError, match="north is not up after"):
        part.wait_until(lambda: False, timeout_s=0.1)


def test_an_unexpected_death_is_reported_at_once(start, tmp_path) -> None:
    """Nobody asks all the time whether all parts live."""
    deaths: queue.SimpleQueue[PartDiedError] = queue.SimpleQueue()
    part = start(UP, on_death=deaths.put)
    _wait(part, tmp_path)
    os.kill(part.processes()[0], signal.SIGSEGV)

    assert "was ended by SIGSEGV" in deaths.get(timeout=20).message
    with pytest.raises(PartDiedError):
        part.require_alive()


def test_an_ordered_end_is_no_death(start, tmp_path) -> None:
    """Stopping the demo must not print five errors."""
    deaths: queue.SimpleQueue[PartDiedError] = queue.SimpleQueue()
    part = start(UP, on_death=deaths.put)
    _wait(part, tmp_path)
    part.kill()
    part.require_alive()

    assert deaths.empty()


def test_a_part_can_be_started_again(start, tmp_path) -> None:
    """Tests of crashes live from that."""
    part = start(UP)
    _wait(part, tmp_path)
    part.kill()
    (tmp_path / "up").unlink()
    part.start()
    _wait(part, tmp_path)

    assert part.is_running


def test_a_program_that_is_not_there_is_named(start, tmp_path) -> None:
    """The name of what is missing is the whole remedy."""
    part = Part("south", ["/nonexistent/fedward"], log=tmp_path / "south.log", environment={}, folder=tmp_path)
    part.start()

    with pytest.raises(PartDiedError, match="No such file or directory"):
        part.wait_until(lambda: False, timeout_s=20)


def test_parts_end_when_whoever_started_them_is_killed(tmp_path) -> None:
    """SIGKILL leaves no time to tidy up; nothing may run on unseen."""
    text = f"""
import os, sys, time
from pathlib import Path
from appliance.embedded.part import Part
part = Part("north", [sys.executable, "-c", {UP!r}], log=Path("north.log"), environment={{}}, folder=Path())
part.start()
part.wait_until(Path("up").exists, timeout_s=20)
print(part.processes()[0], flush=True)
time.sleep(60)
"""
    environment = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(sys.path)}
    starter = subprocess.Popen([sys.executable, "-c", text], cwd=tmp_path, stdout=subprocess.PIPE, env=environment)
    with starter:
        ended = os.pidfd_open(int(starter.stdout.readline()))
        starter.kill()

        assert select.select([ended], [], [], 20)[0]
    os.close(ended)

"""Whatever ends a child ends all of it, and leaves nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from appliance.protocol.errors import Code
from appliance.protocol.local.frames import connect
from appliance.protocol.local.jobs import Limits, SandboxLevel, TrainJob
from appliance.protocol.local.runner_client import RunnerError
from tests.runners import PLAN, Runner, plan_with, running, zeros

DYING_S = 20
SLEEPS = plan_with("self.steps = getattr(self, 'steps', 0) + 1\nif self.steps == 2: time.sleep(60)", "import time")


def hides(then: str) -> str:
    """A plan with a grandchild whose parent is gone, deaf to every signal that can be ignored."""
    return plan_with(_HIDES + then, "import os, signal, time")


_HIDES = """
if os.fork() == 0:
    if os.fork() == 0:
        for number in (1, 2, 3, 15):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(60)
    os._exit(0)
os.wait()
self.steps = getattr(self, "steps", 0) + 1
if self.steps == 2:
    """


@contextmanager
def at_work(runner: Runner, job: TrainJob) -> Iterator[list[RunnerError]]:
    """Another thread trains; the body begins at the first progress."""
    began, errors, fd = threading.Event(), [], zeros()

    def train() -> None:
        try:
            runner.client.train(job, fd, lambda _: began.set()).close()
        except RunnerError as error:
            errors.append(error)
        finally:
            began.set()

    thread = threading.Thread(target=train)
    thread.start()
    assert began.wait(30)
    yield errors
    thread.join(10)
    os.close(fd)
    assert not thread.is_alive()


def test_a_stop_ends_a_round_and_says_when(runner: Runner) -> None:
    """The hospital's record must say when the last process was seen dead."""
    job = runner.job(SLEEPS)
    with at_work(runner, job) as errors:
        before = time.time()
        ended = runner.client.stop(job.experiment_id)

    assert ended.was_running
    assert ended.ended_at is not None
    assert before <= ended.ended_at <= time.time()
    assert [error.code for error in errors] == [Code.ROUND_STOPPED]


def test_a_stop_reaches_a_grandchild_whose_parent_is_gone(runner: Runner) -> None:
    """Forking twice is the oldest way to outlive a stop."""
    job = runner.job(hides("time.sleep(60)"), limits=Limits(seconds=30.0, processes=8))
    already = {process.pid for process in runner.children()}
    with at_work(runner, job):
        mine = [process for process in runner.children() if process.pid not in already]
        runner.client.stop(job.experiment_id)

        assert len(mine) >= 2
        assert not any(process.is_running() for process in mine)


def test_a_stop_of_what_does_not_run_says_so(runner: Runner) -> None:
    """A stop that comes twice is no error."""
    ended = runner.client.stop("never-seen")

    assert (ended.was_running, ended.ended_at) == (False, None)


def test_a_warm_child_ends_with_its_experiment(runner: Runner) -> None:
    """Revocation must not leave a process that still holds the data."""
    runner.train(experiment="revoked").close()

    assert runner.client.stop("revoked").was_running
    assert not runner.client.stop("revoked").was_running


def test_a_child_dies_with_the_connection_of_its_warden(runner: Runner) -> None:
    """A warden that was killed cannot say stop."""
    already = {process.pid for process in runner.children()}
    fd = zeros()
    with connect(runner.folder / "runner.sock") as channel:
        channel.send(runner.job(SLEEPS), [fd])
        assert channel.receive(30) is not None  # the first progress
        mine = [process for process in runner.children() if process.pid not in already]
    os.close(fd)

    assert mine
    _, alive = psutil.wait_procs(mine, timeout=10)
    assert not alive


def test_scratch_is_wiped_with_its_child(runner: Runner) -> None:
    """What a plan wrote down may be a record."""
    runner.train(plan_with('open("notes", "w").write("patient 17")'), experiment="notes").close()
    assert list((runner.folder / "scratch").rglob("notes"))
    runner.client.stop("notes")

    assert not list((runner.folder / "scratch").rglob("notes"))


def test_a_second_round_at_the_same_time_is_refused(runner: Runner) -> None:
    """One child computes one round: two would share a model."""
    job = runner.job(SLEEPS)
    with at_work(runner, job):
        error = runner.failure(SLEEPS, experiment=job.experiment_id)
        runner.client.stop(job.experiment_id)

    assert error.code is Code.ROUND_REFUSED


def test_an_idle_child_does_not_run(runner: Runner) -> None:
    """A thread that a plan left behind has no business between two rounds."""
    already = {process.pid for process in runner.children()}
    spins = "threading.Thread(target=lambda: sum(0 for _ in iter(int, 1)), daemon=True).start()"
    runner.train(plan_with(spins, "import threading"), experiment="spins").close()
    (mine,) = [process for process in runner.children() if process.pid not in already]

    deadline = time.monotonic() + 10
    while mine.status() != psutil.STATUS_STOPPED and time.monotonic() < deadline:
        os.sched_yield()

    assert mine.status() == psutil.STATUS_STOPPED
    runner.client.stop("spins")


def test_the_oldest_idle_child_makes_room(tmp_path: Path) -> None:
    """A node with many experiments must not fill its memory with sleepers."""
    with running(tmp_path, "--max-children", "1") as runner:
        runner.train(experiment="first").close()
        runner.train(experiment="second").close()

        assert not runner.client.stop("first").was_running


def test_an_idle_child_is_ended_after_its_time(tmp_path: Path) -> None:
    """Its memory holds the data; nobody may need it again."""
    with running(tmp_path, "--idle-s", "0.1") as runner:
        runner.train(experiment="forgotten").close()
        _, alive = psutil.wait_procs(runner.children(), timeout=10)

        assert not alive


def test_nothing_is_left_when_the_runner_ends(tmp_path: Path) -> None:
    """The embedded mode leaves no process and no file outside its folder."""
    with running(tmp_path) as runner:
        runner.train(experiment="leftover").close()
        everyone = runner.family.children(recursive=True)

    assert not any(process.is_running() for process in everyone)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "scratch"]
    assert not list((tmp_path / "scratch").iterdir())


def test_children_die_with_a_runner_that_is_killed(tmp_path: Path) -> None:
    """A crash of the supervisor must not leave foreign code running without one."""
    with running(tmp_path) as runner:
        runner.train(experiment="orphan").close()
        everyone = runner.family.children(recursive=True)
        runner.process.kill()

        assert survivors(everyone) == []


def test_a_child_dies_with_its_runner_though_nobody_is_left_to_end_it(tmp_path: Path) -> None:
    """The nursery would, and may hang or be killed at once with the supervisor."""
    with running(tmp_path) as runner:
        runner.train(experiment="orphan").close()
        children = runner.children()
        (nursery,) = {*runner.family.children()} - {*children}
        nursery.suspend()
        runner.process.kill()
        left = survivors(children)
        nursery.kill()

    assert left == []


def is_alive(process: psutil.Process) -> bool:
    """Not so when only a wait for it is missing: some machines' first process takes its time."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def survivors(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Who is alive still after time enough to die."""
    deadline = time.monotonic() + DYING_S
    while (alive := [*filter(is_alive, processes)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return alive


@contextmanager
def hiding(tmp_path: Path) -> Iterator[tuple[Runner, list[psutil.Process]]]:
    """A runner, and a plan's processes that no parent's death would end."""
    with running(tmp_path) as runner, connect(tmp_path / "runner.sock") as channel:
        fd = zeros()
        channel.send(runner.job(hides("time.sleep(60)"), limits=Limits(seconds=30.0, processes=8)), [fd])
        os.close(fd)
        assert channel.receive(30) is not None  # the first progress
        hidden = runner.children()
        assert len(hidden) >= 2
        yield runner, hidden


def test_what_a_child_hid_ends_with_it_though_it_ended_by_itself(runner: Runner) -> None:
    """Its orphans are nobody's descendants any more: only their session tells whose they are."""
    before = {*runner.children()}
    error = runner.failure(hides("os._exit(1)"), limits=Limits(seconds=30.0, processes=8))

    assert error.code is Code.TRAINING_FAILED
    assert not {*runner.children()} - before


def test_a_plans_processes_die_with_a_runner_that_is_killed(tmp_path: Path) -> None:
    """They have other parents than the supervisor: only the nursery is left to know of them."""
    with hiding(tmp_path) as (runner, hidden):
        runner.process.kill()

        assert survivors(hidden) == []


def test_a_new_runner_ends_what_a_killed_one_left(tmp_path: Path) -> None:
    """Supervisor and nursery may both be killed: then nobody is left, until the next start."""
    with hiding(tmp_path) as (runner, hidden):
        (nursery,) = {process.pid for process in runner.family.children()} - {process.pid for process in hidden}
        for pid in (nursery, runner.process.pid):
            os.kill(pid, signal.SIGKILL)
        runner.process.wait(10)
        assert any(map(is_alive, hidden))

    (tmp_path / "runner.sock").unlink()
    with running(tmp_path):
        assert survivors(hidden) == []
        assert list((tmp_path / "scratch").iterdir()) == []


def test_a_killed_nursery_is_replaced(runner: Runner) -> None:
    """Whatever the memory killer chooses, the next round must find a runner."""
    nursery = {process.pid for process in runner.family.children()} - {process.pid for process in runner.children()}
    psutil.Process(nursery.pop()).kill()

    with runner.train() as result:
        assert result.reply.sample_count > 0


def test_a_second_runner_on_one_socket_is_refused(runner: Runner) -> None:
    """Two supervisors would wipe each other's scratch."""
    runner.train(experiment="first-come").close()
    second = subprocess.run(runner.process.args, capture_output=True, text=True, check=False)

    assert second.returncode == 1
    assert "another process listens" in second.stderr
    assert runner.client.stop("first-come").was_running


def test_a_lacking_defence_refuses_the_job(tmp_path: Path) -> None:
    """Policy may demand what this machine cannot give: then nothing foreign runs."""
    with running(tmp_path, "--require-landlock", "99") as runner:
        error = runner.failure(PLAN)

    assert error.code is Code.SANDBOX_INCOMPLETE
    assert "landlock" in error.message


def test_a_job_that_asks_for_more_than_there_is_is_refused(runner: Runner) -> None:
    """The warden's policy travels with each job; no process is made for it."""
    before = len(runner.children())
    error = runner.failure(PLAN, sandbox=SandboxLevel(landlock=99))
    look = runner.inspection("fingerprint").model_copy(update={"sandbox": SandboxLevel(landlock=99)})
    with pytest.raises(RunnerError) as refusal:
        runner.client.inspect(look)

    assert error.code is refusal.value.code is Code.SANDBOX_INCOMPLETE
    assert len(runner.children()) == before


def test_a_runner_ends_with_the_process_named_as_its_parent(tmp_path: Path) -> None:
    """The demo may be killed; its runners must not stay."""
    with psutil.Popen(["sleep", "60"]) as parent, running(tmp_path, "--parent-pid", str(parent.pid)) as runner:
        parent.kill()

        assert runner.process.wait(15) == 0


def test_a_malformed_request_is_answered_and_harms_nobody(runner: Runner) -> None:
    """A warden of another version must learn what was wrong."""
    with connect(runner.folder / "runner.sock") as channel:
        channel.send({"kind": "train", "job_id": "half"})
        frame = channel.receive(10)

    assert frame is not None
    assert frame.data["code"] == Code.MESSAGE_MALFORMED
    runner.client.hello()


def test_garbage_ends_only_its_own_connection(runner: Runner) -> None:
    """The socket is open to other processes of the node."""
    with connect(runner.folder / "runner.sock") as channel:
        os.write(channel.fileno(), b"\xff" * 100)

        assert channel.receive(10) is None
    runner.client.hello()

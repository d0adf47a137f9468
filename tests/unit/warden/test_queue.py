"""The queue: the store's table, with workers that outlive whatever a round does."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.local.jobs import Ended
from appliance.protocol.messages import ErrorReply, Scalar, TrainReply
from appliance.protocol.rounds import FINAL_STEPS, RoundStep
from appliance.transport.sqlite import Statement
from appliance.warden import queue as queue_module
from appliance.warden.queue import RoundQueue
from appliance.warden.store import pauses, rounds
from tests.conftest import Members
from tests.unit.warden.conftest import WAIT_S, Node, await_stop


class Steps:
    """Hears of each finished step, and lets a test wait for one."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, RoundStep]] = []
        self._changed = threading.Condition()

    def __call__(self, jti: str, step: RoundStep) -> None:
        """A worker tells of a step."""
        with self._changed:
            self.heard.append((jti, step))
            self._changed.notify_all()

    def wait_for_ends(self, count: int) -> None:
        """Wait until so many rounds have ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.ended()) >= count, WAIT_S), self.heard

    def ended(self) -> list[str]:
        """The rounds that have ended, in order."""
        return [jti for jti, step in self.heard if step in FINAL_STEPS]


@pytest.fixture
def steps() -> Steps:
    """What the workers tell."""
    return Steps()


@pytest.fixture
def busy(tmp_path: Path, members: Members, steps: Steps) -> Any:
    """A node whose workers tell what they do."""
    node = Node(tmp_path, members, steps)
    yield node
    node.close()


def finish(node: Node) -> None:
    """Wait until no worker holds a round any more."""
    assert node.queue._have_ended([row["jti"] for row in node.table(rounds)], WAIT_S)


def test_rounds_are_worked_on_in_the_order_in_which_they_were_accepted(busy: Node, steps: Steps) -> None:
    """First come, first served."""
    jtis = [busy.accepted(experiment_id=f"e-{n}") for n in range(4)]
    busy.queue.start()
    steps.wait_for_ends(4)
    assert steps.ended() == jtis


@pytest.mark.parametrize("statement", [queue_module._WAITING, queue_module._PAUSED])
def test_rounds_that_wait_are_found_without_those_that_have_ended(node: Node, statement: Statement) -> None:
    """However many there are: an index holds no others."""
    with node.store.read() as connection:
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement._sql}", statement._fixed | {"now": 0.0})
        looked_at = [step for *_, step in plan if " rounds " in step]

    assert looked_at
    assert all("INDEX rounds_open" in step for step in looked_at)


def test_a_round_accepted_later_wakes_a_worker(busy: Node, steps: Steps) -> None:
    """Nobody looks by the clock."""
    busy.queue.start()
    jti = busy.accepted()
    steps.wait_for_ends(1)
    assert steps.ended() == [jti]


def test_what_the_store_holds_unfinished_is_gone_on_with_at_the_start(
    tmp_path: Path, members: Members, busy: Node, steps: Steps
) -> None:
    """The queue is a table; a restart loses nothing of it."""
    jti = busy.accepted()
    busy.queue.close()
    queue = RoundQueue(busy.services, 1, steps)
    queue.start()
    steps.wait_for_ends(1)
    queue.close()
    assert steps.ended() == [jti]


def test_two_rounds_of_one_experiment_never_run_at_once(busy: Node, steps: Steps) -> None:
    """They share one process and one state."""
    queue = RoundQueue(busy.services, 4, steps)
    at_once, most = [0], [0]
    lock = threading.Lock()
    real = busy.runner.train

    def train(*args: Any, **options: Any) -> Any:
        with lock:
            at_once[0] += 1
            most[0] = max(most[0], at_once[0])
        try:
            return real(*args, **options)
        finally:
            with lock:
                at_once[0] -= 1

    busy.runner.train = train  # type: ignore[method-assign]
    for number in range(1, 6):
        busy.accepted(round=number)
    queue.start()
    steps.wait_for_ends(5)
    queue.close()
    assert most == [1]


def test_no_round_begins_while_its_experiment_is_being_ended(busy: Node, steps: Steps) -> None:
    """Its process would be taken for the old one's, and end with it."""
    busy.runner.blocks = True
    busy.queue.start()
    old = busy.accepted()
    assert busy.runner.is_training.wait(WAIT_S)
    with busy.store.write() as connection:
        busy.queue.mark_stopped(connection, "e-1", "alice")
    busy.accepted(round=2)
    real, begun = busy.runner.stop, []

    def stop(experiment_id: str) -> Ended:
        ended = real(experiment_id)
        assert busy.queue._have_ended([old], WAIT_S)
        with busy.queue._changed:
            begun.append((busy.queue.running, busy.queue._take()))
        busy.runner.blocks = False
        return ended

    busy.runner.stop = stop  # type: ignore[method-assign]
    busy.queue.end("e-1")

    assert begun == [(0, None)]
    steps.wait_for_ends(2)


def test_rounds_of_different_experiments_run_at_once_if_the_site_allows_it(busy: Node) -> None:
    """A long round need not hold up the others."""
    meeting = threading.Barrier(2, timeout=WAIT_S)
    real = busy.runner.train

    def train(*args: Any, **options: Any) -> Any:
        meeting.wait()
        return real(*args, **options)

    busy.runner.train = train  # type: ignore[method-assign]
    for number in range(2):
        busy.accepted(experiment_id=f"e-{number}")
    steps = Steps()
    queue = RoundQueue(busy.services, 2, steps)
    queue.start()
    steps.wait_for_ends(2)
    queue.close()
    assert len(busy.received("alice", TrainReply)) == 2


def test_a_worker_outlives_a_queue_that_cannot_be_read(
    busy: Node, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk's hiccup must not end all work at this node until somebody restarts it."""
    monkeypatch.setattr(queue_module, "RETRY_S", 0.01)
    real, faults = busy.queue._take, [OSError("disk"), OSError("disk")]

    def take() -> Any:
        if faults:
            raise faults.pop()
        return real()

    monkeypatch.setattr(busy.queue, "_take", take)
    jti = busy.accepted()
    busy.queue.start()
    steps.wait_for_ends(1)
    assert steps.ended() == [jti]


def test_a_worker_outlives_a_round_that_cannot_even_record_its_failure(
    busy: Node, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full, most likely: the round stays accepted and is tried again."""
    monkeypatch.setattr(queue_module, "RETRY_S", 0.01)
    real, faults = busy.services.egress.message, [OSError("disk"), FedWardError("full", code=Code.DISK_FULL)]

    def message(*args: Any) -> None:
        if faults:
            raise faults.pop()
        real(*args)

    jti = busy.accepted()
    monkeypatch.setattr(busy.services.egress, "message", message)
    busy.queue.start()
    steps.wait_for_ends(1)
    finish(busy)
    assert faults == []
    assert busy.row(jti)["step"] in FINAL_STEPS


def test_a_row_that_cannot_be_read_does_not_end_the_worker(
    busy: Node, steps: Steps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong with one round, the worker lives."""
    monkeypatch.setattr(queue_module, "RETRY_S", 0.01)
    jti = busy.accepted()
    good = busy.row(jti)["request"]
    with busy.store.write() as connection:
        connection.execute(rounds.update().values(request="{}"))
    failed = threading.Event()
    monkeypatch.setattr(queue_module._log, "exception", lambda *_a, **_k: failed.set())
    busy.queue.start()
    assert failed.wait(WAIT_S)
    with busy.store.write() as connection:
        connection.execute(rounds.update().values(request=good))
    steps.wait_for_ends(1)
    assert steps.ended() == [jti]


def stop(node: Node, experiment: str = "e-1") -> float | None:
    """As desk and governance do it."""
    with node.store.write() as connection:
        node.queue.mark_stopped(connection, experiment, "the hospital's staff")
    return node.queue.end(experiment)


def test_end_returns_when_the_round_is_recorded_as_ended(busy: Node) -> None:
    """Whoever stopped it may then rely on it."""
    busy.runner.blocks = True
    jti = busy.accepted()
    busy.queue.start()
    assert busy.runner.is_training.wait(WAIT_S)
    assert busy.queue.running == 1
    assert stop(busy) is not None
    assert busy.row(jti)["step"] == RoundStep.STOPPED
    assert busy.queue.running == 0


def test_a_training_gives_way_to_a_later_round(busy: Node, steps: Steps) -> None:
    """It can count no more, and a slow node that trained it to its end would be a round behind for ever."""
    busy.runner.blocks = True
    first = busy.accepted()
    busy.queue.start()
    assert busy.runner.is_training.wait(WAIT_S)
    busy.runner.blocks = False
    second = busy.accepted(round=2)
    steps.wait_for_ends(2)

    assert [busy.row(jti)["step"] for jti in (first, second)] == [RoundStep.STOPPED, RoundStep.REPLIED]
    (told,) = busy.received("alice", ErrorReply)
    assert (told.code, told.round) == (Code.ROUND_SUPERSEDED, 1)
    assert "went on to round 2" in told.message
    assert [line["details"]["code"] for line in busy.audit() if line["event"] == "round.stopped"] == [
        Code.ROUND_SUPERSEDED
    ]


def test_a_round_that_waits_gives_way_to_a_later_one(busy: Node, steps: Steps) -> None:
    """Also one of a warden that went down in between: what was decided is in the store."""
    first, second = busy.accepted(), busy.accepted(round=2)
    other = busy.accepted(experiment_id="e-2")
    await_stop()
    busy.queue.start()
    steps.wait_for_ends(3)

    ended = {jti: busy.row(jti)["step"] for jti in (first, second, other)}
    assert ended == {first: RoundStep.STOPPED, second: RoundStep.REPLIED, other: RoundStep.REPLIED}
    assert [job.round for job in busy.runner.trained] == [2, 1]


@pytest.mark.parametrize(
    ("sender", "round_"), [("alice", 5), ("alice", 4), ("mallory", 6)], ids=["same", "earlier", "another's"]
)
def test_only_a_later_round_of_its_own_ends_a_round(busy: Node, sender: str, round_: int) -> None:
    """Neither the same one asked again, nor one that comes late, nor one that was refused."""
    jti = busy.accepted(round=5)
    busy.deliver(sender, busy.train(busy.row(jti)["dataset_id"], round=round_))

    assert (busy.row(jti)["stop_reason"], busy.row(jti)["superseded_by"]) == (None, None)


def test_a_training_that_reached_the_runner_behind_its_stop_ends_too(busy: Node) -> None:
    """The worker had looked just before; the runner knew nothing of it yet."""
    busy.runner.blocks = True
    jti = busy.accepted()
    on_its_way, told = threading.Event(), threading.Event()
    real_train, real_stop = busy.runner.train, busy.runner.stop

    def train(*args: Any, **options: Any) -> Any:
        on_its_way.set()
        assert told.wait(WAIT_S)
        return real_train(*args, **options)

    def stop_(experiment_id: str) -> Any:
        ended = real_stop(experiment_id)
        told.set()
        return ended

    busy.runner.train, busy.runner.stop = train, stop_  # type: ignore[method-assign]
    busy.queue.start()
    assert on_its_way.wait(WAIT_S)
    assert stop(busy) is not None
    assert busy.row(jti)["step"] == RoundStep.STOPPED
    assert len(busy.runner.stopped) >= 2


def test_a_stop_leaves_other_experiments_alone(busy: Node, steps: Steps) -> None:
    """They have other owners."""
    busy.accepted(experiment_id="e-1")
    other = busy.accepted(experiment_id="e-2")
    stop(busy, "e-1")
    busy.queue.start()
    steps.wait_for_ends(2)
    assert busy.row(other)["step"] == RoundStep.REPLIED


def test_a_stopped_round_that_waited_is_recorded_without_being_trained(busy: Node, steps: Steps) -> None:
    """Its researcher is told by whom."""
    busy.accepted()
    stop(busy)
    busy.queue.start()
    steps.wait_for_ends(1)
    finish(busy)
    assert busy.runner.trained == []
    assert busy.received("alice", ErrorReply)[0].code is Code.ROUND_STOPPED


def test_end_without_a_runner_claims_nothing(busy: Node) -> None:
    """Nobody saw a process die."""
    busy.runner.is_gone = True
    assert stop(busy) is None


def test_closing_ends_the_training_and_leaves_the_round_for_the_next_start(busy: Node) -> None:
    """No thread may write when the store is another warden's."""
    busy.runner.blocks = True
    jti = busy.accepted()
    busy.queue.start()
    assert busy.runner.is_training.wait(WAIT_S)
    busy.queue.close()
    assert busy.queue.running == 0
    assert busy.row(jti)["step"] == RoundStep.ACCEPTED
    assert busy.received("alice", ErrorReply) == []


def test_files_of_rounds_that_have_ended_are_thrown_away_at_the_start(busy: Node) -> None:
    """A crash between the record and the tidying leaves them; those of waiting rounds stay."""
    jti = busy.accepted()
    spool = busy.root / "spool"
    for name in (f"{jti}.parameters.part", f"{'0' * 32}.update", f"{'1' * 32}.parameters.part"):
        (spool / name).write_text("x")
    busy.queue._clear_spool()
    assert [file.name for file in spool.iterdir()] == [f"{jti}.parameters.part"]


# A pause


def pause(node: Node, experiment: str = "e-1") -> None:
    """As governance does it."""
    with node.store.write() as connection:
        node.queue.mark_paused(connection, experiment, "Dora")
    node.queue.tell_paused()


def resume(node: Node, experiment: str = "e-1") -> None:
    """As governance does it."""
    with node.store.write() as connection:
        assert node.queue.mark_resumed(connection, experiment)
    node.queue.notify()


def test_no_round_of_a_paused_experiment_begins_and_others_go_on(busy: Node, steps: Steps) -> None:
    """It waits at the head of the queue and is in nobody's way."""
    held = busy.accepted(experiment_id="e-1")
    pause(busy)
    other = busy.accepted(experiment_id="e-2")
    busy.queue.start()
    steps.wait_for_ends(1)

    assert steps.ended() == [other]
    assert busy.row(held)["step"] == RoundStep.ACCEPTED
    assert [job.experiment_id for job in busy.runner.trained] == ["e-2"]


def test_a_resumed_experiment_goes_on_with_what_waited(busy: Node, steps: Steps) -> None:
    """Nothing that was accepted is lost."""
    pause(busy)
    held = busy.accepted()
    busy.queue.start()
    resume(busy)
    steps.wait_for_ends(1)

    assert steps.ended() == [held]
    assert busy.row(held)["step"] == RoundStep.REPLIED


def test_a_round_that_trains_when_its_experiment_is_paused_goes_on_to_its_end(busy: Node, steps: Steps) -> None:
    """What has been computed is not thrown away; the next one waits."""
    training, told = threading.Event(), threading.Event()
    real = busy.runner.train

    def train(*args: Any, **options: Any) -> Any:
        training.set()
        assert told.wait(WAIT_S)
        return real(*args, **options)

    busy.runner.train = train  # type: ignore[method-assign]
    first = busy.accepted()
    busy.queue.start()
    assert training.wait(WAIT_S)
    pause(busy)
    live = busy.queue.live_of("e-1")
    told.set()
    steps.wait_for_ends(1)
    second = busy.accepted(round=2)
    finish(busy)

    assert live is not None
    assert live[0]["round"] == 1
    assert (busy.row(first)["step"], busy.row(second)["step"]) == (RoundStep.REPLIED, RoundStep.ACCEPTED)
    assert len(busy.runner.trained) == 1


def test_an_update_that_is_ready_leaves_although_its_experiment_is_paused(busy: Node, steps: Steps) -> None:
    """A restart between its check and its answer is still the same round."""
    jti = busy.accepted()
    real, faults = busy.rest.on_upload, [True]

    def break_once() -> None:
        if faults:
            faults.pop()
            raise FedWardError("no line", code=Code.NETWORK_UNREACHABLE)
        real()

    busy.rest.on_upload = break_once
    with pytest.raises(FedWardError, match="no line"):
        busy.round(jti).run()
    assert busy.row(jti)["step"] == RoundStep.CHECKED
    pause(busy)
    busy.queue.start()
    steps.wait_for_ends(1)

    assert busy.row(jti)["step"] == RoundStep.REPLIED
    assert len(busy.runner.trained) == 1


def test_a_pause_and_what_it_holds_outlive_a_restart(
    tmp_path: Path, members: Members, busy: Node, steps: Steps
) -> None:
    """It is the hospital's word, not a process's memory."""
    held = busy.accepted()
    pause(busy)
    busy.queue.close()
    queue = RoundQueue(busy.services, 1, steps)
    queue.start()
    other = busy.accepted(experiment_id="e-2")
    queue.notify()
    steps.wait_for_ends(1)
    queue.close()

    assert steps.ended() == [other]
    assert busy.row(held)["step"] == RoundStep.ACCEPTED


def test_a_held_round_can_be_stopped(busy: Node, steps: Steps) -> None:
    """Who pauses may want to end it; the pause stays."""
    held = busy.accepted()
    pause(busy)
    busy.queue.start()
    stop(busy)
    steps.wait_for_ends(1)
    finish(busy)

    assert busy.row(held)["step"] == RoundStep.STOPPED
    assert busy.received("alice", ErrorReply)[0].code is Code.ROUND_STOPPED
    assert busy.runner.trained == []
    assert [row["staff"] for row in busy.table(pauses)] == ["Dora"]


def test_a_held_round_ends_at_its_own_date_and_says_why(busy: Node, steps: Steps) -> None:
    """A researcher's deadline is not the hospital's to lengthen, and silence would be no answer."""
    held = busy.accepted()
    pause(busy)
    busy.queue.start()
    with busy.store.write() as connection:
        connection.execute(rounds.update().values(expires_at=time.time() - 1))
    busy.queue.tell_paused()  # as each heartbeat does
    steps.wait_for_ends(1)
    finish(busy)

    (error,) = busy.received("alice", ErrorReply)
    assert busy.row(held)["step"] == RoundStep.FAILED
    assert (error.code, error.round) == (Code.ROUND_TIMEOUT, 1)
    assert "while it waited for the hospital to resume the experiment, which it had paused" in error.message
    assert busy.runner.trained == []


def test_a_researcher_is_told_that_the_hospital_paused_the_round_and_not_who(busy: Node) -> None:
    """At once, and again with each heartbeat, for a word may be lost."""
    busy.accepted()
    pause(busy)
    busy.queue.tell_paused()

    told = busy.received("alice", Scalar)
    since = int(busy.table(pauses)[0]["since"])
    assert [(t.experiment_id, t.round, t.iteration, t.values, t.paused_since) for t in told] == [
        ("e-1", 1, 0, {}, since)
    ] * 2
    assert "Dora" not in "".join(text for _, text in busy.sent)


def test_a_request_that_comes_during_a_pause_is_answered_with_it(busy: Node) -> None:
    """The researcher who asks need not wonder."""
    pause(busy)
    jti = busy.accepted()

    assert busy.receipts("alice") == [jti]
    assert [told.paused_since is not None for told in busy.received("alice", Scalar)] == [True]


def test_nobody_is_told_of_a_pause_while_his_round_runs(busy: Node) -> None:
    """It is not held."""
    busy.runner.blocks = True
    busy.accepted()
    busy.queue.start()
    assert busy.runner.is_training.wait(WAIT_S)
    pause(busy)

    assert busy.received("alice", Scalar) == []
    stop(busy)

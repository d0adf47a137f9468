"""The supervisor: hands each experiment's jobs to its confined child, and ends it when it must.

It runs no foreign code and parses nothing of a child but small messages, has one thread, and never waits for a peer: a
child or a client that does not read or answer costs only itself. It waits only for processes that it kills.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

import structlog

from appliance.protocol.errors import Code, FedWardError, MessageRefusedError, takes_no_more
from appliance.protocol.local.frames import Frame, close_all, listen
from appliance.protocol.local.jobs import (
    Ended,
    Failed,
    Hello,
    HelloReply,
    Inspected,
    InspectJob,
    Progress,
    RoundTiming,
    SandboxLevel,
    StopExperiment,
    Trained,
    TrainJob,
    parse_request,
)
from appliance.protocol.local.process import ProcessUse, process_use
from appliance.protocol.local.runner_client import EXPECTED_FILES
from appliance.protocol.local.sealed import UnsealedError, require_sealed
from appliance.runner.cgroup import ControlGroups
from appliance.runner.child import Child, Purpose
from appliance.runner.gpu import find_gpus
from appliance.runner.leftovers import end_leftovers
from appliance.runner.nursery import Nursery
from appliance.runner.processes import become_subreaper, family
from appliance.runner.sandbox import probe
from appliance.runner.scratch import make_scratch, wipe
from appliance.runner.stream import Stream
from appliance.runner.usage import shared_out_bytes
from appliance.runner.wire import Crashed, FromChild, failed_from, parse_from_child
from appliance.training import TrainingArguments

_log = structlog.get_logger(__name__)
_LOOK_S = 0.5  # how often what the kernel does not hold by itself is measured, while a child works and once behind it
_PROGRESS_BURST = 3  # progress messages that a child may send beyond one a second
_MAX_SAMPLES = 1 << 40

Reply = Trained | Inspected | Failed | Ended | HelloReply | Progress


@dataclass(eq=False)
class _Client:
    """A connection from the warden or another of the node's processes."""

    stream: Stream
    child: Child | None = None


@dataclass(eq=False)
class _Work:
    """A job in a child's hands."""

    job: TrainJob | InspectJob
    client: _Client
    is_warm: bool
    began: float
    handed_over: float  # to the child, after its start
    deadline: float
    progress_count: int = 0


@dataclass(eq=False)
class _Seat:
    """A child, with what it works on."""

    child: Child
    work: _Work | None = None
    idle_since: float = 0.0
    is_to_be_looked_at: bool = False


@dataclass(frozen=True)
class RunnerSettings:
    """How a supervisor runs.

    Attributes:
        socket_path: Where it listens.
        scratch: The folder for its children's folders; theirs are wiped, it stays.
        required: What must confine a child at least; without it every job is refused.
        own_uids: Users that children may become, one each; only root can.
        idle_s: How long a child without work is kept.
        max_children: How many children are kept at once.
        threads: For each child's arithmetic libraries.
        parent_pid: End when this process does.
        group_may_connect: Whether the socket's group may connect as well, for a warden that runs as another user; the
            group is that of a folder with the set-group-ID bit.
    """

    socket_path: Path
    scratch: Path
    required: SandboxLevel = field(default_factory=SandboxLevel)
    own_uids: range = range(0)
    idle_s: float = 600.0
    max_children: int = 8
    threads: int = 1
    parent_pid: int | None = None
    group_may_connect: bool = False


class Supervisor:
    """Serves jobs on a Unix socket until it is told to end."""

    def __init__(self, settings: RunnerSettings) -> None:
        self._settings = settings
        self._groups = ControlGroups.find()
        self._nursery = Nursery(settings.scratch, settings.threads)
        self._selector = selectors.DefaultSelector()
        self._clients: set[_Client] = set()
        self._seats: dict[str, _Seat] = {}
        self._made = 0
        self._look_at: float | None = None
        self._is_ending = False
        own_uid = bool(settings.own_uids) and os.geteuid() == 0
        self._level = probe(cgroup=self._groups.is_usable, own_uid=own_uid)
        self._gpus = find_gpus()

    def serve(self) -> None:
        """Serve until SIGTERM, SIGINT, or the end of the process named as parent; leaves nothing behind.

        Raises:
            FedWardError: The socket is taken, or the libraries do not load.
        """
        become_subreaper()
        mode = 0o660 if self._settings.group_may_connect else 0o600
        listener = listen(self._settings.socket_path, mode=mode)  # before the wiping: another supervisor may be at work
        listener.setblocking(False)
        try:
            self._settings.scratch.mkdir(mode=0o711, parents=True, exist_ok=True)  # children may have own users
            end_leftovers(self._settings.scratch)
            for left in self._settings.scratch.iterdir():
                wipe(left)
            self._watch_for_the_end()
            self._nursery.start()
            _log.info("the sandbox here", **self._level.model_dump())
            self._on_readable(listener.fileno(), lambda: self._accept(listener))
            while not self._is_ending:
                for key, events in self._selector.select(self._next_timer()):
                    # What an event before this one closed has nothing more to say.
                    watched = self._selector.get_map().get(key.fd)
                    if watched is not None and watched.data is key.data:
                        key.data(events)
                self._run_timers()
        finally:
            self._end_everything()
            listener.close()
            self._settings.socket_path.unlink(missing_ok=True)

    # Beginning and end

    def _watch_for_the_end(self) -> None:
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        self._wakeup = (reader, writer)
        signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)  # the byte in the pipe is what wakes us
        self._on_readable(reader.fileno(), self._end)
        if self._settings.parent_pid is not None:
            try:
                self._on_readable(os.pidfd_open(self._settings.parent_pid), self._end)
            except ProcessLookupError:
                self._end()

    def _end(self) -> None:
        self._is_ending = True

    def _end_everything(self) -> None:
        for seat in list(self._seats.values()):
            self._end_child(seat, Code.RUNNER_UNAVAILABLE, "The runner ends.")
        for client in list(self._clients):
            self._drop(client)
        self._nursery.stop()
        signal.set_wakeup_fd(-1)
        self._selector.close()

    # Timers

    def _next_timer(self) -> float | None:
        """Seconds until something is due; None when nothing is."""
        now = time.monotonic()
        due = [seat.work.deadline for seat in self._seats.values() if seat.work]
        due += [] if self._look_at is None else [self._look_at]
        due += [seat.idle_since + self._settings.idle_s for seat in self._seats.values() if not seat.work]
        return max(0.0, min(due) - now) if due else None

    def _run_timers(self) -> None:
        now = time.monotonic()
        for seat in list(self._seats.values()):
            if seat.work is None:
                if now >= seat.idle_since + self._settings.idle_s:
                    self._end_child(seat)
            elif now >= seat.work.deadline:
                limit = seat.work.job.limits.seconds
                self._end_child(seat, Code.ROUND_TIMEOUT, f"The round did not end within {limit:g} s.")
        if self._look_at is not None and now >= self._look_at:
            self._look()

    def _look(self) -> None:
        """Measure those who work, and once more those who did: what one took in its last moment it would hold on to."""
        for seat in [seat for seat in self._seats.values() if seat.is_to_be_looked_at]:
            seat.is_to_be_looked_at = seat.work is not None
            if exceeded := seat.child.exceeded():
                self._end_child(seat, Code.RUNNER_LIMIT, f"The training process passed its limit of {exceeded}.")
        is_on = any(seat.is_to_be_looked_at for seat in self._seats.values())
        self._look_at = time.monotonic() + _LOOK_S if is_on else None

    # Connections

    def _on_readable(self, fd: int, act: Callable[[], None]) -> None:
        self._selector.register(fd, selectors.EVENT_READ, lambda _: act())

    def _attend(self, stream: Stream, read: Callable[[], None], drop: Callable[[], object]) -> None:
        """Watch a stream: read what comes, and go on writing when the peer takes more."""

        def act(events: int) -> None:
            if events & selectors.EVENT_WRITE:
                try:
                    if stream.flush():
                        self._selector.modify(stream, selectors.EVENT_READ, act)
                except OSError:
                    drop()
                    return
            if events & selectors.EVENT_READ:
                read()

        self._selector.register(stream, selectors.EVENT_READ, act)

    def _send(self, stream: Stream, message: Reply | TrainJob | InspectJob, fds: tuple[int, ...] = ()) -> None:
        """Send without waiting. A peer that is gone is noticed when its stream is read."""
        with suppress(OSError):
            stream.send(message, fds)
            if stream.waiting_bytes:
                key = self._selector.get_key(stream)
                self._selector.modify(stream, selectors.EVENT_READ | selectors.EVENT_WRITE, key.data)

    def _accept(self, listener: socket.socket) -> None:
        with suppress(BlockingIOError):
            sock, _ = listener.accept()
            client = _Client(Stream(sock))
            self._clients.add(client)
            self._attend(client.stream, lambda: self._read_client(client), lambda: self._drop(client))

    def _read_client(self, client: _Client) -> None:
        try:
            for frame in client.stream.read():
                if not self._take_request(client, frame):
                    return
        except (EOFError, MessageRefusedError):
            self._drop(client)

    def _take_request(self, client: _Client, frame: Frame) -> bool:
        """Act on a request; False when its connection is gone."""
        try:
            request = parse_request(frame.payload)
            if isinstance(request, TrainJob | InspectJob):
                self._begin(client, request, frame.fds)
                return client in self._clients
            self._send(client.stream, self._answer(request))
        except MessageRefusedError as error:
            self._send(client.stream, Failed(code=error.code, message=error.message))
        frame.close()
        return client in self._clients

    def _answer(self, request: Hello | StopExperiment) -> HelloReply | Ended | Failed:
        if isinstance(request, Hello):
            return HelloReply(pid=os.getpid(), sandbox=self._level, gpus=self._gpus, processes=tuple(self._processes()))
        seat = self._seats.get(request.experiment_id)
        ended_at = None if seat is None else self._end_child(seat, Code.ROUND_STOPPED, "The round was stopped.")
        if seat is not None and ended_at is None:
            return Failed(code=Code.INTERNAL, message=f"A process of '{request.experiment_id}' does not die.")
        return Ended(experiment_id=request.experiment_id, was_running=seat is not None, ended_at=ended_at)

    def _processes(self) -> Iterator[ProcessUse]:
        yield process_use("runner")
        for name, seat in self._seats.items():
            taken = sum(shared_out_bytes(member.pid) for member in family(seat.child.pid))
            yield process_use(name, seat.child.pid).model_copy(update={"memory_bytes": taken})

    def _drop(self, client: _Client) -> None:
        """Forget a connection, and end what worked for it."""
        if client not in self._clients:
            return
        self._clients.discard(client)
        self._selector.unregister(client.stream)
        client.stream.close()
        if (seat := self._seat_of(client)) is not None:
            self._end_child(seat)

    # Jobs

    def _begin(self, client: _Client, job: TrainJob | InspectJob, fds: tuple[int, ...]) -> None:
        began = time.monotonic()
        try:
            self._require_idle(client)
            self._require_confinement(job.sandbox)
            if isinstance(job, TrainJob):
                TrainingArguments.parse(job.training_args)  # here, where the words of its error can be believed
            _require_parameters(job, fds)
            purpose = _purpose(job)
            seat, is_warm = self._seat_for(job, purpose)
        except (FedWardError, OSError) as error:
            close_all(fds)
            self._send(client.stream, _refusal(job, error))
            return
        now = time.monotonic()
        seat.work = _Work(job, client, is_warm, began, now, began + job.limits.seconds)
        seat.is_to_be_looked_at = True
        if self._look_at is None:
            self._look_at = now + _LOOK_S
        if is_warm:
            seat.child.thaw()
        self._send(seat.child.stream, job.model_copy(update={"dataset": purpose.dataset}), fds)

    def _require_idle(self, client: _Client) -> None:
        if self._seat_of(client) is not None:
            raise FedWardError("This connection has a job already.", code=Code.ROUND_REFUSED)

    def _seat_of(self, client: _Client) -> _Seat | None:
        return next((seat for seat in self._seats.values() if seat.work and seat.work.client is client), None)

    def _require_confinement(self, required: SandboxLevel) -> None:
        if lacking := {*self._level.lacks(required), *self._level.lacks(self._settings.required)}:
            message = f"This machine does not confine training as required: it lacks {', '.join(sorted(lacking))}."
            _log.error("job refused", reason=message, remedy="fedward doctor says what to do")
            raise FedWardError(message, code=Code.SANDBOX_INCOMPLETE)

    def _seat_for(self, job: TrainJob | InspectJob, purpose: Purpose) -> tuple[_Seat, bool]:
        """The child for a job, and whether it did one of this kind before."""
        name = job.experiment_id if isinstance(job, TrainJob) else f"{job.job_id}.inspect"
        seat = self._seats.get(name)
        if seat is not None and seat.work is not None:
            raise FedWardError("This experiment trains a round here already.", code=Code.ROUND_REFUSED)
        if seat is not None and seat.child.purpose == purpose:
            return seat, True
        if seat is not None:
            self._end_child(seat)
        self._make_room()
        return self._make_child(name, purpose), False

    def _make_room(self) -> None:
        if len(self._seats) < self._settings.max_children:
            return
        idle = [seat for seat in self._seats.values() if seat.work is None]
        if not idle:
            message = f"All {self._settings.max_children} training processes of this node are at work."
            raise FedWardError(message, code=Code.RUNNER_UNAVAILABLE)
        self._end_child(min(idle, key=lambda seat: seat.idle_since))

    def _make_child(self, name: str, purpose: Purpose) -> _Seat:
        self._made += 1
        uid = self._free_uid()
        scratch = make_scratch(self._settings.scratch, str(self._made), uid)
        try:
            child = Child(
                name, purpose, self._nursery, scratch=scratch, uid=uid, level=self._level,
                group=self._groups.make(str(self._made)) if self._level.cgroup else None,
                threads=self._settings.threads,
            )  # fmt: skip
        except BaseException:
            wipe(scratch)
            raise
        seat = self._seats[name] = _Seat(child)
        self._attend(child.stream, lambda: self._read_child(seat), lambda: self._end_child(seat))
        self._on_readable(child.pidfd, lambda: self._child_died(seat))
        self._on_readable(child.record.fd, lambda: self._read_record(child))
        return seat

    def _free_uid(self) -> int | None:
        if not self._level.own_uid:
            return None
        taken = {seat.child.uid for seat in self._seats.values()}
        free = next((uid for uid in self._settings.own_uids if uid not in taken), None)
        if free is None:
            raise FedWardError("No user is left for another training process.", code=Code.RUNNER_UNAVAILABLE)
        return free

    # What children say

    def _read_record(self, child: Child) -> None:
        if not child.record.read():
            self._selector.unregister(child.record.fd)

    def _read_child(self, seat: _Seat) -> None:
        try:
            for frame in seat.child.stream.read():
                self._take_message(seat, frame)
                if not self._is_seated(seat):
                    return
        except EOFError:
            self._end_child(seat)  # without its channel it is of no use, whether it has died or not
        except MessageRefusedError:
            self._end_child(seat, Code.TRAINING_FAILED, "The training process broke the rules of its channel.")

    def _take_message(self, seat: _Seat, frame: Frame) -> None:
        """Act on a child's message; raises MessageRefusedError when no honest child sends it."""
        passed_on = False
        try:
            message, work = parse_from_child(frame.payload), seat.work
            if work is not None and message.job_id == work.job.job_id:
                passed_on = self._act(seat, work, message, frame.fds)
            else:
                _break_rules()
        finally:
            if not passed_on:
                frame.close()

    def _act(self, seat: _Seat, work: _Work, message: FromChild, fds: tuple[int, ...]) -> bool:
        """Act on an answer; True when its descriptors are on their way to the client."""
        match message:
            case Progress():
                self._pass_progress(work, message)
            case Crashed():
                lines = work.job.plan_source.count("\n") + 1 if isinstance(work.job, TrainJob) else 0
                self._end_child(seat, reply=failed_from(message, plan_lines=lines))
            case Trained() if isinstance(work.job, TrainJob):
                self._finish_round(seat, work, message, fds)
                return True
            case Inspected() if isinstance(work.job, InspectJob):
                self._end_child(seat, reply=message)
            case _:
                _break_rules()
        return False

    def _pass_progress(self, work: _Work, message: Progress) -> None:
        work.progress_count += 1
        if work.progress_count <= time.monotonic() - work.began + _PROGRESS_BURST:
            self._send(work.client.stream, message)

    def _finish_round(self, seat: _Seat, work: _Work, trained: Trained, fds: tuple[int, ...]) -> None:
        assert isinstance(work.job, TrainJob)
        if len(fds) not in EXPECTED_FILES[work.job.train] or _is_absurd(trained):
            _break_rules()
        for fd in fds:
            try:
                require_sealed(fd)
            except UnsealedError:
                _break_rules()
        # Of the child's own measure only this share is taken, to the millisecond: digits could spell something.
        now = time.monotonic()
        train_s = round(min(trained.timing.train_s, now - work.handed_over), 3)
        timing = RoundTiming(start_s=round(now - work.began - train_s, 3), train_s=train_s)
        record, memory_bytes = seat.child.record.take(), seat.child.take_peak_bytes()
        seat.work, seat.idle_since = None, time.monotonic()
        seat.child.freeze()
        seen = {"timing": timing, "record": record, "memory_bytes": memory_bytes, "is_warm": work.is_warm}
        reply = trained.model_copy(update=seen)
        self._send(work.client.stream, reply, fds)

    # Ends

    def _is_seated(self, seat: _Seat) -> bool:
        return self._seats.get(seat.child.name) is seat

    def _child_died(self, seat: _Seat) -> None:
        """A child ended by itself, or was killed by another hand than ours: what it said before counts."""
        if self._is_seated(seat):
            self._read_child(seat)
        self._end_child(seat)

    def _end_child(
        self,
        seat: _Seat,
        code: Code | None = None,
        message: str | None = None,
        *,
        reply: Failed | Inspected | None = None,
    ) -> float | None:
        """End a child and tell whoever waits for it.

        Args:
            seat: The child's.
            code: What the client is told; without it, the signal that ended the child.
            message: The words for it.
            reply: The whole of what the client is told, instead.

        Returns:
            When the last of its processes was seen dead, or None when one does not die.
        """
        if not self._is_seated(seat):
            return None
        del self._seats[seat.child.name]
        status, ended_at = 0, None
        memory_bytes = seat.child.take_peak_bytes() if seat.work is not None else None
        try:
            status, ended_at = seat.child.end()
        except FedWardError as error:
            code, message, reply = error.code, error.message, None
        record = seat.child.record.take()
        for watched in (seat.child.stream, seat.child.pidfd, seat.child.record.fd):
            with suppress(KeyError):
                self._selector.unregister(watched)
        seat.child.close()
        if seat.work is not None and seat.work.client in self._clients:
            reply = reply or _death(seat.work.job, status, code, message)
            seen: dict[str, object] = {"record": record}
            seen |= {"memory_bytes": memory_bytes} if isinstance(reply, Failed) else {}
            self._send(seat.work.client.stream, reply.model_copy(update=seen))
        return ended_at


def _require_parameters(job: TrainJob | InspectJob, fds: tuple[int, ...]) -> None:
    expected = (1, 2) if isinstance(job, TrainJob) else (0,)
    if len(fds) not in expected:
        words = " or ".join(map(str, expected))
        raise FedWardError(f"The job came with {len(fds)} files; expected: {words}.", code=Code.PARAMETERS_INVALID)
    for fd in fds:
        require_sealed(fd)


def _purpose(job: TrainJob | InspectJob) -> Purpose:
    try:
        return Purpose.of(job)
    except OSError as error:
        name = Path(job.dataset.path).name
        raise FedWardError(f"{name}: {error.strerror}.", code=Code.DATASET_INVALID) from error


def _break_rules() -> NoReturn:
    raise MessageRefusedError("The training process sent what no honest one sends.")


def _is_absurd(trained: Trained) -> bool:
    """True for a count that no dataset has: a large enough number can hold a record."""
    counts = (trained.sample_count, *(metric.samples for metric in trained.metrics))
    return max(counts) > _MAX_SAMPLES


def _refusal(job: TrainJob | InspectJob, error: FedWardError | OSError) -> Failed:
    if isinstance(error, FedWardError):
        return Failed(job_id=job.job_id, code=error.code, message=error.message)
    message = f"The runner cannot start a training process ({error.strerror})."
    code = Code.DISK_FULL if takes_no_more(error) else Code.RUNNER_UNAVAILABLE
    return Failed(job_id=job.job_id, code=code, message=message)


def _death(job: TrainJob | InspectJob, status: int, code: Code | None, message: str | None) -> Failed:
    if code is None:
        code, message = Code.TRAINING_FAILED, "The training process ended by itself."
        if os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            code, message = Code.RUNNER_LIMIT, f"The training process was ended by {name}."
    return Failed(job_id=job.job_id, code=code, message=message or "")

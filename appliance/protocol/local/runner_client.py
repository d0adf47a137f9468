"""The warden's side of the runner: one call, one connection, one job."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from appliance.protocol.errors import Code, FedWardError, MessageRefusedError
from appliance.protocol.local.frames import Frame, close_all, connect
from appliance.protocol.local.jobs import (
    Ended,
    Failed,
    Hello,
    HelloReply,
    Inspected,
    InspectJob,
    Progress,
    StopExperiment,
    Trained,
    TrainJob,
    parse_reply,
)
from appliance.protocol.local.sealed import require_sealed

_Answer = TypeVar("_Answer", HelloReply, Trained, Inspected, Ended)
EXPECTED_FILES = {True: (1, 2), False: (0,)}  # with an outcome, by whether to train
_GRACE_S = 30.0  # beyond a job's own limit, which the runner keeps
_STOP_S = 10.0
_HELLO_S = 150.0  # a runner that has just been started loads its libraries first


class RunnerError(FedWardError):
    """A job came to nothing.

    ``message``, ``code`` and ``plan_line`` may leave the node; ``detail``, ``record`` and ``memory_bytes`` are for the
    hospital's staff.
    """

    code = Code.TRAINING_FAILED

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.message, code=failed.code)
        self.plan_line = failed.plan_line
        self.detail = failed.detail
        self.record = failed.record
        self.memory_bytes = failed.memory_bytes


@dataclass(frozen=True)
class TrainedResult:
    """A round's outcome. Use it in a ``with``, or call ``close``: the update's memory is freed then.

    Attributes:
        reply: Sample count, metrics, timing, record.
        update_fd: The sealed memory file with the update; None when only a test was asked for.
        kept_fd: The one with what the node shall keep, if anything.
    """

    reply: Trained
    update_fd: int | None
    kept_fd: int | None = None

    def close(self) -> None:
        """Free the memory files."""
        for fd in (self.update_fd, self.kept_fd):
            if fd is not None:
                os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def _ignore(_: Progress) -> None:
    """Nobody listens."""


class RunnerClient:
    """Speaks to a runner. Holds nothing open between calls, and may be used from several threads.

    Args:
        socket_path: Where the runner listens.
    """

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path

    def hello(self) -> HelloReply:
        """Wait until the runner is ready.

        Raises:
            FedWardError: There is none (RUNNER_UNAVAILABLE).
        """
        return self._ask(Hello(), HelloReply, _HELLO_S)[0]

    def train(
        self,
        job: TrainJob,
        params_fd: int,
        on_progress: Callable[[Progress], None] = _ignore,
        *,
        kept_fd: int | None = None,
    ) -> TrainedResult:
        """Train one round. An exception that ``on_progress`` raises ends it.

        Args:
            job: What to train.
            params_fd: The parameters, a sealed memory file; it stays open here.
            on_progress: Called about once a second.
            kept_fd: What the node kept of an earlier round, a sealed memory file; it stays open here.

        Raises:
            RunnerError: Refused, failed, stopped or out of its limits.
            FedWardError: There is no runner, or it went away (RUNNER_UNAVAILABLE).
        """
        given = [params_fd] if kept_fd is None else [params_fd, kept_fd]
        reply, fds = self._ask(job, Trained, job.limits.seconds + _GRACE_S, given, on_progress)
        if len(fds) not in EXPECTED_FILES[job.train]:
            close_all(fds)
            raise FedWardError("The runner sent an update too many, or none.", code=Code.RUNNER_UNAVAILABLE)
        result = TrainedResult(reply, *fds) if fds else TrainedResult(reply, None)
        try:
            for fd in fds:
                require_sealed(fd)
        except FedWardError:
            result.close()
            raise
        return result

    def inspect(self, job: InspectJob) -> dict[str, object]:
        """Look at a data file; raises as ``train`` does."""
        reply, _ = self._ask(job, Inspected, job.limits.seconds + _GRACE_S)
        return dict(reply.result)

    def stop(self, experiment_id: str) -> Ended:
        """End what an experiment runs, with all its descendants; answered within 5 seconds."""
        return self._ask(StopExperiment(experiment_id=experiment_id), Ended, _STOP_S)[0]

    def _ask(
        self,
        request: Hello | TrainJob | InspectJob | StopExperiment,
        expected: type[_Answer],
        timeout_s: float,
        fds: Sequence[int] = (),
        on_progress: Callable[[Progress], None] = _ignore,
    ) -> tuple[_Answer, tuple[int, ...]]:
        refused: FedWardError | None = None
        try:
            with connect(self._path) as channel:
                channel.send(request, fds, timeout_s=timeout_s)
                while frame := channel.receive(timeout_s):
                    reply = parse_reply(frame.payload)
                    if not isinstance(reply, Progress):
                        return _checked(reply, expected, frame)
                    try:
                        on_progress(reply)
                    except FedWardError as error:
                        refused = error
                        raise
        except (OSError, FedWardError) as error:
            if isinstance(error, RunnerError) or error is refused:
                raise
            message = f"The runner at {self._path} does not answer as it should ({error})."
            raise FedWardError(message, code=Code.RUNNER_UNAVAILABLE) from error
        raise FedWardError(f"The runner at {self._path} went away.", code=Code.RUNNER_UNAVAILABLE)


def _checked(reply: object, expected: type[_Answer], frame: Frame) -> tuple[_Answer, tuple[int, ...]]:
    if isinstance(reply, expected):
        return reply, frame.fds
    frame.close()
    if isinstance(reply, Failed):
        raise RunnerError(reply)
    raise MessageRefusedError("The runner answered another question.")

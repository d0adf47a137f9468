"""One confined process, as the supervisor holds it: its channel, its record, its scratch, its end."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.local.jobs import DatasetSource, InspectJob, Limits, SandboxLevel, TrainJob
from appliance.protocol.local.process import resident_bytes
from appliance.runner.cgroup import ControlGroup
from appliance.runner.leftovers import forget_leader, note_leader
from appliance.runner.nursery import Nursery
from appliance.runner.processes import end_family, family
from appliance.runner.record import Record
from appliance.runner.scratch import is_within, wipe
from appliance.runner.stamp import Stamp, stamp
from appliance.runner.stream import Stream
from appliance.runner.usage import nameless, shared_out_bytes
from appliance.runner.wire import Start

END_S = 4.5  # how long a child and its descendants may take to die


@dataclass(frozen=True)
class Purpose:
    """What a child was made for. A job with another purpose gets another child."""

    dataset: DatasetSource
    dataset_stamp: Stamp
    limits: Limits
    plan: tuple[str, str] = ("", "")  # text and class
    model_args: str = ""  # as JSON
    use_gpu: bool = False

    @classmethod
    def of(cls, job: TrainJob | InspectJob) -> Purpose:
        """The purpose of a job; raises OSError when the dataset's file cannot be reached."""
        dataset = job.dataset.model_copy(update={"path": os.path.realpath(job.dataset.path)})
        found = stamp(dataset.path)
        if isinstance(job, InspectJob):
            return cls(dataset, found, job.limits)
        # By their JSON, as they came: 1 and 1.0 and true are different models.
        args = job.model_dump_json(include={"model_args"})
        return cls(dataset, found, job.limits, (job.plan_source, job.plan_class), args, job.use_gpu)


class Child:
    """A process that trains one experiment's rounds, or looks at one data file.

    Args:
        name: The experiment's id, or the inspection's job id.
        purpose: What it is made for.
        scratch: Its folder, empty.
        group: Its control group, where there is one.
        uid: Its user, where it has one of its own.
        level: What must confine it.
        threads: For its arithmetic libraries.

    Raises:
        FedWardError: No process can be made.
    """

    def __init__(
        self,
        name: str,
        purpose: Purpose,
        nursery: Nursery,
        *,
        scratch: Path,
        group: ControlGroup | None,
        uid: int | None,
        level: SandboxLevel,
        threads: int,
    ) -> None:
        self.name, self.purpose, self.uid = name, purpose, uid
        self._scratch, self._group = scratch, group
        self._is_memory_capped = group is not None and group.limit(purpose.limits)
        ours, theirs = socket.socketpair()
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(reader, False)
        try:
            self.pid = nursery.fork(theirs.fileno(), writer)
        except BaseException:
            ours.close()
            os.close(reader)
            raise
        finally:
            theirs.close()
            os.close(writer)
        self.pidfd = os.pidfd_open(self.pid)
        self.stream, self.record = Stream(ours), Record(reader)
        self._idle_bytes = resident_bytes(self.pid)
        self._peak_bytes = 0
        try:
            note_leader(scratch, self.pid)
            if group is not None:
                group.add(self.pid)
            self.stream.send(self._start(level, threads))
        except BaseException:  # a full disk, say: nothing of it stays
            self.end()
            self.close()
            raise

    def _start(self, level: SandboxLevel, threads: int) -> Start:
        return Start(
            supervisor_pid=os.getpid(),
            scratch=str(self._scratch),
            readable=(self.purpose.dataset.path,),
            limits=self.purpose.limits,
            level=level,
            uid=self.uid,
            use_gpu=self.purpose.use_gpu,
            threads=threads,
        )

    def exceeded(self) -> str | None:
        """The limit that the child has passed, of those that the kernel does not hold by itself; else None."""
        limits, members = self.purpose.limits, self._members()
        if len(members) > 1 + limits.processes:
            return "processes"
        held = nameless(members, self._scratch)
        used_bytes = self._resident_bytes(members) + held.memory_bytes
        self._peak_bytes = max(self._peak_bytes, used_bytes)
        if not self._is_memory_capped and used_bytes - self._idle_bytes > limits.memory_bytes:
            return "memory"
        named_bytes = limits.file_bytes - held.disk_bytes
        return None if named_bytes >= 0 and is_within(self._scratch, named_bytes) else "disk"

    def take_peak_bytes(self) -> int:
        """The most memory that its processes were seen to hold since the last call, this moment included."""
        peak_bytes = max(self._peak_bytes, self._resident_bytes(self._members()))
        self._peak_bytes = 0
        return peak_bytes

    def _resident_bytes(self, members: list[int]) -> int:
        measure = resident_bytes if len(members) == 1 else shared_out_bytes  # forks share most of theirs
        return sum(map(measure, members))

    def _members(self) -> list[int]:
        return [self.pid] if self.purpose.limits.processes == 0 else [member.pid for member in family(self.pid)]

    def freeze(self) -> None:
        """Let nothing of it run until ``thaw``: a plan's threads have no business between two rounds."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it run again."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self._members():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def end(self) -> tuple[int, float]:
        """Kill it with all its descendants and remove what it leaves.

        Returns:
            Its exit status as ``waitpid`` gives it, and when the last was seen dead, in seconds since the epoch.

        Raises:
            FedWardError: One of them does not die (INTERNAL): the kernel holds it.
        """
        deadline = time.monotonic() + END_S
        if self._group is not None:
            self._group.kill()
        if not end_family(self.pid, deadline):
            raise FedWardError(f"A process of '{self.name}' does not die.", code=Code.INTERNAL)
        _, status = os.waitpid(self.pid, 0)
        ended_at = time.time()
        if self._group is not None:
            self._group.remove()
        wipe(self._scratch)
        forget_leader(self._scratch)
        return status, ended_at

    def close(self) -> None:
        """Close what the supervisor holds of it."""
        self.stream.close()
        self.record.close()
        os.close(self.pidfd)

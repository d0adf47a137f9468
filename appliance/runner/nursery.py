"""The nursery: a process with every library warm and nothing else, from which children are forked.

It is started afresh, hears nothing but "one more", and so has nothing to pass on: what one experiment's child said or
printed is in the supervisor's memory, of which no child is a copy.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import appliance
from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.local.frames import Channel
from appliance.runner.leftovers import end_leftovers

_START_S, _FORK_S = 120.0, 30.0
_MODULE = "appliance.runner.nursery"
_CHANNEL_FD = 3  # of a child; 0, 1 and 2 are nothing to read and the record


class Nursery:
    """The supervisor's hold on the nursery.

    Args:
        scratch: Where children's sessions are noted; the nursery ends those when the supervisor is killed.
        threads: For the arithmetic libraries of each child.
    """

    def __init__(self, scratch: Path, threads: int = 1) -> None:
        self._scratch = scratch
        self._threads = threads
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None

    def start(self) -> None:
        """Start the process and wait until it is warm.

        Raises:
            FedWardError: It does not start (RUNNER_UNAVAILABLE).
        """
        self.stop()
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [sys.executable, "-P", "-m", _MODULE, str(theirs.fileno()), str(self._scratch)],
                env=self._environment(), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, cwd="/",
            )  # fmt: skip
        self._channel = Channel(ours)
        if self._answer(_START_S) is None:
            raise FedWardError("The runner's libraries do not load.", code=Code.RUNNER_UNAVAILABLE)

    def fork(self, channel_fd: int, record_fd: int) -> int:
        """Fork one child, which waits for its ``Start`` on the channel; returns its id.

        The child is the caller's own: the caller must be a subreaper, and waits for it.

        Raises:
            FedWardError: The nursery is gone and does not come back (RUNNER_UNAVAILABLE).
        """
        for _ in range(2):
            with suppress(OSError):
                if self._channel is not None:
                    self._channel.send({}, (channel_fd, record_fd), timeout_s=_FORK_S)
                    if pid := self._answer(_FORK_S):
                        return pid
            self.start()
        raise FedWardError("The runner cannot make a training process.", code=Code.RUNNER_UNAVAILABLE)

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._process.pid if self._process else None

    def _answer(self, timeout_s: float) -> int | None:
        if self._channel is None:
            return None
        frame = self._channel.receive(timeout_s)
        return int(frame.data["pid"]) if frame else None

    def _environment(self) -> dict[str, str]:
        """All that a child can ever find in its environment, however it looks for it."""
        threads = str(self._threads)
        return {
            "LANG": "C.UTF-8",
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": str(Path(appliance.__file__).parents[1]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONNOUSERSITE": "1",
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            "OPENBLAS_NUM_THREADS": "1",  # more would be started now, and a fork copies no thread
            "THP_MEM_ALLOC_ENABLE": "1",  # PyTorch's large tensors in huge pages: of a new one, fewer must be made
            "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it CUDA's sums differ from run to run
        }


def main(channel_fd: int, scratch: Path) -> None:
    """Load the libraries, then fork on demand until the supervisor is gone; its children's descendants end then."""
    supervisor_pid = os.getppid()
    supervisor = os.pidfd_open(supervisor_pid)
    # Ctrl-C in a terminal reaches the whole group: the supervisor ends us in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    channel = Channel(socket.socket(fileno=channel_fd))
    from appliance.runner import job  # noqa: PLC0415 - the supervisor imports this file, and must not carry torch

    job.warm_up()
    gc.collect()
    gc.freeze()  # children share these pages for longer
    channel.send({"pid": os.getpid()})
    while frame := channel.receive():
        pid = _fork_orphan(frame.fds)
        frame.close()
        channel.send({"pid": pid})
    # The channel is closed by a supervisor that dies, for in an orderly end it kills us first.
    select.select([supervisor], [], [])
    end_leftovers(scratch, supervisor_pid=supervisor_pid)


def _fork_orphan(fds: tuple[int, ...]) -> int:
    """Fork a child whose parent ends at once, so that it becomes the supervisor's."""
    reader, writer = os.pipe()
    middle = os.fork()
    if middle == 0:
        pid = os.fork()
        if pid == 0:
            _be_child(*fds)
        os.write(writer, str(pid).encode())
        os._exit(0)
    os.close(writer)
    os.waitpid(middle, 0)
    pid = int(os.read(reader, 16))
    os.close(reader)
    return pid


def _be_child(channel_fd: int, record_fd: int) -> NoReturn:
    """Keep the channel and the record, and work until the channel closes."""
    status = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDONLY)
        # Copied upwards first: a target could be one of the sources.
        sources = [os.dup2(fd, 100 + fd) for fd in (null, record_fd, record_fd, channel_fd)]
        for target, source in enumerate(sources):
            os.dup2(source, target, inheritable=False)
        os.closerange(_CHANNEL_FD + 1, 1 << 20)
        from appliance.runner import job  # noqa: PLC0415 - loaded by main()

        job.work(Channel(socket.socket(fileno=_CHANNEL_FD)))
        status = 0
    except BaseException:  # noqa: BLE001 - for the record
        traceback.print_exc()
    finally:
        os._exit(status)  # no destructor runs: their descriptors are closed, and others' by now


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))

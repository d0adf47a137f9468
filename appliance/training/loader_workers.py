"""Processes that read batches ahead of the training, without a socket, a semaphore or a shared file.

PyTorch's own DataLoader workers need all three, which the runner's sandbox denies. These are forks that inherit dataset
and order, so that nothing must be said to them, and each writes its share of the batches into a pipe. They speak pickle
to a parent of which they are a copy: no trust boundary lies in between.
"""

from __future__ import annotations

import copyreg
import io
import os
import pickle
import select
import struct
import sys
import threading
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from fcntl import F_SETPIPE_SZ, fcntl
from itertools import islice
from typing import Any, BinaryIO, NoReturn, TypeVar

END_S = 5.0  # how long workers may take to end that cannot so much as notice that nobody reads any more
_PIPE_BYTES = 1 << 20
_FRAME = struct.Struct("<IQ")  # buffers, bytes of the pickle
_SIZE = struct.Struct("<Q")

_Item = TypeVar("_Item")


def read_ahead(
    items: Iterator[_Item], read: Callable[[_Item], Any], workers: int
) -> Generator[tuple[_Item, Any], None, None]:
    """Each item with ``read(item)``, in order, read in one of ``workers`` processes; in none for 0.

    Each is at most one batch ahead of whoever consumes this, and ends with it, also in the midst of reading. What a
    worker cannot read or hand over is read here instead, so that an exception is raised where it can be understood.

    Args:
        items: Not begun yet, for each process goes through its own copy.
        read: Gives the same for the same item in whatever process.
        workers: How many processes.
    """
    team: list[_Worker] = []
    _flush()  # else each worker prints once more what waits here
    try:
        for number in range(workers):
            share = islice(items, number, None, workers)
            team.append(_Worker(share, read, elders=team))
        for index, item in enumerate(items):
            batch = team[index % workers].receive() if workers else None
            yield item, read(item) if batch is None else batch
    finally:
        for worker in team:
            worker.close()
        deadline = time.monotonic() + END_S
        for worker in team:
            worker.wait(deadline)


class _Worker:
    """A fork and the pipe that it writes to.

    Args:
        share: Its items.
        elders: The workers before it, whose pipes it inherits and must not hold open.
    """

    def __init__(self, share: Iterator[_Item], read: Callable[[_Item], Any], *, elders: Sequence[_Worker]) -> None:
        reader, writer = os.pipe()
        with suppress(OSError):  # a larger pipe is a matter of speed
            fcntl(writer, F_SETPIPE_SZ, _PIPE_BYTES)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of threads, which a copy lacks: it needs none
            self._pid = os.fork()
        if self._pid == 0:
            os.close(reader)
            for elder in elders:
                elder.close()
            _work(share, read, writer)
        os.close(writer)
        self._pipe = os.fdopen(reader, "rb", buffering=_PIPE_BYTES)

    def receive(self) -> Any:
        """The next batch, or None when the worker could not read or send it."""
        if self._pipe.closed:
            return None
        try:
            return _receive(self._pipe)
        except EOFError:
            self._pipe.close()
            return None

    def close(self) -> None:
        """Let it end."""
        self._pipe.close()

    def wait(self, deadline: float) -> None:
        """Return when it has ended, or at ``deadline`` (monotonic): whoever ends this process ends it as well."""
        reaper = threading.Thread(target=self._reap, name="reaper", daemon=True)
        reaper.start()
        reaper.join(max(0.0, deadline - time.monotonic()))

    def _reap(self) -> None:
        with suppress(ChildProcessError):
            os.waitpid(self._pid, 0)


def _work(share: Iterator[_Item], read: Callable[[_Item], Any], writer: int) -> NoReturn:
    """Write the batches of a share until nobody reads or one cannot be read; the parent then does that itself."""
    try:
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(1)  # the parent's helper threads were not copied, and a call would wait for them
        threading.Thread(target=_end_unread, args=(writer,), daemon=True).start()
        with os.fdopen(writer, "wb", buffering=0) as pipe:
            for item in share:
                batch = read(item)
                _flush()
                _send(pipe, batch)
    except BaseException:  # noqa: BLE001, S110 - the parent reads this batch itself, and raises what it meets
        pass
    finally:
        os._exit(0)  # no destructor runs: what they would close is the parent's


def _end_unread(writer: int) -> None:
    """End this process when the pipe's other end is closed: a sample that is never read must not hold the parent."""
    poll = select.poll()
    poll.register(writer, 0)  # an error is reported unasked
    poll.poll()
    os._exit(0)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(Exception):
            stream.flush()


def _send(pipe: BinaryIO, batch: Any) -> None:
    buffers: list[pickle.PickleBuffer] = []
    text = io.BytesIO()
    pickler = pickle.Pickler(text, protocol=5, buffer_callback=buffers.append)
    pickler.dispatch_table = copyreg.dispatch_table.copy()
    if (torch := sys.modules.get("torch")) is not None:
        pickler.dispatch_table[torch.Tensor] = _reduce_tensor
    pickler.dump(batch)
    raw = [buffer.raw() for buffer in buffers]
    head = _FRAME.pack(len(raw), text.tell()) + b"".join(_SIZE.pack(part.nbytes) for part in raw)
    for part in (memoryview(head), text.getbuffer(), *raw):
        written = 0
        while written < part.nbytes:
            written += pipe.write(part[written:])


def _receive(pipe: BinaryIO) -> Any:
    count, length = _FRAME.unpack(_exactly(pipe, _FRAME.size))
    sizes = [_SIZE.unpack(_exactly(pipe, _SIZE.size))[0] for _ in range(count)]
    text = _exactly(pipe, length)
    return pickle.loads(text, buffers=[_exactly(pipe, size) for size in sizes])  # noqa: S301 - a copy of ourselves


def _exactly(pipe: BinaryIO, size: int) -> bytearray:
    data = bytearray(size)
    left = memoryview(data)
    while left:
        if not (got := pipe.readinto(left)):  # type: ignore[attr-defined]
            raise EOFError
        left = left[got:]
    return data


def _reduce_tensor(tensor: Any) -> Any:
    """A tensor as the array below it, whose bytes need no copy; of a kind that numpy lacks, as PyTorch does it."""
    try:
        array = tensor.detach().contiguous().numpy()
    except (TypeError, RuntimeError):
        return tensor.__reduce_ex__(5)
    return sys.modules["torch"].from_numpy, (array,)

"""A disk that is full, or read-only, for one program and all that it starts: the kernel says so at our word.

The program runs under a seccomp filter whose notifications (seccomp_unotify(2), Linux 5.5) come to us: each system call
that would write waits for our answer: the error number of that disk, or leave to go on. It needs no privilege and
no mount, and so it works for an ordinary user and in a container. Like a disk that copies on write, a full one takes
no byte more, not even in place of another; what deletes goes through.

    python disks.py SOCKET PROGRAM ARGUMENT...      what ``Disk.command`` starts: sends us the listener, becomes PROGRAM
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import select
import socket
import struct
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from enum import Enum
from pathlib import Path
from typing import Self

import pyseccomp

if __name__ != "__main__":  # the launcher needs nothing of ours
    from tests.integration.network.hosts import wait_until

_RECEIVE, _RESPOND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV and _SEND
_REQUEST, _RESPONSE = struct.Struct("=QII iIQ 6Q"), struct.Struct("=QqiI")
_GO_ON = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
_AT_FDCWD = -100 & 0xFFFFFFFF
# Where each call has the descriptor that it writes to, or a folder's descriptor and the path that it makes or removes.
_WRITES = dict.fromkeys(("write", "writev", "pwrite64", "pwritev", "pwritev2", "fallocate", "ftruncate"), 0)
_WRITES |= {"sendfile": 0, "copy_file_range": 2}
_MAKES = {"mkdir": (None, 0), "mkdirat": (0, 1)}
_OPENS = {"open": (None, 0, 1), "openat": (0, 1, 2)}
_REMOVES = {"unlink": (None, 0), "unlinkat": (0, 1), "rmdir": (None, 0), "rename": (None, 0)}
_REMOVES |= {"renameat": (0, 1), "renameat2": (0, 1)}
_NAMES: dict[int, str] = {}


class State(Enum):
    """How the disk is; the value is what a write on it comes to."""

    FREE = 0
    FULL = errno.ENOSPC
    READ_ONLY = errno.EROFS


class Disk:
    """The disk under a folder, as one program sees it.

    Args:
        folder: All below it lies on the disk.
    """

    def __init__(self, folder: Path) -> None:
        self._root = folder.resolve()
        self._folder = str(self._root)
        self._state = State.FREE
        self.refused: Counter[str] = Counter()  # system calls, by name
        self._home = tempfile.TemporaryDirectory(prefix="disk-", dir="/tmp")  # a socket's path is short
        self._path = f"{self._home.name}/s"
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(self._path)
        self._socket.listen()
        self._listeners: list[int] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.free()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        self._home.cleanup()

    def command(self, command: Sequence[str]) -> list[str]:
        """``command``, run on this disk."""
        return [sys.executable, __file__, self._path, *command]

    def become(self, state: State, place: str = "") -> None:
        """From now on it is as said, or what lies at ``place`` is, if that is a disk of its own."""
        self._state = State.FREE
        self._folder = str(self._root / place).rstrip("/")
        self.refused.clear()
        self._state = state

    def free(self) -> None:
        """From now on it takes everything again."""
        self._state = State.FREE
        self.refused.clear()

    @property
    def is_free(self) -> bool:
        """Whether it takes everything."""
        return self._state is State.FREE

    @contextmanager
    def freed_after_a_refusal(self) -> Iterator[None]:
        """Inside, it takes everything again as soon as it has refused a write; fails when it never did."""

        def free() -> None:
            wait_until(lambda: self.refused.total() > 0, 30)
            self.free()

        with ThreadPoolExecutor(1) as pool:
            freed = pool.submit(free)
            yield
            freed.result()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                program, _ = self._socket.accept()
                with program:
                    _, ancillary, _, _ = program.recvmsg(1, socket.CMSG_SPACE(4))
                    if ancillary:
                        (listener,) = struct.unpack("i", ancillary[0][2])
                        threading.Thread(target=self._answer, args=(listener,), daemon=True).start()

    def _answer(self, listener: int) -> None:
        """Answer one program's calls until its last process has ended."""
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        while not poll.poll()[0][1] & (select.POLLHUP | select.POLLERR):
            request = bytearray(_REQUEST.size)
            try:
                fcntl.ioctl(listener, _RECEIVE, request)
                number, pid, _, call, _, _, *arguments = _REQUEST.unpack(request)
                fault = self._fault(pid, call, arguments)
                answer = _RESPONSE.pack(number, 0, -fault, 0) if fault else _RESPONSE.pack(number, 0, 0, _GO_ON)
                fcntl.ioctl(listener, _RESPOND, answer)
            except FileNotFoundError:
                continue  # the caller was killed meanwhile
        os.close(listener)

    def _fault(self, pid: int, call: int, arguments: Sequence[int]) -> int:
        state = self._state
        if state is State.FREE:
            return 0
        name = _NAMES[call]
        try:
            is_refused = self._is_refused(state, pid, name, arguments)
        except OSError:
            return 0  # it has ended, or its path is none
        if not is_refused:
            return 0
        self.refused[name] += 1
        return state.value

    def _is_refused(self, state: State, pid: int, name: str, arguments: Sequence[int]) -> bool:
        if name in _WRITES:
            target = str(Path(f"/proc/{pid}/fd/{arguments[_WRITES[name]] & 0xFFFFFFFF}").readlink())
            is_smaller = name == "ftruncate" and arguments[1] == 0
            return self._is_here(target) and not (is_smaller and state is State.FULL)
        if name in _OPENS:
            folder, path, flags = _OPENS[name]
            target = _path_of(pid, None if folder is None else arguments[folder], arguments[path])
            is_made = bool(arguments[flags] & os.O_CREAT) and not os.path.lexists(target)
            is_written = bool(arguments[flags] & (os.O_WRONLY | os.O_RDWR)) and state is State.READ_ONLY
            return self._is_here(target) and (is_made or is_written)
        if name in _REMOVES and state is State.FULL:
            return False
        folder, path = (_MAKES | _REMOVES)[name]
        return self._is_here(_path_of(pid, None if folder is None else arguments[folder], arguments[path]))

    def _is_here(self, path: str) -> bool:
        return path == self._folder or path.startswith(f"{self._folder}/")


def _path_of(pid: int, folder: int | None, address: int) -> str:
    """The path that lies at an address of the caller, made absolute."""
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        memory.seek(address)
        raw = memory.read(min(4096, 4096 - address % 4096))
        if b"\0" not in raw:
            raw += memory.read(4096)
    path = os.fsdecode(raw.partition(b"\0")[0])
    base = "cwd" if folder is None or folder & 0xFFFFFFFF == _AT_FDCWD else f"fd/{folder & 0xFFFFFFFF}"
    return os.path.normpath(Path(f"/proc/{pid}/{base}").readlink() / path)


def _known_calls() -> dict[int, str]:
    names = {name: pyseccomp.resolve_syscall(pyseccomp.Arch.NATIVE, name) for name in
             (*_WRITES, *_MAKES, *_OPENS, *_REMOVES)}  # fmt: skip
    return {number: name for name, number in names.items() if number >= 0}  # some machines lack the oldest


_NAMES |= _known_calls()


def _conditions(name: str) -> list[list[pyseccomp.Arg]]:
    """When to ask: of the many calls that open a file, only for those that may write."""
    if name not in _OPENS:
        return [[]]
    flags = _OPENS[name][2]
    wanted = ((os.O_CREAT, os.O_CREAT), (os.O_ACCMODE, os.O_WRONLY), (os.O_ACCMODE, os.O_RDWR))
    return [[pyseccomp.Arg(flags, pyseccomp.MASKED_EQ, mask, value)] for mask, value in wanted]


def main() -> None:
    """Put ourselves under the filter, send its listener, and become the program."""
    path, *command = sys.argv[1:]
    line = socket.socket(socket.AF_UNIX)
    line.connect(path)
    rules = pyseccomp.SyscallFilter(pyseccomp.ALLOW)
    for number, name in _NAMES.items():
        for condition in _conditions(name):
            rules.add_rule(pyseccomp.NOTIFY, number, *condition)
    rules.load()
    listener = pyseccomp._libseccomp.seccomp_notify_fd(rules._filter)
    line.sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))])
    os.close(listener)
    line.close()
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()

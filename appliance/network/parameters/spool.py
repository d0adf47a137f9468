"""Uploads that are not whole yet: a file each, appended to by one call at a time."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from django.conf import settings

from appliance.network.errors import DiskFullError, UploadBusyError
from appliance.protocol.errors import takes_no_more

WRITE_OUT_BYTES = 4 << 20
_SYNC_FILE_RANGE_WRITE = 2
_libc = ctypes.CDLL(None)


class Part:
    """An unfinished upload's file, held by this call alone."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor
        self._written = self._written_out = 0

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return os.fstat(self._descriptor).st_size

    def cut(self, size: int) -> None:
        """Drop what lies beyond ``size``, and write on from there."""
        os.ftruncate(self._descriptor, size)
        os.lseek(self._descriptor, size, os.SEEK_SET)
        self._written = self._written_out = size

    def write(self, chunk: bytes) -> None:
        """Append; raises DiskFullError."""
        view = memoryview(chunk)
        try:
            while view:
                count = os.write(self._descriptor, view)
                view, self._written = view[count:], self._written + count
        except OSError as error:
            if takes_no_more(error):
                raise DiskFullError from error
            raise

        if self._written - self._written_out >= WRITE_OUT_BYTES:
            self._write_out()

    def _write_out(self) -> None:
        """Let the disk begin with what is here, while more comes; ``sync`` then has little left to wait for."""
        span = (self._written_out, self._written - self._written_out)
        _libc.sync_file_range(self._descriptor, *map(ctypes.c_int64, span), _SYNC_FILE_RANGE_WRITE)  # only a hint
        self._written_out = self._written

    def sync(self) -> None:
        """What was written is on the disk when this returns; raises DiskFullError."""
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            if takes_no_more(error):
                raise DiskFullError from error
            raise

    def sha256(self) -> str:
        """The hash of the whole file, read in constant memory."""
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def hold(name: str) -> Iterator[Part]:
    """Hold an unfinished upload's file, made when it is missing; none stays that is empty.

    Raises:
        UploadBusyError: Another call, of this process or another one, holds it.
    """
    path = folder() / name
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(descriptor, path)
        try:
            yield Part(path, descriptor)
        finally:
            # Perhaps the upload was completed between the caller's look at its row and our open: then it is nobody's.
            if not os.fstat(descriptor).st_size and _is_at(path, descriptor):
                path.unlink()
    finally:
        os.close(descriptor)  # and with it the lock


def size(name: str) -> int:
    """How many bytes of an unfinished upload lie here."""
    try:
        return (folder() / name).stat().st_size
    except FileNotFoundError:
        return 0


def drop(name: str) -> None:
    """Remove an unfinished upload's file."""
    (folder() / name).unlink(missing_ok=True)


def names() -> Iterator[str]:
    """Of the files that lie here."""
    return (entry.name for entry in os.scandir(folder()))


def folder() -> Path:
    """Where they lie."""
    path: Path = settings.FEDWARD_HOME / "store/uploads"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def require_room(size_bytes: int) -> None:
    """Raises DiskFullError when an upload of that size would use up the disk."""
    if shutil.disk_usage(folder()).free < size_bytes + settings.FEDWARD.reserve_bytes:
        raise DiskFullError


def _lock(descriptor: int, path: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UploadBusyError("Another call appends to this upload.") from error
    if not _is_at(path, descriptor):  # finished or removed between our open and our lock
        raise UploadBusyError("The upload ended at this moment.")


def _is_at(path: Path, descriptor: int) -> bool:
    try:
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False

"""Sealed memory files: nobody can change one any more, so the bytes that are checked are the bytes that are used."""

from __future__ import annotations

import fcntl
import os

from appliance.protocol.errors import Code, FedWardError

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class UnsealedError(FedWardError):
    """A descriptor is not a sealed memory file: its sender could still change what was checked."""

    code = Code.PARAMETERS_INVALID


def sealed_memfd(name: str, content: bytes | bytearray | memoryview) -> int:
    """A sealed memory file that holds ``content``; returns its descriptor."""
    fd = create_memfd(name)
    try:
        left = memoryview(content).cast("B")
        while left:
            left = left[os.write(fd, left) :]
        return seal_memfd(fd)
    except BaseException:
        os.close(fd)
        raise


def create_memfd(name: str) -> int:
    """A memory file, empty and unsealed, to be written and then sealed."""
    return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def seal_memfd(fd: int) -> int:
    """Seal a memory file for good; returns the same descriptor.

    Raises:
        OSError: A writable mapping of it still exists (EBUSY).
    """
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    return fd


def require_sealed(fd: int) -> int:
    """The size in bytes of a sealed memory file.

    Raises:
        UnsealedError: ``fd`` is another kind of file, or can still change.
    """
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError as error:
        raise UnsealedError("The descriptor is not a memory file.") from error
    if seals & SEALS != SEALS:
        raise UnsealedError("The memory file is not sealed against change.")
    return os.fstat(fd).st_size

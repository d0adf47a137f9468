"""Frames on a Unix stream socket: a JSON object each, with the file descriptors that belong to it.

A frame is five bytes of header (length and number of descriptors), then UTF-8 JSON. Only ``sendmsg`` and ``recvmsg``
are used: the sandbox denies the calls that take an address.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel

from appliance.protocol.errors import Code, FedWardError, MessageRefusedError

MAX_FRAME = 4 << 20
MAX_FDS = 4
_HEADER = struct.Struct(">IB")
_CHUNK = 1 << 16
_ANCILLARY = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)


@dataclass(frozen=True)
class Frame:
    """One message as it came: its JSON text, and descriptors that are now the receiver's to close."""

    payload: bytes
    fds: tuple[int, ...] = ()

    @property
    def data(self) -> dict[str, Any]:
        """The JSON object.

        Raises:
            MessageRefusedError: The text is not a JSON object.
        """
        try:
            data = json.loads(self.payload)
        except (ValueError, RecursionError) as error:
            raise MessageRefusedError("The frame is not JSON.") from error
        if not isinstance(data, dict):
            raise MessageRefusedError("The frame's JSON is not an object.")
        return data

    def close(self) -> None:
        """Close the descriptors."""
        close_all(self.fds)


def close_all(fds: Sequence[int]) -> None:
    """Close each descriptor."""
    for fd in fds:
        os.close(fd)


def encode(message: dict[str, Any] | BaseModel, fd_count: int = 0) -> bytes:
    """A frame's bytes.

    Raises:
        MessageRefusedError: Longer than ``MAX_FRAME``, or more descriptors than ``MAX_FDS``.
    """
    text = message.model_dump_json() if isinstance(message, BaseModel) else json.dumps(message, allow_nan=False)
    payload = text.encode()
    if len(payload) > MAX_FRAME or fd_count > MAX_FDS:
        raise MessageRefusedError(
            f"The frame has {len(payload)} bytes and {fd_count} descriptors; allowed: {MAX_FRAME} and {MAX_FDS}.",
            code=Code.MESSAGE_TOO_LARGE,
        )
    return _HEADER.pack(len(payload), fd_count) + payload


class Decoder:
    """Cuts received bytes into frames; what a hostile peer sends costs at most one frame of memory."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._fds: deque[int] = deque()

    def receive(self, sock: socket.socket) -> bool:
        """Take what one ``recvmsg`` gives; False at the end of the stream.

        Raises:
            MessageRefusedError: More descriptors than a frame may carry.
        """
        data, ancillary, flags, _ = sock.recvmsg(_CHUNK, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
                self._fds.extend(fds)
        if flags & socket.MSG_CTRUNC or len(self._fds) > MAX_FDS:
            raise MessageRefusedError("The peer sent more descriptors than a frame may carry.")
        self._data += data
        return bool(data)

    def frames(self) -> Iterator[Frame]:
        """The frames that are complete, in order.

        Raises:
            MessageRefusedError: A frame is too long, or its descriptors are not those that it states.
        """
        while len(self._data) >= _HEADER.size:
            length, fd_count = _HEADER.unpack_from(self._data)
            if length > MAX_FRAME:
                raise MessageRefusedError(
                    f"The frame has {length} bytes; allowed: {MAX_FRAME}.", code=Code.MESSAGE_TOO_LARGE
                )
            # The kernel hands descriptors over with the first byte of the frame that they belong to.
            if fd_count > len(self._fds):
                raise MessageRefusedError(f"The frame states {fd_count} descriptors; {len(self._fds)} came.")
            end = _HEADER.size + length
            if len(self._data) < end:
                return
            payload = bytes(self._data[_HEADER.size : end])
            del self._data[:end]
            yield Frame(payload, tuple(self._fds.popleft() for _ in range(fd_count)))
        if self._fds and not self._data:
            raise MessageRefusedError("Descriptors came that no frame states.")

    def close(self) -> None:
        """Close the descriptors that no frame has taken."""
        close_all(self._fds)
        self._fds.clear()


class Channel:
    """A blocking connection between two of a node's processes."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._decoder = Decoder()
        self._ready: deque[Frame] = deque()

    def fileno(self) -> int:
        """The socket's descriptor, for selectors."""
        return self._socket.fileno()

    def send(
        self, message: dict[str, Any] | BaseModel, fds: Sequence[int] = (), *, timeout_s: float | None = None
    ) -> None:
        """Send one frame; the descriptors stay open here.

        Raises:
            MessageRefusedError: The frame is too large.
            OSError: The peer is gone, or did not read in time (TimeoutError).
        """
        data = memoryview(encode(message, len(fds)))
        self._socket.settimeout(timeout_s)
        sent = socket.send_fds(self._socket, [data], list(fds)) if fds else 0
        while sent < len(data):
            sent += self._socket.sendmsg([data[sent:]])

    def receive(self, timeout_s: float | None = None) -> Frame | None:
        """The next frame, or None at the end of the stream.

        Raises:
            TimeoutError: Nothing whole came in ``timeout_s``.
            MessageRefusedError: What came is not a frame.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._ready:
            self._socket.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))
            try:
                if not self._decoder.receive(self._socket):
                    return None
            except ConnectionResetError:
                return None
            self._ready.extend(self._decoder.frames())
            if deadline is not None and not self._ready and time.monotonic() >= deadline:
                raise TimeoutError
        return self._ready.popleft()

    def close(self) -> None:
        """Close the connection and every descriptor that nobody took."""
        self._socket.close()
        self._decoder.close()
        while self._ready:
            self._ready.popleft().close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


def connect(path: Path, timeout_s: float = 10.0) -> Channel:
    """Connect to the socket at ``path``, however long the path is.

    Raises:
        FedWardError: Nobody listens there (NODE_NOT_RUNNING).
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(timeout_s)
    try:
        with _Folder(path) as short:
            sock.connect(short)
    except OSError as error:
        sock.close()
        raise FedWardError(
            f"{path}: nobody answers ({error.strerror or error}).", code=Code.NODE_NOT_RUNNING
        ) from error
    return Channel(sock)


def listen(path: Path, *, mode: int = 0o600) -> socket.socket:
    """Listen at ``path``, in place of a socket that an earlier process left there.

    Raises:
        FedWardError: Another process listens there (STORE_BUSY).
    """
    try:
        connect(path, timeout_s=1.0).close()
    except FedWardError:
        path.unlink(missing_ok=True)
    else:
        raise FedWardError(f"{path}: another process listens there already.", code=Code.STORE_BUSY)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)
    try:
        with _Folder(path) as short:
            sock.bind(short)
    except BaseException:
        sock.close()
        raise
    finally:
        os.umask(umask)
    path.chmod(mode)
    sock.listen(64)
    return sock


class _Folder:
    """Names a socket through its folder's descriptor: a socket's own path must stay below 108 bytes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> str:
        self._fd = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._fd}/{self._path.name}"

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

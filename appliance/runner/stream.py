"""A connection that never blocks the supervisor, however slowly or wildly its peer behaves."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator, Sequence

from pydantic import BaseModel

from appliance.protocol.local.frames import Decoder, Frame, close_all, encode

MAX_WAITING = 8 << 20  # bytes that a peer may leave unread


class Stream:
    """Frames over a non-blocking Unix socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._decoder = Decoder()
        self._out: deque[tuple[memoryview, tuple[int, ...]]] = deque()

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._socket.fileno()

    @property
    def waiting_bytes(self) -> int:
        """How much the peer has not read yet."""
        return sum(len(data) for data, _ in self._out)

    def read(self) -> Iterator[Frame]:
        """The frames that arrived.

        Raises:
            EOFError: The peer closed the connection.
            MessageRefusedError: What came is not a frame.
        """
        try:
            is_open = self._decoder.receive(self._socket)
        except BlockingIOError:
            return
        except OSError:
            is_open = False
        if not is_open:
            raise EOFError
        yield from self._decoder.frames()

    def send(self, message: BaseModel, fds: Sequence[int] = ()) -> None:
        """Queue a message and send what the peer takes; the descriptors are this stream's to close.

        Raises:
            OSError: The peer is gone, or has left too much unread.
        """
        self._out.append((memoryview(encode(message, len(fds))), tuple(fds)))
        if self.waiting_bytes > MAX_WAITING:
            raise BrokenPipeError("the peer does not read")
        self.flush()

    def flush(self) -> bool:
        """Send what the peer takes; True when nothing is left.

        Raises:
            OSError: The peer is gone.
        """
        while self._out:
            data, fds = self._out[0]
            try:
                sent = socket.send_fds(self._socket, [data], list(fds)) if fds else self._socket.sendmsg([data])
            except BlockingIOError:
                return False
            close_all(fds)
            self._out.popleft()
            if sent < len(data):
                self._out.appendleft((data[sent:], ()))
        return True

    def close(self) -> None:
        """Close the connection and every descriptor that is still queued."""
        self._socket.close()
        self._decoder.close()
        while self._out:
            close_all(self._out.popleft()[1])

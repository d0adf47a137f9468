"""What a child printed, bounded: the beginning and the end are kept, for they tell the most."""

from __future__ import annotations

import os
from collections import deque

from appliance.protocol.local.jobs import MAX_RECORD

_HALF = MAX_RECORD // 2 - 64
_CHUNK = 1 << 16


class Record:
    """Reads one child's output from a pipe that never blocks.

    Args:
        fd: The pipe's reading end, set to non-blocking; closed by ``close``.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._dropped = 0

    def read(self, chunks: int = 1) -> bool:
        """Take up to ``chunks`` pieces of what is there; False at the end of the stream."""
        for _ in range(chunks):
            try:
                data = os.read(self.fd, _CHUNK)
            except BlockingIOError:
                return True
            if not data:
                return False
            self._keep(data)
        return True

    def take(self) -> str:
        """The record since the last ``take``, after reading what is still in the pipe."""
        self.read(chunks=16)  # a pipe holds 64 KiB: a plan that writes on meanwhile does not hold us
        text = bytes(self._head).decode(errors="replace")
        tail = b"".join(self._tail)[-_HALF:].decode(errors="replace")
        gap = f"\n[… {self._dropped} bytes left out …]\n" if self._dropped else ""
        self._head.clear()
        self._tail.clear()
        self._tail_bytes = self._dropped = 0
        return text + gap + tail

    def close(self) -> None:
        """Close the pipe."""
        os.close(self.fd)

    def _keep(self, data: bytes) -> None:
        room = _HALF - len(self._head)
        self._head += data[:room]
        if rest := data[room:] if room else data:
            self._tail.append(rest)
            self._tail_bytes += len(rest)
        while self._tail and self._tail_bytes - len(self._tail[0]) >= _HALF:
            gone = len(self._tail.popleft())
            self._tail_bytes -= gone
            self._dropped += gone

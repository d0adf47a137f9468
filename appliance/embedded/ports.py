"""Free ports on the loopback interface."""

from __future__ import annotations

import random
import socket
from pathlib import Path

LOOPBACK = "127.0.0.1"
_RANGE = range(10_240, 60_000)
_ATTEMPTS = 200


def free_port() -> int:
    """A port that nobody has bound, outside the range from which the system gives ports to outgoing connections.

    Inside that range another program's connection could take it while a part of ours restarts; and a client of ours
    that tries again and again could, by the same chance, connect to itself.
    """
    low, high = _outgoing()
    for _ in range(_ATTEMPTS):
        port = random.choice(_RANGE)  # noqa: S311 - no secret
        if not low <= port <= high and is_free(port):
            return port
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a server of ours could bind ``port`` at this moment."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do; old connections do not count
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _outgoing() -> tuple[int, int]:
    try:
        low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    except (OSError, ValueError):
        return 32_768, 60_999
    return int(low), int(high)

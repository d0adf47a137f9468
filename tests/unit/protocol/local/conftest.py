"""Two ends of a connection."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from appliance.protocol.local.frames import Channel


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    """Both ends, closed afterwards."""
    ours, theirs = (Channel(sock) for sock in socket.socketpair())
    yield ours, theirs
    ours.close()
    theirs.close()

"""Free ports."""

from __future__ import annotations

import socket

from appliance.embedded.ports import LOOPBACK, free_port, is_free


def test_a_free_port_can_be_bound() -> None:
    """It is handed to a server that has only this one."""
    with socket.socket() as server:
        port = free_port()
        server.bind((LOOPBACK, port))

        assert server.getsockname()[1] == port


def test_a_port_with_a_server_is_not_free() -> None:
    """Two demos may run side by side."""
    with socket.socket() as server:
        server.bind((LOOPBACK, 0))
        server.listen()

        assert not is_free(server.getsockname()[1])

"""What gunicorn is told, as far as it can be seen without a process."""

from __future__ import annotations

import socket
import ssl
import threading
from pathlib import Path

import pytest

from appliance.network.serve import serve, serve_socket, server_context
from appliance.protocol.errors import ConfigurationError
from appliance.protocol.home import TlsFiles
from tests.integration.network.hosts import Authority


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    """The host's transport identity."""
    return Authority(tmp_path / "authority").files("network", host="127.0.0.1")


def test_tls_is_1_3_with_certificates_on_both_sides(files: TlsFiles) -> None:
    """Anything older or anonymous is refused before a byte of HTTP."""
    context = server_context(files, 5)

    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_a_key_that_others_may_read_stops_the_start(files: TlsFiles) -> None:
    """Secrets are files with mode 0600."""
    files.key.chmod(0o644)

    with pytest.raises(ConfigurationError, match="0600"):
        server_context(files, 5)


def test_a_file_that_is_no_certificate_stops_the_start(files: TlsFiles) -> None:
    """With the folder's name, and without its content."""
    files.certificate.write_text("nonsense")

    with pytest.raises(ConfigurationError, match="cannot be used"):
        server_context(files, 5)


def test_a_silent_peer_does_not_hold_a_thread_for_ever(files: TlsFiles) -> None:
    """Opening connections and saying nothing would stop the host."""
    near, far = socket.socketpair()
    ended = threading.Event()

    def shake_hands() -> None:
        with pytest.raises(TimeoutError):
            server_context(files, 0.1).wrap_socket(near, server_side=True)
        ended.set()

    threading.Thread(target=shake_hands, daemon=True).start()

    assert ended.wait(20)
    near.close()
    far.close()


def test_a_host_without_the_operators_key_does_not_start(tmp_path: Path) -> None:
    """It could not tell who is a member."""
    (tmp_path / "network.toml").write_text("")

    with pytest.raises(ConfigurationError, match="operator"):
        serve(tmp_path)


def test_a_socket_without_a_folder_stops_the_start(tmp_path: Path) -> None:
    """The web server's group is the folder's; it cannot be guessed."""
    (tmp_path / "network.toml").write_text(f'operator = "{"o" * 43}"\n')

    with pytest.raises(ConfigurationError, match="no such folder for the socket"):
        serve_socket(tmp_path, tmp_path / "nowhere/rest.sock")

"""Package mirrors, asked as apt asks them, over real lines on loopback."""

from __future__ import annotations

import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.doctor import reach
from appliance.doctor.finding import State
from tests.unit.doctor.conftest import Machine


class Mirror(http.server.BaseHTTPRequestHandler):
    """Answers every question with the server's ``status``."""

    def do_HEAD(self) -> None:
        """A mirror's root is often forbidden: an answer is an answer."""
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *_words: object) -> None:
        """Silence."""


@contextmanager
def serving(status: int = 403, context: ssl.SSLContext | None = None) -> Iterator[http.server.HTTPServer]:
    """A mirror or proxy at any free port."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror)
    server.status, server.asked = status, []  # type: ignore[attr-defined]
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def with_mirror(machine: Machine, address: str) -> None:
    """The machine's only mirror."""
    machine.write("etc/apt/sources.list", f"deb {address}/debian bookworm main\n")


def test_a_mirror_that_answers_is_reached(machine: Machine) -> None:
    """Whatever it answers."""
    with serving() as server:
        with_mirror(machine, f"http://127.0.0.1:{server.server_port}")
        (found,) = reach.check(machine.host())

    assert found.state is State.OK


def test_a_mirror_is_asked_by_apts_own_proxy(machine: Machine) -> None:
    """The caller's environment is another question; a proxy's password is not shown."""
    with serving() as proxy:
        with_mirror(machine, "http://mirror.invalid")
        machine.write("etc/apt/apt.conf", f'Acquire::http::Proxy "http://me:secret@127.0.0.1:{proxy.server_port}";\n')
        (found,) = reach.check(machine.host(environment={"http_proxy": "http://127.0.0.1:1"}))

    assert found.state is State.OK
    assert proxy.asked == ["http://mirror.invalid/"]  # type: ignore[attr-defined]
    assert "secret" not in found.because


def test_a_proxy_that_asks_for_a_password_is_told(machine: Machine) -> None:
    """Its answer is not the mirror's."""
    with serving(status=407) as proxy:
        with_mirror(machine, "http://mirror.invalid")
        machine.write("etc/apt/apt.conf", f'Acquire::http::Proxy "http://127.0.0.1:{proxy.server_port}";\n')
        (found,) = reach.check(machine.host())

    assert found.state is State.WEAKER
    assert "password" in found.because


def test_an_unknown_authority_is_told_with_the_setting_that_mends_it(
    machine: Machine, authority: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So looks a proxy that inspects TLS."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "cert.pem", authority / "key.pem")
    with serving(context=context) as server:
        with_mirror(machine, f"https://127.0.0.1:{server.server_port}")
        (found,) = reach.check(machine.host())

    assert found.state is State.FAILED
    assert "fedward_extra_ca_bundle" in found.remedy


def test_a_mirror_that_nobody_answers_for_is_weaker(machine: Machine) -> None:
    """Training needs no mirror."""
    with_mirror(machine, "http://127.0.0.1:1")
    (found,) = reach.check(machine.host())

    assert found.state is State.WEAKER

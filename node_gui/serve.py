"""Runs the GUI: gunicorn, TLS 1.3, one process with some threads."""

from __future__ import annotations

import os
import socket
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from flask import Flask
from gunicorn.app.base import BaseApplication
from gunicorn.util import close_graceful
from gunicorn.workers.gthread import _DEFER, TConn, ThreadWorker

from node_gui.access import Role
from node_gui.app import create_app
from node_gui.certificate import TlsPair, fingerprint, ready_tls_files, server_context
from node_gui.config import GuiConfig, read_config
from node_gui.context import EXTENSION, Caller, Parts
from node_gui.notices.sender import Sender
from node_gui.staff import GUI_NAME, StaffBook

READY_FILE = "run/gui.port"
GRACE_S = 2
PATIENCE_S = 20  # how long a connection may stand still
HANDSHAKE_S = 5  # the same while it is made
FAREWELL_S = 0.5  # how long a browser may take to close its end
REQUEST_S = 30  # in which a request must have arrived, headers and form
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Invitation:
    """What opens an account, once.

    Attributes:
        address: Where the GUI is.
        link: The one-time link.
        fingerprint: SHA-256 of the certificate that the GUI made for itself; None when the hospital gave one.
    """

    address: str
    link: str
    fingerprint: str | None


def serve(home: Path, governance: Callable[[str], Caller]) -> None:
    """Serve until SIGTERM; does not return.

    ``<home>/run/gui.port`` holds the port from the moment on that connections are accepted.

    Args:
        home: The node's folder.
        governance: Gives the governance socket's client for a person of that name.

    Raises:
        ConfigurationError: A setting, a key or a certificate cannot be used.
    """
    os.umask(0o077)
    config = read_config(home)
    pair = ready_tls_files(home, config)
    server_context(pair)  # a wrong file is best said at once
    ready = home / READY_FILE
    ready.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    ready.unlink(missing_ok=True)
    _Server(home, config, pair, create_app(config, governance, home)).run()


def invite_first(home: Path) -> Invitation:
    """A new one-time link for an administrator's account; the one before it opens no more."""
    return _invitation(home, lambda staff: str(staff.invite_first()))


def invite(home: Path, name: str, role: Role) -> Invitation:
    """A one-time link for an account of that name and role, as whoever commands the node's machine may give it.

    Raises:
        StaffRefusedError: The name is malformed or taken.
    """
    return _invitation(home, lambda staff: staff.invite(GUI_NAME, name, role))


def _invitation(home: Path, make_token: Callable[[StaffBook], str]) -> Invitation:
    config = read_config(home)
    staff = StaffBook(home, link_s=config.invitation_hours * 3600)
    try:
        return _at(home, config, make_token(staff))
    finally:
        staff.close()


def _at(home: Path, config: GuiConfig, token: str) -> Invitation:
    ready = home / READY_FILE
    port = ready.read_text().strip() if ready.exists() else config.port  # 0 means any, and only the running one knows
    own = fingerprint(ready_tls_files(home, config).certificate) if config.certificate is None else None
    address = config.address_at(f"https://{_shown(config.host)}:{port}")
    return Invitation(address, f"{address}/invitation/{token}", own)


def _shown(host: str) -> str:
    """An address to type: a wildcard is none."""
    if host in {"0.0.0.0", "::"}:  # noqa: S104 - compared with, not bound to
        return "localhost"
    return f"[{host}]" if ":" in host else host


class _PatientSocket(ssl.SSLSocket):
    """gunicorn's threads wait for ever; one silent or dripping browser each would use them up."""

    _until = float("inf")

    def setblocking(self, flag: bool, /) -> None:
        # gunicorn says so whenever a request of the connection begins.
        self._until = time.monotonic() + REQUEST_S
        self.settimeout(PATIENCE_S if flag else 0.0)

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        patience, left = self.gettimeout(), self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("The request did not arrive in time.")
        self.settimeout(left if patience is None else min(patience, left))
        try:
            return super().recv(buflen, flags)
        finally:
            self.settimeout(patience)  # what is sent has its own

    @classmethod
    def _create(cls, sock: Any, *args: Any, **kwargs: Any) -> _PatientSocket:
        sock.settimeout(HANDSHAKE_S)  # else it waits for ever
        made: _PatientSocket = super()._create(sock, *args, **kwargs)  # type: ignore[misc] # not in the stubs
        made._until = time.monotonic() + REQUEST_S
        return made


class _Worker(ThreadWorker):  # type: ignore[misc] # the library has no types
    """gunicorn's threads, which a browser's idle connections do not use up.

    Browsers connect ahead of need, several times, and say nothing for minutes. gunicorn waits for a connection's first
    request in a thread; here a thread makes the handshake, and the poller waits, as it does between two requests.
    Behind the last request gunicorn waits for the browser's farewell in the thread that accepts connections; here the
    thread that answered does, and not for long.
    """

    def handle(self, conn: TConn) -> Any:
        """Answer a request, or let the poller wait for one."""
        result = self._answer(conn)
        if not result:
            close_graceful(conn.sock, timeout=FAREWELL_S)
            conn.sock = socket.socket()  # what gunicorn closes: it must be open, and has nobody to wait for
        return result

    def _answer(self, conn: TConn) -> Any:
        if not conn.initialized:
            if not conn.wait_for_data(0):
                return _DEFER
            try:
                conn.init()
            except OSError:  # no TLS, or not in time
                return False
            conn.data_ready = conn.sock.pending() > 0
            if not conn.wait_for_data(0):
                return _DEFER
        return super().handle(conn)


class _Server(BaseApplication):  # type: ignore[misc] # the library has no types
    """gunicorn without its command line and its configuration files."""

    def __init__(self, home: Path, config: GuiConfig, pair: TlsPair, app: Flask) -> None:
        self._home = home
        self._config = config
        self._pair = pair
        self._app = app
        super().__init__()

    def load_config(self) -> None:
        """Everything that differs from gunicorn's defaults."""
        host = self._config.host
        settings = {
            "bind": f"[{host}]:{self._config.port}" if ":" in host else f"{host}:{self._config.port}",
            "worker_class": _Worker,
            "workers": 1,
            "threads": self._config.threads,
            "timeout": 120,
            "graceful_timeout": GRACE_S,
            "keepalive": 30,
            "certfile": str(self._pair.certificate),
            "keyfile": str(self._pair.key),
            "ssl_context": self._context,
            "loglevel": "warning",
            "accesslog": None,  # a one-time link is a path, and a log is no place for it
            "control_socket_disable": True,
            "proc_name": "fedward-gui",
            "when_ready": self._announce,
            "post_worker_init": self._start_sender,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Flask:
        """The WSGI application."""
        return self._app

    def _context(self, _config: Any, _default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        """The certificate of the moment: a renewed one is used from the next connection on."""
        context = server_context(self._pair)
        context.sslsocket_class = _PatientSocket
        return context

    def _start_sender(self, worker: Any) -> None:
        """Where requests are answered, so that it lives and dies with them: a thread would not outlive the fork."""
        port = worker.sockets[0].getsockname()[1]
        address = self._config.address_at(f"https://{_shown(self._config.host)}:{port}")
        Sender(self._app, address).start()

    def _announce(self, arbiter: Any) -> None:
        port = arbiter.LISTENERS[0].getsockname()[1]
        ready = self._home / READY_FILE
        fresh = ready.with_suffix(".new")
        fresh.write_text(f"{port}\n")
        fresh.replace(ready)
        parts: Parts = self._app.extensions[EXTENSION]
        token = parts.staff.invite_first(only_if_nobody=True)
        parts.staff.close()  # no connection crosses a fork
        if token is not None:
            first = _at(self._home, self._config, token)
            sys.stdout.write(f"Nobody has an account yet. This link makes an administrator's, once:\n{first.link}\n")
            if first.fingerprint is not None:
                sys.stdout.write(f"SHA-256 of the certificate: {first.fingerprint}\n")
            sys.stdout.flush()
        _log.info("node GUI is ready", host=self._config.host, port=port)

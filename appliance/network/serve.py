"""Runs the network host's REST service: gunicorn, TLS 1.3, client certificates required.

Behind a web server that sees to TLS it listens on a Unix socket instead. Either way the bearer token tells who calls.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import django
import structlog
from django.core.management import call_command
from django.db import Error, close_old_connections, connection, connections
from django.urls import get_resolver
from gunicorn.app.base import BaseApplication

from appliance.network.config import NetworkConfig, read_config, tls_files
from appliance.network.logs import LOGGING, use_structured_logs
from appliance.protocol.errors import ConfigurationError
from appliance.protocol.files import replace_file
from appliance.protocol.home import TlsFiles
from appliance.protocol.keys import require_secret

READY_FILE = "run/rest.port"
GRACE_S = 2  # transfers resume, so that nobody waits for them at the end
KEEP_ALIVE_S = 65
RECORD_BYTES = (
    16 << 10
)  # TLS gives no more at once; gunicorn asks for a megabyte, and each would be made and thrown away
MAX_HEADER_BYTES = 32 << 10  # the metadata of an upload names its recipients
_MIGRATION_LOCK = 0x46656457617264  # any number that only we use
_log = structlog.get_logger(__name__)


def serve(home: Path, host: str = "127.0.0.1", port: int = 8443) -> None:
    """Serve until SIGTERM; does not return.

    ``<home>/run/rest.port`` holds the port from the moment on that connections are accepted.

    Args:
        home: The network host's folder.
        host: The address to listen on.
        port: The port, or 0 for any free one.

    Raises:
        ConfigurationError: A setting, a key or a certificate cannot be used.
    """
    config = _require_config(home)
    files = tls_files(home)
    server_context(files, config.patience_s)  # before anything is started: a wrong file is best said at once
    _make_ready(home)
    ready = home / READY_FILE
    ready.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    ready.unlink(missing_ok=True)

    def announce(arbiter: Any) -> None:
        bound = arbiter.LISTENERS[0].getsockname()[1]
        replace_file(ready, f"{bound}\n")
        _log.info("network host is ready", host=host, port=bound)

    tls = {
        "certfile": str(files.certificate),
        "keyfile": str(files.key),
        "ssl_context": _Contexts(files, config.patience_s),
    }
    _Server(
        config, {"bind": f"[{host}]:{port}" if ":" in host else f"{host}:{port}", **tls, "when_ready": announce}
    ).run()


def serve_socket(home: Path, path: Path, *, mode: int = 0o660) -> None:
    """Serve plain HTTP on a Unix socket until SIGTERM, for a web server that sees to TLS 1.3 and certificates.

    Args:
        home: The network host's folder.
        path: The socket; its folder must be there. Its group is the folder's where that has the setgid bit.
        mode: The socket's permissions: whoever may write to it may call.

    Raises:
        ConfigurationError: A setting cannot be used, or the socket's folder is missing.
    """
    config = _require_config(home)
    if not path.parent.is_dir():
        raise ConfigurationError(f"{path.parent}: no such folder for the socket.")
    _make_ready(home)
    _Server(config, {"bind": f"unix:{path}", "umask": 0o777 & ~mode}).run()


def _require_config(home: Path) -> NetworkConfig:
    config = read_config(home)
    if config.operator is None:
        raise ConfigurationError(f"{home}/network.toml: operator: the operator's public key is missing.")
    return config


def _make_ready(home: Path) -> None:
    prepare(home)
    migrate()
    from appliance.network.members.services import register_follow  # noqa: PLC0415 - after Django was set up

    register_follow()
    connections.close_all()  # no connection crosses a fork


def prepare(home: Path) -> None:
    """Make Django ready for the network host in ``home``; one folder a process."""
    os.environ["FEDWARD_NETWORK_HOME"] = str(home.resolve())
    os.environ["DJANGO_SETTINGS_MODULE"] = "appliance.network.settings"
    os.umask(0o077)
    (home / "store").mkdir(mode=0o700, parents=True, exist_ok=True)
    django.setup()
    use_structured_logs()


def migrate() -> None:
    """Bring the database to this release's form; two hosts that start at once take turns."""
    try:
        with _alone():
            call_command("migrate", interactive=False, verbosity=0)
    except Error as error:
        raise ConfigurationError(f"network.toml: database: {type(error).__name__}: {error}".strip()) from error
    connections.close_all()  # no connection crosses a fork


@contextmanager
def _alone() -> Iterator[None]:
    if connection.vendor != "postgresql":
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [_MIGRATION_LOCK])
        try:
            yield
        finally:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [_MIGRATION_LOCK])


def server_context(files: TlsFiles, patience_s: float) -> ssl.SSLContext:
    """TLS 1.3 alone, with a certificate of the consortium's authority on both sides.

    Args:
        files: Our certificate and key, and the authority.
        patience_s: How long a connection may stand still before it is given up, handshake included.

    Raises:
        ConfigurationError: A file is missing, open to others, or not what it should be.
    """

    class PatientSocket(ssl.SSLSocket):
        """gunicorn's threads wait for ever; one silent peer each would use them up."""

        def setblocking(self, flag: bool, /) -> None:
            self.settimeout(patience_s if flag else 0.0)

        def recv(self, buflen: int = RECORD_BYTES, flags: int = 0) -> bytes:
            return super().recv(min(buflen, RECORD_BYTES), flags)

        @classmethod
        def _create(cls, sock: socket.socket, *args: Any, **kwargs: Any) -> PatientSocket:
            sock.settimeout(patience_s)  # else the handshake waits for ever
            return super()._create(sock, *args, **kwargs)  # type: ignore[misc,no-any-return] # not in the stubs

    require_secret(files.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslsocket_class = PatientSocket
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    files.load_into(context)
    return context


class _Contexts:
    """The TLS context of the moment: a renewed certificate is used from the next connection on."""

    def __init__(self, files: TlsFiles, patience_s: float) -> None:
        self._files = files
        self._patience_s = patience_s
        self._current: tuple[tuple[int, ...], ssl.SSLContext] | None = None

    def __call__(self, _config: Any, _default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
        files = self._files
        stamp = tuple(path.stat().st_mtime_ns for path in (files.ca, files.certificate, files.key))
        if self._current is None or self._current[0] != stamp:
            try:
                self._current = stamp, server_context(files, self._patience_s)
            except ConfigurationError as error:
                if self._current is None:
                    raise
                # Half renewed: the old one serves until the other half is there.
                _log.warning("renewed TLS files cannot be used", reason=error.message)
        return self._current[1]


class _Server(BaseApplication):  # type: ignore[misc] # the library has no types
    """gunicorn without its command line and its configuration files."""

    def __init__(self, config: NetworkConfig, listener: dict[str, Any]) -> None:
        self._config = config
        self._listener = listener
        super().__init__()

    def load_config(self) -> None:
        """Everything that differs from gunicorn's defaults."""
        settings = {
            **self._listener,
            "worker_class": "gthread",
            "workers": self._config.workers,
            "threads": self._config.threads,
            "preload_app": True,
            "timeout": 120,
            "graceful_timeout": GRACE_S,
            "keepalive": KEEP_ALIVE_S,
            "limit_request_field_size": MAX_HEADER_BYTES,
            "logconfig_dict": LOGGING,
            "control_socket_disable": True,
            "proc_name": "fedward-network",
            "post_worker_init": self._start_collecting,
        }
        for name, value in settings.items():
            self.cfg.set(name, value)

    def load(self) -> Any:
        """The WSGI application, with all its views: workers share them, and a broken one stops the start."""
        from appliance.network.wsgi import application  # noqa: PLC0415 - after Django was set up

        get_resolver().check()
        return application

    def _start_collecting(self, _worker: Any) -> None:
        threading.Thread(target=self._collect, name="collect", daemon=True).start()

    def _collect(self) -> None:
        from appliance.network.parameters.services import collect  # noqa: PLC0415 - after Django was set up

        pause = threading.Event()
        while not pause.wait(self._config.collect_every_s):
            try:
                ended = collect()
            except Exception:  # noqa: BLE001 - whatever it was, the next hour may go better
                _log.exception("collection failed; it is tried again later")
            else:
                _log.info("collected expired uploads", uploads=ended)
            close_old_connections()

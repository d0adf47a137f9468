"""A network host that really runs, its members' certificates, and a line between them that breaks on demand."""

from __future__ import annotations

import datetime as dt
import hashlib
import ipaddress
import os
import socket
import subprocess
import sys
import threading
import time
import tomllib
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from appliance.protocol.envelope import Signer
from appliance.protocol.home import TlsFiles
from appliance.protocol.keys import MemberKeys, write_secret
from appliance.protocol.messages import SealedFile
from appliance.protocol.register import Register, Role, sign_register
from appliance.transport.rest import RestClient
from tests.registers import register_of

ROLES = {
    "north": Role.NODE,
    "south": Role.NODE,
    "alice": Role.RESEARCHER,
    "mallory": Role.RESEARCHER,
    "fed": Role.FEDERATOR,
    "network": Role.NETWORK,
    "operator": Role.OPERATOR,
}
START_S = 40
COMMAND = (sys.executable, "-m", "appliance.cli.main", "network")


class Authority:
    """A small certificate authority; ``eve`` may have one of her own."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        folder.mkdir(parents=True, exist_ok=True)
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(_pem(self._sign(self._name, self._key, is_authority=True, host=None)))

    def files(self, member: str, *, host: str | None = None) -> TlsFiles:
        """Certificate and key of a member; with ``host`` it may serve at that address."""
        folder = self._folder / member
        files = TlsFiles(self.ca, folder / "cert.pem", folder / "key.pem")
        if not folder.exists():
            folder.mkdir()
            key = ec.generate_private_key(ec.SECP256R1())
            name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, member)])
            files.certificate.write_bytes(_pem(self._sign(name, key, is_authority=False, host=host)))
            write_secret(
                files.key,
                key.private_bytes(
                    serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
                ),
            )
        return files

    def _sign(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_authority: bool, host: str | None
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if host:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(host))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


class Host:
    """A network host in ``folder``, as a process of its own."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.home = folder / "host"
        self.authority = Authority(folder / "authority")
        self.keys = {name: MemberKeys.generate() for name in ROLES}
        self.process: subprocess.Popen[bytes] | None = None
        self.log = folder / "host.log"
        self._clients: list[RestClient] = []
        self._make_home(settings)
        self.import_register(self.register())

    # Its making

    def _make_home(self, settings: dict[str, object]) -> None:
        self.home.mkdir(parents=True)
        lines = [f"operator = '{self.keys['operator'].public.identity}'"]
        lines += [f"{name} = {value!r}" for name, value in settings.items()]
        (self.home / "network.toml").write_text("\n".join(lines) + "\n")
        tomllib.loads((self.home / "network.toml").read_text())
        files = self.authority.files("network", host="127.0.0.1")
        (self.home / "tls").mkdir()
        for name, path in (("ca", files.ca), ("cert", files.certificate), ("key", files.key)):
            (self.home / f"tls/{name}.pem").symlink_to(path)

    def register(self, version: int = 1, **states: str) -> Register:
        """Everybody; ``states`` by member."""
        return register_of(self.keys, ROLES, version=version, issued_at=int(time.time()), states=states)

    def import_register(self, register: Register) -> None:
        """As the operator does it."""
        file = self.home.parent / "register.jws"
        file.write_text(sign_register(register, self.keys["operator"]))
        self.command("register", "import", str(file))

    def command(self, *arguments: str, expect: int = 0) -> str:
        """``fedward network …``; returns what it printed."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            env={**os.environ, "FEDWARD_NETWORK_HOME": str(self.home), "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    # Its life

    def start(self) -> Host:
        """Start at any free port, and wait until connections are accepted."""
        return self.start_at(0)

    def start_at(self, port: int) -> Host:
        """The same at a port that callers know already."""
        ready = self.home / "run/rest.port"
        ready.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *COMMAND,
                    "serve",
                    "--home",
                    str(self.home),
                    "--port",
                    str(port),
                ],
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_S
        while not ready.exists():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)
        self.port = int(ready.read_text())
        return self

    def stop(self) -> int:
        """SIGTERM; returns the exit code."""
        for client in self._clients:
            client.close()
        if self.process is None or self.process.poll() is not None:
            return 0
        self.process.terminate()
        try:
            return self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise

    def kill(self) -> None:
        """Pull the plug: the host and its workers at once."""
        assert self.process is not None
        family = [self.process, *psutil.Process(self.process.pid).children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(timeout=20)

    def workers(self) -> list[psutil.Process]:
        """The processes that answer calls."""
        assert self.process is not None
        return psutil.Process(self.process.pid).children()

    # Its callers

    def signer(self, member: str) -> Signer:
        """Signs as the member."""
        return Signer(member, self.keys[member])

    def client(self, member: str, *, port: int | None = None, give_up_s: float = 20) -> RestClient:
        """A member's line; closed when the host stops."""
        client = RestClient(
            f"https://127.0.0.1:{port or self.port}",
            self.authority.files(member),
            self.signer(member),
            give_up_s=give_up_s,
        )
        self._clients.append(client)
        return client


class File:
    """Random bytes on the disk, and the announcement that fits them."""

    def __init__(self, folder: Path, size: int) -> None:
        self.content = os.urandom(size)
        self.id = str(uuid.uuid4())
        self.sha256 = hashlib.sha256(self.content).hexdigest()
        self.path = folder / self.id
        self.path.write_bytes(self.content)

    def sealed(self) -> SealedFile:
        """As a message names it."""
        return SealedFile(upload_id=self.id, sha256=self.sha256, size_bytes=len(self.content), content_key="AAAA")

    def upload(self, client: RestClient, recipients: tuple[str, ...] = ("alice",), **options: object) -> None:
        """Send it."""
        client.upload(
            self.path,
            upload_id=self.id,
            sha256=self.sha256,
            recipients=recipients,
            purpose="update",
            experiment_id="e1",
            **options,  # type: ignore[arg-type]
        )


class Line:
    """A TCP line to the host that is cut after a number of bytes, once for each cut.

    Args:
        port: The host's.
        up: After so many bytes to the host, both sides are cut off.
        down: After so many bytes from the host.
    """

    def __init__(self, port: int, *, up: tuple[int, ...] = (), down: tuple[int, ...] = ()) -> None:
        self._target = port
        self._lock = threading.Lock()
        self._cuts = {"up": list(up), "down": list(down)}
        self.bytes = {"up": 0, "down": 0}
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = [self._listener]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """End all connections."""
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def cut_after(self, *, up: tuple[int, ...] = (), down: tuple[int, ...] = ()) -> None:
        """Plan other cuts; what is connected is cut off now, so that bytes count from a new connection's first."""
        self._cuts = {"up": list(up), "down": list(down)}
        self.bytes = {"up": 0, "down": 0}
        for sock in self._sockets[1:]:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    @property
    def cuts_left(self) -> int:
        """How many cuts have not happened."""
        return len(self._cuts["up"]) + len(self._cuts["down"])

    def _take_cut(self, way: str, cut: int | None) -> bool:
        """Whether the cut was still to come; it happens once."""
        with self._lock:
            if self._cuts[way][:1] != [cut]:
                return False
            self._cuts[way].pop(0)
            return True

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:  # nobody is there now
                    near.close()
                    continue
                self._sockets += [near, far]
                self.connections += 1
                for sock in (near, far):
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                ended: list[str] = []
                for source, sink, way in ((near, far, "up"), (far, near, "down")):
                    threading.Thread(target=self._carry, args=(source, sink, way, ended), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, way: str, ended: list[str]) -> None:
        cut = left = self._cuts[way][0] if self._cuts[way] else None
        with suppress(OSError):
            while chunk := source.recv(65536 if left is None else max(1, min(left, 65536))):
                if left is not None and left <= len(chunk):
                    if self._take_cut(way, cut):
                        sink.sendall(chunk[:left])
                        break
                    left = None  # another connection was cut there before
                left = None if left is None else left - len(chunk)
                self.bytes[way] += len(chunk)
                sink.sendall(chunk)
        for sock in (source, sink):
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        ended.append(way)
        # Not before both are at their end: a closed number may be a new connection's while it is still read here.
        if len(ended) == 2:
            for sock in (source, sink):
                sock.close()  # a writer is reset: after a mere shutdown it fills our buffers and then waits


def fetch(client: RestClient, sealed: SealedFile, path: Path) -> None:
    """Download a file to ``path``, where it appears when it is whole."""
    with client.download(sealed) as source:
        path.write_bytes(source.read())


def wait_until(claim: Callable[[], bool], timeout_s: float = 20) -> None:
    """Until ``claim`` holds; fails when it never does."""
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)

"""A consortium's hub on loopback, enrolled by the commands that the roles call: real files, sockets and servers."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from typer.testing import CliRunner

from appliance.cli.main import app
from appliance.embedded.mosquitto import cache_folder, find_mosquitto
from appliance.embedded.ports import free_port
from appliance.enrolment.revocation import Hub, Outcome, enforce, run_tool
from appliance.network.broker import Broker, render_acl, render_config
from appliance.protocol.envelope import Signer
from appliance.protocol.home import MemberHome, TlsFiles
from appliance.transport.rest import RestClient
from tests.integration.network.hosts import wait_until

HOST = "127.0.0.1"
MEMBERS = {"network": "network", "north": "node", "south": "node", "alice": "researcher"}
_FEDWARD = (sys.executable, "-m", "appliance.cli.main")
_ACTIVATED = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); "
    "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid())); os.execv(sys.executable, sys.argv[2:])"
)


def fedward(*words: object, ends_with: int = 0) -> list[str]:
    """A command's lines on standard output."""
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
    assert done.exit_code == ends_with, done.output
    return done.stdout.splitlines() if ends_with == 0 else done.output.splitlines()


class Site:
    """The operator, the hub and three members below one folder; its servers run when they are started."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.operator = root / "operator"
        self.authority = root / "authority"
        self.rest_socket = root / "rest.sock"
        self.authority_socket = root / "authority.sock"
        self.broker_port, self.rest_port = free_port(), free_port()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.broker: subprocess.Popen[bytes] | None = None
        self.front: Front | None = None

    def home(self, member: str) -> Path:
        """A member's folder."""
        return self.root / member

    def request(self, member: str) -> Path:
        """What it handed in."""
        return self.home(member) / "join-request.json"

    # The commands

    def enrol(self, members: Sequence[str] = tuple(MEMBERS)) -> list[str]:
        """All that a playbook calls; returns each command's first line."""
        said = [*fedward("operator", "init", "--home", self.operator, "--consortium", "Test", "--contact", "a@b")[:1]]
        said += [self.prepare(member) for member in members]
        requests = [self.request(member) for member in members]
        said += fedward("member", "admit", *requests, "--home", self.operator)[:1]
        said += [self.issue(member) for member in members]
        said += [self.complete(member) for member in members]
        return said

    def prepare(self, member: str) -> str:
        """On the member's machine."""
        role = MEMBERS.get(member, "node")
        facts = ["--id", member, "--role", role, "--institution", f"{member} hospital", "--contact", f"{member}@x"]
        return fedward("join", "prepare", "--home", self.home(member), *facts)[0]

    def issue(self, member: str, *, days: int = 30) -> str:
        """At the hub."""
        endpoints = self.root / "endpoints.json"
        rest_url = f"https://{HOST}:{self.rest_port}"
        endpoint = {"broker_host": HOST, "broker_port": self.broker_port, "rest_url": rest_url}
        endpoints.write_text(json.dumps([endpoint]))
        key, register = self.operator / "operator.pub", self.operator / "register.jws"
        words = ["--register", register, "--operator", key, "--endpoints", endpoints, "--days", days]
        names = ["--name", HOST] if member == "network" else []
        out = ["--out", self.root / f"answers/{member}.json"]
        return fedward("authority", "issue", self.request(member), "--home", self.authority, *words, *names, *out)[0]

    def complete(self, member: str) -> str:
        """On the member's machine."""
        return fedward("join", "complete", "--home", self.home(member), self.root / f"answers/{member}.json")[0]

    def change(self, *words: object) -> None:
        """``fedward member``, and the register carried to the hub."""
        fedward("member", *words, "--home", self.operator)
        fresh = self.home("network") / "register.new"
        fresh.write_bytes((self.operator / "register.jws").read_bytes())
        fresh.replace(self.home("network") / "register.jws")

    def enforce(self, vpn: Path | None = None) -> Outcome:
        """``fedward hub enforce``, with the broker that runs here."""
        hub = Hub(
            home=self.home("network"),
            authority=self.authority,
            crl=self.root / "crl.pem",
            vpn=vpn or self.root / "vpn",
            rest_socket=self.rest_socket,
            reload=("reload",),
            restart=("restart",),
        )
        return enforce(hub, self._run)

    def client(self, member: str) -> RestClient:
        """The member's line to the REST service."""
        home = MemberHome(self.home(member))
        signer = Signer(home.member_id, home.keys())
        return RestClient(home.settings.endpoints[0].rest_url, home.tls, signer, give_up_s=20)

    # The servers

    def start_rest(self) -> None:
        """Gunicorn on its socket, and TLS before it, as nginx does it."""
        key = (self.operator / "operator.pub").read_text().strip()
        text = f'operator = "{key}"\nauthority_socket = "{self.authority_socket}"\n'
        (self.home("network") / "network.toml").write_text(text)
        self._start("network", "serve", "--home", self.home("network"), "--socket", self.rest_socket)
        wait_until(lambda: self._is_up(self.rest_socket))
        self.front = Front(MemberHome(self.home("network")).tls, self.rest_port, self.rest_socket)

    def start_authority(self) -> None:
        """The service as systemd starts it: with its socket open already."""
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(self.authority_socket))
            listener.listen()
            command = [*_FEDWARD, "authority", "serve", "--home", str(self.authority), "--socket-activated"]
            starter = [sys.executable, "-c", _ACTIVATED, str(listener.fileno()), *command]
            self.processes.append(subprocess.Popen(starter, pass_fds=[listener.fileno()]))

    def start_broker(self) -> None:
        """Mosquitto with the revocation list."""
        fedward("authority", "crl", "--home", self.authority, "--out", self.root / "crl.pem")
        acl, config = self.root / "acl", self.root / "mosquitto.conf"
        broker = Broker(
            hosts=(HOST,),
            port=self.broker_port,
            tls=MemberHome(self.home("network")).tls,
            acl_file=acl,
            user="root" if os.geteuid() == 0 else None,
            crl=self.root / "crl.pem",
        )
        acl.write_text(render_acl())
        acl.chmod(0o600)
        config.write_text(render_config(broker))
        self._run_broker()

    def stop(self) -> None:
        """End all servers."""
        if self.front:
            self.front.close()
        for process in (*self.processes, *([self.broker] if self.broker else [])):
            process.terminate()
        for process in (*self.processes, *([self.broker] if self.broker else [])):
            process.wait(timeout=20)

    def health(self) -> dict[str, object]:
        """What the REST service says of itself."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(20)
            line.connect(str(self.rest_socket))
            connection = http.client.HTTPConnection("localhost")
            connection.sock = line
            connection.request("GET", "/api/v1/health")
            return dict(json.loads(connection.getresponse().read()))

    def _run(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        if command[0] == "reload" and self.broker:
            self.broker.send_signal(signal.SIGHUP)
        elif command[0] == "restart" and self.broker:
            self.broker.terminate()
            self.broker.wait(timeout=20)
            self._run_broker()
        elif command[0] == "ss":
            return run_tool(command)
        return subprocess.CompletedProcess(command, 0, "", "")

    def _run_broker(self) -> None:
        program = find_mosquitto(cache_folder())
        command = [str(program.path), "-c", str(self.root / "mosquitto.conf")]
        with (self.root / "broker.log").open("ab") as log:
            self.broker = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **program.environment})
        wait_until(self._broker_listens)

    def _broker_listens(self) -> bool:
        assert self.broker is not None
        assert self.broker.poll() is None, (self.root / "broker.log").read_text()
        with socket.socket() as line:
            return line.connect_ex((HOST, self.broker_port)) == 0

    def _start(self, *words: object) -> None:
        with (self.root / "servers.log").open("ab") as log:
            command = [*_FEDWARD, *map(str, words)]
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log))

    def _is_up(self, path: Path) -> bool:
        assert self.processes[-1].poll() is None, (self.root / "servers.log").read_text()
        with socket.socket(socket.AF_UNIX) as line:
            return line.connect_ex(str(path)) == 0


class Front:
    """TLS before the REST service's socket; remembers the certificates that callers showed."""

    def __init__(self, tls: TlsFiles, port: int, behind: Path) -> None:
        self._behind = behind
        self.shown: list[str] = []
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3
        self._context.verify_mode = ssl.CERT_REQUIRED
        tls.load_into(self._context)
        self._listener = socket.create_server((HOST, port))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more callers."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                line, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(line,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with suppress(OSError), plain, self._context.wrap_socket(plain, server_side=True) as line:
            self.shown.append(str((line.getpeercert() or {})["serialNumber"]))
            with socket.socket(socket.AF_UNIX) as behind:
                behind.connect(str(self._behind))
                back = threading.Thread(target=_pump, args=(behind, line), daemon=True)
                back.start()
                _pump(line, behind)
                behind.shutdown(socket.SHUT_WR)
                back.join(20)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            sink.sendall(piece)

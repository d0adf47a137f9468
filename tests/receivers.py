"""The other ends of a hospital's notices: a mail server and a webhook that really listen, on loopback, over TLS."""

from __future__ import annotations

import base64
import email
import json
import socketserver
import threading
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from node_gui.certificate import TlsPair, server_context
from node_gui.notices.settings import MailServer, Security, Webhook

USER, PASSWORD = "fedward", "xyzzy plugh 17"
KEY = "0123456789abcdef" * 4


class _Server:
    """A server that answers each connection in a thread of its own."""

    def __init__(self, server: socketserver.ThreadingMixIn) -> None:
        server.daemon_threads = False  # it ends once all are answered
        self._server: Any = server
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@dataclass
class Mail:
    """A message that was taken."""

    sender: str
    recipients: list[str]
    text: bytes

    @property
    def message(self) -> EmailMessage:
        """The message, read."""
        return email.message_from_bytes(self.text, policy=default)  # type: ignore[return-value]

    @property
    def body(self) -> str:
        """What people read."""
        return str(self.message.get_content()).replace("\r\n", "\n")


class MailHost(_Server):
    """A mail server (RFC 5321, as much of it as a client needs).

    Args:
        pair: Its certificate and key.
        answers: What it says to a command (``MAIL``, ``RCPT``, ``DATA``, ``.``, ``STARTTLS``, ``AUTH``, ``QUIT``, or
            ``hello`` for its greeting) instead of what is usual; None: it breaks the line off.
    """

    def __init__(self, pair: TlsPair, security: Security = Security.STARTTLS) -> None:
        self.security = security
        self.answers: dict[str, str | None] = {}
        self.refused: set[str] = set()
        self.mails: list[Mail] = []
        self.commands: list[str] = []
        self.in_the_clear: list[str] = []
        self.context = server_context(pair)
        host = self

        class Handler(_MailHandler):
            mail_host = host

        super().__init__(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler))

    def settings(self, **changes: Any) -> MailServer:
        """How the GUI reaches it."""
        known = {"host": "localhost", "port": self.port, "security": self.security, "sender": "node@hospital.example"}
        return MailServer(**known | {"user": USER, "password": PASSWORD} | changes)


class _MailHandler(socketserver.StreamRequestHandler):
    mail_host: MailHost
    timeout = 20

    def handle(self) -> None:
        self._is_protected = self.mail_host.security is Security.TLS
        try:
            if self._is_protected:
                self._protect()
            self._talk()
        except (OSError, EOFError, KeyError):
            pass  # the client has gone, or says what no client of ours says
        finally:
            self.rfile.close()
            self.connection.close()

    def _protect(self) -> None:
        self.rfile.close()
        self.connection = self.mail_host.context.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile("rb")

    def _say(self, command: str, usual: str) -> bool:
        """Answer; returns whether the command was done."""
        answer = self.mail_host.answers.get(command, usual)
        if answer is None:
            raise EOFError
        self.connection.sendall(answer.encode() + b"\r\n")
        return answer[0] in "23"

    def _line(self) -> str:
        line = self.rfile.readline(10_000)
        if not line:
            raise EOFError
        text = line.decode("ascii").rstrip("\r\n")
        self.mail_host.commands.append(text)
        if not self._is_protected:
            self.mail_host.in_the_clear.append(text)
        return text

    def _talk(self) -> None:
        self._say("hello", "220 mail.hospital.example ESMTP")
        commands = {
            "EHLO": self._greet,
            "STARTTLS": self._start_tls,
            "AUTH": self._sign_in,
            "MAIL": self._begin,
            "RCPT": self._add,
            "DATA": self._take,
            "RSET": lambda _line: self._say("RSET", "250 ok"),
        }
        while (verb := (line := self._line()).split(" ")[0].upper()) != "QUIT":
            commands[verb](line)
        self._say("QUIT", "221 bye")

    def _greet(self, _line: str) -> None:
        usual = "mail.hospital.example\nAUTH PLAIN"
        if self.mail_host.security is Security.STARTTLS and not self._is_protected:
            usual += "\nSTARTTLS"
        *first, last = (self.mail_host.answers.get("offers") or usual).split("\n")
        lines = [f"250-{offer}" for offer in first] + [f"250 {last}"]
        self.connection.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def _start_tls(self, _line: str) -> None:
        if self._say("STARTTLS", "220 go ahead"):
            self._protect()
            self._is_protected = True

    def _sign_in(self, line: str) -> None:
        given = base64.b64decode(line.split(" ")[2]).decode().split("\0")[1:]
        self._say("AUTH", "235 welcome" if given == [USER, PASSWORD] else "535 no")

    def _begin(self, line: str) -> None:
        self._sender, self._recipients = _address(line), list[str]()
        self._say("MAIL", "250 ok")

    def _add(self, line: str) -> None:
        address = _address(line)
        if self._say("RCPT", "550 nobody here" if address in self.mail_host.refused else "250 ok"):
            self._recipients.append(address)

    def _take(self, _line: str) -> None:
        if not self._say("DATA", "354 go on"):
            return
        lines = []
        while (line := self.rfile.readline(100_000)) != b".\r\n":
            if not line:
                raise EOFError
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        # Before it says so: who was told that it was taken finds it.
        if "." not in self.mail_host.answers:
            self.mail_host.mails.append(Mail(self._sender, self._recipients, b"".join(lines)))
        self._say(".", "250 taken")


def _address(line: str) -> str:
    return line.partition("<")[2].partition(">")[0]


@dataclass
class Call:
    """A call that arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """What the body says."""
        return json.loads(self.body)


class WebhookHost(_Server):
    """A webhook's receiver; ``status`` is what it answers with, ``location`` where a redirect leads."""

    def __init__(self, pair: TlsPair | None) -> None:
        self.calls: list[Call] = []
        self.status = 204
        self.location = ""
        self.before_answer: Callable[[], object] = lambda: None
        self.has_tls = pair is not None
        host = self

        class Handler(_CallHandler):
            webhook_host = host

        server = _QuietHttpServer(("127.0.0.1", 0), Handler)
        if pair is not None:
            server.socket = server_context(pair).wrap_socket(server.socket, server_side=True)
        super().__init__(server)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"{'https' if self.has_tls else 'http'}://localhost:{self.port}/notices/secret-path?to=it"

    def settings(self) -> Webhook:
        """How the GUI reaches it."""
        return Webhook(self.url, KEY)


class _QuietHttpServer(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that turns away from our certificate is no defect of the server's."""


class _CallHandler(BaseHTTPRequestHandler):
    webhook_host: WebhookHost
    timeout = 20

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.webhook_host.calls.append(Call(self.path, dict(self.headers), body))
        self.webhook_host.before_answer()
        self.send_response(self.webhook_host.status)
        if self.webhook_host.location:
            self.send_header("Location", self.webhook_host.location)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Silent."""


@dataclass
class Clock:
    """A clock that a test moves."""

    now: float

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return self.now

"""The GUI as it is served: a process of its own, TLS, a real node behind it."""

from __future__ import annotations

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from hashlib import sha256
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode

import pytest

from appliance.protocol.home import MemberHome
from appliance.protocol.jose import read_jws
from node_gui.serve import READY_FILE
from tests.hospitals import Hospitals
from tests.integration.network.hosts import wait_until

PASSWORD = "correct horse battery staple"


class Browser:
    """A browser that trusts the GUI's own certificate alone."""

    def __init__(self, home: Path) -> None:
        port = (home / READY_FILE).read_text().strip()
        self.address = f"https://127.0.0.1:{port}"
        self.context = ssl.create_default_context(cafile=str(home / "gui/tls/cert.pem"))
        self._open = urllib.request.build_opener(
            urllib.request.HTTPSHandler(context=self.context), urllib.request.HTTPCookieProcessor(CookieJar())
        ).open

    def get(self, path: str) -> str:
        """Open a page."""
        with self._open(f"{self.address}{path}", timeout=30) as reply:
            return str(reply.read().decode())

    def post(self, path: str, **form: str) -> str:
        """Send a form."""
        with self._open(f"{self.address}{path}", data=urlencode(form).encode(), timeout=30) as reply:
            return str(reply.read().decode())


@pytest.fixture(scope="module")
def served(hospitals: Hospitals) -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """The GUI of north, as ``fedward gui start`` starts it."""
    home = hospitals.home("north")
    command = [sys.executable, "-m", "appliance.cli.main", "gui", "start", "--home", str(home)]
    environment = os.environ | {"FEDWARD_GUI__PORT": "0"}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True, env=environment) as process:
        try:
            wait_until(lambda: (home / READY_FILE).exists() or process.poll() is not None, timeout_s=90)
            yield home, process
        finally:
            process.terminate()
            process.wait(30)


def test_a_newcomer_comes_in_by_the_link_that_invite_prints(
    served: tuple[Path, subprocess.Popen[str]], hospitals: Hospitals
) -> None:
    """From nothing to a signed-in administrator whose sign-in stands in the node's audit log, over TLS 1.3."""
    home, _ = served
    found = re.search(r"/invitation/(\S+)", hospitals.fedward("gui", "invite", "--home", home))
    assert found is not None
    tail = hospitals.since("north")
    browser = Browser(home)

    browser.post(f"/invitation/{found[1]}", name="Nora Newcomer", password=PASSWORD, again=PASSWORD)
    page = browser.post("/sign-in", name="Nora Newcomer", password=PASSWORD)

    assert "What needs somebody now" in page
    assert "connected" in browser.get("/health/")
    assert tail.wait_for("account.signed-in")["actor"] == "staff:Nora Newcomer"
    *lines, signed = browser.get("/audit/export.jsonl").splitlines()
    statement = json.loads(read_jws(json.loads(signed)["signature"]).payload_by(_identity(hospitals)))
    assert statement["lines"] == len(lines)
    assert statement["lines_sha256"] == sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    assert statement["staff"] == "Nora Newcomer"


def test_only_tls_1_3_is_spoken(served: tuple[Path, subprocess.Popen[str]]) -> None:
    """Nothing older, whatever a browser offers."""
    browser = Browser(served[0])
    host, port = browser.address.removeprefix("https://").split(":")
    browser.context.maximum_version = ssl.TLSVersion.TLSv1_2

    with socket.create_connection((host, int(port)), 30) as line, pytest.raises(ssl.SSLError):
        browser.context.wrap_socket(line, server_hostname=host)


def test_connections_that_say_nothing_keep_nobody_out(served: tuple[Path, subprocess.Popen[str]]) -> None:
    """Browsers open some ahead of need; a few colleagues have more of them than the GUI has threads."""
    browser = Browser(served[0])
    host, port = browser.address.removeprefix("https://").split(":")
    with ExitStack() as stack:
        lines = []
        for _ in range(20):
            line = stack.enter_context(socket.create_connection((host, int(port)), 30))
            lines.append(stack.enter_context(browser.context.wrap_socket(line, server_hostname=host)))

        assert "Sign in" in browser.get("/sign-in")
        for line in lines:  # each is open still: none had to give its thread up
            line.settimeout(0)
            with pytest.raises(ssl.SSLWantReadError):
                line.recv(1)


def test_connections_that_never_say_goodbye_keep_nobody_out(served: tuple[Path, subprocess.Popen[str]]) -> None:
    """They ask for their end and keep their own end open: whoever accepts the next one must not wait for them."""
    browser = Browser(served[0])
    host, port = browser.address.removeprefix("https://").split(":")
    with ExitStack() as stack:
        lines = []
        for _ in range(40):
            line = stack.enter_context(socket.create_connection((host, int(port)), 30))
            lines.append(stack.enter_context(browser.context.wrap_socket(line, server_hostname=host)))
            lines[-1].sendall(b"GET /sign-in HTTP/1.0\r\n\r\n")

        assert "Sign in" in browser.get("/sign-in")
        assert {line.recv(8) for line in lines} == {b"HTTP/1.0"}


def test_the_node_goes_on_when_the_gui_dies(served: tuple[Path, subprocess.Popen[str]], hospitals: Hospitals) -> None:
    """It is a window, not a wall."""
    _, process = served
    process.kill()
    process.wait(30)

    assert hospitals.staff("north").call("node.status")["is_connected"]


def _identity(hospitals: Hospitals) -> str:
    return MemberHome(hospitals.home("north")).register().require("north").identity

"""The researcher's one port, with TensorBoard behind it: nothing of it opens without the link, nor leads elsewhere."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from appliance.embedded.ports import free_port
from researcher_kit.notebooks import OneTimeLink
from tests.integration.network.hosts import wait_until

pytest.importorskip("jupyter_server")
PAGES = ("/tensorboard", "/tensorboard/", "/tensorboard/index.js", "/tensorboard/data/runs", "/tensorboard/data/logdir")
CURVE = "experiments/e-1/tensorboard/north/global"


@dataclass
class Notebooks:
    """A notebook service, as a browser meets it."""

    home: Path
    port: int
    process: subprocess.Popen[bytes]

    def ask(
        self, path: str, cookie: str = "", *, method: str = "GET", content: str = "", origin: str = ""
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        """Send a path as it is, with nothing put right."""
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        headers = {"Cookie": cookie, "Content-Type": "application/x-www-form-urlencoded", "Origin": origin}
        sent = {name: value for name, value in headers.items() if value}
        with closing(http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=context)) as connection:
            connection.request(method, path, body=content or None, headers=sent)
            with connection.getresponse() as answer:
                return answer.status, answer.headers, answer.read()

    def sign_in(self) -> str:
        """The cookie of whoever opened a link."""
        _, headers, _ = self.ask(f"/login?token={OneTimeLink(self.home).make(1)}")
        return "; ".join(value.split(";")[0] for value in headers.get_all("Set-Cookie") or [])

    def answers(self) -> bool:
        """Whether it is up."""
        try:
            return self.ask("/api")[0] == 200
        except OSError:
            return False


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebooks]:
    """The service with one experiment's curve, and a file that is none of TensorBoard's."""
    home, port = tmp_path_factory.mktemp("researcher"), free_port()
    folder = home / CURVE
    folder.mkdir(parents=True)
    with (folder / "events.out.tfevents.0.fedward").open("wb") as file:
        for step, auc in ((1, 0.5), (2, 0.75)):
            value = Summary.Value(tag="AUC", simple_value=auc)
            RecordWriter(file).write(Event(step=step, summary=Summary(value=[value])).SerializeToString())
    (home / "keys").mkdir()
    (home / "keys/identity.pem").write_text("a key")
    (home / "kit.toml").write_text(f"port = {port}\n")
    command = [sys.executable, "-m", "appliance.cli.main", "kit", "start", "--home", str(home)]
    (home / "jupyter_server_config.json").write_text('{"ServerApp": {"allow_root": true}}')
    environment = {**os.environ, "HOME": str(home), "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
                   "JUPYTER_CONFIG_DIR": str(home)}  # fmt: skip
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    found = Notebooks(home, port, process)
    try:
        wait_until(found.answers, 60)
        yield found
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


@pytest.fixture(scope="module")
def cookie(notebooks: Notebooks) -> str:
    """The researcher's session."""
    return notebooks.sign_in()


def test_the_researcher_sees_the_curves(notebooks: Notebooks, cookie: str) -> None:
    """Through the port that is there already: what the other tests keep shut is open to whom it is for."""
    wait_until(lambda: CURVE.encode() in notebooks.ask("/tensorboard/data/runs", cookie)[2], 30)
    points = "/tensorboard/data/plugin/timeseries/timeSeries"
    asked = 'requests=[{"plugin": "scalars", "tag": "AUC"}]'
    status, _, numbers = notebooks.ask(points, cookie, method="POST", content=asked)

    assert notebooks.ask("/tensorboard/", cookie)[0] == 200
    assert (status, re.findall(rb'"value": ?([0-9.]+)', numbers)) == (200, [b"0.5", b"0.75"])


@pytest.mark.parametrize("path", PAGES)
def test_no_page_opens_without_a_session(notebooks: Notebooks, path: str) -> None:
    """Whoever reaches the port gets the sign-in page, also with a session that somebody made up."""
    for cookie in ("", f"username-127-0-0-1-{notebooks.port}=2|1:0|10:1|8:username|4:YWxl|0"):
        status, headers, _ = notebooks.ask(path, cookie)

        assert (status, headers["Location"].partition("?")[0]) == (302, "/login")
    assert notebooks.ask(path, method="POST", content="x=1")[0] == 403


@pytest.mark.parametrize(
    "path",
    [
        "/tensorboard/../keys/identity.pem",
        "/tensorboard/%2e%2e/keys/identity.pem",
        "/tensorboard/..%2f..%2fkeys%2fidentity.pem",
        "/tensorboard/data/plugin/projector/bookmarks?run=.&name=x",
        "/tensorboard/data/plugin_entry.html?name=../../keys/identity.pem",
        "/tensorboard/data/plugin/images/individualImage?run=.&tag=x",
        "/files/..%2fkeys/identity.pem",
    ],
)
def test_no_page_leads_to_another_file(notebooks: Notebooks, cookie: str, path: str) -> None:
    """A link in a mail must not read the member's keys with the researcher's session."""
    status, _, content = notebooks.ask(path, cookie)

    assert status in {400, 403, 404}
    assert b"a key" not in content


@pytest.mark.parametrize(
    "path",
    [
        "/proxy/{port}",
        "/proxy/absolute/{port}",
        "/proxy/127.0.0.1:{port}",
        "/tensorboard/http://127.0.0.1:{port}/",
        "/tensorboard/@127.0.0.1:{port}/",
    ],
)
def test_no_page_opens_a_line_to_elsewhere(notebooks: Notebooks, cookie: str, path: str) -> None:
    """The researcher's host is inside the VPN: who borrows the session must not reach the hub through it."""
    with socket.create_server(("127.0.0.1", 0)) as elsewhere:
        status, _, _ = notebooks.ask(path.format(port=elsewhere.getsockname()[1]), cookie)
        elsewhere.setblocking(False)

        assert status == 404
        with pytest.raises(BlockingIOError):
            elsewhere.accept()


def test_another_sites_page_can_ask_nothing(notebooks: Notebooks, cookie: str) -> None:
    """TensorBoard's pages send no XSRF cookie back, so that where a question comes from is looked at."""
    points = "/tensorboard/data/plugin/timeseries/timeSeries"
    asked = {"method": "POST", "content": "requests=[]"}
    here = f"https://127.0.0.1:{notebooks.port}"

    assert notebooks.ask(points, cookie, origin="https://mallory.example", **asked)[0] == 403
    assert notebooks.ask(points, cookie, origin=here, **asked)[0] == 200


def test_nothing_else_listens(notebooks: Notebooks, cookie: str) -> None:
    """A second port would have no sign-in."""
    notebooks.ask("/tensorboard/", cookie)
    family = [psutil.Process(notebooks.process.pid), *psutil.Process(notebooks.process.pid).children(recursive=True)]
    listening = [c.laddr.port for each in family for c in each.net_connections("tcp") if c.status == psutil.CONN_LISTEN]

    assert listening == [notebooks.port]

"""`fedward demo --keep`, from its first line to a newcomer's approval in a hospital's GUI."""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from hashlib import sha256
from http.cookiejar import CookieJar
from pathlib import Path
from urllib.parse import urlencode

import pytest

from appliance.demo.settings import HOSPITALS
from appliance.demo.study import INSTITUTIONS
from appliance.warden.history import History

pytestmark = pytest.mark.timeout(600)  # four hospitals start and train, which is long on a busy machine
PASSWORD = "correct horse battery staple"
START_S = 500.0


class Demo:
    """The command, and what it has printed."""

    def __init__(self, folder: Path) -> None:
        arguments = ["demo", "--keep", "--seeds", "1", "--rounds", "1", "--folder", str(folder)]
        command = [sys.executable, "-m", "appliance.cli.main", *arguments]
        self.folder = folder
        self.text = ""
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def read_until(self, words: str) -> None:
        """Read what it prints up to a line with these words; fails when it ends before, or takes too long."""
        assert self._process.stdout is not None
        too_late = threading.Timer(START_S, self._process.kill)
        too_late.start()
        for line in self._process.stdout:
            self.text += line
            if words in line:
                break
        too_late.cancel()
        assert words in self.text, self.text

    def end(self) -> int:
        """As the end of a terminal's session does."""
        self._process.terminate()
        rest, _ = self._process.communicate(timeout=60)
        self.text += rest
        return self._process.returncode


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    """A demo that keeps running."""
    demo = Demo(tmp_path_factory.mktemp("demo"))
    try:
        demo.read_until("Ctrl-C")
        yield demo
    finally:
        status = demo.end()
    assert status == 0, demo.text


def test_a_newcomer_finds_the_pending_plan_and_approves_it(demo: Demo) -> None:
    """By what is printed alone: the link, the certificate, Home, the changes, the approval."""
    part = demo.text.split(INSTITUTIONS["harlem"])[-1]
    link = re.findall(r"one-time link, plan reviewer\s+(\S+)", part)[0]
    address = re.findall(r"address afterwards\s+(\S+)", part)[0]
    certificate = ssl.get_server_certificate((address.split("/")[2].split(":")[0], int(address.rsplit(":", 1)[1])))
    digest = sha256(ssl.PEM_cert_to_DER_cert(certificate)).hexdigest()
    assert digest.upper() == re.findall(r"SHA-256\s+(\S+)", part)[0].replace(":", "").upper()
    handlers = urllib.request.HTTPSHandler(context=ssl.create_default_context(cadata=certificate))
    opener = urllib.request.build_opener(handlers, urllib.request.HTTPCookieProcessor(CookieJar()))

    def open_page(path: str, **form: str) -> str:
        url = path if path.startswith("https") else f"{address}{path}"
        with opener.open(url, data=urlencode(form).encode() if form else None, timeout=30) as reply:
            return str(reply.read().decode())

    open_page(link, password=PASSWORD, again=PASSWORD)
    home = open_page("/sign-in", name="Rita Reviewer", password=PASSWORD)
    plan = re.findall(r'href="(/plans/[0-9a-f]{64})"', home)[0]
    assert "See what changed" in open_page(plan)
    changes = re.sub("<[^>]+>", "", open_page(f"{plan}/changes"))
    assert "BLEEDS_FROM = 60.0" in changes
    assert "BLEEDS_FROM = 50.0" in changes
    hidden = {name: re.findall(rf'name="{name}" value="([^"]*)"', open_page(plan))[0] for name in ("csrf", "shown")}
    done = open_page(f"{plan}/approve", note="Read and compared.", **hidden)

    assert "is approved: this text may run here now" in done
    assert History(demo.folder / "members/harlem").plan(plan.split("/")[-1])["reviewer"] == "Rita Reviewer"


def test_each_hospital_has_its_own_address_links_and_certificate(demo: Demo) -> None:
    """Four hospitals are four nodes."""
    for what in (r"link, plan reviewer", r"link, administrator", r"address afterwards", r"certificate, SHA-256"):
        found = re.findall(rf"{what}\s+(\S+)", demo.text)
        assert len(set(found)) == len(HOSPITALS), what

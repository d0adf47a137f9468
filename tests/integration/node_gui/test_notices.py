"""Notices of a GUI that runs, from a node that runs, to a mail server and a webhook over TLS."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from node_gui.certificate import TlsPair, ready_tls_files
from node_gui.config import GuiConfig
from node_gui.notices.book import NoticeBook
from node_gui.notices.settings import Kind, Security
from node_gui.serve import READY_FILE
from node_gui.staff import StaffBook
from tests.hospitals import Hospitals
from tests.integration.network.hosts import wait_until
from tests.receivers import MailHost, WebhookHost

ADDRESS = "https://south.hospital.example"


@pytest.fixture
def pair(tmp_path: Path) -> TlsPair:
    """The receivers' certificate."""
    return ready_tls_files(tmp_path, GuiConfig())


@pytest.fixture
def home(hospitals: Hospitals) -> Iterator[Path]:
    """South's folder; what the GUI keeps there is taken away afterwards, for the hospital is everybody's."""
    home = hospitals.home("south")
    yield home
    shutil.rmtree(home / "gui")
    (home / READY_FILE).unlink(missing_ok=True)


@contextmanager
def _served(home: Path, pair: TlsPair) -> Iterator[None]:
    """The GUI, until it is killed with all its processes: a power cut."""
    command = [sys.executable, "-m", "appliance.cli.main", "gui", "start", "--home", str(home)]
    settings = {"FEDWARD_GUI__PORT": "0", "FEDWARD_GUI__ADDRESS": ADDRESS, "SSL_CERT_FILE": str(pair.certificate)}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | settings) as process:
        try:
            yield
        finally:
            everyone = [*psutil.Process(process.pid).children(recursive=True), process]
            for one in everyone:
                one.kill()
            process.wait(30)


@pytest.fixture
def book(home: Path) -> Iterator[NoticeBook]:
    """The notices' part of the GUI's file, looked at from outside."""
    staff = StaffBook(home)
    yield NoticeBook(staff)
    staff.close()


def _set_up(book: NoticeBook, mail_host: MailHost, webhook_host: WebhookHost) -> None:
    book.change(
        "setup",
        0,
        what="test",
        details={},
        kinds=frozenset({Kind.ENDINGS, Kind.APPROVAL_OFF}),
        others=("it@hospital.example",),
        mail=mail_host.settings(),
        webhook=webhook_host.settings(),
    )


def _wait_until_told(book: NoticeBook, kind: Kind) -> None:
    """Taken by both receivers, and written down: whoever ends the GUI before that hears it again."""
    wait_until(lambda: [a.failures for a in book.attempts() if a.kind is kind] == [0, 0], timeout_s=90)


@pytest.mark.timeout(300)  # two starts of a GUI, each of which may take its time on a busy machine
@pytest.mark.parametrize("security", [Security.STARTTLS, Security.TLS])
def test_what_a_running_node_has_to_tell_is_told_once_also_after_a_power_cut(
    hospitals: Hospitals, home: Path, book: NoticeBook, pair: TlsPair, security: Security
) -> None:
    """The sender of a GUI that is served, both ways, with what was told remembered beyond the process."""
    staff = hospitals.staff("south")
    with MailHost(pair, security) as mail_host, WebhookHost(pair) as webhook_host:
        _set_up(book, mail_host, webhook_host)
        staff.call("dataset.permit", dataset="cells", researcher="oscar", until=time.time() + 3600)
        try:
            with _served(home, pair):
                _wait_until_told(book, Kind.ENDINGS)
            staff.call("policy.set", changes={"plan_approval": "off"})
            with _served(home, pair):
                _wait_until_told(book, Kind.APPROVAL_OFF)
        finally:
            staff.call("policy.set", changes={"plan_approval": None})
            staff.call("dataset.forbid", dataset="cells", researcher="oscar")

    # What ends is told before what is off, in the same look: a second mail about it would have been there by then.
    subjects = [mail.message["Subject"] for mail in mail_host.mails]
    assert subjects == [
        "FedWard south: 1 approval, permission or certificate ends",
        "FedWard south: Plan approval is off",
    ]
    assert "The permission of oscar on “cells” ends on " in mail_host.mails[0].body
    assert f"{ADDRESS}/datasets/" in mail_host.mails[0].body
    assert [call.document["kind"] for call in webhook_host.calls] == ["endings", "approval-off"]
    clear = [] if security is Security.TLS else ["ehlo hospital.example", "STARTTLS"] * 2
    assert mail_host.in_the_clear == clear

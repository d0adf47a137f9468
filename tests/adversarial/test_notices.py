"""Notices in the wrong hands: where they may be sent, what a stranger puts into them, who may turn them away."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

import node_gui.notices.outward
from appliance.protocol.errors import FedWardError
from node_gui.access import Role
from node_gui.certificate import TlsPair, ready_tls_files
from node_gui.config import GuiConfig
from node_gui.notices.letter import Letter
from node_gui.notices.mail import compose, send_mail
from node_gui.notices.outward import NotDeliveredError, Problem
from node_gui.notices.settings import MailServer, Security, Webhook
from node_gui.notices.webhook import call_webhook
from tests.receivers import KEY, PASSWORD, USER, MailHost, WebhookHost
from tests.unit.node_gui.conftest import HTTPS, empty_store, gui, make_gui
from tests.unit.node_gui.test_notices import Desk, desk, pair

__all__ = ["desk", "empty_store", "gui", "make_gui", "pair"]

LETTER = Letter("north", "north hospital", "plans", "1 training plan waits for review", (), 0, "https://node.test")
TO = ("rea@hospital.example",)


# Where notices may be sent


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.hospital.example/x",
        "http://10.0.0.7/x",
        "http://169.254.169.254/latest/meta-data",
        "http://localhost.evil.example/x",
        "http://127.0.0.1@evil.example/x",
        "http://127.1/x",
        "http://0x7f000001/x",
        "http://2130706433/x",
        "http://[::ffff:127.0.0.1]/x",
        "https://user:word@hooks.hospital.example/x",
        "https://hooks.hospital.example/x#fragment",
        "https://hooks.hospital.example\\@evil.example/x",
        "https://hooks.hospital.example:0/x",
        "https://hooks.hospital.example:99999/x",
        "https://hooks.hospital.example/x\r\nX-Evil: 1",
        "https://hooks.hospital.example/x y",
        "https:///x",
        "https://",
        "//hooks.hospital.example/x",
        "file:///etc/passwd",
        "ftp://hooks.hospital.example/x",
        "gopher://localhost:25/_MAIL",
        "unix:/run/governance.sock",
        "javascript:alert(1)",
        "https://h\u00f6st.example/x",
        "https://x.example/" + "a" * 3000,
        "",
    ],
)
def test_a_webhook_goes_nowhere_else_than_over_https_or_to_this_machine(url: str) -> None:
    """Not to a file, not to another service, not in the clear."""
    with pytest.raises(FedWardError) as caught:
        Webhook(url, KEY)

    assert url[:60] == "" or url not in caught.value.message


@pytest.mark.parametrize("url", ["https://10.1.2.3:8443/a?b=c", "https://[fd00::7]/x", "http://127.0.0.1:9000/x"])
def test_a_webhook_may_be_any_machine_of_the_hospital(url: str) -> None:
    """Only an administrator sets it."""
    assert Webhook(url, KEY).url == url


@pytest.mark.parametrize("host", ["mail.hospital.example", "10.0.0.7", "127.0.0.1.evil.example", "localhost.x"])
def test_no_mail_goes_in_the_clear_beyond_this_machine(host: str) -> None:
    """Neither the notice nor the password."""
    with pytest.raises(FedWardError, match="on this machine only"):
        MailServer(host, 25, Security.PLAIN, "node@hospital.example")


def test_a_redirect_leads_nowhere(desk: Desk, pair: TlsPair) -> None:
    """Whoever answers there could otherwise choose where notices go."""
    desk.choose(webhook=desk.webhook_host.settings(), mail=None)
    with WebhookHost(pair) as elsewhere:
        desk.webhook_host.status, desk.webhook_host.location = 307, elsewhere.url
        desk.plan()
        desk.check()

        assert len(desk.webhook_host.calls) == 1
        assert elsewhere.calls == []
    assert desk.book.attempts()[0].problem is Problem.REDIRECT


def test_a_proxy_of_the_environment_is_not_asked(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notice goes to the address that was entered."""
    for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    call_webhook(desk.webhook_host.settings(), LETTER)

    assert len(desk.webhook_host.calls) == 1


def test_a_name_of_this_machine_that_leads_elsewhere_is_not_used(
    pair: TlsPair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever changes what the name means gets nothing in the clear."""

    class Elsewhere(socket.socket):
        def getpeername(self) -> tuple[str, int]:
            return ("192.0.2.7", 25)

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        line = Elsewhere()
        line.settimeout(timeout)
        line.connect(("127.0.0.1", address[1]))
        return line

    monkeypatch.setattr("node_gui.notices.outward.socket.create_connection", connect)
    with MailHost(pair, Security.PLAIN) as mail_host:
        with pytest.raises(NotDeliveredError) as caught:
            send_mail(mail_host.settings(), LETTER, TO)
        assert mail_host.commands == []
    assert caught.value.problem is Problem.NOT_HERE


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.TLS])
def test_a_mail_server_with_another_s_certificate_learns_nothing(
    pair: TlsPair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, security: Security
) -> None:
    """Neither password nor notice."""
    other = ready_tls_files(tmp_path / "other", GuiConfig())
    monkeypatch.setenv("SSL_CERT_FILE", str(other.certificate))
    with MailHost(pair, security) as mail_host, pytest.raises(NotDeliveredError) as caught:
        send_mail(mail_host.settings(), LETTER, TO)
    assert caught.value.problem is Problem.CERTIFICATE
    assert [line for line in mail_host.commands if line.split(" ")[0].upper() not in {"EHLO", "STARTTLS"}] == []


def test_a_mail_server_without_starttls_learns_no_password(pair: TlsPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody on the way may have struck the word from its greeting."""
    monkeypatch.setenv("SSL_CERT_FILE", str(pair.certificate))
    with MailHost(pair, Security.STARTTLS) as mail_host:
        mail_host.answers["offers"] = "mail.hospital.example\nAUTH PLAIN"
        with pytest.raises(NotDeliveredError) as caught:
            send_mail(mail_host.settings(), LETTER, TO)
    assert caught.value.problem is Problem.NO_TLS
    assert mail_host.commands == ["ehlo hospital.example"]


def test_a_server_that_keeps_silent_forever_is_left(pair: TlsPair, monkeypatch: pytest.MonkeyPatch) -> None:
    """One answer in time after another could hold the sender for as long as somebody likes."""
    monkeypatch.setattr(node_gui.notices.outward, "LIMIT_S", 0.2)
    monkeypatch.setattr(node_gui.notices.outward, "PATIENCE_S", 60.0)
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            with listener.accept()[0] as line:
                line.settimeout(20)
                try:
                    if line.recv(1) == b"":  # the client has left
                        ended.set()
                except TimeoutError:
                    line.sendall(b"554 late\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        server = MailServer("127.0.0.1", listener.getsockname()[1], Security.PLAIN, "node@hospital.example")
        with pytest.raises(NotDeliveredError) as caught:
            send_mail(server, LETTER, TO)
        thread.join()
    assert caught.value.problem is Problem.BROKEN
    assert ended.is_set()


# What strangers put into them


def test_a_plan_s_name_adds_no_header_and_no_line(desk: Desk) -> None:
    """A researcher chooses it."""
    name = "unet\r\nBcc: eve@evil.example\r\n\r\n<b>Sign in at https://evil.example/</b>"
    desk.choose(webhook=desk.webhook_host.settings())
    desk.hospital.request_plan("class Plan: ...\n", name=name)
    (mail,) = desk.check()

    assert sorted(mail.recipients) == ["rea@hospital.example", "rob@hospital.example"]
    assert mail.message["Bcc"] is None
    assert mail.message.get_content_type() == "text/plain"
    (line,) = [line for line in mail.body.splitlines() if "unet" in line]
    assert line.startswith("- alice asks for approval of the training plan “unet")
    for body in (mail.body, desk.webhook_host.calls[0].document["items"][0]["text"]):
        assert "evil.example" not in body
        assert "https://evil" not in body
        assert "\nBcc" not in body


def test_no_line_end_gets_into_a_header() -> None:
    """Whatever reached it: the library refuses, and nothing is sent."""
    letter = Letter("north\r\nBcc: eve@evil.example", "x", "plans", "x", (), 0, "https://node.test")

    with pytest.raises(ValueError, match="linefeed or carriage return"):
        compose("node@hospital.example", letter, TO)


def test_what_a_server_answers_is_repeated_nowhere(desk: Desk) -> None:
    """It may hold the password that it was just given, or script."""
    desk.mail_host.answers["AUTH"] = f"535 {PASSWORD} <script>alert(1)</script>"
    desk.plan()
    with capture_logs() as logs:
        desk.check()
        browser = desk.hospital.signed_in(Role.ADMINISTRATOR)
        browser.post("/notices/test")
    page = browser.get("/notices/").text

    assert "refused user name and password (answer 535)" in page
    for secret in (PASSWORD, "alert(1)"):
        assert secret not in page
        assert secret not in str(logs)


def test_no_secret_is_in_what_python_prints_of_the_settings(desk: Desk) -> None:
    """A log, a traceback, a debugger."""
    desk.choose(webhook=desk.webhook_host.settings())

    printed = repr(desk.book.settings())

    assert USER in printed
    assert [secret for secret in (PASSWORD, KEY, "secret-path") if secret in printed] == []


# Who may turn them away


@pytest.mark.parametrize("role", sorted(set(Role) - {Role.ADMINISTRATOR}))
def test_no_other_role_changes_or_sees_them(desk: Desk, role: Role) -> None:
    """A reviewer who turned notices off could approve at night what nobody hears of."""
    browser = desk.hospital.signed_in(role)
    before = desk.book.settings()
    forms: dict[str, dict[str, Any]] = {
        "choose": {"language": "en", "others": "eve@evil.example"},
        "mail": {"host": ""},
        "webhook": {"url": "https://evil.example/x", "key": KEY},
        "webhook/remove": {},
        "test": {},
    }
    replies = [browser.post(f"/notices/{path}", shown=before.revision, **form) for path, form in forms.items()]
    page = browser.get("/notices/")

    assert {reply.status_code for reply in [*replies, page]} == {403}
    assert desk.book.settings() == before
    assert desk.mails == []


def test_a_change_from_another_site_is_refused(desk: Desk) -> None:
    """An administrator's browser sends it, an administrator does not."""
    browser = desk.hospital.signed_in(Role.ADMINISTRATOR)
    before = desk.book.settings()
    form = {"csrf": browser.csrf, "shown": before.revision, "host": ""}
    reply = browser.client.post("/notices/mail", base_url=HTTPS, data=form, headers={"Origin": "https://evil.example"})

    assert reply.status_code == 403
    assert desk.book.settings() == before


@pytest.mark.parametrize("change", [{"host": "127.0.0.1"}, {"port": 1}, {"security": "tls"}, {"user": "other"}])
def test_a_stored_password_goes_to_no_other_server(desk: Desk, change: dict[str, Any]) -> None:
    """Whoever gets an administrator's browser for a minute shall not draw the password out of it."""
    mail = desk.mail_host.settings()
    form = {"host": mail.host, "port": mail.port, "security": "starttls", "sender": mail.sender, "user": mail.user}
    form |= {"shown": desk.book.settings().revision} | change
    reply = desk.hospital.signed_in(Role.ADMINISTRATOR).post("/notices/mail", **form)

    assert "kept only for the server and the user" in reply.text
    assert desk.book.settings().mail == mail


def test_a_stored_key_signs_for_no_other_address(desk: Desk) -> None:
    """A notice that was signed for another receiver could be played to the real one."""
    desk.choose(webhook=desk.webhook_host.settings())
    form = {"url": "https://evil.example/x", "shown": desk.book.settings().revision}
    reply = desk.hospital.signed_in(Role.ADMINISTRATOR).post("/notices/webhook", **form)

    assert reply.status_code == 400
    assert desk.book.settings().webhook == desk.webhook_host.settings()

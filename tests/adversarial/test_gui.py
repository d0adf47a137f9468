"""The hospital's GUI in a stranger's hands: forged forms, stolen links, script in every text, files that bite."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import socket
import ssl
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import pytest

import node_gui.serve
from appliance.transport.sqlite import durable_engine, writing
from appliance.warden.audit import AuditLog
from node_gui.access import Role
from node_gui.app import HEADERS, LARGEST_FORM_BYTES
from node_gui.certificate import ready_tls_files, server_context
from node_gui.config import GuiConfig
from tests.unit.node_gui.conftest import HTTPS, PASSWORD, Gui, empty_store, gui, make_gui

__all__ = ["empty_store", "gui", "make_gui"]

SCRIPT = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{7*7}}"


class Tags(HTMLParser):
    """Collects what a browser would run."""

    def __init__(self) -> None:
        super().__init__()
        self.dangerous: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note scripts of unknown origin, event handlers and styles."""
        known = dict(attrs)
        if tag in {"iframe", "object", "embed", "base", "style"}:
            self.dangerous.append(tag)
        if tag == "script" and not (known.get("src") or "").startswith("/static/"):
            self.dangerous.append(f"script {known}")
        self.dangerous += [f"{tag} {name}" for name, _ in attrs if name.startswith("on") or name == "style"]
        for name in ("href", "src", "action"):
            if (known.get(name) or "").strip().lower().startswith(("javascript:", "data:text")):
                self.dangerous.append(f"{tag} {name}={known[name]}")


def _run_by_a_browser(text: str) -> list[str]:
    tags = Tags()
    tags.feed(text)
    return tags.dangerous


def test_every_answer_carries_the_headers(gui: Gui) -> None:
    """Pages, errors, refusals, downloads, files: one without them is the one that is attacked."""
    browser = gui.signed_in(Role.ADMINISTRATOR)
    stranger = gui.client()
    answers = [
        browser.get("/"),
        browser.get("/nowhere"),
        browser.get("/policy/nothing"),
        browser.get("/audit/export.csv"),
        browser.get("/static/style.css"),
        browser.get("/static/nothing.css"),
        browser.post("/users/invite", csrf="wrong"),
        browser.client.put("/", base_url=HTTPS, headers={"X-CSRF-Token": browser.csrf}),
        browser.post("/users/invite", name="x" * (LARGEST_FORM_BYTES + 1)),
        stranger.get("/", base_url=HTTPS),
        stranger.get("/sign-in", base_url=HTTPS),
        stranger.post("/sign-in", base_url=HTTPS, data={"name": "a", "password": "b"}),
        stranger.get("/invitation/nonsense", base_url=HTTPS),
    ]
    gui.warden.answers["policy.show"] = None  # makes the page fail inside
    answers.append(browser.get("/policy/"))
    assert {answer.status_code for answer in answers} == {200, 302, 403, 404, 405, 413, 500}

    lacking = [(a.request.path, name) for a in answers for name in HEADERS if a.headers.get(name) != HEADERS[name]]

    assert lacking == []


def test_no_page_has_script_or_style_of_its_own(gui: Gui) -> None:
    """The policy forbids it, so it would be dead; and it would be the first step to loosening the policy."""
    browser = gui.signed_in(Role.ADMINISTRATOR)
    pages = [
        "/",
        "/policy/",
        "/policy/sandbox",
        "/privacy/",
        "/members/",
        "/audit/",
        "/health/",
        "/users/",
        "/notices/",
        "/account/",
    ]
    pages += ["/account/second-factor", "/plans/", "/datasets/", "/experiments/", "/nowhere"]

    assert {path: found for path in pages if (found := _run_by_a_browser(browser.get(path).text))} == {}


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "https://node.test.evil.example", "http://", "https://["]
)
def test_a_form_of_another_site_is_refused(gui: Gui, origin: str) -> None:
    """Even with the right token, and also at the sign-in, where there is none yet."""
    browser = gui.signed_in(Role.ADMINISTRATOR)
    form = {"csrf": browser.csrf, "name": "Eve", "role": "administrator"}
    headers = {"Origin": origin}
    reply = browser.client.post("/users/invite", base_url=HTTPS, data=form, headers=headers)
    sign_in = {"name": "administrator anna", "password": PASSWORD}

    assert reply.status_code == 403
    assert [person.name for person in gui.staff.people()] == ["administrator anna"]
    assert gui.client().post("/sign-in", base_url=HTTPS, data=sign_in, headers=headers).status_code == 403


@pytest.mark.parametrize("token", ["", "x" * 43, "é"])
def test_a_form_without_the_session_s_token_is_refused(gui: Gui, token: str) -> None:
    """An old browser sends no origin."""
    reply = gui.signed_in(Role.ADMINISTRATOR).post("/users/invite", csrf=token, name="Eve", role="administrator")

    assert reply.status_code == 403
    assert "nothing was changed" in reply.text
    assert [person.name for person in gui.staff.people()] == ["administrator anna"]


def test_a_token_of_another_session_is_refused(gui: Gui) -> None:
    """An auditor's own token must not steer an administrator's browser."""
    eve = gui.signed_in(Role.AUDITOR)
    reply = gui.signed_in(Role.ADMINISTRATOR).post("/users/invite", csrf=eve.csrf, name="Eve", role="administrator")

    assert reply.status_code == 403


def test_the_cookie_goes_to_nobody_else(gui: Gui) -> None:
    """Not to script, not over plain HTTP, not from another site's page, not to a neighbour's host name."""
    gui.add(Role.AUDITOR)
    reply = gui.client().post("/sign-in", base_url=HTTPS, data={"name": "auditor anna", "password": PASSWORD})
    cookie = reply.headers["Set-Cookie"]

    assert cookie.startswith(f"{gui.cookie}=")
    assert {"Secure", "HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert "Domain" not in cookie


def test_each_node_of_a_host_has_a_cookie_of_its_own(gui: Gui) -> None:
    """A browser sends a host's cookies to all its ports: one node's sign-in would end the other's."""
    assert gui.cookie == f"__Host-fedward-{hashlib.sha256(b'north').hexdigest()[:8]}"


def test_a_session_that_was_there_before_signing_in_is_not_taken_over(gui: Gui) -> None:
    """Whoever plants a cookie must not share the session that follows."""
    gui.add(Role.AUDITOR)
    client = gui.client()
    client.set_cookie(gui.cookie, "planted", domain="node.test", secure=True)
    client.post("/sign-in", base_url=HTTPS, data={"name": "auditor anna", "password": PASSWORD})

    assert gui.staff.session("planted", is_touch=False) is None


@pytest.mark.parametrize(
    "then", ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/\t/evil", ""]
)
def test_signing_in_leads_nowhere_else(gui: Gui, then: str) -> None:
    """A link to our own sign-in must not end on another site."""
    gui.add(Role.AUDITOR)
    form = {"name": "auditor anna", "password": PASSWORD, "then": then}

    assert gui.client().post("/sign-in", base_url=HTTPS, data=form).location == "/"


def test_a_replayed_link_opens_nothing(gui: Gui) -> None:
    """Neither its page nor its form."""
    link = gui.staff.invite("setup", "Ben Ode", Role.REVIEWER)
    form = {"password": PASSWORD, "again": PASSWORD}
    assert gui.client().post(f"/invitation/{link}", base_url=HTTPS, data=form).status_code == 302

    again = {"password": "mallory's own password", "again": "mallory's own password"}
    replayed = gui.client().post(f"/invitation/{link}", base_url=HTTPS, data=again)

    assert replayed.status_code == 403
    assert gui.client().get(f"/invitation/{link}", base_url=HTTPS).status_code == 403
    assert gui.staff.sign_in("Ben Ode", PASSWORD, "", address="x")


def test_a_changed_role_counts_from_the_next_request_on(gui: Gui) -> None:
    """A page that is open must not go on with the old one."""
    gui.add(Role.ADMINISTRATOR, "Chief")
    browser = gui.signed_in(Role.ADMINISTRATOR, "Eve")
    eve = next(person for person in gui.staff.people() if person.name == "Eve")

    gui.staff.set_role("Chief", eve.id, Role.AUDITOR)
    reply = browser.post("/users/invite", name="Friend", role="administrator")

    assert reply.status_code == 302
    assert reply.location.startswith("/sign-in")
    assert "Friend" not in {person.name for person in gui.staff.people()}


def test_who_is_locked_while_the_form_arrives_does_nothing(gui: Gui) -> None:
    """A form may drip in for as long as a request may last."""
    browser = gui.signed_in(Role.ADMINISTRATOR)
    gui.add(Role.ADMINISTRATOR, "Otto Other")
    me = next(person.id for person in gui.staff.people() if person.name == "administrator anna")
    form = urlencode({"csrf": browser.csrf, "name": "Eve", "role": "administrator"}).encode()

    class Dripping(io.BytesIO):
        def readinto(self, buffer: object) -> int:  # the first byte is asked for: the request is at work
            gui.staff.set_locked("Otto Other", me, is_locked=True)
            return super().readinto(buffer)  # type: ignore[arg-type]

        def read(self, size: int | None = -1) -> bytes:
            gui.staff.set_locked("Otto Other", me, is_locked=True)
            return super().read(size)

    kind = "application/x-www-form-urlencoded"
    body = {"input_stream": Dripping(form), "content_length": len(form), "content_type": kind}
    browser.client.post("/users/invite", base_url=HTTPS, **body)

    assert sorted(person.name for person in gui.staff.people()) == ["Otto Other", "administrator anna"]


@pytest.mark.parametrize("path", ["/sign-in", "/invitation/nonsense", "/users/invite"])
def test_a_stranger_sends_no_large_form(gui: Gui, path: str) -> None:
    """Whoever has no account shall not fill the memory."""
    reply = gui.client().post(path, base_url=HTTPS, data={"name": "x" * 20_000})

    assert reply.status_code == 413


def test_a_request_that_drips_in_ends_at_its_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte every few seconds holds no thread; the next request of the connection has its own time."""
    context = server_context(ready_tls_files(tmp_path, GuiConfig()))
    context.sslsocket_class = node_gui.serve._PatientSocket
    ours, theirs = socket.socketpair()
    stranger = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    stranger.check_hostname, stranger.verify_mode = False, ssl.CERT_NONE

    def drip() -> None:
        with stranger.wrap_socket(theirs) as line:
            line.sendall(b"ab")
            line.recv(1)

    thread = threading.Thread(target=drip)
    thread.start()
    with context.wrap_socket(ours, server_side=True) as line:
        assert line.recv(1) == b"a"
        monkeypatch.setattr(node_gui.serve, "REQUEST_S", 0)
        line.setblocking(True)
        with pytest.raises(TimeoutError):
            line.recv(1)
        monkeypatch.undo()
        line.setblocking(True)
        assert line.recv(1) == b"b"
        line.sendall(b"c")
    thread.join(30)

    assert not thread.is_alive()


def test_a_live_part_of_an_ended_session_shows_nothing(gui: Gui) -> None:
    """It asks every few seconds, also after the person has gone."""
    browser = gui.signed_in(Role.ADMINISTRATOR)
    gui.staff.end_other_sessions(gui.staff.session(gui.signed_in(Role.ADMINISTRATOR).token, is_touch=False))

    reply = browser.get("/live", headers={"HX-Request": "true"})

    assert (reply.status_code, reply.text) == (401, "")


def test_whoever_guesses_is_slowed_down(gui: Gui) -> None:
    """From one computer, whatever the names."""
    client = gui.client()
    form = {"password": "guess guess guess"}
    for number in range(30):
        client.post("/sign-in", base_url=HTTPS, data=form | {"name": f"name {number}"})

    assert "Too many attempts" in client.post("/sign-in", base_url=HTTPS, data=form | {"name": "x"}).text


def test_script_in_any_text_of_the_log_is_only_text(gui: Gui) -> None:
    """Researchers choose names, subjects and notes, and staff read them."""
    engine = durable_engine(gui.home / "store/node.db")
    with writing(engine) as connection:
        AuditLog(time.time).write(connection, SCRIPT, f"plan.{SCRIPT}", SCRIPT, **{SCRIPT: SCRIPT, "list": [SCRIPT]})
    engine.dispose()
    browser = gui.signed_in(Role.ADMINISTRATOR)

    pages = [browser.get("/audit/").text, browser.get("/audit/", query_string={"subject": SCRIPT}).text]
    pages.append(browser.get("/audit/", query_string={"search": SCRIPT, "since": SCRIPT}).text)

    assert [_run_by_a_browser(page) for page in pages] == [[], [], []]
    assert all("&lt;script&gt;alert(1)" in page for page in pages)
    assert not any("49" in re.findall(r"onerror=alert\(2\)&gt;(.{2})", page) for page in pages)


def test_script_in_what_the_warden_says_is_only_text(gui: Gui) -> None:
    """Its messages quote what a researcher sent."""
    rule = {"name": f"ranges.{SCRIPT}", "value": SCRIPT, "set_by": "site", "floor": None}
    gui.warden.answers["policy.show"] = [*gui.warden.answers["policy.show"], rule]
    gui.warden.answers["node.status"]["member"] = SCRIPT
    gui.warden.answers["node.sandbox"]["lacking"] = [SCRIPT]
    browser = gui.signed_in(Role.ADMINISTRATOR)

    pages = [browser.get(path).text for path in ("/", "/policy/", "/health/")]

    assert [_run_by_a_browser(page) for page in pages] == [[], [], []]


@pytest.mark.parametrize("path", ["/sign-in?then={0}", "/sign-in?name={0}", "/nowhere/{0}", "/audit/?before={0}"])
def test_script_in_an_address_is_only_text(gui: Gui, path: str) -> None:
    """Somebody sends staff a link to their own node."""
    browser = gui.signed_in(Role.ADMINISTRATOR)

    assert _run_by_a_browser(browser.get(path.format(SCRIPT)).text) == []
    assert _run_by_a_browser(gui.client().get(path.format(SCRIPT), base_url=HTTPS).text) == []


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/audit/?before=-{'9' * 30}", 200),
        (f"/audit/?before={'9' * 30}", 200),
        (f"/users/{'9' * 30}", 403),
        ("/plans/?endpoint=x&_scheme=ftp&_external=1&_anchor=y&state=approved", 200),
        ("/experiments/?experiment_id=x&values=y&_method=POST", 200),
        ("/plans/?page=" + "9" * 5000, 200),
    ],
)
def test_an_address_of_any_numbers_and_words_is_no_fault_inside(gui: Gui, path: str, status: int) -> None:
    """Each would fill the log, and be a first look at what lies behind."""
    assert gui.signed_in(Role.ADMINISTRATOR).get(path).status_code == status


def test_an_exported_text_is_no_formula(gui: Gui) -> None:
    """A spreadsheet would run it with an administrator's rights."""
    formulas = [
        "=HYPERLINK(1)",
        "+1",
        "-1",
        "@SUM(1)",
        " =1",
        "\t=1",
        "\u00a0=1",
        '"=1',
        "\uff1d1",
        "a;=1",
        "a\t@1",
        "a\n \uff0b1",
    ]
    engine = durable_engine(gui.home / "store/node.db")
    with writing(engine) as connection:
        for formula in formulas:
            AuditLog(time.time).write(connection, formula, formula, formula)
    engine.dispose()

    text = gui.signed_in(Role.AUDITOR).get("/audit/export.csv").text.removeprefix("\ufeff")
    cells = [cell for row in csv.reader(io.StringIO(text)) for cell in row]

    assert len(cells) == 6 * (len(formulas) + 1)
    parts = [part for cell in cells for part in re.split("[;\t\r\n]", cell)]
    assert [
        part for part in parts if part.lstrip(' \u00a0"').startswith(("=", "+", "-", "@", "\uff1d", "\uff0b"))
    ] == []
    assert [cell for cell in cells if cell.lstrip().startswith("\t")] == []


@pytest.mark.parametrize(
    "path",
    ["/static/../config.py", "/static/..%2fconfig.py", "/static//etc/passwd", "/static/%2e%2e/%2e%2e/gui/staff.db"],
)
def test_no_file_is_read_outside_the_static_folder(gui: Gui, path: str) -> None:
    """Only what a release brings is served."""
    assert gui.signed_in(Role.ADMINISTRATOR).get(path, follow_redirects=True).status_code == 404


def test_a_fault_inside_shows_no_more_than_a_reference(gui: Gui) -> None:
    """A traceback would tell a stranger how the house is built."""
    gui.warden.answers["policy.show"] = None

    reply = gui.signed_in(Role.ADMINISTRATOR).get("/policy/")

    assert reply.status_code == 500
    assert re.search(r"reference [0-9a-f]{8}", reply.text)
    assert "Traceback" not in reply.text
    assert "TypeError" not in reply.text

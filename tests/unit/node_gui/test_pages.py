"""Home, policy, privacy, members, audit log, health, users, account: what they show and what they do."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import pyotp
import pytest
import sqlalchemy as sa

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.home import MemberSettings
from appliance.protocol.register import open_register
from appliance.protocol.settings import read_settings
from appliance.protocol.words import six_words
from appliance.transport.sqlite import durable_engine, writing
from appliance.warden.audit import AuditLog
from appliance.warden.history import Page
from appliance.warden.store import audit as audit_table
from appliance.warden.store import plans
from node_gui import formats
from node_gui.access import Role
from node_gui.exports import defused
from node_gui.formats import browser as browser_name
from node_gui.forms import turn
from node_gui.reports import TOLD_AT_ONCE
from node_gui.staff import StaffBook
from tests.unit.node_gui.conftest import FAST, HTTPS, PASSWORD, STATUS, Gui, rules


@dataclass
class Log:
    """The node's audit log, as the warden writes it."""

    home: Path

    def write(self, event: str, subject: str = "cells", at: float | None = None, **details: Any) -> None:
        """Append a line."""
        engine = durable_engine(self.home / "store/node.db")
        with writing(engine) as connection:
            AuditLog(lambda: at or time.time()).write(connection, "staff:Anna", event, subject, **details)
        engine.dispose()

    def alter(self, n: int) -> None:
        """Change a line behind the warden's back."""
        engine = durable_engine(self.home / "store/node.db")
        with writing(engine) as connection:
            connection.execute(sa.update(audit_table).where(audit_table.c.n == n).values(text="{}"))
        engine.dispose()


@pytest.fixture
def log(gui: Gui) -> Log:
    """The audit log of that GUI's node."""
    return Log(gui.home)


# Home and the frame


def test_home_says_when_the_node_does_not_run(gui: Gui) -> None:
    """History still shows; what cannot be done is said before somebody tries."""
    browser = gui.signed_in(Role.REVIEWER)
    gui.warden.is_down = True

    page = browser.get("/")

    assert page.status_code == 200
    assert "The node does not run: nothing is trained, and nothing leaves." in page.text


def test_every_page_warns_while_plan_approval_is_off(gui: Gui) -> None:
    """Nobody should have to look for it."""
    gui.warden.answers["node.status"] = STATUS | {"plan_approval": "off"}
    browser = gui.signed_in(Role.AUDITOR)

    assert [
        path for path in ("/", "/members/", "/audit/") if "Plan approval is off" not in browser.get(path).text
    ] == []


def test_home_says_that_the_line_is_down(gui: Gui) -> None:
    """With the moment of the last contact, to know whether to worry."""
    gui.warden.answers["node.status"] = STATUS | {"is_connected": False, "contact_at": time.time() - 7200}

    page = gui.signed_in(Role.ADMINISTRATOR).get("/").text

    assert "no line to the network host" in page
    assert "2 hours ago" in page


def test_the_menu_shows_only_what_a_person_may_open(gui: Gui) -> None:
    """A door that does not open is not shown."""
    assert 'href="/users/"' in gui.signed_in(Role.ADMINISTRATOR).get("/").text
    assert 'href="/users/"' not in gui.signed_in(Role.REVIEWER).get("/").text


# Policy


def test_a_rule_is_changed_after_a_second_look(gui: Gui) -> None:
    """The first form only shows what would change."""
    browser = gui.signed_in(Role.ADMINISTRATOR)
    asked = browser.post("/policy/minimum_samples", value="50", shown="20")
    assert gui.warden.asked("policy.set") == []
    assert "20 records" in asked.text
    assert "50 records" in asked.text

    done = browser.post("/policy/minimum_samples", value="50", shown="20", confirmed="yes")

    assert done.status_code == 302
    changed = {"changes": {"minimum_samples": 50}, "shown": {"minimum_samples": 20}}
    assert gui.warden.asked("policy.set") == [("administrator anna", changed)]


def test_a_rule_that_changed_since_it_was_shown_stays(gui: Gui) -> None:
    """Two administrators, one stale page."""
    browser = gui.signed_in(Role.ADMINISTRATOR)
    gui.warden.answers["policy.show"] = rules(minimum_samples=100)

    reply = browser.post("/policy/minimum_samples", value="50", shown="20", confirmed="yes")

    assert "not as you saw it" in reply.text
    assert gui.warden.asked("policy.set") == []


def test_a_looser_rule_is_called_so(gui: Gui) -> None:
    """Before it is confirmed."""
    browser = gui.signed_in(Role.ADMINISTRATOR)

    assert "less strict" in browser.post("/policy/plan_approval", value="off", shown="required").text
    assert "less strict" not in browser.post("/policy/second_reviewer", value="True", shown="False").text


@pytest.mark.parametrize("value", ["many", "1e999x", "<b>", "twenty", "-"])
def test_a_value_that_is_none_is_refused_with_a_sentence(gui: Gui, value: str) -> None:
    """And the warden is not even asked."""
    reply = gui.signed_in(Role.ADMINISTRATOR).post("/policy/minimum_samples", value=value, shown="20", confirmed="yes")

    assert reply.status_code == 400
    assert "nothing was changed" in reply.text
    assert gui.warden.asked("policy.set") == []


def test_what_the_warden_refuses_stands_beside_the_form(gui: Gui) -> None:
    """With the rule that decided, and what to do."""
    gui.warden.answers["policy.set"] = FedWardError(
        "too loose", code=Code.POLICY_REFUSED, rule="minimum_samples = 20 (set by the consortium)"
    )

    reply = gui.signed_in(Role.ADMINISTRATOR).post("/policy/minimum_samples", value="5", shown="20", confirmed="yes")

    assert reply.status_code == 400
    assert "too loose" in reply.text
    assert "set by the consortium" in reply.text


# Members


def test_members_shows_the_words_of_the_register_that_the_operator_signed(gui: Gui) -> None:
    """Two hospitals that see the same words see the same register."""
    settings = read_settings(gui.home / "member.toml", MemberSettings)
    register = open_register((gui.home / "register.jws").read_text(), settings.operator)

    page = gui.signed_in(Role.AUDITOR).get("/members/").text

    assert " ".join(six_words(register.digest())) in page
    assert "alice@example.org" in page


def test_a_register_of_another_signature_is_not_shown(gui: Gui) -> None:
    """What the pinned operator did not sign is nobody's list."""
    path = gui.home / "register.jws"
    head, body, signature = path.read_text().split(".")
    path.write_text(f"{head}.{body}.{'A' * len(signature)}")

    page = gui.signed_in(Role.AUDITOR).get("/members/")

    assert page.status_code == 400
    assert "not signed by the pinned operator key" in page.text
    assert "alice@example.org" not in page.text


# Audit log


def test_the_log_is_searched(gui: Gui, log: Log) -> None:
    """By words, and by what it is about."""
    log.write("dataset.added", "ds-1", name="lungs")
    log.write("dataset.removed", "ds-2")
    browser = gui.signed_in(Role.REVIEWER)

    assert "added the dataset" in browser.get("/audit/?search=LUNGS").text
    assert "removed the dataset" not in browser.get("/audit/?search=LUNGS").text
    assert "removed the dataset" in browser.get("/audit/?subject=ds-2").text


def test_a_day_that_is_none_is_said(gui: Gui) -> None:
    """A page, not a fault inside."""
    reply = gui.signed_in(Role.REVIEWER).get("/audit/?since=yesterday")

    assert "is not a day" in reply.text


def test_a_whole_log_is_called_whole_and_an_altered_one_altered(gui: Gui, log: Log) -> None:
    """That is what the chain is for."""
    log.write("node.started")
    log.write("node.stopped")
    browser = gui.signed_in(Role.AUDITOR)
    assert "The log is whole" in browser.post("/audit/verify").text

    log.alter(2)

    assert "Line 2 is not as it was written" in browser.post("/audit/verify").text
    assert "altered" in browser.get("/audit/").text


def test_a_long_log_is_checked_part_by_part(gui: Gui, log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """No request walks a million lines: each answer says how far it came, and its form asks for the next part."""
    monkeypatch.setattr("node_gui.audit.VERIFIED_AT_ONCE", 2)
    for number in range(5):
        log.write("dataset.added", f"d{number}")
    browser = gui.signed_in(Role.AUDITOR)

    def parts() -> list[str]:
        found = [browser.post("/audit/verify").text]
        while "being checked" in found[-1] and len(found) < 9:
            state = {name: re.search(rf'name="{name}" value="(\w+)"', found[-1]) for name in ("lines", "head")}
            form = {"csrf": browser.csrf} | {name: match[1] for name, match in state.items() if match}
            reply = browser.client.post("/audit/verify", base_url=HTTPS, headers={"HX-Request": "true"}, data=form)
            found.append(reply.text)
        return found

    whole = parts()
    assert [re.findall(r'<progress value="(\d)" max="5"', page) for page in whole] == [["2"], ["4"], []]
    assert "The log is whole" in whole[-1]
    assert "5 lines were checked; all are" in whole[-1]
    assert "<html" in whole[0]
    assert "<html" not in whole[1]

    log.alter(4)
    assert "Line 4 is not as it was written" in parts()[-1]


@pytest.mark.parametrize("form", [{"lines": "-7"}, {"lines": "9" * 30}, {"lines": "x"}, {"lines": "1", "head": "<b>"}])
def test_a_check_that_begins_where_nobody_came_to_finds_nothing_whole_that_is_not(
    gui: Gui, log: Log, form: dict[str, str]
) -> None:
    """A form of one's own making is answered by a page."""
    log.write("node.started")
    log.write("node.stopped")

    reply = gui.signed_in(Role.AUDITOR).post("/audit/verify", **form)

    assert reply.status_code == 200
    assert "<b>" not in reply.text


def test_an_export_ends_with_a_signature_over_all_before_it(gui: Gui, log: Log) -> None:
    """Whoever gets the file checks it by itself; which lines it holds is the warden's word."""
    for name in ("one", "two", "three", "later"):
        log.write("dataset.added", name)

    text = gui.signed_in(Role.AUDITOR).get("/audit/export.jsonl").data
    *lines, signed = text.splitlines(keepends=True)

    assert [json.loads(line)["subject"] for line in lines] == ["one", "two", "three"]
    assert json.loads(signed) == {"signature": "a.b.c"}
    everything = {"search": "", "subject": None, "since": None, "until": None}
    assert gui.warden.asked("audit.export") == [("auditor anna", everything)]


def test_an_export_holds_a_period(gui: Gui, log: Log) -> None:
    """From the first moment of its first day to the last of its last, in this machine's time zone."""
    for day in (1, 2, 3):
        log.write("dataset.added", f"day {day}", at=time.mktime((2026, 3, day, 12, 0, 0, 0, 0, -1)))

    text = gui.signed_in(Role.AUDITOR).get("/audit/export.csv?since=2026-03-02&until=2026-03-02").text

    assert [row[4] for row in csv.reader(io.StringIO(text))][1:] == ["day 2"]


def test_only_the_running_node_signs(gui: Gui) -> None:
    """An export without a signature would look like one with."""
    browser = gui.signed_in(Role.AUDITOR)
    gui.warden.is_down = True

    reply = browser.get("/audit/export.jsonl")

    assert reply.status_code == 503
    assert "signature" not in reply.text


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("=1+1", "'=1+1"),
        ("  =1", "'  =1"),
        ("+1", "'+1"),
        ("@a", "'@a"),
        ("\tx", "'\tx"),
        ("a;=1", "a;'=1"),
        ("\uff1d1", "'\uff1d1"),
        ("a=1", "a=1"),
        (-1.5, -1.5),
    ],
)
def test_a_cell_is_never_a_formula(cell: object, shown: object) -> None:
    """A researcher chose that text, and an administrator opens the file."""
    assert defused(cell) == shown


# Accounts


def test_an_invited_person_joins_with_the_link(gui: Gui) -> None:
    """The way by which everybody but the first comes in."""
    page = gui.signed_in(Role.ADMINISTRATOR).post("/users/invite", name="Ben Ode", role="reviewer").text
    path = page.split("/invitation/")[1].split("<")[0]
    client = gui.client()

    client.post(f"/invitation/{path}", base_url=HTTPS, data={"password": PASSWORD, "again": PASSWORD})
    reply = client.post("/sign-in", base_url=HTTPS, data={"name": "Ben Ode", "password": PASSWORD})

    assert reply.status_code == 302
    assert "Plan reviewer" in client.get("/", base_url=HTTPS).text


def test_an_event_that_the_log_does_not_take_is_told_in_other_words_or_kept(gui: Gui) -> None:
    """What happened to an account is never forgotten."""
    refused = FedWardError("Names have other signs.", code=Code.ARGUMENT_INVALID)
    gui.add(Role.AUDITOR, "Ben")
    gui.warden.answers["account.record"] = refused
    browser = gui.signed_in(Role.ADMINISTRATOR, "Otto")
    browser.get("/")
    assert gui.staff.unreported(100) == []  # told no more in this process
    kept = StaffBook(gui.home, hasher=FAST)
    assert [(event["event"], event["subject"]) for event in kept.unreported(100)][-1] == ("account.signed-in", "Otto")
    kept.close()

    def of_the_gui_alone(**told: Any) -> dict[str, Any]:
        if "by" not in told["details"]:
            raise refused
        return {}

    gui.warden.answers["account.record"] = of_the_gui_alone
    browser.get("/")

    assert gui.staff.unreported(100) == []
    name, told = gui.warden.asked("account.record")[-1]
    assert (name, told["account"], told["details"]["by"]) == ("node GUI", "Otto", "Otto")


def test_accounts_are_reported_once_the_node_runs(gui: Gui) -> None:
    """A sign-in while the warden was down must not be missing in the log."""
    gui.warden.is_down = True
    browser = gui.signed_in(Role.REVIEWER)
    browser.get("/")
    gui.warden.is_down = False

    browser.get("/")
    browser.get("/")

    told = gui.warden.asked("account.record")
    assert [(name, call["account"]) for name, call in told if call["event"] == "account.signed-in"] == [
        ("reviewer anna", "reviewer anna")
    ]


def test_a_page_waits_for_few_reports_and_the_rest_comes_later(gui: Gui) -> None:
    """After a night without the warden hundreds may wait."""
    browser = gui.signed_in(Role.REVIEWER)
    session = gui.staff.session(browser.token, is_touch=False)
    assert session is not None
    for _ in range(2 * TOLD_AT_ONCE):
        gui.staff.end_other_sessions(session)

    browser.get("/")
    first = len(gui.warden.asked("account.record"))
    browser.get("/")

    assert first == TOLD_AT_ONCE
    assert len(gui.warden.asked("account.record")) == 2 * TOLD_AT_ONCE


def test_an_event_is_told_with_the_moment_at_which_it_happened(gui: Gui) -> None:
    """The node may have been down for days meanwhile."""
    before = time.time()
    browser = gui.signed_in(Role.REVIEWER)
    after = time.time()
    browser.get("/")

    told = [call["happened_at"] for _, call in gui.warden.asked("account.record")]
    assert told
    assert before <= min(told) <= max(told) <= after


def test_a_second_factor_is_set_up_from_the_page(gui: Gui) -> None:
    """The key on the page is the one that is asked for afterwards."""
    browser = gui.signed_in(Role.REVIEWER)
    secret = browser.get("/account/second-factor").text.split("<code>")[1].split("</code>")[0]
    assert secret in browser.get("/account/second-factor").text

    done = browser.post("/account/second-factor", code=pyotp.TOTP(secret).now(), password=PASSWORD)

    assert "recovery codes" in done.text
    assert gui.staff.people()[0].has_second_factor


def test_a_changed_password_ends_this_session_too(gui: Gui) -> None:
    """Whoever changes it because it was stolen is rid of the thief."""
    browser = gui.signed_in(Role.REVIEWER)
    new = "another long sentence"

    browser.post("/account/password", password=PASSWORD, new=new, again=new)

    assert browser.get("/").location.startswith("/sign-in")


@pytest.mark.parametrize("seconds", [1e300, float("inf"), float("nan"), -1e300])
def test_a_time_that_no_calendar_has_is_still_shown(gui: Gui, seconds: float) -> None:
    """A node's clock or a researcher's code may say anything."""
    with gui.app.test_request_context():
        for show in (formats.ago, formats.clock, formats.day, formats.exact, formats.iso, formats.span):
            assert show(seconds)


def test_home_spells_out_names_that_steer(gui: Gui) -> None:
    """A plan's name that turns the writing would say something else than it is."""
    with writing(durable_engine(gui.home / "store/node.db")) as connection:
        values = {"sha256": "a" * 64, "name": "good\u202eplan", "requested_by": "alice", "requested_at": 1.0}
        values |= {"source": "x", "description": "", "state": "pending", "origin": "researcher", "note": ""}
        connection.execute(plans.insert().values(asked_ranges=[], ranges=[], **values))

    page = gui.signed_in(Role.REVIEWER).get("/").text

    assert "good\\u202eplan" in page
    assert "\u202e" not in page


def test_health_names_gpus_processes_settings_and_images(gui: Gui) -> None:
    """What somebody asks first who looks for a fault."""
    browser = gui.signed_in(Role.ADMINISTRATOR)
    without = unescape(browser.get("/health/").text)
    assert "This machine has none that plans could use" in without
    assert "does not run from images" in without
    gpu = {"name": "NVIDIA T4", "memory_bytes": 16_000_000_000, "driver": "570.86"}
    gui.warden.answers["node.machine"] |= {"gpus": [gpu], "gpu": "never"}
    (gui.home / "images.toml").write_text('[images]\nwarden = "sha256:4f53cda18c2baa0c"\n')

    page = unescape(browser.get("/health/").text)

    for text in ("NVIDIA T4, 16 GB, driver 570.86", "Policy gives it to no training.", "sha256:4f53cda18c2baa0c"):
        assert text in page
    assert re.search(r"Warden</th><td[^>]*>90 MB", page)
    assert re.search(
        r"heartbeat_s</code></th><td>node.toml</td><td>5.0</td><td>10.0</td>\s*<td><span[^>]*>differs", page
    )
    assert re.search(r"port</code></th><td>gui.toml</td><td>8444</td><td>8444</td>\s*<td></td>", page)


def test_health_is_shown_while_the_warden_is_down(gui: Gui) -> None:
    """Then it is needed most."""
    gui.warden.is_down = True
    page = gui.signed_in(Role.ADMINISTRATOR).get("/health/")

    assert page.status_code == 200
    assert "Only the running runner knows." in page.text


def test_health_shows_what_is_missing_of_the_sandbox(gui: Gui) -> None:
    """With less than policy requires, no round runs: somebody must know why."""
    gui.warden.answers["node.sandbox"] = {"level": {}, "required": "full", "lacking": ["no network"]}

    page = gui.signed_in(Role.ADMINISTRATOR).get("/health/").text

    assert "less than policy requires" in page
    assert "no network" in page


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox on Windows"),
        ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/156.0 Safari/537.36", "Chrome on Linux"),
        ("Mozilla/5.0 (Windows NT 10.0) Chrome/156.0 Safari/537.36 Edg/156.0", "Edge on Windows"),
        ("curl/8", "another browser"),
    ],
)
def test_a_browser_is_called_as_people_call_it(gui: Gui, said: str, name: str) -> None:
    """Somebody shall recognise their own computer in the list."""
    with gui.app.test_request_context():
        assert browser_name(said) == name


def test_a_full_disk_is_said_on_a_page(gui: Gui) -> None:
    """Also the page that says so asks the node how it is."""
    full = FedWardError("the disk takes no more", code=Code.DISK_FULL)
    gui.warden.answers |= {"node.status": full, "policy.show": full}

    page = gui.signed_in(Role.ADMINISTRATOR).get("/policy/")

    assert page.status_code == 400
    assert "the disk takes no more" in page.text


def test_the_next_page_keeps_only_filters(gui: Gui) -> None:
    """Any other word of the address would be taken for a setting of the link."""
    with gui.app.test_request_context("/plans/?endpoint=x&_scheme=ftp&_external=1&search=a", base_url=HTTPS):
        assert turn(Page([], 1000, 0, 50))["older"] == "/plans/?search=a&page=2"

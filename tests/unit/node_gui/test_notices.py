"""Notices: what is told of a real node's records, how often, and what becomes of an attempt that fails."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from babel.dates import format_date
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocol.errors import Code
from appliance.warden.store import permissions, plans, rounds
from node_gui.access import Role
from node_gui.certificate import TlsPair, ready_tls_files
from node_gui.config import GuiConfig
from node_gui.context import EXTENSION
from node_gui.notices.book import NoticeBook
from node_gui.notices.occasions import NAME_MOST, named
from node_gui.notices.outward import Problem
from node_gui.notices.sender import DIGEST_S, REMINDER_S, RETRY_FIRST_S, RETRY_MOST_S, Sender
from node_gui.notices.settings import Kind, addresses
from node_gui.notices.sources import LONG_S, SHORT_S, SOURCES
from node_gui.staff import StaffBook
from tests.conftest import Members
from tests.receivers import KEY, PASSWORD, Clock, Mail, MailHost, WebhookHost
from tests.unit.node_gui.conftest import STATUS, write_home
from tests.unit.node_gui.hospital import Hospital
from tests.unit.warden.conftest import STAFF, failed

ADDRESS = "https://node.hospital.example"
REVIEWERS, OTHERS = ("rea@hospital.example", "rob@hospital.example"), ("it@hospital.example",)


class Desk:
    """A hospital whose notices are set up, and what they reach."""

    def __init__(self, hospital: Hospital, mail_host: MailHost, webhook_host: WebhookHost) -> None:
        self.hospital, self.mail_host, self.webhook_host = hospital, mail_host, webhook_host
        self.clock = Clock(time.time())
        self.parts = hospital.gui.app.extensions[EXTENSION]
        self.book.clock = self.clock
        self.sender = Sender(hospital.gui.app, ADDRESS)
        self.choose(reviewers=REVIEWERS, others=OTHERS, mail=mail_host.settings())

    @property
    def book(self) -> NoticeBook:
        """Settings and what was told."""
        return self.parts.notices

    @property
    def mails(self) -> list[Mail]:
        """What the mail server took."""
        return self.mail_host.mails

    def choose(self, **changes: Any) -> None:
        """An administrator changes the settings."""
        shown = self.book.settings().revision
        self.book.change("setup", shown, what="test", details={}, **changes)

    def check(self, after_s: float = 0.0) -> list[Mail]:
        """The sender looks, after some time has passed; returns the mails that it brought."""
        before = len(self.mails)
        self.clock.now += after_s
        self.sender.check()
        return self.mails[before:]

    def plan(self, name: str = "unet") -> str:
        """A plan arrives that waits for review."""
        return self.hospital.request_plan(f"class Plan:\n    name = {name!r}\n", name=name)

    def fail_a_round(self) -> None:
        """A round of alice's fails."""

        def training(*_: object) -> Any:
            raise failed(Code.TRAINING_FAILED, "The plan failed.")

        self.hospital.node.runner.training = training
        self.hospital.node.round(self.hospital.node.accepted()).run()


@pytest.fixture
def pair(tmp_path: Path) -> TlsPair:
    """The certificate of the receivers."""
    return ready_tls_files(tmp_path / "receivers", GuiConfig())


@pytest.fixture
def desk(
    tmp_path: Path, empty_store: Path, members: Members, pair: TlsPair, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Desk]:
    """A hospital with notices by e-mail; its machine trusts the receivers, and its disk is fine."""
    monkeypatch.setenv("SSL_CERT_FILE", str(pair.certificate))
    monkeypatch.setattr("node_gui.notices.sources.disk_left", lambda _home: 0.5)
    home = tmp_path / "north"
    shutil.copytree(empty_store, home / "store")
    hospital = Hospital(home, members)
    hospital.node.services.is_connected = lambda: True
    write_home(home)
    with MailHost(pair) as mail_host, WebhookHost(pair) as webhook_host:
        yield Desk(hospital, mail_host, webhook_host)
    hospital.close()


# What is told


def test_reviewers_are_told_of_a_plan_that_waits(desk: Desk) -> None:
    """What happened, at which hospital, and where to look: and nobody else is bothered."""
    sha256 = desk.plan()
    (mail,) = desk.check()

    assert mail.message["Subject"] == "FedWard north: 1 training plan waits for review"
    assert sorted(mail.recipients) == sorted(REVIEWERS)
    assert "alice asks for approval of the training plan “unet”." in mail.body
    assert f"{ADDRESS}/plans/{sha256}" in mail.body
    assert "Hospital: north hospital (node north)" in mail.body
    assert mail.text.isascii()


def _approval_ends(desk: Desk) -> None:
    desk.hospital.node.add_plan(until=time.time() + 5 * 86_400)


def _permission_ends(desk: Desk) -> None:
    dataset = desk.hospital.node.add_dataset()
    desk.hospital.node.governance.dataset_permit(STAFF, dataset, "alice", until=time.time() + 86_400)


def _approval_ended(desk: Desk) -> None:
    _approval_ends(desk)
    with desk.hospital.node.store.write() as connection:
        connection.execute(sa.update(plans).values(until=time.time() - 60))


def _certificate_ends(desk: Desk) -> None:
    desk.clock.now += 360 * 86_400  # of the 365 that it lasts


def _files_change(desk: Desk) -> None:
    dataset = desk.hospital.node.add_dataset()
    with desk.hospital.node.store.write() as connection:
        desk.hospital.node.services.datasets.mark_changed(connection, dataset)


def _line_is_cut(desk: Desk) -> None:
    desk.hospital.node.services.is_connected = lambda: False
    desk.check()
    desk.clock.now += LONG_S


def _approval_is_switched_off(desk: Desk) -> None:
    desk.hospital.node.governance.policy_set(STAFF, {"plan_approval": "off"})


def _node_ends(desk: Desk) -> None:
    desk.hospital.stop_warden()
    desk.check()
    desk.clock.now += SHORT_S


def _second_reviewer_waits(desk: Desk) -> None:
    desk.hospital.node.governance.policy_set(STAFF, {"second_reviewer": True})
    desk.hospital.node.governance.plan_approve(STAFF, desk.plan())


@pytest.mark.parametrize(
    ("happens", "sentence"),
    [
        (Desk.fail_a_round, "Round 1 of “plan”, which alice asked for, failed on "),
        (_second_reviewer_waits, "The training plan “unet” of alice waits for a second reviewer."),
        (_approval_ends, "The approval of the training plan “plan” ends on "),
        (_approval_ended, "The approval of the training plan “plan” ended on "),
        (_permission_ends, "The permission of alice on “trial” ends on "),
        (_certificate_ends, "The certificate of the node ends on "),
        (_files_change, "The files of “trial” have changed; nothing trains on it."),
        (_line_is_cut, "The node has no line to the network host"),
        (_approval_is_switched_off, "Plan approval is off: researchers' code runs"),
        (_node_ends, "The node does not answer: nothing is trained"),
    ],
)
def test_what_happens_is_told(desk: Desk, happens: Callable[[Desk], None], sentence: str) -> None:
    """Each from the node's own records."""
    happens(desk)
    (mail,) = desk.check()

    assert sentence in mail.body


def test_a_full_disk_is_told(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it has lasted: a large file may come and go."""
    monkeypatch.setattr("node_gui.notices.sources.disk_left", lambda _home: 0.05)
    assert desk.check() == []

    (mail,) = desk.check(SHORT_S)

    assert "The node's disk is nearly full." in mail.body


def test_a_notice_holds_nothing_that_a_researcher_wrote_but_a_name(desk: Desk) -> None:
    """Neither the plan's text and description nor what it printed leaves the node."""
    desk.hospital.request_plan("SECRET = 'plan text'\n", name="unet", description="a long description")
    desk.choose(webhook=desk.webhook_host.settings())
    (mail,) = desk.check()

    for words in ("SECRET", "plan text", "long description"):
        assert words not in mail.body
        assert words not in desk.webhook_host.calls[0].body.decode()


def test_what_was_not_chosen_is_not_told(desk: Desk) -> None:
    """Whoever wants no mail of a kind gets none."""
    desk.choose(kinds=frozenset(Kind) - {Kind.PLANS})
    desk.plan()

    assert desk.check() == []


def test_a_notice_is_in_the_language_that_was_chosen_for_notices(desk: Desk) -> None:
    """It has no reader's browser to ask."""
    desk.choose(language="fr")
    _permission_ends(desk)
    (mail,) = desk.check()
    until = desk.hospital.node.table(permissions)[0]["until"]

    assert format_date(datetime.fromtimestamp(until).astimezone(), "d MMMM y", locale="fr") in mail.body


def test_failures_from_before_notices_were_set_up_are_not_told(desk: Desk) -> None:
    """The first mail shall not be a year's history."""
    desk.fail_a_round()
    with desk.hospital.node.store.write() as connection:
        connection.execute(sa.update(rounds).values(ended_at=desk.book.settings().since - 60))

    assert desk.check() == []


def test_a_node_that_never_ran_has_nothing_to_tell(desk: Desk) -> None:
    """But that it does not answer is told, and the sender lives on."""
    desk.hospital.stop_warden()
    desk.parts.history().close()
    (desk.hospital.gui.home / "store/node.db").rename(desk.hospital.gui.home / "store/away.db")
    desk.parts._history = None
    told = [*desk.check(), *desk.check(SHORT_S)]
    (desk.hospital.gui.home / "store/away.db").rename(desk.hospital.gui.home / "store/node.db")

    assert [mail.message["Subject"] for mail in told] == ["FedWard north: The node does not answer"]


# How often


def test_many_plans_are_one_mail(desk: Desk) -> None:
    """Fifty researchers must not fill a reviewer's inbox."""
    for number in range(25):
        desk.plan(f"plan {number}")
    (mail,) = desk.check()

    assert mail.message["Subject"] == "FedWard north: 25 training plans wait for review"
    assert mail.body.count("asks for approval") == 20
    assert "5 more are not listed here." in mail.body


def test_what_comes_soon_after_a_mail_waits_for_the_next(desk: Desk) -> None:
    """One mail a kind in a quarter of an hour; nothing is left out for it."""
    desk.plan("first")
    assert len(desk.check()) == 1
    desk.plan("second")
    assert desk.check(DIGEST_S - 1) == []

    (mail,) = desk.check(1)

    assert "“second”" in mail.body


def test_kinds_do_not_wait_for_each_other(desk: Desk) -> None:
    """That plan approval was switched off is not held back by a plan that was told of."""
    desk.plan()
    desk.check()
    _approval_is_switched_off(desk)

    assert [mail.recipients for mail in desk.check()] == [list(OTHERS)]


def test_nothing_is_told_twice_also_not_after_a_restart(desk: Desk) -> None:
    """What was told is remembered on the disk."""
    desk.plan()
    _permission_ends(desk)
    assert len(desk.check()) == 2
    desk.sender = Sender(desk.hospital.gui.app, ADDRESS)

    assert desk.check() == []
    assert desk.check(DIGEST_S) == []


def test_a_plan_that_still_waits_is_told_again_each_day(desk: Desk) -> None:
    """All that wait, in one mail a day; and none once it is decided."""
    sha256 = desk.plan("first")
    desk.check()
    desk.plan("second")
    desk.check(DIGEST_S)
    assert desk.check(REMINDER_S - 1) == []
    (reminder,) = desk.check(1)
    assert "“first”" in reminder.body
    assert "“second”" in reminder.body
    desk.hospital.node.governance.plan_reject(STAFF, sha256)

    (last,) = desk.check(REMINDER_S)

    assert "“first”" not in last.body


def test_an_end_is_told_before_and_after_it_but_not_each_day(desk: Desk) -> None:
    """A fortnight of reminders would be filtered away by whoever gets them."""
    _permission_ends(desk)
    assert len(desk.check()) == 1
    assert desk.check(86_400 / 2) == []

    (mail,) = desk.check(86_400)

    assert "The permission of alice on “trial” ended on " in mail.body


def test_a_short_restart_of_the_node_is_not_told(desk: Desk) -> None:
    """Nobody shall be woken by an upgrade."""
    desk.hospital.gui.app.extensions[EXTENSION].governance = desk.hospital.gui.warden
    desk.hospital.gui.warden.is_down = True
    assert desk.check() == []
    desk.hospital.gui.warden.is_down = False
    assert desk.check(SHORT_S) == []
    desk.hospital.gui.warden.is_down = True

    assert desk.check() == []


def test_what_comes_back_is_told_anew(desk: Desk) -> None:
    """Plan approval may be switched off a second time."""
    warden = desk.hospital.gui.warden
    desk.hospital.gui.app.extensions[EXTENSION].governance = warden
    for state, mails in (("off", 1), ("required", 0), ("off", 1)):
        warden.answers["node.status"] = STATUS | {"plan_approval": state}
        assert len(desk.check(DIGEST_S)) == mails

    assert len({mail.message["Message-ID"] for mail in desk.mails}) == 2


def test_what_nobody_can_see_now_is_not_over(desk: Desk) -> None:
    """While the node is down nobody knows whether plan approval is still off: it is not told again afterwards."""
    warden = desk.hospital.gui.warden
    desk.hospital.gui.app.extensions[EXTENSION].governance = warden
    warden.answers["node.status"] = STATUS | {"plan_approval": "off"}
    assert len(desk.check()) == 1
    warden.is_down = True
    assert desk.check(DIGEST_S) == []
    warden.is_down = False

    assert desk.check(DIGEST_S) == []


def test_a_clock_that_was_ahead_delays_nothing(desk: Desk) -> None:
    """A moment in the future was written by a wrong clock."""
    desk.clock.now += 400 * 86_400
    desk.plan("first")
    desk.check()
    desk.clock.now -= 400 * 86_400
    desk.plan("second")

    assert [mail for mail in desk.check() if "“second”" in mail.body] != []


# Attempts that fail


def test_an_attempt_that_fails_is_repeated_after_a_growing_delay(desk: Desk) -> None:
    """Nothing is lost, and a mail server in trouble is left alone: 1, 2, 4 minutes, at most an hour."""
    desk.mail_host.answers["MAIL"] = "451 not now"
    desk.plan()
    tries = []
    for after_s in (0.0, 59.0, 1.0, 119.0, 1.0, 239.0, 1.0, *[RETRY_MOST_S] * 5):
        desk.check(after_s)
        tries.append(sum(command.lower().startswith("mail") for command in desk.mail_host.commands))
    assert tries == [1, 1, 2, 2, 3, 3, 4, 5, 6, 7, 8, 9]
    assert desk.book.attempts()[0].problem is Problem.REFUSED
    assert desk.book.attempts()[0].status == 451
    desk.mail_host.answers.clear()

    (mail,) = desk.check(RETRY_MOST_S)

    assert "“unet”" in mail.body
    assert desk.book.attempts()[0].problem is None


def test_one_way_in_trouble_does_not_repeat_the_other(desk: Desk) -> None:
    """A webhook that is down must not mail the same thing every hour."""
    desk.choose(webhook=desk.webhook_host.settings())
    desk.webhook_host.status = 503
    desk.plan()
    assert len(desk.check()) == 1
    desk.webhook_host.status = 204

    assert desk.check(RETRY_FIRST_S) == []
    assert [call.document["kind"] for call in desk.webhook_host.calls] == ["plans", "plans"]
    assert desk.webhook_host.calls[0].document["items"] == desk.webhook_host.calls[1].document["items"]


def test_who_was_told_in_part_is_not_told_again(desk: Desk) -> None:
    """One wrong address must neither silence the others nor fill their inboxes; an administrator reads of it."""
    desk.mail_host.refused = {REVIEWERS[0]}
    desk.plan()
    (mail,) = desk.check()

    assert mail.recipients == [REVIEWERS[1]]
    assert desk.check(DIGEST_S) == []
    assert desk.book.attempts()[0].problem is Problem.ADDRESSES


ANSWERS: tuple[tuple[dict[str, Any], Problem, int | None], ...] = (
    ({"hello": "554 go away"}, Problem.REFUSED, 554),
    ({"hello": None}, Problem.BROKEN, None),
    ({"hello": "nonsense"}, Problem.BROKEN, None),
    ({"STARTTLS": "454 not today"}, Problem.REFUSED, 454),
    ({"AUTH": "535 wrong"}, Problem.SIGN_IN, 535),
    ({"offers": "mail.hospital.example\nSTARTTLS"}, Problem.SIGN_IN, None),
    ({"MAIL": "550 not you"}, Problem.REFUSED, 550),
    ({"RCPT": "550 nobody"}, Problem.ADDRESSES, 550),
    ({"DATA": None}, Problem.BROKEN, None),
    ({".": "552 too long"}, Problem.REFUSED, 552),
)


def test_what_a_mail_server_may_answer_is_a_problem_with_a_name(desk: Desk) -> None:
    """None of it ends the sender, and none of its words are kept."""
    desk.plan()
    found = []
    for answers, _problem, _status in ANSWERS:
        desk.mail_host.answers = answers
        desk.choose()  # what failed is tried at once
        desk.check()
        found += [(answers, attempt.problem, attempt.status) for attempt in desk.book.attempts()]

    assert found == list(ANSWERS)
    assert desk.mails == []


@pytest.mark.parametrize("answer", ["421 I am busy", None])
def test_a_mail_that_was_taken_counts_whatever_is_said_at_the_end(desk: Desk, answer: str | None) -> None:
    """Else a server that is rude at parting would be sent the same mail each hour."""
    desk.mail_host.answers["QUIT"] = answer
    desk.plan()
    desk.check()

    assert desk.book.attempts()[0].failures == 0
    assert desk.check(DIGEST_S) == []


def test_no_answer_is_a_problem_with_a_name(desk: Desk) -> None:
    """Nobody listens there."""
    desk.choose(mail=desk.mail_host.settings(port=1), webhook=None)
    desk.plan()
    desk.check()

    assert desk.book.attempts()[0].problem is Problem.UNREACHABLE


def test_an_end_between_sending_and_writing_down_repeats_once_later(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least once: but a GUI that ends and starts in a circle does not mail in a circle."""

    def ends(*_: object, **_more: object) -> None:
        raise KeyboardInterrupt

    desk.plan()
    with monkeypatch.context() as patch:
        patch.setattr(NoticeBook, "sent", ends)
        with pytest.raises(KeyboardInterrupt):
            desk.check()
    assert len(desk.mails) == 1
    assert desk.check(RETRY_FIRST_S - 1) == []

    assert len(desk.check(1)) == 1
    assert desk.check(REMINDER_S - 1) == []


def test_where_the_disk_takes_nothing_nothing_is_sent(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written down would be sent every minute."""

    def full(_book: StaffBook) -> Any:
        raise sa.exc.OperationalError("", {}, Exception("database or disk is full"))

    desk.plan()
    desk.check()
    desk.plan("second")
    with monkeypatch.context() as patch:
        patch.setattr(StaffBook, "write", full)
        with pytest.raises(sa.exc.OperationalError):
            desk.check(DIGEST_S)

    assert len(desk.mails) == 1
    assert len(desk.check()) == 1


def test_a_defect_in_one_kind_silences_no_other(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """And none ends the sender."""

    def broken(_now: object) -> Any:
        raise RuntimeError("secret")

    sources = SOURCES | {"pending-plans": (Kind.PLANS, broken)}
    monkeypatch.setattr("node_gui.notices.sources.SOURCES", sources)
    _approval_is_switched_off(desk)

    assert [mail.message["Subject"] for mail in desk.check()] == ["FedWard north: Plan approval is off"]


# The webhook


def test_a_webhook_gets_what_its_document_says(desk: Desk) -> None:
    """Its form is a promise to who reads it by a program."""
    desk.choose(webhook=desk.webhook_host.settings(), mail=None)
    sha256 = desk.plan()
    desk.check()
    (call,) = desk.webhook_host.calls
    item = call.document["items"][0]

    assert call.path == "/notices/secret-path?to=it"
    assert call.document == {
        "version": 1,
        "node": "north",
        "hospital": "north hospital",
        "kind": "plans",
        "title": "1 training plan waits for review",
        "items": [item],
        "more": 0,
        "address": ADDRESS,
    }
    assert item["text"] == "alice asks for approval of the training plan “unet”."
    assert item["address"] == f"{ADDRESS}/plans/{sha256}"
    assert len(item["id"]) == 16


def test_a_webhook_s_signature_is_verified_as_the_administrator_s_page_says(desk: Desk) -> None:
    """The page's own program takes a genuine call, and none whose key, body or moment is another's."""
    page = (Path(__file__).parents[3] / "docs/administrator/index.md").read_text()
    names: dict[str, Any] = {}
    exec(page.partition("```python\n")[2].partition("```")[0], names)
    is_genuine = names["is_genuine"]
    desk.choose(webhook=desk.webhook_host.settings())
    desk.plan()
    desk.check()
    (call,) = desk.webhook_host.calls
    later = call.headers | {"FedWard-Timestamp": str(int(call.headers["FedWard-Timestamp"]) + 1)}

    assert is_genuine(KEY, call.headers, call.body)
    assert not is_genuine(KEY[::-1], call.headers, call.body)
    assert not is_genuine(KEY, call.headers, call.body + b" ")
    assert not is_genuine(KEY, later, call.body)


@pytest.mark.parametrize(("status", "problem"), [(200, None), (302, Problem.REDIRECT), (401, Problem.REFUSED)])
def test_only_a_webhook_s_2xx_counts(desk: Desk, status: int, problem: Problem | None) -> None:
    """All else is repeated."""
    desk.choose(webhook=desk.webhook_host.settings(), mail=None)
    desk.webhook_host.status = status
    desk.plan()
    desk.check()

    assert desk.book.attempts()[0].problem is problem


# The page


def _form(desk: Desk, **changes: Any) -> dict[str, Any]:
    """The mail server's form as it stands."""
    mail = desk.mail_host.settings()
    form = {"host": mail.host, "port": mail.port, "security": "starttls", "sender": mail.sender, "user": mail.user}
    return form | {"shown": desk.book.settings().revision} | changes


def test_what_an_administrator_enters_is_what_is_told(desk: Desk) -> None:
    """From the three forms to the mail."""
    desk.choose(mail=None, reviewers=(), others=(), kinds=frozenset())
    browser = desk.hospital.signed_in(Role.ADMINISTRATOR)
    chosen = {"kinds": ["plans", "endings"], "reviewers": "a@x.example, b@x.example\n", "others": "", "language": "en"}
    shown = desk.book.settings().revision
    assert browser.post("/notices/choose", shown=shown, **chosen).status_code == 302
    assert browser.post("/notices/mail", **_form(desk, password=PASSWORD)).status_code == 302
    hook = {"url": desk.webhook_host.url, "key": KEY}
    assert browser.post("/notices/webhook", shown=desk.book.settings().revision, **hook).status_code == 302

    desk.plan()
    (mail,) = desk.check()

    assert mail.recipients == ["a@x.example", "b@x.example"]
    assert len(desk.webhook_host.calls) == 1
    page = browser.get("/notices/").text
    assert page.count(">delivered<") == 2
    assert "a@x.example\nb@x.example" in page


def test_the_audit_log_is_told_of_each_change_and_of_no_secret(desk: Desk) -> None:
    """Who turned notices off, or to another address, stands in the node's log."""
    browser = desk.hospital.signed_in(Role.ADMINISTRATOR, "Ada")
    browser.post("/notices/mail", **_form(desk, password=PASSWORD, host="127.0.0.1"))
    hook = {"url": desk.webhook_host.url, "key": KEY, "shown": desk.book.settings().revision}
    browser.post("/notices/webhook", **hook)
    chosen = {"others": "eve@evil.example", "language": "en", "shown": desk.book.settings().revision}
    browser.post("/notices/choose", **chosen)
    browser.post("/notices/webhook/remove", shown=desk.book.settings().revision)
    lines = [line for line in desk.hospital.node.audit() if line["event"] == "notices.changed"]

    told = [line["details"] for line in lines if line["actor"] == "staff:Ada"]
    assert [line["what"] for line in told] == ["mail server", "webhook", "what and whom", "webhook"]
    assert told[0]["server"] == f"127.0.0.1:{desk.mail_host.port}"
    assert told[0]["password"] == "entered"
    assert told[1]["origin"] == f"https://localhost:{desk.webhook_host.port}"
    assert told[2]["others"] == "eve@evil.example"
    for secret in (PASSWORD, KEY, "secret-path"):
        assert secret not in str(lines)


def test_no_page_shows_a_secret(desk: Desk) -> None:
    """Neither what is stored nor what was just typed and refused."""
    desk.choose(webhook=desk.webhook_host.settings())
    browser = desk.hospital.signed_in(Role.ADMINISTRATOR)
    hook = {"url": "ftp://x.example/secret-path", "key": KEY, "shown": desk.book.settings().revision}
    pages = [
        browser.get("/notices/").text,
        browser.post("/notices/mail", **_form(desk, password=PASSWORD, port="x")).text,
        browser.post("/notices/webhook", **hook).text,
        browser.get("/health/").text,
    ]

    assert "Notices go to https://localhost" in pages[0]
    assert [secret for secret in (PASSWORD, KEY, "secret-path") for page in pages if secret in page] == []


def test_a_stored_secret_is_in_a_file_of_the_node_s_own(desk: Desk) -> None:
    """And in no other beside it that somebody else may read."""
    folder = desk.hospital.gui.home / "gui"
    holding = [file for file in folder.iterdir() if file.is_file() and PASSWORD.encode() in file.read_bytes()]

    assert holding != []
    assert {file.stat().st_mode & 0o777 for file in holding} == {0o600}


def test_a_password_is_kept_by_an_empty_field(desk: Desk) -> None:
    """It need not be typed again to change the sender's address."""
    browser = desk.hospital.signed_in(Role.ADMINISTRATOR)
    browser.post("/notices/mail", **_form(desk, sender="other@hospital.example"))

    assert desk.book.settings().mail == desk.mail_host.settings(sender="other@hospital.example")


def test_a_mail_server_without_sign_in_needs_no_password(desk: Desk) -> None:
    """As most hospitals' relays have it."""
    browser = desk.hospital.signed_in(Role.ADMINISTRATOR)
    browser.post("/notices/mail", **_form(desk, user=""))
    desk.plan()

    assert len(desk.check()) == 1
    assert [command for command in desk.mail_host.commands if command.startswith("AUTH")] == []


def test_no_server_means_no_mail(desk: Desk) -> None:
    """The way to switch e-mail off; its last attempts are forgotten with it."""
    desk.plan()
    desk.check()
    desk.hospital.signed_in(Role.ADMINISTRATOR).post("/notices/mail", **_form(desk, host=""))
    desk.plan("second")

    assert desk.check(REMINDER_S) == []
    assert desk.book.attempts() == []


def test_two_administrators_on_one_page(desk: Desk) -> None:
    """What was changed since it was shown is not written over."""
    browser = desk.hospital.signed_in(Role.ADMINISTRATOR)
    stale = _form(desk, sender="mine@hospital.example")
    desk.choose(others=("new@hospital.example",))
    reply = browser.post("/notices/mail", **stale)

    assert reply.status_code == 400
    assert "not as you saw them any more" in reply.text
    assert desk.book.settings().mail == desk.mail_host.settings()


def test_a_mail_server_that_makes_no_sense_is_refused(desk: Desk) -> None:
    """With a sentence beside the form, and nothing changed."""
    faults = (
        {"host": "mail server"},
        {"host": "mail.example\r\nx"},
        {"host": "-x.example"},
        {"host": "0x7f000001"},
        {"host": "127.1"},
        {"host": "a" * 300},
        {"port": "0"},
        {"port": "65536"},
        {"port": "smtp"},
        {"security": "none"},
        {"security": "plain", "host": "mail.hospital.example"},
        {"sender": "nobody"},
        {"sender": "a@b\r\nBcc: eve@evil.example"},
        {"sender": ""},
        {"user": "ünal"},
        {"user": "other"},
        {"user": "", "password": "x"},
        {"password": "passwörd"},
        {"password": "x" * 300},
    )
    browser = desk.hospital.signed_in(Role.ADMINISTRATOR)
    replies = {str(fault): browser.post("/notices/mail", **_form(desk, **fault)) for fault in faults}

    assert {fault: reply.status_code for fault, reply in replies.items() if reply.status_code != 400} == {}
    assert [fault for fault, reply in replies.items() if 'role="alert"' not in reply.text] == []
    assert desk.book.settings().mail == desk.mail_host.settings()


def test_people_and_languages_that_make_no_sense_are_refused(desk: Desk) -> None:
    """An address that no mail server takes would fail at night."""
    before = desk.book.settings()
    faults = (
        {"reviewers": "anna"},
        {"others": "anna@hospital.example\x00"},
        {"others": "Anna <anna@hospital.example>"},
        {"others": " ".join(f"p{n}@hospital.example" for n in range(11))},
        {"language": "tlh"},
        {"language": ""},
    )
    browser = desk.hospital.signed_in(Role.ADMINISTRATOR)
    form = {"language": "en", "shown": before.revision}
    replies = {str(fault): browser.post("/notices/choose", **(form | fault)) for fault in faults}

    assert {fault: reply.status_code for fault, reply in replies.items() if reply.status_code != 400} == {}
    assert desk.book.settings() == before


def test_a_test_notice_says_at_once_how_it_went(desk: Desk) -> None:
    """By every way, to everybody, and with what to look at."""
    desk.choose(webhook=desk.webhook_host.settings())
    desk.webhook_host.status = 500
    browser = desk.hospital.signed_in(Role.ADMINISTRATOR)
    browser.post("/notices/test")
    page = browser.get("/notices/").text

    assert desk.mails[0].message["Subject"] == "FedWard north: This is a test: notices of this node arrive here"
    assert sorted(desk.mails[0].recipients) == sorted([*REVIEWERS, *OTHERS])
    assert "E-mail: the test notice was taken." in page
    assert "Webhook: not delivered: it was refused (answer 500)." in page


def test_a_test_notice_without_a_way_says_so(desk: Desk) -> None:
    """Rather than nothing."""
    desk.choose(mail=None)
    browser = desk.hospital.signed_in(Role.ADMINISTRATOR)
    browser.post("/notices/test")

    assert "Nothing was sent" in browser.get("/notices/").text


def test_an_administrator_finds_a_failing_notice_on_home(desk: Desk) -> None:
    """Whoever relies on mail does not look for its absence; others could not mend it."""
    desk.mail_host.answers["AUTH"] = "535 wrong"
    desk.plan()
    desk.check()

    assert "did not reach your colleagues" in desk.hospital.signed_in(Role.ADMINISTRATOR).get("/").text
    assert "did not reach your colleagues" not in desk.hospital.signed_in(Role.REVIEWER).get("/").text


def test_a_change_is_tried_at_once(desk: Desk) -> None:
    """Whoever mends the password need not wait an hour to see that it fits."""
    desk.mail_host.answers["AUTH"] = "535 wrong"
    desk.plan()
    desk.check()
    desk.mail_host.answers.clear()
    desk.choose(mail=desk.mail_host.settings(sender="other@hospital.example"))

    assert len(desk.check()) == 1


# Names and addresses


@given(st.text())
def test_a_name_is_one_short_line_without_a_link(text: str) -> None:
    """Whatever a researcher calls a plan."""
    name = named(text)

    assert len(name) <= NAME_MOST
    assert name.isprintable()
    assert "@" not in name.replace("@ ", "").removesuffix("@")
    assert "://" not in name.replace(":// ", "").removesuffix("://")


def test_a_name_that_would_be_a_link_is_none() -> None:
    """Mail programs make links of what looks like one."""
    assert named("see https://evil.example/x or www.evil.example, eve@evil.example") == (
        "see https:// evil. example/x or www. evil. example, eve@ evil. example"
    )
    assert named("unet_v1.2 (small)") == "unet_v1.2 (small)"


def test_addresses_are_told_apart_however_they_are_written() -> None:
    """By blanks, commas, semicolons or lines; each once."""
    assert addresses(" a@x.example,b@x.example;\nc@x.example a@x.example ") == (
        "a@x.example",
        "b@x.example",
        "c@x.example",
    )

"""Accounts: who gets in, who does not, and when it ends."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import pyotp
import pytest

import node_gui.staff
from appliance.protocol.errors import ConfigurationError
from appliance.warden.governance import AccountEvent
from appliance.warden.governance import Staff as Person
from node_gui.access import Role
from node_gui.staff import (
    ADDRESS_TRIES,
    FILE_NAME,
    RECOVERY_CODES,
    TRIES_FREE,
    WAIT_FIRST_S,
    LinkRefusedError,
    Session,
    SignInRefusedError,
    StaffBook,
    StaffRefusedError,
    TooManyAttemptsError,
)
from tests.unit.node_gui.conftest import FAST, PASSWORD

# What the first release's tables were, with two accounts whose names are one person's today.
SCHEMA_1 = """
CREATE TABLE accounts (id INTEGER NOT NULL, name TEXT NOT NULL, name_key TEXT NOT NULL, role TEXT NOT NULL,
    password_hash TEXT, totp_secret TEXT, totp_last_step INTEGER NOT NULL, recovery_hashes JSON NOT NULL,
    is_locked BOOLEAN NOT NULL, created_at FLOAT NOT NULL, signed_in_at FLOAT, PRIMARY KEY (id), UNIQUE (name_key));
CREATE TABLE attempts (id INTEGER NOT NULL, address TEXT NOT NULL, at FLOAT NOT NULL, PRIMARY KEY (id));
CREATE INDEX ix_attempts_address ON attempts (address);
CREATE TABLE events (id INTEGER NOT NULL, actor TEXT NOT NULL, event TEXT NOT NULL, subject TEXT NOT NULL,
    details JSON NOT NULL, PRIMARY KEY (id));
CREATE TABLE failures (name_key TEXT NOT NULL, tries INTEGER NOT NULL, retry_at FLOAT NOT NULL, last_at FLOAT NOT NULL,
    PRIMARY KEY (name_key));
CREATE TABLE links (token_hash TEXT NOT NULL, account_id INTEGER, expires_at FLOAT NOT NULL, PRIMARY KEY (token_hash),
    FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE);
CREATE TABLE sessions (token_hash TEXT NOT NULL, account_id INTEGER NOT NULL, csrf TEXT NOT NULL,
    created_at FLOAT NOT NULL, seen_at FLOAT NOT NULL, browser TEXT NOT NULL, new_totp_secret TEXT,
    messages JSON NOT NULL, PRIMARY KEY (token_hash),
    FOREIGN KEY(account_id) REFERENCES accounts (id) ON DELETE CASCADE);
INSERT INTO accounts VALUES (1, 'Zoé', 'zoé', 'administrator', NULL, NULL, 0, '[]', 0, 1.0, NULL),
    (2, '\uff3a\uff2fÉ', '\uff5a\uff4fé', 'reviewer', NULL, NULL, 0, '[]', 0, 1.0, NULL),
    (3, 'Ben', 'ben', 'auditor', NULL, NULL, 0, '[]', 0, 1.0, NULL);
INSERT INTO events VALUES (1, 'Zoé', 'account.signed-in', 'Zoé', '{}');
PRAGMA user_version = 1;
"""


@dataclass
class Clock:
    """A clock that a test moves."""

    now: float = 1_770_000_000.0

    def __call__(self) -> float:
        """The moment."""
        return self.now


@dataclass
class Staff:
    """The book, its clock, and short ways to do common things."""

    book: StaffBook
    clock: Clock
    addresses: Iterator[int] = field(default_factory=lambda: iter(range(10_000)))

    def add(self, name: str, role: Role = Role.ADMINISTRATOR) -> int:
        """An account with the usual password; returns its id."""
        return self.book.join(self.book.invite("setup", name, role), PASSWORD).id

    def enter(self, name: str = "Anna Weiss", password: str = PASSWORD, code: str = "") -> str:
        """Sign in, each time from another address."""
        return self.book.sign_in(name, password, code, address=str(next(self.addresses)))

    def session(self, token: str) -> Session | None:
        """The session, as a page asks for it."""
        return self.book.session(token, is_touch=True)

    def events(self) -> list[tuple[str, str, str]]:
        """What the audit log is to be told: by whom, what, of whom."""
        return [(e["actor"], e["event"], e["subject"]) for e in self.book.unreported(1000)]


@pytest.fixture
def staff(tmp_path: Path) -> Iterator[Staff]:
    """A book with Anna, an administrator."""
    clock = Clock()
    found = Staff(StaffBook(tmp_path, hasher=FAST, clock=clock), clock)
    found.add("Anna Weiss")
    yield found
    found.book.close()


def test_only_the_service_reads_the_accounts(staff: Staff, tmp_path: Path) -> None:
    """Hashes of passwords are worth guessing at."""
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600


def test_nothing_that_opens_an_account_is_stored_in_clear(staff: Staff, tmp_path: Path) -> None:
    """Whoever copies the file must still guess."""
    token = staff.enter()
    link = staff.book.invite("Anna Weiss", "Ben", Role.AUDITOR)

    stored = b"".join(path.read_bytes() for path in (tmp_path / FILE_NAME).parent.iterdir())

    assert [secret for secret in (PASSWORD, token, link) if secret.encode() in stored] == []


def test_a_password_opens_a_session(staff: Staff) -> None:
    """The way in."""
    session = staff.session(staff.enter())

    assert session is not None
    assert session.person.name == "Anna Weiss"


def test_a_name_is_found_in_any_case(staff: Staff) -> None:
    """People do not remember how they were written down."""
    assert staff.enter("  anna  WEISS ")


def test_wrong_name_and_wrong_password_look_alike(staff: Staff) -> None:
    """A difference would tell a stranger who works here."""
    said = set()
    for name, password in (("Anna Weiss", "wrong horse battery"), ("Nobody", PASSWORD), ("", "")):
        with pytest.raises(SignInRefusedError) as refused:
            staff.enter(name, password)
        said.add((refused.value.message, refused.value.remedy))

    assert len(said) == 1


def test_a_guesser_waits_longer_each_time(staff: Staff) -> None:
    """Also the right password is refused while the wait lasts, or the wait would tell which one is right."""
    for _ in range(TRIES_FREE):
        with pytest.raises(SignInRefusedError):
            staff.enter(password="wrong horse battery")
    with pytest.raises(SignInRefusedError):
        staff.enter()
    staff.clock.now += WAIT_FIRST_S + 1
    with pytest.raises(SignInRefusedError):
        staff.enter(password="wrong horse battery")
    staff.clock.now += WAIT_FIRST_S + 1

    with pytest.raises(SignInRefusedError):
        staff.enter()
    staff.clock.now += WAIT_FIRST_S
    assert staff.enter()
    assert ("node GUI", "account.locked", "Anna Weiss") in staff.events()


def test_a_name_that_nobody_has_waits_as_well(staff: Staff) -> None:
    """Otherwise the wait would tell which names exist."""
    for _ in range(TRIES_FREE):
        with pytest.raises(SignInRefusedError):
            staff.enter("Nobody", "wrong horse battery")

    assert ("node GUI", "account.locked", "unknown name") in staff.events()


def test_a_mistyped_name_is_not_written_down(staff: Staff) -> None:
    """It may be a password that was typed into the wrong field."""
    with pytest.raises(SignInRefusedError):
        staff.enter(PASSWORD, "")

    assert PASSWORD not in str(staff.book.unreported())


def test_one_address_tries_only_so_often(staff: Staff) -> None:
    """A list of names and one password is a guess as well."""
    for number in range(ADDRESS_TRIES):
        with pytest.raises(SignInRefusedError):
            staff.book.sign_in(f"name {number}", "password1234", "", address="10.0.0.7")

    with pytest.raises(TooManyAttemptsError):
        staff.book.sign_in("Anna Weiss", PASSWORD, "", address="10.0.0.7")
    staff.clock.now += 301
    assert staff.book.sign_in("Anna Weiss", PASSWORD, "", address="10.0.0.7")


def test_a_session_ends_when_nobody_uses_it(staff: Staff) -> None:
    """A screen that was left open."""
    token = staff.enter()
    staff.clock.now += 1199
    assert staff.session(token) is not None
    staff.clock.now += 1201

    assert staff.session(token) is None


def test_what_a_page_does_by_itself_keeps_no_session_alive(staff: Staff) -> None:
    """A live part asks every few seconds, for ever."""
    token = staff.enter()
    staff.clock.now += 1199
    staff.book.session(token, is_touch=False)
    staff.clock.now += 2

    assert staff.session(token) is None


def test_a_session_ends_at_the_end_of_the_day(staff: Staff) -> None:
    """However busy it is."""
    token = staff.enter()
    for _ in range(60):
        staff.clock.now += 600
        staff.session(token)

    assert staff.session(token) is None


def _change_role(staff: Staff, ben: int, _session: Session) -> None:
    staff.book.set_role("Anna Weiss", ben, Role.REVIEWER)


def _lock(staff: Staff, ben: int, _session: Session) -> None:
    staff.book.set_locked("Anna Weiss", ben, is_locked=True)


def _reset(staff: Staff, ben: int, _session: Session) -> None:
    staff.book.renew_link("Anna Weiss", ben)


def _remove(staff: Staff, ben: int, _session: Session) -> None:
    staff.book.remove("Anna Weiss", ben)


def _change_password(staff: Staff, _ben: int, session: Session) -> None:
    staff.book.change_password(session, PASSWORD, "another long sentence")


def _sign_out(staff: Staff, _ben: int, session: Session) -> None:
    staff.book.sign_out(session)


@pytest.mark.parametrize("what", [_change_role, _lock, _reset, _remove, _change_password, _sign_out])
def test_a_session_ends_at_once(staff: Staff, what: Callable[[Staff, int, Session], None]) -> None:
    """Whoever lost the right must not go on until the cookie expires."""
    ben = staff.add("Ben Ode", Role.AUDITOR)
    token = staff.enter("Ben Ode")
    session = staff.session(token)
    assert session is not None

    what(staff, ben, session)

    assert staff.session(token) is None


def test_a_locked_account_does_not_open(staff: Staff) -> None:
    """Nor does it say that it is locked."""
    ben = staff.add("Ben Ode", Role.AUDITOR)
    staff.book.set_locked("Anna Weiss", ben, is_locked=True)

    with pytest.raises(SignInRefusedError):
        staff.enter("Ben Ode")


@pytest.mark.parametrize("what", ["role", "lock", "reset", "remove"])
def test_the_last_administrator_stays(staff: Staff, what: str) -> None:
    """A node without one can only be opened on its own machine."""
    anna = staff.book.people()[0].id
    staff.book.invite("Anna Weiss", "Ben Ode", Role.ADMINISTRATOR)  # has not joined: does not count
    doing: dict[str, Callable[[], object]] = {
        "role": lambda: staff.book.set_role("Anna Weiss", anna, Role.AUDITOR),
        "lock": lambda: staff.book.set_locked("Anna Weiss", anna, is_locked=True),
        "reset": lambda: staff.book.renew_link("Anna Weiss", anna),
        "remove": lambda: staff.book.remove("Anna Weiss", anna),
    }

    with pytest.raises(StaffRefusedError, match="administrator"):
        doing[what]()


@pytest.mark.parametrize("what", ["role", "link"])
def test_nobody_gives_the_own_account_a_role_or_a_link(staff: Staff, what: str) -> None:
    """What nobody else did, nobody else saw; a stolen session must not become an account for ever."""
    anna = staff.book.people()[0].id
    staff.add("Otto")
    token = staff.enter()
    with pytest.raises(StaffRefusedError, match="another administrator"):
        if what == "role":
            staff.book.set_role("anna  WEISS", anna, Role.REVIEWER)
        else:
            staff.book.renew_link("Anna Weiss", anna)

    assert staff.book.person(anna).role is Role.ADMINISTRATOR
    assert staff.session(token) is not None


def test_a_link_opens_once(staff: Staff) -> None:
    """A copy in a mailbox must be worth nothing afterwards."""
    link = staff.book.invite("Anna Weiss", "Ben Ode", Role.AUDITOR)
    staff.book.join(link, PASSWORD)

    with pytest.raises(LinkRefusedError):
        staff.book.join(link, "another long sentence")


def test_a_link_that_was_looked_at_still_opens(staff: Staff) -> None:
    """Mail programs look at links before people do."""
    link = staff.book.invite("Anna Weiss", "Ben Ode", Role.AUDITOR)
    staff.book.invited(link)

    assert staff.book.join(link, PASSWORD).name == "Ben Ode"


def test_a_link_ends_by_itself(staff: Staff) -> None:
    """One that nobody used must not lie about for a year."""
    link = staff.book.invite("Anna Weiss", "Ben Ode", Role.AUDITOR)
    staff.clock.now += 86_401

    with pytest.raises(LinkRefusedError):
        staff.book.join(link, PASSWORD)


def test_a_newer_first_link_closes_the_one_before(staff: Staff) -> None:
    """Whoever printed one too many has one to guard."""
    before = staff.book.invite_first()
    now = staff.book.invite_first()

    with pytest.raises(LinkRefusedError):
        staff.book.invited(str(before))
    assert staff.book.join(str(now), PASSWORD, name="Carla Ruiz").role is Role.ADMINISTRATOR


def test_no_first_link_where_somebody_has_an_account(staff: Staff) -> None:
    """A start must not open a second door."""
    assert staff.book.invite_first(only_if_nobody=True) is None


@pytest.mark.parametrize(
    "password", ["short", "", "aaaaaaaaaaaaaaaa", "annaweissannaweiss", "Password1234!!", "x" * 257, "motdepasse2026"]
)
def test_a_password_that_is_easily_guessed_is_refused(staff: Staff, password: str) -> None:
    """And the link still opens for a better one."""
    link = staff.book.invite("Anna Weiss", "AnnaWeiss", Role.AUDITOR)
    with pytest.raises(StaffRefusedError):
        staff.book.join(link, password)

    assert staff.book.join(link, PASSWORD)


@pytest.mark.parametrize("name", ["", " Ben", "<script>", "node gui", "a" * 65, "Ben\nOde", "=1+1", "Anna Weiss"])
def test_a_name_that_the_audit_log_could_not_show_is_refused(staff: Staff, name: str) -> None:
    """The warden takes the same names, and two people must not share one."""
    with pytest.raises(StaffRefusedError):
        staff.book.invite("Anna Weiss", name, Role.AUDITOR)


def _with_second_factor(staff: Staff) -> tuple[pyotp.TOTP, list[str]]:
    session = staff.session(staff.enter())
    assert session is not None
    totp = pyotp.TOTP(staff.book.new_totp_secret(session))
    codes = staff.book.set_second_factor(session, PASSWORD, totp.at(int(staff.clock.now)))
    staff.clock.now += 30
    return totp, codes


def test_with_a_second_factor_the_password_alone_does_not_open(staff: Staff) -> None:
    """That is what it is for; and the refusal does not say that the password was right."""
    totp, _ = _with_second_factor(staff)
    with pytest.raises(SignInRefusedError):
        staff.enter()

    assert staff.enter(code=totp.at(int(staff.clock.now)))


def test_a_code_opens_once(staff: Staff) -> None:
    """Whoever looks over a shoulder has half a minute."""
    totp, _ = _with_second_factor(staff)
    code = totp.at(int(staff.clock.now))
    staff.enter(code=code)

    with pytest.raises(SignInRefusedError):
        staff.enter(code=code)


def test_a_recovery_code_opens_once(staff: Staff) -> None:
    """For a lost telephone; the others stay."""
    _, codes = _with_second_factor(staff)
    assert len(codes) == RECOVERY_CODES
    staff.enter(code=codes[0].upper())

    with pytest.raises(SignInRefusedError):
        staff.enter(code=codes[0])
    assert staff.enter(code=codes[1])


def test_a_second_factor_needs_the_password_and_a_code_that_fits(staff: Staff) -> None:
    """A browser that was left open must not lock its owner out."""
    session = staff.session(staff.enter())
    assert session is not None
    totp = pyotp.TOTP(staff.book.new_totp_secret(session))

    with pytest.raises(StaffRefusedError, match="password"):
        staff.book.set_second_factor(session, "wrong horse battery", totp.at(int(staff.clock.now)))
    with pytest.raises(StaffRefusedError, match="code"):
        staff.book.set_second_factor(session, PASSWORD, totp.at(int(staff.clock.now) + 300))


def test_whoever_guesses_a_password_from_inside_waits_too(staff: Staff) -> None:
    """A session is no place to try passwords without end."""
    session = staff.session(staff.enter())
    assert session is not None
    for _ in range(TRIES_FREE):
        with pytest.raises(StaffRefusedError):
            staff.book.change_password(session, "wrong horse battery", "another long sentence")

    with pytest.raises(StaffRefusedError):
        staff.book.change_password(session, PASSWORD, "another long sentence")


def test_the_warden_takes_every_name_that_accounts_have(staff: Staff) -> None:
    """Else the person could do nothing, and what happened to the account would be missing in the audit log."""
    signs = [chr(code) for code in range(0x20000)]
    names = [name for sign in signs for name in (sign, f"A{sign}") if node_gui.staff._is_name(name)]

    assert {"A", "é", "漢", "7", "A_", "A ", "A\u0301"} <= set(names)
    assert [name for name in names if Person(name=name, via="gui").name != name] == []
    for refused in ("½", "A²", "Aⅷ", "A\u200d", "A\n"):
        with pytest.raises(StaffRefusedError):
            staff.book.invite("Anna Weiss", refused, Role.AUDITOR)


def test_a_name_is_one_however_it_is_typed(staff: Staff) -> None:
    """Some systems write an accent as a sign of its own; two names that look alike must not be two people."""
    staff.add("Zoé Müller")

    assert staff.enter("Zoe\u0301 Mu\u0308ller")


def test_the_warden_takes_every_event_that_accounts_have() -> None:
    """One that it refused would be missing in the audit log."""
    noted = set(re.findall(r'"(account\.[a-z-]+)"', Path(node_gui.staff.__file__).read_text()))

    assert noted
    assert noted <= set(get_args(AccountEvent))


@pytest.mark.parametrize("code", ["é23456", "١٢٣٤٥٦", "12345", "\x00", "x" * 9000])
def test_a_code_that_is_none_counts_as_a_wrong_one(staff: Staff, code: str) -> None:
    """Whatever was typed; else guessing the password would cost nothing."""
    session = staff.session(staff.enter())
    assert session is not None
    secret = staff.book.new_totp_secret(session)
    with pytest.raises(StaffRefusedError, match="does not fit"):
        staff.book.set_second_factor(session, PASSWORD, code)
    staff.book.set_second_factor(session, PASSWORD, pyotp.TOTP(secret).at(int(staff.clock.now)))

    for _ in range(TRIES_FREE):
        with pytest.raises(SignInRefusedError):
            staff.enter(code=code)

    events = [event for _, event, _ in staff.events()]
    assert events.count("account.refused") == TRIES_FREE
    assert "account.locked" in events


def test_a_disk_that_takes_no_more_shuts_nobody_out(staff: Staff, tmp_path: Path) -> None:
    """Who is signed in still sees what runs, and can stop it."""
    token = staff.enter()
    session = staff.session(token)
    assert session is not None
    staff.book.say(session, "good", "Done.")
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as file, file:
        file.execute("CREATE TRIGGER full BEFORE UPDATE ON sessions BEGIN SELECT RAISE(ABORT, 'disk is full'); END")
    staff.clock.now += 5

    assert staff.book.session(token, is_touch=True) is not None
    assert staff.book.said(session) == [("good", "Done.")]


def test_a_file_of_the_release_before_is_taken_over(tmp_path: Path) -> None:
    """Accounts outlive an upgrade, and end up in the tables that a new file has."""
    path = tmp_path / "old" / FILE_NAME
    path.parent.mkdir(parents=True)
    with contextlib.closing(sqlite3.connect(path)) as file, file:
        file.executescript(SCHEMA_1)

    book = StaffBook(tmp_path / "old", hasher=FAST)
    fresh = StaffBook(tmp_path / "new", hasher=FAST)
    assert _tables(path) == _tables(tmp_path / "new" / FILE_NAME)
    is_locked = {person.name: person.is_locked for person in book.people()}
    assert is_locked == {"Zoé": False, "\uff3a\uff2fÉ": True, "Ben": False}  # one person, in two widths
    assert [(event["event"], event["at"]) for event in book.unreported(10)] == [("account.signed-in", None)]
    book.close()
    fresh.close()


def test_a_file_of_a_newer_release_is_refused_and_left_alone(tmp_path: Path) -> None:
    """What this release does not know it must not change."""
    StaffBook(tmp_path, hasher=FAST).close()
    with contextlib.closing(sqlite3.connect(tmp_path / FILE_NAME)) as file, file:
        file.execute("PRAGMA user_version = 99")
    before = (tmp_path / FILE_NAME).read_bytes()

    with pytest.raises(ConfigurationError, match=r"newer release \(schema 99"):
        StaffBook(tmp_path, hasher=FAST)

    assert (tmp_path / FILE_NAME).read_bytes() == before


def _tables(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Each table's columns: name, type, whether it may be empty, whether it is the key."""
    with contextlib.closing(sqlite3.connect(path)) as file:
        names = [row[0] for row in file.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        return {
            name: [(row[1], row[2], row[3], row[5]) for row in file.execute(f"PRAGMA table_info({name})")]
            for name in names
        }

"""The hospital's people: accounts, passwords, second factors, sessions and one-time links, in ``HOME/gui/staff.db``.

Nothing here is a secret in clear but the TOTP keys, which both ends must know: of passwords, links, session cookies
and recovery codes only hashes are kept. Whatever happens to an account is noted in the same transaction, and told to
the node's audit log as soon as the warden listens (``unreported``).
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyotp
import sqlalchemy as sa
import structlog
from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from flask_babel import gettext as _

from appliance.protocol.errors import Code, ConfigurationError
from appliance.protocol.local.person import person_key, same_person
from node_gui.access import Role
from node_gui.errors import GuiError

FILE_NAME = "gui/staff.db"
NAME_MOST = 64
GUI_NAME = "node GUI"  # in whose name the GUI reports what nobody signed in did
PASSWORD_LEAST, PASSWORD_MOST = 12, 256
TRIES_FREE = 5  # wrong passwords in a row before the first wait
WAIT_FIRST_S, WAIT_MOST_S = 30.0, 3600.0
ADDRESS_TRIES, ADDRESS_WINDOW_S = 30, 300.0
FORGET_FAILURES_S = 86_400.0
TOTP_STEP_S = 30
RECOVERY_CODES = 8
_WRITES = "staff_writes"
_COMMON = frozenset({"password", "passwort", "motdepasse", "hospital", "administrator", "fedward", "qwertz", "qwerty"})
_log = structlog.get_logger(__name__)

_metadata = sa.MetaData()
_accounts = sa.Table(
    "accounts",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("name_key", sa.Text, nullable=False, unique=True),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("password_hash", sa.Text),  # none until the one-time link was used
    sa.Column("totp_secret", sa.Text),
    sa.Column("totp_last_step", sa.Integer, nullable=False, default=0),
    sa.Column("recovery_hashes", sa.JSON, nullable=False, default=list),
    sa.Column("is_locked", sa.Boolean, nullable=False, default=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("signed_in_at", sa.Float),
)
_sessions = sa.Table(
    "sessions",
    _metadata,
    sa.Column("token_hash", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id", ondelete="CASCADE"), nullable=False),
    sa.Column("csrf", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("seen_at", sa.Float, nullable=False),
    sa.Column("browser", sa.Text, nullable=False),
    sa.Column("new_totp_secret", sa.Text),  # shown as a QR code, and not yet proven to be in an app
    sa.Column("messages", sa.JSON, nullable=False, default=list),  # what the next page says: [kind, text]
)
_links = sa.Table(
    "links",
    _metadata,
    sa.Column("token_hash", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Integer, sa.ForeignKey("accounts.id", ondelete="CASCADE")),  # none: makes the first one
    sa.Column("expires_at", sa.Float, nullable=False),
)
_failures = sa.Table(
    "failures",
    _metadata,
    sa.Column("name_key", sa.Text, primary_key=True),  # also of names that nobody has: both must look alike
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("retry_at", sa.Float, nullable=False),
    sa.Column("last_at", sa.Float, nullable=False),
)
_attempts = sa.Table(
    "attempts",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("address", sa.Text, nullable=False, index=True),
    sa.Column("at", sa.Float, nullable=False),
)
_events = sa.Table(
    "events",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("event", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("details", sa.JSON, nullable=False),
    sa.Column("at", sa.Float),  # none: of a release that did not note it
    # By the audit log: kept, and told again when the GUI starts anew.
    sa.Column("is_refused", sa.Boolean, nullable=False, server_default=sa.false()),
)


class StaffRefusedError(GuiError):
    """A person may not do that, or not in that way; nothing was changed."""

    code = Code.STAFF_REFUSED


class SignInRefusedError(StaffRefusedError):
    """Name, password and code do not fit together. One sentence for every cause, so that nobody learns which."""

    def __init__(self) -> None:
        super().__init__(
            _("Name, password or code are not right, or there were too many attempts."),
            remedy=_("Try again; after several attempts wait for a minute. An administrator can send you a new link."),
        )


class TooManyAttemptsError(StaffRefusedError):
    """Too many attempts came from one address."""

    def __init__(self) -> None:
        super().__init__(
            _("Too many attempts came from this computer."), remedy=_("Wait five minutes, then try again.")
        )


class LinkRefusedError(StaffRefusedError):
    """A one-time link was used before, has expired, or never was one."""

    def __init__(self) -> None:
        super().__init__(
            _("This link does not open any more: it was used, or it has expired."),
            remedy=_("Ask an administrator for a new link. On the node's machine, 'fedward gui invite' prints one."),
        )


@dataclass(frozen=True)
class Person:
    """An account, without anything secret.

    Attributes:
        has_joined: Whether the one-time link was used and a password set.
        signed_in_at: The last time, in seconds since the epoch.
    """

    id: int
    name: str
    role: Role
    has_joined: bool
    has_second_factor: bool
    recovery_codes_left: int
    is_locked: bool
    signed_in_at: float | None


@dataclass(frozen=True)
class Session:
    """A signed-in browser.

    Attributes:
        id: The cookie's hash: names the session without opening it.
        csrf: What every form of this session must send back.
    """

    id: str
    person: Person
    csrf: str
    created_at: float
    seen_at: float
    browser: str


class StaffBook:
    """The accounts of one node's GUI.

    Args:
        home: The node's folder.
        idle_s: A session ends when nothing was opened for so long.
        session_s: A session ends after so long at the latest.
        link_s: How long a one-time link opens.
        hasher: argon2id with the library's parameters (RFC 9106, low memory) unless a test has others.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        home: Path,
        *,
        idle_s: float = 1200.0,
        session_s: float = 36_000.0,
        link_s: float = 86_400.0,
        hasher: PasswordHasher | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._idle_s, self._session_s, self._link_s = idle_s, session_s, link_s
        self._hasher = hasher or PasswordHasher()
        self._clock = clock
        self._nobodys_hash = self._hasher.hash(secrets.token_hex(16))
        self._engine = _open(home / FILE_NAME)

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that changes the file; it waits for others."""
        with self._engine.execution_options(**{_WRITES: True}).begin() as connection:
            yield connection

    def read(self) -> sa.Connection:
        """Look at the file, which the GUI's notices share."""
        return self._engine.connect()

    def close(self) -> None:
        """Let go of the file."""
        self._engine.dispose()

    # Accounts

    def people(self) -> list[Person]:
        """Everybody, by name."""
        with self.read() as connection:
            return [_person(row) for row in connection.execute(sa.select(_accounts).order_by(_accounts.c.name_key))]

    def person(self, account_id: int) -> Person:
        """The person of that account; raises StaffRefusedError when there is none."""
        with self.read() as connection:
            return _person(_require(connection, account_id))

    def invite(self, by: str, name: str, role: Role) -> str:
        """Make an account that waits for its password; returns the one-time link's token.

        Raises:
            StaffRefusedError: The name is malformed or taken.
        """
        with self.write() as connection:
            account_id = self._add(connection, name, role)
            self.note(connection, by, "account.invited", name, role=str(role))
            return self._link(connection, account_id)

    def invite_first(self, *, only_if_nobody: bool = False) -> str | None:
        """A one-time link that makes an administrator's account; for whoever commands the node's machine.

        Args:
            only_if_nobody: Return None when somebody has an account already.
        """
        with self.write() as connection:
            if only_if_nobody and connection.scalar(sa.select(sa.func.count()).select_from(_accounts)):
                return None
            # An earlier one that nobody used must not lie about.
            connection.execute(_links.delete().where(_links.c.account_id.is_(None)))
            self.note(connection, GUI_NAME, "account.invited", Role.ADMINISTRATOR.value)
            return self._link(connection, None)

    def renew_link(self, by: str, account_id: int) -> str:
        """A new one-time link for an account, for who lost password or second factor; ends its sessions.

        Raises:
            StaffRefusedError: It is their own account, or the last administrator's.
        """
        with self.write() as connection:
            account = _require(connection, account_id)
            _require_another(by, account)
            self._require_other_administrator(connection, account)
            connection.execute(
                _accounts.update()
                .where(_accounts.c.id == account_id)
                .values(password_hash=None, totp_secret=None, recovery_hashes=[])
            )
            _end_sessions(connection, account_id)
            self.note(connection, by, "account.invited", account.name, instead_of="a lost password or second factor")
            return self._link(connection, account_id)

    def set_role(self, by: str, account_id: int, role: Role) -> None:
        """Give another role; ends the person's sessions, so that it counts from the next one on.

        Raises:
            StaffRefusedError: It is their own role, or the last administrator's.
        """
        with self.write() as connection:
            account = _require(connection, account_id)
            if account.role == role:
                return
            _require_another(by, account)
            self._require_other_administrator(connection, account)
            connection.execute(_accounts.update().where(_accounts.c.id == account_id).values(role=role))
            _end_sessions(connection, account_id)
            self.note(connection, by, "account.roles-changed", account.name, before=str(account.role), after=str(role))

    def set_locked(self, by: str, account_id: int, *, is_locked: bool) -> None:
        """Lock an account or open it again; locking ends the person's sessions."""
        with self.write() as connection:
            account = _require(connection, account_id)
            if is_locked:
                self._require_other_administrator(connection, account)
                _end_sessions(connection, account_id)
            else:
                connection.execute(_failures.delete().where(_failures.c.name_key == account.name_key))
            connection.execute(_accounts.update().where(_accounts.c.id == account_id).values(is_locked=is_locked))
            self.note(connection, by, "account.disabled" if is_locked else "account.enabled", account.name)

    def remove(self, by: str, account_id: int) -> None:
        """Remove an account with its sessions; what the person did stays in the audit log."""
        with self.write() as connection:
            account = _require(connection, account_id)
            self._require_other_administrator(connection, account)
            connection.execute(_accounts.delete().where(_accounts.c.id == account_id))
            self.note(connection, by, "account.removed", account.name)

    # One-time links

    def invited(self, token: str) -> Person | None:
        """Whom a link is for; None when it makes the first account. Opening a link does not use it up.

        Raises:
            LinkRefusedError: Used, expired or unknown.
        """
        with self.read() as connection:
            link = self._require_link(connection, token)
            return None if link.account_id is None else _person(_require(connection, link.account_id))

    def join(self, token: str, password: str, *, name: str = "") -> Person:
        """Use a link up: set the account's password, and make the account if it is the first.

        Raises:
            LinkRefusedError: Used, expired or unknown.
            StaffRefusedError: The password or the name will not do; the link still opens.
        """
        with self.read() as connection:  # cheap faults first: hashing is dear
            link = self._require_link(connection, token)
            who = name if link.account_id is None else _require(connection, link.account_id).name
        _require_name(who)
        require_password(password, who)
        password_hash = self._hasher.hash(password)
        with self.write() as connection:
            link = self._require_link(connection, token)
            connection.execute(_links.delete().where(_links.c.token_hash == link.token_hash))
            account_id = link.account_id
            if account_id is None:
                account_id = self._add(connection, name, Role.ADMINISTRATOR)
            connection.execute(
                _accounts.update().where(_accounts.c.id == account_id).values(password_hash=password_hash)
            )
            account = _require(connection, account_id)
            connection.execute(_failures.delete().where(_failures.c.name_key == account.name_key))
            self.note(connection, account.name, "account.created", account.name, role=str(account.role))
            return _person(account)

    # Signing in

    def sign_in(self, name: str, password: str, code: str, *, address: str, browser: str = "") -> str:
        """Open a session; returns the cookie's value.

        Args:
            code: Six digits of the second factor or a recovery code; empty without one.
            address: Where the attempt comes from.

        Raises:
            TooManyAttemptsError: From this address.
            SignInRefusedError: For every other cause, after the same work.
        """
        now = self._clock()
        key = person_key(name)[: NAME_MOST * 18]
        with self.write() as connection:
            self._count_attempt(connection, address, now)
            failure = connection.execute(sa.select(_failures).where(_failures.c.name_key == key)).first()
            account = connection.execute(sa.select(_accounts).where(_accounts.c.name_key == key)).first()
        known_hash = account.password_hash if account is not None else None
        is_right = self._fits(known_hash or self._nobodys_hash, password) and known_hash is not None
        must_wait = failure is not None and failure.retry_at > now
        with self.write() as connection:
            if account is not None and is_right and not must_wait:
                fresh = connection.execute(sa.select(_accounts).where(_accounts.c.id == account.id)).first()
                # The account may have been changed while the password was tried.
                same = fresh is not None and fresh.password_hash == known_hash and not fresh.is_locked
                if same and fresh is not None and self._take_code(connection, fresh, code):
                    return self._open_session(connection, fresh, browser, now)
            if not must_wait:
                self._count_failure(connection, key, account, now)
        raise SignInRefusedError

    def session(self, token: str, *, is_touch: bool) -> Session | None:
        """The session of a cookie, or None when it has ended.

        Args:
            is_touch: Whether a person did something; what a page does by itself keeps no session alive.
        """
        now = self._clock()
        with self.read() as connection:
            row = connection.execute(_session_query().where(_sessions.c.token_hash == _hash(token))).first()
        if row is None or row.is_locked or not self._is_live(row, now):
            return None
        if is_touch and now - row.seen_at > 1:
            self._try_to_write(_sessions.update().where(_sessions.c.token_hash == row.token_hash).values(seen_at=now))
        return _session(row)

    def sessions(self, account_id: int) -> list[Session]:
        """A person's open sessions, the latest first."""
        now = self._clock()
        with self.read() as connection:
            found = connection.execute(_session_query().where(_sessions.c.account_id == account_id)).all()
        return sorted((_session(row) for row in found if self._is_live(row, now)), key=lambda s: -s.seen_at)

    def sign_out(self, session: Session) -> None:
        """End this session."""
        with self.write() as connection:
            connection.execute(_sessions.delete().where(_sessions.c.token_hash == session.id))
            self.note(connection, session.person.name, "account.signed-out", session.person.name)

    def end_other_sessions(self, session: Session) -> None:
        """End all of the person's sessions but this one."""
        with self.write() as connection:
            mine = _sessions.c.account_id == session.person.id
            connection.execute(_sessions.delete().where(mine, _sessions.c.token_hash != session.id))
            self.note(connection, session.person.name, "account.signed-out", session.person.name, sessions="all others")

    def say(self, session: Session, kind: str, text: str) -> None:
        """Keep a sentence for the next page that this session opens."""
        here = _sessions.c.token_hash == session.id
        with self.write() as connection:
            said = connection.scalar(sa.select(_sessions.c.messages).where(here)) or []
            connection.execute(_sessions.update().where(here).values(messages=[*said, [kind, text]]))

    def said(self, session: Session) -> list[tuple[str, str]]:
        """What was kept for this page; once."""
        here = _sessions.c.token_hash == session.id
        with self.read() as connection:
            said = connection.scalar(sa.select(_sessions.c.messages).where(here)) or []
        if said:
            self._try_to_write(_sessions.update().where(here).values(messages=[]))
        return [(kind, text) for kind, text in said]

    # What a person changes of their own account

    def change_password(self, session: Session, password: str, new: str) -> None:
        """Set a new password; ends all sessions of the person, this one too.

        Raises:
            StaffRefusedError: The present password is wrong, or the new one will not do.
        """
        account = self._confirmed(session, password)
        require_password(new, account.name)
        password_hash = self._hasher.hash(new)
        with self.write() as connection:
            connection.execute(
                _accounts.update().where(_accounts.c.id == account.id).values(password_hash=password_hash)
            )
            _end_sessions(connection, account.id)
            self.note(connection, account.name, "account.password-changed", account.name)

    def new_totp_secret(self, session: Session) -> str:
        """The TOTP key (base32, 160 bits) that this session shall set; the same until it is set."""
        here = _sessions.c.token_hash == session.id
        with self.write() as connection:
            secret = connection.scalar(sa.select(_sessions.c.new_totp_secret).where(here)) or pyotp.random_base32()
            connection.execute(_sessions.update().where(here).values(new_totp_secret=secret))
        return str(secret)

    def set_second_factor(self, session: Session, password: str, code: str) -> list[str]:
        """Ask for a code of an authenticator app from now on; returns the recovery codes, shown this once.

        Raises:
            StaffRefusedError: The password or the code is wrong.
        """
        account = self._confirmed(session, password)
        secret = self.new_totp_secret(session)
        step = self._step_of(secret, code)
        if step is None:
            raise StaffRefusedError(
                _("The code does not fit."), remedy=_("Enter the six digits that the app shows now.")
            )
        codes = [f"{secrets.token_hex(3)}-{secrets.token_hex(3)}" for _ in range(RECOVERY_CODES)]
        with self.write() as connection:
            connection.execute(
                _accounts.update()
                .where(_accounts.c.id == account.id)
                .values(totp_secret=secret, totp_last_step=step, recovery_hashes=[_hash(code) for code in codes])
            )
            here = _sessions.c.token_hash == session.id
            connection.execute(_sessions.update().where(here).values(new_totp_secret=None))
            self.note(connection, account.name, "account.second-factor-set", account.name)
        return codes

    def remove_second_factor(self, session: Session, password: str) -> None:
        """Sign in with the password alone again."""
        account = self._confirmed(session, password)
        with self.write() as connection:
            connection.execute(
                _accounts.update().where(_accounts.c.id == account.id).values(totp_secret=None, recovery_hashes=[])
            )
            self.note(connection, account.name, "account.second-factor-removed", account.name)

    # What the audit log has still to be told

    def unreported(self, at_most: int = 500) -> list[dict[str, Any]]:
        """What happened to accounts and was not reported yet, the oldest first."""
        query = sa.select(_events).where(_events.c.is_refused.is_(False)).order_by(_events.c.id).limit(at_most)
        with self.read() as connection:
            return [row._asdict() for row in connection.execute(query)]

    def reported(self, event_id: int) -> None:
        """The audit log has it."""
        with self.write() as connection:
            connection.execute(_events.delete().where(_events.c.id == event_id))

    def refused(self, event_id: int) -> None:
        """The audit log will not have it as it is: keep it here, and hold up none behind it."""
        with self.write() as connection:
            connection.execute(_events.update().where(_events.c.id == event_id).values(is_refused=True))

    # Inside

    def _try_to_write(self, change: sa.Update) -> None:
        """Write what no page shall fail for: on a full disk people must still see and stop what runs."""
        try:
            with self.write() as connection:
                connection.execute(change)
        except sa.exc.DBAPIError as error:
            _log.warning("the list of accounts cannot be written", reason=str(error.orig))

    def note(self, connection: sa.Connection, actor: str, event: str, subject: str, **details: str) -> None:
        """Keep a line for the node's audit log, in the transaction that it tells of; nothing secret."""
        line = {"actor": actor, "event": event, "subject": subject, "details": details}
        connection.execute(_events.insert().values(at=self._clock(), **line))

    def _add(self, connection: sa.Connection, name: str, role: Role) -> int:
        _require_name(name)
        if connection.execute(sa.select(_accounts.c.id).where(_accounts.c.name_key == person_key(name))).first():
            raise StaffRefusedError(
                _("There is somebody called %(name)s already.", name=name), remedy=_("Choose another name.")
            )
        made = connection.execute(
            _accounts.insert().values(name=name, name_key=person_key(name), role=role, created_at=self._clock())
        )
        key: Any = made.inserted_primary_key
        return int(key[0])

    def _link(self, connection: sa.Connection, account_id: int | None) -> str:
        token = secrets.token_urlsafe(32)
        if account_id is not None:
            connection.execute(_links.delete().where(_links.c.account_id == account_id))
        expires_at = self._clock() + self._link_s
        connection.execute(
            _links.insert().values(token_hash=_hash(token), account_id=account_id, expires_at=expires_at)
        )
        return token

    def _require_link(self, connection: sa.Connection, token: str) -> Any:
        link = connection.execute(sa.select(_links).where(_links.c.token_hash == _hash(token))).first()
        if link is None or link.expires_at < self._clock():
            raise LinkRefusedError
        return link

    def _require_other_administrator(self, connection: sa.Connection, account: Any) -> None:
        if account.role != Role.ADMINISTRATOR:
            return
        others = sa.select(_accounts.c.id).where(
            _accounts.c.role == Role.ADMINISTRATOR,
            _accounts.c.id != account.id,
            _accounts.c.is_locked.is_(False),
            _accounts.c.password_hash.is_not(None),
        )
        if connection.execute(others).first() is None:
            raise StaffRefusedError(
                _("Without %(name)s the node would have no administrator.", name=account.name),
                remedy=_("Invite another administrator first."),
            )

    def _fits(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password[:PASSWORD_MOST])
        except (VerificationError, InvalidHashError):
            return False

    def _confirmed(self, session: Session, password: str) -> Any:
        """The session's account, once the person has given the present password again; a guess counts as one."""
        with self.write() as connection:
            account = _require(connection, session.person.id)
            failure = connection.execute(sa.select(_failures).where(_failures.c.name_key == account.name_key)).first()
        now = self._clock()
        must_wait = failure is not None and failure.retry_at > now
        if must_wait or not self._fits(account.password_hash or self._nobodys_hash, password):
            if not must_wait:
                with self.write() as connection:
                    self._count_failure(connection, account.name_key, account, now)
            raise StaffRefusedError(
                _("Your present password is not right, or there were too many attempts."),
                remedy=_("Enter the password that you signed in with; after several attempts wait for a minute."),
            )
        return account

    def _take_code(self, connection: sa.Connection, account: Any, code: str) -> bool:
        """Whether the code opens the account; each opens once."""
        if account.totp_secret is None:
            return True
        step = self._step_of(account.totp_secret, code)
        here = _accounts.update().where(_accounts.c.id == account.id)
        if step is not None and step > account.totp_last_step:
            connection.execute(here.values(totp_last_step=step))
            return True
        given = _hash(code.strip().lower())
        left = [known for known in account.recovery_hashes if not hmac.compare_digest(known, given)]
        if len(left) == len(account.recovery_hashes):
            return False
        connection.execute(here.values(recovery_hashes=left))
        self.note(connection, account.name, "account.recovery-code-used", account.name, left=str(len(left)))
        return True

    def _step_of(self, secret: str, code: str) -> int | None:
        """The time step that the code belongs to: this one or a neighbour, for clocks differ."""
        digits = re.sub(r"\s", "", code)
        if re.fullmatch("[0-9]{6}", digits) is None:
            return None
        totp = pyotp.TOTP(secret, interval=TOTP_STEP_S)
        now = int(self._clock()) // TOTP_STEP_S
        fits = [step for step in (now - 1, now, now + 1) if hmac.compare_digest(totp.generate_otp(step), digits)]
        return max(fits, default=None)

    def _open_session(self, connection: sa.Connection, account: Any, browser: str, now: float) -> str:
        token = secrets.token_urlsafe(32)
        connection.execute(_failures.delete().where(_failures.c.name_key == account.name_key))
        ended = sa.or_(_sessions.c.created_at < now - self._session_s, _sessions.c.seen_at < now - self._idle_s)
        connection.execute(_sessions.delete().where(ended))
        connection.execute(_accounts.update().where(_accounts.c.id == account.id).values(signed_in_at=now))
        connection.execute(
            _sessions.insert().values(
                token_hash=_hash(token),
                account_id=account.id,
                csrf=secrets.token_urlsafe(32),
                created_at=now,
                seen_at=now,
                browser=browser[:200],
            )
        )
        self.note(connection, account.name, "account.signed-in", account.name)
        return token

    def _is_live(self, row: Any, now: float) -> bool:
        return bool(now - row.opened_at < self._session_s and now - row.seen_at < self._idle_s)

    def _count_attempt(self, connection: sa.Connection, address: str, now: float) -> None:
        connection.execute(_attempts.delete().where(_attempts.c.at < now - ADDRESS_WINDOW_S))
        mine = sa.select(sa.func.count()).select_from(_attempts).where(_attempts.c.address == address)
        if (connection.scalar(mine) or 0) >= ADDRESS_TRIES:
            raise TooManyAttemptsError
        connection.execute(_attempts.insert().values(address=address, at=now))

    def _count_failure(self, connection: sa.Connection, key: str, account: Any, now: float) -> None:
        connection.execute(_failures.delete().where(_failures.c.last_at < now - FORGET_FAILURES_S))
        before = connection.execute(sa.select(_failures).where(_failures.c.name_key == key)).first()
        count = 1 + (before.tries if before is not None else 0)
        wait_s = 0.0 if count < TRIES_FREE else min(WAIT_MOST_S, WAIT_FIRST_S * 2 ** min(count - TRIES_FREE, 20))
        connection.execute(_failures.delete().where(_failures.c.name_key == key))
        connection.execute(_failures.insert().values(name_key=key, tries=count, retry_at=now + wait_s, last_at=now))
        # A name that nobody has may be a password typed into the wrong field: it is not written down.
        subject = account.name if account is not None else "unknown name"
        self.note(connection, GUI_NAME, "account.refused", subject)
        if wait_s:
            self.note(connection, GUI_NAME, "account.locked", subject, attempts=str(count), wait_s=f"{wait_s:.0f}")


def require_password(password: str, name: str) -> None:
    """Raise StaffRefusedError unless the password is long enough and not easily guessed."""
    if not PASSWORD_LEAST <= len(password) <= PASSWORD_MOST:
        raise StaffRefusedError(
            _(
                "The password has %(count)s characters; %(least)s to %(most)s are needed.",
                count=len(password),
                least=PASSWORD_LEAST,
                most=PASSWORD_MOST,
            ),
            remedy=_("Three or four words that have nothing to do with each other are long and easy to remember."),
        )
    plain = re.sub(r"[^a-z]", "", password.lower())
    named = re.sub(r"[^a-z]", "", name.lower())
    repeats_itself = len(set(password)) < 5
    if repeats_itself or plain in _COMMON or (len(named) > 3 and plain.replace(named, "") == ""):
        raise StaffRefusedError(
            _("The password is easily guessed."),
            remedy=_("Three or four words that have nothing to do with each other are long and easy to remember."),
        )


def totp_uri(secret: str, name: str, node: str) -> str:
    """What an authenticator app reads from the QR code."""
    return pyotp.TOTP(secret).provisioning_uri(name=name, issuer_name=f"FedWard {node}")


def _open(path: Path) -> sa.Engine:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"check_same_thread": False, "timeout": 10})
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "begin", _begin)
    try:
        with engine.execution_options(**{_WRITES: True}).begin() as connection:
            version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
            if version > SCHEMA:
                raise ConfigurationError(
                    f"{path} is of a newer release (schema {version}; this one knows {SCHEMA}).",
                    code=Code.STORE_CORRUPT,
                    remedy="Run the newer release again, or restore the folder gui/ from a backup made before it.",
                )
            if version == 0:
                _metadata.create_all(connection)
            for step in _STEPS[version - 1 :] if version else ():
                step(connection)
            connection.exec_driver_sql(f"PRAGMA user_version = {SCHEMA}")
            connection.execute(_events.update().values(is_refused=False))
    except sa.exc.DatabaseError as error:
        raise ConfigurationError(f"{path} cannot be read as a list of accounts.", code=Code.STORE_CORRUPT) from error
    return engine


def _to_2(connection: sa.Connection) -> None:
    """Events know when they happened, and names are compared as the warden compares them."""
    connection.exec_driver_sql("ALTER TABLE events ADD COLUMN at FLOAT")
    connection.exec_driver_sql("ALTER TABLE events ADD COLUMN is_refused BOOLEAN DEFAULT 0 NOT NULL")
    # Out of each other's way first: a new key may be what another account's is until its turn.
    connection.exec_driver_sql("UPDATE accounts SET name_key = char(10) || id")
    taken: set[str] = set()
    for account_id, name in connection.exec_driver_sql("SELECT id, name FROM accounts ORDER BY id").all():
        if (key := person_key(name)) in taken:
            # Two accounts of what counts as one person now: the older one stays, this one opens no more.
            connection.exec_driver_sql("UPDATE accounts SET is_locked = 1 WHERE id = ?", (account_id,))
            continue
        connection.exec_driver_sql("UPDATE accounts SET name_key = ? WHERE id = ?", (key, account_id))
        taken.add(key)


# Each takes staff.db from one schema to the next; the tables above are those after the last one.
_STEPS = (_to_2,)
SCHEMA = 1 + len(_STEPS)


def _prepare(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where we say
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin(connection: sa.Connection) -> None:
    # Two writers wait for each other instead of failing half-way; who reads waits for nobody.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get(_WRITES) else "BEGIN")


def _end_sessions(connection: sa.Connection, account_id: int) -> None:
    connection.execute(_sessions.delete().where(_sessions.c.account_id == account_id))


def _require(connection: sa.Connection, account_id: int) -> Any:
    is_id = 0 <= account_id < 1 << 63  # more is no number of the store
    account = connection.execute(sa.select(_accounts).where(_accounts.c.id == account_id)).first() if is_id else None
    if account is None:
        raise StaffRefusedError(_("There is no such account any more."), remedy=_("Look at the list of users again."))
    return account


def _require_another(by: str, account: Any) -> None:
    """Raise StaffRefusedError for whoever would give their own account a role or a link."""
    if same_person(by, account.name):
        raise StaffRefusedError(
            _("Role and link of your own account are another administrator's to give."),
            remedy=_("Ask another administrator; 'fedward gui invite' on the node's machine makes one."),
        )


def _require_name(name: str) -> None:
    if not _is_name(name) or same_person(name, GUI_NAME):
        raise StaffRefusedError(
            _("A name begins with a letter or a digit and has at most 64 letters, digits, spaces and . @ + -"),
            remedy=_("Enter the person's name as the audit log shall show it, for example: Anna Weiss."),
        )


def _is_name(name: str) -> bool:
    """Whether the warden takes the name, whose pattern's classes are not Python's: of both what they share."""
    kinds = ["Nd" if kind == "Nd" else kind[0] for kind in map(unicodedata.category, name)]
    known = all(kind in {"L", "Nd", "M"} or sign in " .@+-_" for kind, sign in zip(kinds, name, strict=True))
    return 0 < len(name) <= NAME_MOST and kinds[0] in {"L", "Nd"} and known


def _session_query() -> sa.Select[Any]:
    columns = [column for column in _sessions.c if column.name not in {"created_at", "messages", "new_totp_secret"}]
    opened = _sessions.c.created_at.label("opened_at")
    return sa.select(_accounts, *columns, opened).join_from(_sessions, _accounts)


def _person(row: Any) -> Person:
    return Person(
        id=row.id,
        name=row.name,
        role=Role(row.role),
        has_joined=row.password_hash is not None,
        has_second_factor=row.totp_secret is not None,
        recovery_codes_left=len(row.recovery_hashes),
        is_locked=row.is_locked,
        signed_in_at=row.signed_in_at,
    )


def _session(row: Any) -> Session:
    return Session(row.token_hash, _person(row), row.csrf, row.opened_at, row.seen_at, row.browser)


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()

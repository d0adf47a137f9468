"""What was chosen, what was told, and how the last attempts ended; beside the accounts, in ``HOME/gui/staff.db``.

An occasion has a line for each way by which it is told, from the moment it is first seen until it is over: so none is
told twice, and none is lost by a restart. An attempt is written down before it is made: where the disk takes nothing,
nothing is sent again and again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import sqlalchemy as sa
from flask_babel import gettext

from appliance.protocol.errors import Code
from node_gui.errors import GuiError
from node_gui.notices.occasions import Look, Occasion
from node_gui.notices.outward import Problem
from node_gui.notices.settings import Channel, Kind, MailServer, Security, Settings, Webhook
from node_gui.staff import StaffBook

EVENT, SUBJECT = "notices.changed", "notices"

_metadata = sa.MetaData()
_settings = sa.Table(
    "notice_settings",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),  # there is one row: 1
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("chosen", sa.JSON, nullable=False),  # Settings, with the secrets
)
_lines = sa.Table(
    "notice_lines",
    _metadata,
    sa.Column("channel", sa.Text, primary_key=True),
    sa.Column("source", sa.Text, primary_key=True),
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("seen_at", sa.Float, nullable=False),
    sa.Column("told_at", sa.Float),
)
_attempts = sa.Table(
    "notice_attempts",
    _metadata,
    sa.Column("channel", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("tried_at", sa.Float, nullable=False),
    sa.Column("sent_at", sa.Float),
    sa.Column("failures", sa.Integer, nullable=False),  # in a row; one that is under way counts
    sa.Column("problem", sa.Text),  # notices.outward.Problem; none: it went well, or was cut short
    sa.Column("status", sa.Integer),
)


@dataclass(frozen=True)
class Line:
    """What is known of an occasion on one way."""

    seen_at: float
    told_at: float | None


@dataclass(frozen=True)
class Attempt:
    """The last attempt to tell of a kind on one way.

    Attributes:
        sent_at: When the last one went well.
        failures: How many in a row did not.
        problem: Why not; None also when nobody knows, because the GUI was ended meanwhile.
        status: What the other end answered, as a number.
    """

    channel: Channel
    kind: Kind
    tried_at: float
    sent_at: float | None
    failures: int
    problem: Problem | None
    status: int | None


class NoticeBook:
    """The notices' part of the GUI's own file.

    Args:
        staff: The book that the file belongs to.
        clock: Seconds since the epoch.
    """

    def __init__(self, staff: StaffBook, *, clock: Callable[[], float] = time.time) -> None:
        self._staff = staff
        self.clock = clock
        with staff.write() as connection:
            _metadata.create_all(connection)

    # What an administrator chose

    def settings(self) -> Settings:
        """The settings in force."""
        with self._staff.read() as connection:
            return _chosen(connection)

    def change(self, by: str, shown: int, *, what: str, details: dict[str, str], **changes: Any) -> None:
        """Change the settings; the audit log's line is part of the change.

        Args:
            shown: The revision that the person saw.
            what: Which part is changed, for the audit log.
            details: The rest of its line: nothing secret.

        Raises:
            FedWardError: DECISION_STALE: they were changed meanwhile; ARGUMENT_INVALID.
        """
        with self._staff.write() as connection:
            before = _chosen(connection)
            if before.revision != shown:
                raise GuiError(
                    gettext("The notices are not as you saw them any more; nothing was changed."),
                    code=Code.DECISION_STALE,
                    remedy=gettext("Look at them as they are now, and decide again."),
                )
            fresh = replace(before, **changes, revision=before.revision + 1, since=before.since or self.clock())
            chosen = asdict(fresh) | {"kinds": sorted(fresh.kinds)}
            connection.execute(_settings.delete())
            connection.execute(_settings.insert().values(id=1, revision=fresh.revision, chosen=chosen))
            # What failed is tried anew at once, and what is told no more has no last attempt.
            failing = [(a.channel, a.kind) for a in _last_attempts(connection) if a.failures]
            ended = [(c, k) for c in Channel for k in Kind if c not in fresh.ways(k)]
            for channel, kind in (*failing, *ended):
                connection.execute(_attempts.delete().where(*_of(channel, kind)))
            self._staff.note(connection, by, EVENT, SUBJECT, what=what, **details)

    # What is told

    def look(self, found: Look, ways: Callable[[Kind], Collection[Channel]]) -> None:
        """Remember what is there now, and forget what is over; what could not be looked at stays as it is."""
        here = {(way.value, o.source, o.subject) for o in found.occasions for way in ways(o.kind)}
        with self._staff.read() as connection:
            known = {(r.channel, r.source, r.subject) for r in connection.execute(sa.select(_lines))}
        over = {line for line in known - here if line[1] not in found.unseen}
        fresh = here - known
        if not over and not fresh:
            return
        keys = (_lines.c.channel, _lines.c.source, _lines.c.subject)
        now = self.clock()
        with self._staff.write() as connection:
            for line in over:
                connection.execute(
                    _lines.delete().where(*(key == value for key, value in zip(keys, line, strict=True)))
                )
            for channel, source, subject in fresh:
                row = {"channel": channel, "source": source, "subject": subject, "seen_at": now, "told_at": None}
                connection.execute(_lines.insert().values(row))

    def lines(self, channel: Channel) -> dict[tuple[str, str], Line]:
        """What is known of each occasion, by its source and subject."""
        with self._staff.read() as connection:
            found = connection.execute(sa.select(_lines).where(_lines.c.channel == channel.value)).all()
        return {(row.source, row.subject): Line(row.seen_at, row.told_at) for row in found}

    # Attempts

    def attempts(self) -> list[Attempt]:
        """The last attempt on each way to tell of each kind, the latest first."""
        with self._staff.read() as connection:
            return _last_attempts(connection)

    def begin(self, channel: Channel, kind: Kind) -> None:
        """An attempt begins; until it has ended well it counts as one that did not."""
        with self._staff.write() as connection:
            before = connection.execute(sa.select(_attempts).where(*_of(channel, kind))).first()
            connection.execute(_attempts.delete().where(*_of(channel, kind)))
            connection.execute(
                _attempts.insert().values(
                    channel=channel.value,
                    kind=kind.value,
                    tried_at=self.clock(),
                    sent_at=before.sent_at if before else None,
                    failures=(before.failures if before else 0) + 1,
                )
            )

    def failed(self, channel: Channel, kind: Kind, problem: Problem, status: int | None) -> None:
        """It did not arrive, and why."""
        with self._staff.write() as connection:
            connection.execute(
                _attempts.update().where(*_of(channel, kind)).values(problem=problem.value, status=status)
            )

    def sent(self, channel: Channel, kind: Kind, told: Iterable[Occasion], problem: Problem | None = None) -> None:
        """It arrived: what it told is not told again, even if something of it did not go well."""
        now = self.clock()
        ended = {"sent_at": now, "failures": 0, "problem": problem and problem.value, "status": None}
        with self._staff.write() as connection:
            connection.execute(_attempts.update().where(*_of(channel, kind)).values(ended))
            for occasion in told:
                line = (
                    _lines.c.channel == channel.value,
                    _lines.c.source == occasion.source,
                    _lines.c.subject == occasion.subject,
                )
                connection.execute(_lines.update().where(*line).values(told_at=now))


def _of(channel: Channel, kind: Kind) -> tuple[sa.ColumnElement[bool], ...]:
    return _attempts.c.channel == channel.value, _attempts.c.kind == kind.value


def _last_attempts(connection: sa.Connection) -> list[Attempt]:
    found = connection.execute(sa.select(_attempts).order_by(_attempts.c.tried_at.desc()))
    return [
        Attempt(
            channel=Channel(row.channel),
            kind=Kind(row.kind),
            tried_at=row.tried_at,
            sent_at=row.sent_at,
            failures=row.failures,
            problem=None if row.problem is None else Problem(row.problem),
            status=row.status,
        )
        for row in found
    ]


def _chosen(connection: sa.Connection) -> Settings:
    chosen = connection.scalar(sa.select(_settings.c.chosen))
    if chosen is None:
        return Settings()
    mail, webhook = chosen.pop("mail"), chosen.pop("webhook")
    return Settings(
        **chosen
        | {
            "kinds": frozenset(map(Kind, chosen["kinds"])),
            "reviewers": tuple(chosen["reviewers"]),
            "others": tuple(chosen["others"]),
            "mail": mail and MailServer(**mail | {"security": Security(mail["security"])}),
            "webhook": webhook and Webhook(**webhook),
        }
    )

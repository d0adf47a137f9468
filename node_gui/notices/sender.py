"""Sends notices: looks once a minute at what there is to tell, and tells it.

One notice a kind and way at most in ``DIGEST_S``, and one a day for what still waits. An attempt that fails is repeated
after a growing delay, until the occasion is over.
"""

from __future__ import annotations

import fcntl
import threading
import traceback
from collections.abc import Sequence
from pathlib import Path

import structlog
from flask import Flask
from flask_babel import force_locale

from node_gui.context import EXTENSION, Parts
from node_gui.notices.book import Attempt, Line, NoticeBook
from node_gui.notices.letter import Item, Letter, write_letter
from node_gui.notices.mail import send_mail
from node_gui.notices.occasions import Look, Occasion
from node_gui.notices.outward import NotDeliveredError, Problem
from node_gui.notices.settings import Channel, Kind, Settings
from node_gui.notices.sources import look
from node_gui.notices.webhook import call_webhook

LOCK_FILE = "gui/notices.lock"
CHECK_S = 60.0
DIGEST_S = 900.0
REMINDER_S = 86_400.0
RETRY_FIRST_S, RETRY_MOST_S = 60.0, 3600.0
_log = structlog.get_logger(__name__)


class Sender:
    """The one that sends for a node's GUI.

    Args:
        app: The GUI.
        address: How staff reach it.
    """

    def __init__(self, app: Flask, address: str) -> None:
        self._app = app
        self._address = address
        parts: Parts = app.extensions[EXTENSION]
        self._home: Path = parts.home
        self._book: NoticeBook = parts.notices

    def start(self) -> None:
        """Begin, in a thread that ends with the process; a process that comes second waits for the first to end."""
        threading.Thread(target=self._run, name="notices", daemon=True).start()

    def check(self) -> None:
        """Look once, and tell what is due."""
        settings = self._book.settings()
        if not any(settings.ways(kind) for kind in Kind):
            return
        with self._app.app_context(), force_locale(settings.language):
            found = look(self._book.clock(), settings.since)
            self._book.look(found, settings.ways)
            attempts = {(a.channel, a.kind): a for a in self._book.attempts()}
            for kind in Kind:
                for channel in settings.ways(kind):
                    attempt = attempts.get((channel, kind))
                    if attempt is None or self._may_try(attempt):
                        self._try_to_tell(settings, channel, kind, found)

    def _run(self) -> None:
        never = threading.Event()
        with (self._home / LOCK_FILE).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            while True:
                try:
                    self.check()
                except Exception as error:  # noqa: BLE001 - this look must not be the last
                    _log_defect(error)
                never.wait(CHECK_S)

    def _may_try(self, attempt: Attempt) -> bool:
        if attempt.failures:
            delay_s = min(RETRY_MOST_S, RETRY_FIRST_S * 2 ** min(attempt.failures - 1, 10))
            return self._has_passed(attempt.tried_at, delay_s)
        return attempt.sent_at is None or self._has_passed(attempt.sent_at, DIGEST_S)

    def _has_passed(self, moment: float, span_s: float) -> bool:
        """Whether a span has passed since a moment; of one that is ahead, the clock was wrong."""
        return not 0 <= self._book.clock() - moment < span_s

    def _try_to_tell(self, settings: Settings, channel: Channel, kind: Kind, found: Look) -> None:
        try:
            self._tell(settings, channel, kind, found)
        except Exception as error:  # noqa: BLE001 - the other kinds and ways go on
            _log_defect(error)

    def _tell(self, settings: Settings, channel: Channel, kind: Kind, found: Look) -> None:
        lines = self._book.lines(channel)
        told = self._due([o for o in found.occasions if o.kind is kind], lines)
        if not told:
            return
        items = [self._item(o, lines[o.source, o.subject].seen_at) for o in told]
        letter = write_letter(kind, items, self._address)
        self._book.begin(channel, kind)
        try:
            is_whole = deliver(settings, channel, letter, settings.recipients(kind))
        except NotDeliveredError as error:
            _log.warning("notice not delivered", way=channel.value, kind=kind.value, problem=error.problem.value)
            self._book.failed(channel, kind, error.problem, error.status)
        else:
            self._book.sent(channel, kind, told, None if is_whole else Problem.ADDRESSES)

    def _due(self, occasions: list[Occasion], lines: dict[tuple[str, str], Line]) -> list[Occasion]:
        """What is to be told now, new things first; nothing as long as none of it is new or due again."""
        known = [(o, line) for o in occasions if (line := lines.get((o.source, o.subject))) is not None]
        new = [o for o, line in known if line.told_at is None and self._has_passed(line.seen_at, o.after_s)]
        waiting = [(o, line.told_at) for o, line in known if line.told_at is not None and o.kind is Kind.PLANS]
        is_due = new or any(self._has_passed(told_at, REMINDER_S) for _, told_at in waiting)
        # All that waits, so that one reminder a day is enough.
        return [*new, *(o for o, _ in waiting)] if is_due else []

    def _item(self, occasion: Occasion, seen_at: float) -> Item:
        return Item(occasion.name(seen_at), occasion.text, f"{self._address}{occasion.path}")


def deliver(settings: Settings, channel: Channel, letter: Letter, recipients: Sequence[str]) -> bool:
    """Send a notice by one way that the settings have; returns whether every recipient gets it.

    Raises:
        NotDeliveredError: Nobody does.
    """
    if channel is Channel.EMAIL:
        assert settings.mail is not None
        return send_mail(settings.mail, letter, recipients)
    assert settings.webhook is not None
    call_webhook(settings.webhook, letter)
    return True


def _log_defect(error: Exception) -> None:
    # Without its text, which may hold anything.
    where = "".join(traceback.format_tb(error.__traceback__))
    _log.error("notices could not be sent", error=type(error).__name__, traceback=where)

"""The node's audit log: a hash-chained line for each decision and each transfer, written with what it tells of."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from appliance.protocol import chain
from appliance.protocol.envelope import Clock
from appliance.transport.sqlite import Statement
from appliance.warden.store import audit

_PAGE = 1000
_LAST = Statement(sa.select(audit.c.n, audit.c.hash).order_by(audit.c.n.desc()).limit(1))
_APPEND = Statement(audit.insert().values({name: sa.bindparam(name) for name in ("n", "text", "hash")}))


class AuditLog:
    """Appends to the chain, inside the caller's transaction; the store's write lock keeps the order."""

    def __init__(self, clock: Clock = time.time) -> None:
        self._clock = clock

    def write(self, connection: sa.Connection, actor: str, event: str, subject: str, **details: Any) -> None:
        """Append a line.

        Args:
            actor: Member id, or ``staff:NAME``.
            event: ``noun.verb``.
            subject: The id of what it happened to.
            details: JSON values; never a record's content, a key or a plan's output.
        """
        last = _LAST.first(connection)
        number, previous = (last["n"] + 1, last["hash"]) if last else (1, chain.GENESIS)
        line = chain.append(
            previous, number, at=self._clock(), actor=actor, event=event, subject=subject, details=details
        )
        _APPEND.run(connection, n=number, text=line.text, hash=line.hash)


def audit_lines(connection: sa.Connection, *, after: int = 0) -> Iterator[chain.Line]:
    """The log's lines in order, a page at a time; a line that was tampered with comes out as one that is refused.

    Args:
        connection: To the store.
        after: The number of the line behind which to begin.
    """
    number = after
    while True:
        # As bytes, for one that was changed need not be a letter any more.
        query = sa.select(audit.c.n, _bytes(audit.c.text), _bytes(audit.c.hash)).where(audit.c.n > after)
        page = connection.execute(query.order_by(audit.c.n).limit(_PAGE)).all()
        for row in page:
            number += 1
            yield chain.Line(_decoded(row[1]) if row.n == number else "", _decoded(row[2]))
        if len(page) < _PAGE:
            return
        after = page[-1].n


def _bytes(column: sa.Column[str]) -> sa.Cast[bytes]:
    return sa.cast(column, sa.LargeBinary)


def _decoded(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "surrogateescape")

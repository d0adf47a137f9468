"""SQLite as every store of ours opens it: write-ahead log, nothing acknowledged before it is on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa

from appliance.protocol.errors import Code, FedWardError, takes_no_more

BUSY_TIMEOUT_MS = 10_000
_WRITES = "fedward_writes"


def durable_engine(path: Path) -> sa.Engine:
    """An engine for the SQLite file at ``path`` (made when missing).

    A commit returns when the disk has it (synchronous=FULL). Write through ``writing``, read through ``connect``.
    """
    engine = sa.create_engine(_uri(path, "rwc"), connect_args={"check_same_thread": False})
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "begin", _begin)
    return engine


def reading_engine(path: Path) -> sa.Engine:
    """An engine that cannot write, for those who only look; it works while the writer is down."""
    engine = sa.create_engine(_uri(path, "ro"), connect_args={"check_same_thread": False})
    sa.event.listen(engine, "connect", lambda connection, _record: connection.execute("PRAGMA busy_timeout=10000"))
    return engine


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that takes the write lock at its start, so that two writers wait instead of failing half-way.

    Raises:
        FedWardError: DISK_FULL: the disk takes no more; nothing of the transaction was done.
    """
    try:
        with engine.execution_options(**{_WRITES: True}).begin() as connection:
            yield connection
    except sa.exc.OperationalError as error:
        if not takes_no_more(error.orig):
            raise
        path = str(engine.url.database).removeprefix("file:")
        raise FedWardError(f"{path}: the disk takes no more ({error.orig}).", code=Code.DISK_FULL) from error


def _uri(path: Path, mode: str) -> sa.URL:
    # A folder's name may hold the signs that a URL gives a meaning to.
    return sa.URL.create("sqlite", database=f"file:{quote(str(path))}", query={"mode": mode, "uri": "true"})


def _prepare(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # ours is the only BEGIN
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT_MS}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    mode = " IMMEDIATE" if connection.get_execution_options().get(_WRITES) else ""
    connection.exec_driver_sql(f"BEGIN{mode}")

"""SQLite as every store of ours opens it: write-ahead log, nothing acknowledged before it is on the disk.

The statements of every round stand as ``Statement`` at the top of their file: built and compiled once.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from appliance.protocol.errors import Code, FedWardError, takes_no_more

_DIALECT = sqlite.dialect(paramstyle="named")
BUSY_TIMEOUT_MS = 10_000
_WRITES, _WRITER = "fedward_writes", "fedward_writer"


def durable_engine(path: Path) -> sa.Engine:
    """An engine for the SQLite file at ``path`` (made when missing).

    A commit returns when the disk has it (synchronous=FULL). Write through ``writing``, read through ``connect``.
    """
    engine = sa.create_engine(_uri(path, "rwc"), connect_args={"check_same_thread": False})
    sa.event.listen(engine, "connect", _prepare)
    sa.event.listen(engine, "begin", _begin)
    writer = _Writer()
    engine.update_execution_options(**{_WRITER: writer})
    sa.event.listen(engine, "engine_disposed", lambda _engine: writer.close())
    return engine


def reading_engine(path: Path) -> sa.Engine:
    """An engine that cannot write, for those who only look; it works while the writer is down."""
    engine = sa.create_engine(_uri(path, "ro"), connect_args={"check_same_thread": False})
    sa.event.listen(engine, "connect", lambda connection, _record: connection.execute("PRAGMA busy_timeout=10000"))
    return engine


def settle(path: Path) -> None:
    """Leave a store that its only writer has closed as one file.

    Readers who cannot write its folder could not make what a write-ahead log needs beside it. A reader that is at work
    keeps the log, and so does a disk that takes no more: then all is as after a crash.
    """
    address = f"file:{quote(str(path))}?mode=rw"
    with suppress(sqlite3.DatabaseError), closing(sqlite3.connect(address, uri=True)) as store:
        store.execute("PRAGMA journal_mode=DELETE")


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """A transaction that takes the write lock at its start, so that two writers wait instead of failing half-way.

    Raises:
        FedWardError: DISK_FULL: the disk takes no more; nothing of the transaction was done.
    """
    writer: _Writer = engine.get_execution_options()[_WRITER]
    try:
        with writer.transaction(engine) as connection:
            yield connection
    except sa.exc.OperationalError as error:
        if not takes_no_more(error.orig):
            raise
        path = str(engine.url.database).removeprefix("file:")
        raise FedWardError(f"{path}: the disk takes no more ({error.orig}).", code=Code.DISK_FULL) from error


class _Writer:
    """An engine's one connection for writing, kept: a pool's care for each transaction costs more than its statements.

    Between processes SQLite's own lock keeps the order, between threads ours.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._connection: sa.Connection | None = None

    @contextmanager
    def transaction(self, engine: sa.Engine) -> Iterator[sa.Connection]:
        with self._lock:
            if self._connection is None:
                self._connection = engine.connect().execution_options(**{_WRITES: True})
                self._connection.detach()  # closed when we close it, and not handed back to the pool
            try:
                with self._connection.begin():
                    yield self._connection
            except BaseException:
                self.close()  # whatever was interrupted, the next one begins without it
                raise

    def close(self) -> None:
        """Let go of the file, once the transaction under way has ended."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()


class Statement:
    """A statement as SQLAlchemy writes it, run as sqlite3 runs it.

    What SQLAlchemy does anew at each execution costs a small round more than all its signatures. Here only JSON values
    are translated; a parameter that is not given is NULL.

    Args:
        clause: What to run, with a ``bindparam`` for what differs. An INSERT has one for each column.
    """

    def __init__(self, clause: Any) -> None:
        compiled = clause.compile(dialect=_DIALECT)
        self._sql = str(compiled)
        self._fixed: dict[str, Any] = dict(compiled.params)
        writers = {name: _type(bind).bind_processor(_DIALECT) for name, bind in compiled.binds.items()}
        columns = getattr(clause, "selected_columns", ())
        readers = {column.name: _type(column).result_processor(_DIALECT, None) for column in columns}
        self._writers = {name: write for name, write in writers.items() if write is not None}
        self._readers = {name: read for name, read in readers.items() if read is not None}

    def run(self, connection: sa.Connection, **parameters: Any) -> sqlite3.Cursor:
        """Run it in the connection's transaction; raises as ``connection.execute`` does."""
        for name, write in self._writers.items():
            if name in parameters:
                parameters[name] = write(parameters[name])
        try:
            cursor: sqlite3.Cursor = connection.connection.execute(self._sql, self._fixed | parameters)
        except sqlite3.Error as error:
            raise sa.exc.DBAPIError.instance(self._sql, parameters, error, sqlite3.Error) from error
        return cursor

    def rows(self, connection: sa.Connection, **parameters: Any) -> list[dict[str, Any]]:
        """Its rows, by column."""
        cursor = self.run(connection, **parameters)
        names = [column[0] for column in cursor.description]
        found = [dict(zip(names, row, strict=True)) for row in cursor]
        for row in found:
            for name, read in self._readers.items():
                row[name] = read(row[name])
        return found

    def first(self, connection: sa.Connection, **parameters: Any) -> dict[str, Any] | None:
        """Its first row, by column, or None."""
        found = self.rows(connection, **parameters)
        return found[0] if found else None


def _type(element: Any) -> Any:
    return element.type.dialect_impl(_DIALECT)


def _uri(path: Path, mode: str) -> sa.URL:
    # A folder's name may hold the signs that a URL gives a meaning to.
    return sa.URL.create("sqlite", database=f"file:{quote(str(path))}", query={"mode": mode, "uri": "true"})


def _prepare(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # ours is the only BEGIN
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT_MS}"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    mode = " IMMEDIATE" if connection.get_execution_options().get(_WRITES) else ""
    begin = f"BEGIN{mode}"
    try:
        connection.connection.execute(begin)  # sqlite3's own: SQLAlchemy's way costs more than the statement
    except sqlite3.Error as error:
        raise sa.exc.DBAPIError.instance(begin, {}, error, sqlite3.Error) from error

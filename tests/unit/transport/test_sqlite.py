"""SQLite as our stores open it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from appliance.transport.sqlite import Statement, durable_engine, reading_engine, settle, writing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file lies; its name holds what a URL would misread."""
    return tmp_path / "a store?x#y%20z.db"


@pytest.fixture
def engine(path: Path) -> Iterator[sa.Engine]:
    """An engine on a file with one table."""
    engine = durable_engine(path)
    with writing(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE t (x INTEGER)")
        connection.exec_driver_sql("CREATE TABLE child (x INTEGER REFERENCES parent (x))")
        connection.exec_driver_sql("CREATE TABLE parent (x INTEGER PRIMARY KEY)")
    yield engine
    engine.dispose()


def count(engine: sa.Engine) -> int:
    """How many rows there are."""
    with engine.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM t").scalar() or 0)


@pytest.mark.parametrize(("pragma", "value"), [("synchronous", 2), ("journal_mode", "wal"), ("foreign_keys", 1)])
def test_every_connection_is_durable(engine: sa.Engine, pragma: str, value: object) -> None:
    """SQLite forgets these with each connection but one."""
    with engine.connect() as first, engine.connect() as second:
        for connection in (first, second):
            assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() == value


def test_what_raises_leaves_nothing(engine: sa.Engine) -> None:
    """Python's own driver would commit half of it before a statement that changes tables."""
    with pytest.raises(ZeroDivisionError), writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
        connection.exec_driver_sql("CREATE TABLE u (x INTEGER)")
        raise ZeroDivisionError
    assert count(engine) == 0
    assert not sa.inspect(engine).has_table("u")


def test_writers_wait_for_each_other_instead_of_failing_half_way(engine: sa.Engine, path: Path) -> None:
    """A lock taken at the first write only ends in 'database is locked' when both have read before.

    Threads share an engine, processes do not.
    """
    other = durable_engine(path)

    def add(mine: sa.Engine) -> None:
        for _ in range(10):
            with writing(mine) as connection:
                number = connection.exec_driver_sql("SELECT count(*) FROM t").scalar()
                connection.exec_driver_sql(f"INSERT INTO t VALUES ({number})")

    threads = [threading.Thread(target=add, args=(mine,)) for mine in (engine, engine, other, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    other.dispose()
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(DISTINCT x) FROM t").scalar() == 40


def test_a_reader_does_not_see_what_is_not_committed(engine: sa.Engine) -> None:
    """Nor does it wait for the disk with the writer."""
    with writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
        assert count(engine) == 0
    assert count(engine) == 1


def test_a_write_that_failed_in_the_database_leaves_the_next_one_whole(engine: sa.Engine) -> None:
    """All writes share a connection: its state after an error must not become theirs."""
    with pytest.raises(sa.exc.IntegrityError), writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
        connection.exec_driver_sql("INSERT INTO child VALUES (1)")
    with writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (2)")
    assert count(engine) == 1


def test_an_engine_that_is_disposed_of_holds_no_file(engine: sa.Engine, path: Path) -> None:
    """A store that was closed may be another process's by now."""
    with writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
    engine.dispose()

    assert not [file.path for file in psutil.Process().open_files() if file.path.startswith(str(path))]


def test_a_reader_cannot_write(engine: sa.Engine, path: Path) -> None:
    """The GUI reads; the warden alone writes."""
    reader = reading_engine(path)
    with reader.connect() as connection, pytest.raises(sa.exc.OperationalError, match="readonly"):
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
    reader.dispose()


def test_a_reader_makes_no_file(tmp_path: Path) -> None:
    """Looking at a node that never ran must not found a store."""
    reader = reading_engine(tmp_path / "none.db")
    with pytest.raises(sa.exc.OperationalError):
        reader.connect()
    assert list(tmp_path.iterdir()) == []


def test_a_reader_works_while_the_writer_is_down(engine: sa.Engine, path: Path) -> None:
    """Also when the writer left cleanly, and its log with it."""
    with writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
    engine.dispose()
    reader = reading_engine(path)
    assert count(reader) == 1
    reader.dispose()


def test_a_store_that_was_settled_is_read_where_nothing_can_be_written(engine: sa.Engine, path: Path) -> None:
    """The GUI's container mounts the store read-only, and history must be there while the warden is not."""
    with writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
    engine.dispose()
    settle(path)
    journal = path.read_bytes()[18:20]  # the file format's write and read version: 1 without a write-ahead log, 2 with

    assert journal == b"\1\1"


def test_settling_waits_for_no_reader(engine: sa.Engine, path: Path) -> None:
    """A page that is open in the GUI neither fails nor keeps the warden from ending."""
    with writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO t VALUES (1)")
    reader = reading_engine(path)
    with reader.connect() as connection:
        connection.exec_driver_sql("SELECT * FROM t")
        engine.dispose()
        settle(path)

        assert connection.exec_driver_sql("SELECT count(*) FROM t").scalar_one() == 1
    reader.dispose()


def test_a_row_that_points_nowhere_is_refused(engine: sa.Engine) -> None:
    """Permissions end with their dataset only if the database keeps count."""
    with pytest.raises(sa.exc.IntegrityError), writing(engine) as connection:
        connection.exec_driver_sql("INSERT INTO child VALUES (1)")


# Statements


THINGS = sa.Table(
    "things",
    sa.MetaData(),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("facts", sa.JSON),
    sa.Column("note", sa.Text),
)
ADD = Statement(THINGS.insert())
NAMED = Statement(sa.select(THINGS).where(THINGS.c.name == sa.bindparam("of")))
RENAME = Statement(THINGS.update().where(THINGS.c.name == sa.bindparam("of")).values(name=sa.bindparam("name")))


@pytest.fixture
def things(engine: sa.Engine) -> sa.Engine:
    """The engine, on a file with the table of things."""
    with writing(engine) as connection:
        THINGS.create(connection)
    return engine


def test_a_statement_writes_and_reads_as_sqlalchemy_does(things: sa.Engine) -> None:
    """One store, read and written in two ways: a row must not look different from either side."""
    facts = {"a": [1, 2.5, None, "é"]}
    with writing(things) as connection:
        ADD.run(connection, name="ours", facts=facts)
        connection.execute(THINGS.insert().values(name="theirs", facts=facts))
    with things.connect() as connection:
        assert [row.facts for row in connection.execute(sa.select(THINGS))] == [facts, facts]
        assert NAMED.first(connection, of="ours") == {"name": "ours", "facts": facts, "note": None}
        assert NAMED.first(connection, of="theirs") == {"name": "theirs", "facts": facts, "note": None}
        assert NAMED.first(connection, of="nobody") is None


def test_a_statement_counts_what_it_changed(things: sa.Engine) -> None:
    """Whether an answer was the first one rests on it."""
    with writing(things) as connection:
        ADD.run(connection, name="a")
        assert RENAME.run(connection, of="a", name="b").rowcount == 1
        assert RENAME.run(connection, of="a", name="b").rowcount == 0


def test_a_statement_belongs_to_the_transaction(things: sa.Engine) -> None:
    """A request is accepted, audited and answered at once or not at all."""
    with pytest.raises(ZeroDivisionError), writing(things) as connection:
        ADD.run(connection, name="a")
        raise ZeroDivisionError
    with things.connect() as connection:
        assert NAMED.first(connection, of="a") is None


def test_a_statement_fails_as_sqlalchemys_do(things: sa.Engine) -> None:
    """Who waits for a full disk or a busy store must hear of it, whoever ran the statement."""
    with pytest.raises(sa.exc.IntegrityError), writing(things) as connection:
        ADD.run(connection, name="a")
        ADD.run(connection, name="a")
    with pytest.raises(sa.exc.OperationalError), reading_engine_of(things).connect() as connection:
        ADD.run(connection, name="b")


def reading_engine_of(engine: sa.Engine) -> sa.Engine:
    """The same file, opened by one who may not write."""
    with engine.connect() as connection:
        return reading_engine(Path(connection.exec_driver_sql("PRAGMA database_list").one()[2]))

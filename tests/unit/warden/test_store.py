"""The store: one warden, all or nothing, and tables that are what the code believes."""

from __future__ import annotations

import json
import sqlite3
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from appliance.protocol.errors import Code, FedWardError
from appliance.transport.sqlite import durable_engine, writing
from appliance.warden import store as store_module
from appliance.warden.store import (
    FILE_NAME,
    Store,
    audit,
    egress_totals,
    experiments,
    metadata,
    plan_decisions,
    put_setting,
    rounds,
    rows,
    settings,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A new store."""
    store = Store(tmp_path / "store")
    yield store
    store.close()


def test_the_migrations_make_exactly_the_tables_that_the_code_uses(store: Store) -> None:
    """An upgraded hospital and a new one must not differ by a column."""
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_a_second_warden_is_turned_away_and_told_why(tmp_path: Path, store: Store) -> None:
    """Two writers would each believe the other's queue to be theirs."""
    with pytest.raises(FedWardError) as refusal:
        Store(tmp_path / "store")
    assert refusal.value.code is Code.STORE_BUSY
    assert str(tmp_path / "store") in refusal.value.message


def test_the_next_warden_takes_over_when_the_first_has_ended(tmp_path: Path, store: Store) -> None:
    """A restart must not need anybody to remove a lock by hand."""
    with store.write() as connection:
        put_setting(connection, "a", "1")
    store.close()
    following = Store(tmp_path / "store")
    kept = following.setting("a")
    following.close()
    assert kept == "1"


def test_an_exception_inside_a_transaction_leaves_nothing_behind(store: Store) -> None:
    """A request is accepted, audited and answered at once or not at all."""
    with pytest.raises(ZeroDivisionError), store.write() as connection:
        put_setting(connection, "a", "1")
        raise ZeroDivisionError
    assert store.setting("a") is None


def test_what_was_committed_is_there_after_a_restart(tmp_path: Path, store: Store) -> None:
    """That is what a store is for."""
    with store.write() as connection:
        put_setting(connection, "a", "1")
    store.close()
    again = Store(tmp_path / "store")
    assert again.setting("a") == "1"
    again.close()


def test_nothing_is_acknowledged_before_it_is_on_the_disk(store: Store) -> None:
    """A power cut after a Receipt must find the message in the store."""
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_a_secret_stays_the_same_and_others_have_another(tmp_path: Path, store: Store) -> None:
    """The MQTT client id: a known or changing one would let others end our session."""
    other = Store(tmp_path / "other")
    assert store.secret("mqtt_client_id") == store.secret("mqtt_client_id")
    assert store.secret("mqtt_client_id") != other.secret("mqtt_client_id")
    other.close()


def test_the_store_is_for_the_service_user_alone(store: Store) -> None:
    """It holds plans, permissions and the client id."""
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700


def test_a_file_that_is_no_store_is_called_corrupt_and_left_as_it_is(tmp_path: Path) -> None:
    """It may be the only copy of somebody's evidence."""
    (tmp_path / FILE_NAME).write_bytes(b"not a database" * 100)
    with pytest.raises(FedWardError) as refusal:
        Store(tmp_path)
    assert refusal.value.code is Code.STORE_CORRUPT
    assert (tmp_path / FILE_NAME).read_bytes() == b"not a database" * 100


def test_a_store_of_a_newer_release_is_not_touched(tmp_path: Path) -> None:
    """After a downgrade, old code must not write into tables that it does not know."""
    Store(tmp_path).close()
    with sqlite3.connect(tmp_path / FILE_NAME) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    for _ in range(2):  # and the lock is let go of
        with pytest.raises(FedWardError) as refusal:
            Store(tmp_path)
        assert refusal.value.code is Code.STORE_CORRUPT


def test_a_full_disk_is_said_to_be_full(store: Store) -> None:
    """The remedy is another than that for a broken store."""
    with store.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    sa.event.listen(
        store.engine, "begin", lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    )
    with pytest.raises(FedWardError) as refusal, store.write() as connection:
        put_setting(connection, "large", "x" * 100_000)
    assert refusal.value.code is Code.DISK_FULL
    assert store.setting("large") is None


def test_nobody_writes_once_the_store_is_closed(store: Store) -> None:
    """By then it may be another warden's."""
    store.close()
    with pytest.raises(FedWardError) as refusal, store.write():
        pass
    assert refusal.value.code is Code.STORE_BUSY


def test_a_reader_sees_one_moment_and_blocks_no_writer(store: Store) -> None:
    """The GUI may look for as long as it likes."""
    count = sa.select(sa.func.count()).select_from(settings)
    with store.read() as reading:
        before = reading.scalar(count)
        with store.write() as connection:
            put_setting(connection, "a", "1")
        assert reading.scalar(count) == before


def test_writers_in_many_threads_wait_for_each_other(store: Store) -> None:
    """Desk, workers and governance write at once; none may lose what another wrote."""

    def add() -> None:
        for _ in range(5):
            with store.write() as connection:
                value = int(connection.scalar(sa.select(settings.c.value).where(settings.c.name == "n")) or 0)
                put_setting(connection, "n", str(value + 1))

    threads = [threading.Thread(target=add) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.setting("n") == "100"


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    """A question mark or a hash sign means something else inside a URL."""
    store = Store(tmp_path / "a b?mode=memory#c%20d")
    assert store.path.is_file()
    store.close()


def first_release(folder: Path, **tables: list[dict[str, Any]]) -> None:
    """A store as the first release left it, with these rows by table; a column that must be there is '1'."""
    engine = durable_engine(folder / FILE_NAME)
    config = Config()
    config.set_main_option("script_location", str(Path(store_module.__file__).parent / "migrations"))
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for name, given in tables.items():
            needed = [column["name"] for column in sa.inspect(connection).get_columns(name) if not column["nullable"]]
            for row in given:
                values = dict.fromkeys(needed, "1") | row
                connection.execute(sa.insert(sa.table(name, *map(sa.column, values))).values(values))
    engine.dispose()


def test_a_round_of_the_first_release_is_kept_by_the_upgrade(tmp_path: Path) -> None:
    """What was accepted before is gone on with after it; it counts as asked for before any Stop."""
    first_release(tmp_path, rounds=[{"jti": "a"}])

    store = Store(tmp_path)
    with store.read() as connection:
        kept = connection.execute(sa.select(rounds.c.jti, rounds.c.asked_at)).all()
    store.close()
    assert kept == [("a", 0.0)]


def test_what_the_first_releases_rounds_came_to_is_summed_up_by_the_upgrade(tmp_path: Path) -> None:
    """Its experiments are in the list, in their order, and what left of them in the totals."""
    ended = {"accepted_at": 2.0, "ended_at": 3.0, "step": "replied", "timing": '{"train_s": 0.5}'}
    first_release(
        tmp_path,
        rounds=[
            {"jti": "a1", "experiment_id": "a"} | ended,
            {"jti": "a2", "experiment_id": "a", "accepted_at": 5.0, "step": "accepted"},
            {"jti": "b1", "experiment_id": "b"} | ended | {"timing": "no json"},
        ],
        egress=[
            {"id": 1, "at": 1.0, "recipient": "alice", "kind": "upload", "experiment_id": "a", "size_bytes": 10},
            {"id": 2, "at": 2.0, "recipient": "alice", "kind": "scalar", "experiment_id": "a", "size_bytes": 5},
            {"id": 3, "at": 3.0, "recipient": "alice", "kind": "pong", "size_bytes": 1},
        ],
    )

    store = Store(tmp_path)
    with store.read() as connection:
        a, b = rows(connection, sa.select(experiments).order_by(experiments.c.experiment_id))
        outside, inside = rows(connection, sa.select(egress_totals).order_by(egress_totals.c.experiment_id))
    store.close()
    assert (a["latest_jti"], a["answered_jti"], a["requests"], a["open"], a["trained_s"]) == ("a2", "a1", 2, 1, 0.5)
    assert (a["began_at"], a["last_activity_at"], a["last_request"], b["last_request"]) == (2.0, 5.0, 2, 1)
    assert (b["trained_s"], b["open"]) == (0.0, 0)
    assert (inside["updates"], inside["update_bytes"], inside["messages"], inside["size_bytes"]) == (1, 10, 2, 15)
    assert (outside["experiment_id"], outside["updates"], outside["last_update_at"]) == ("", 0, None)


def test_what_the_first_release_decided_is_kept_by_the_upgrade(tmp_path: Path) -> None:
    """Reviewers to come read it, and the audit log is searched by subject."""
    plan = {"state": "approved", "reviewer": "Anna", "note": "read", "decided_at": 2.0}
    plan["ranges"] = '[{"name": "epochs", "maximum": 5.0}]'
    lines = [{"n": number, "text": text} for number, text in enumerate(['{"subject": "a"}', "no json"], 1)]
    first_release(tmp_path, plans=[plan], audit=lines)

    store = Store(tmp_path)
    with store.read() as connection:
        (kept,) = rows(connection, sa.select(plan_decisions))
        subjects = list(connection.scalars(sa.select(audit.c.subject).order_by(audit.c.n)))
    store.close()
    assert (kept["staff"], kept["decision"], kept["ranges"][0]["maximum"]) == ("Anna", "approved", 5.0)
    assert subjects == ["a", None]


def test_a_round_that_waited_through_an_upgrade_keeps_its_end(tmp_path: Path) -> None:
    """What the researcher set, or a week behind its acceptance, as the release before reckoned it."""
    request = [json.dumps(json.dumps({"deadline": deadline})) for deadline in (5000, None, 10**9)]
    waiting = [{"jti": str(n), "request": text, "accepted_at": 1000.0} for n, text in enumerate(request)]
    first_release(tmp_path, rounds=waiting)

    store = Store(tmp_path)
    with store.read() as connection:
        kept = {row.jti: row.expires_at for row in connection.execute(sa.select(rounds.c.jti, rounds.c.expires_at))}
    store.close()
    assert kept == {"0": 5000.0, "1": 1000.0 + 604_800, "2": 1000.0 + 604_800}

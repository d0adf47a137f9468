"""The node's store: one SQLite file that the warden alone writes.

Everything that must survive a power cut is here, in tables whose rows change together in one transaction: a
request is accepted, audited and answered at once or not at all.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.util import CommandError

from appliance.protocol.errors import Code, FedWardError, takes_no_more
from appliance.transport import mailbox
from appliance.transport.sqlite import durable_engine, settle, writing

FILE_NAME = "node.db"

metadata = sa.MetaData()
for _table in mailbox.metadata.sorted_tables:
    _table.to_metadata(metadata)


def _time(name: str, *, nullable: bool = False) -> sa.Column[float]:
    return sa.Column(name, sa.Float, nullable=nullable)  # seconds since the epoch, UTC


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text, nullable=nullable)


def _revision() -> sa.Column[int]:
    """Counts what people changed, so that a decision on what is not there any more can be refused."""
    return sa.Column("revision", sa.Integer, nullable=False, server_default="0")


settings = sa.Table("settings", metadata, sa.Column("name", sa.Text, primary_key=True), _text("value"))

datasets = sa.Table(
    "datasets",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    _text("name"),
    _text("kind"),
    _text("path"),
    _text("description"),
    sa.Column("tags", sa.JSON, nullable=False),
    sa.Column("loading_plan", sa.JSON, nullable=False),
    sa.Column("columns", sa.JSON, nullable=False),  # [{name, type}] as presented
    sa.Column("rows", sa.Integer, nullable=False),
    _text("fingerprint"),
    _text("state"),  # active | suspended | changed
    _text("added_by"),
    _time("added_at"),
    _revision(),
    sa.UniqueConstraint("name"),
)
permissions = sa.Table(
    "permissions",
    metadata,
    sa.Column("dataset_id", sa.Text, sa.ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("researcher", sa.Text, primary_key=True),
    _time("until", nullable=True),
    _text("granted_by"),
    _time("granted_at"),
)
plans = sa.Table(
    "plans",
    metadata,
    sa.Column("sha256", sa.Text, primary_key=True),
    _text("name"),
    _text("description"),
    _text("source"),
    _text("origin"),  # researcher | hospital
    _text("requested_by"),
    _time("requested_at"),
    sa.Column("asked_ranges", sa.JSON, nullable=False),
    _text("state"),  # pending | approved | rejected | revoked
    _text("reviewer", nullable=True),
    _text("note"),
    _time("decided_at", nullable=True),
    _time("until", nullable=True),
    sa.Column("ranges", sa.JSON, nullable=False),
    sa.Column("first_approval", sa.JSON, nullable=True),  # {reviewer, at, note, until, ranges}: waits for a second
    _revision(),
    sa.Index("plans_by_name", "name", "state", "decided_at"),
    # All that a list shows: a text may have half a megabyte, and is not to be passed over to read what follows it.
    sa.Index(
        "plans_listed", "requested_at", "sha256", "name", "origin", "requested_by", "state", "reviewer", "decided_at",
        "until", "revision", "first_approval",
    ),
)  # fmt: skip
plan_decisions = sa.Table(
    "plan_decisions",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    _text("sha256"),
    _text("staff"),
    _time("at"),
    _text("decision"),  # first-approved | approved | rejected | revoked
    _text("note"),
    _time("until", nullable=True),
    sa.Column("ranges", sa.JSON, nullable=False),
    sa.Index("plan_decisions_by_plan", "sha256"),
)
rounds = sa.Table(
    "rounds",
    metadata,
    sa.Column("jti", sa.Text, primary_key=True),
    _text("researcher"),  # whose permissions, approvals and kept tensors count
    _text("experiment_id"),
    sa.Column("round", sa.Integer, nullable=False),
    _text("dataset_id"),
    _text("plan_sha256"),
    sa.Column("request", sa.JSON, nullable=False),
    _text("step"),  # protocol.rounds.RoundStep
    _time("asked_at"),  # when the request was written, by the researcher's clock
    _time("accepted_at"),
    _time("ended_at", nullable=True),
    sa.Column("training_args", sa.JSON, nullable=False),  # after overrides
    sa.Column("overrides", sa.JSON, nullable=False),
    sa.Column("timing", sa.JSON, nullable=False),
    sa.Column("result", sa.JSON, nullable=True),  # what CHECKED left: file, key, reply; of an ended round the reply
    _text("stop_reason", nullable=True),
    _text("error", nullable=True),  # code and reason, for staff
    _text("record"),  # the plan's output and tracebacks: stays here
    _time("expires_at"),  # when a reply will be of no use any more
    _text("federator", nullable=True),  # who asked in the researcher's name, and is answered; None: the researcher
    _text("mandate_id", nullable=True),  # under which
    sa.Column("superseded_by", sa.Integer, nullable=True),  # the later round for which it was given up
    sa.Index("rounds_by_experiment", "experiment_id", "accepted_at", "researcher"),
)
IS_OPEN = rounds.c.ended_at.is_(None)  # it waits or runs; its step is none of protocol.rounds.FINAL_STEPS
sa.Index("rounds_open", rounds.c.experiment_id, rounds.c.accepted_at, sqlite_where=IS_OPEN)
# As the indexes have them, for SQLite compares the text.
IS_ANSWERED, HAS_FAILED = sa.text("step = 'replied'"), sa.text("step = 'failed'")
sa.Index("rounds_answered", rounds.c.experiment_id, rounds.c.round, rounds.c.accepted_at, sqlite_where=IS_ANSWERED)
sa.Index("rounds_failed", rounds.c.ended_at, sqlite_where=HAS_FAILED)
IS_MANDATED = rounds.c.mandate_id.is_not(None)
sa.Index("rounds_mandated", rounds.c.mandate_id, rounds.c.researcher, sqlite_where=IS_MANDATED)
# Mandates that a researcher took back, by stopping the experiment: all that were issued until then.
withdrawals = sa.Table(
    "withdrawals",
    metadata,
    sa.Column("researcher", sa.Text, primary_key=True),
    sa.Column("experiment_id", sa.Text, primary_key=True),
    _time("until"),  # when the Stop was written, by the researcher's clock
)
pauses = sa.Table(
    "pauses",
    metadata,
    sa.Column("experiment_id", sa.Text, primary_key=True),
    _text("staff"),
    _time("since"),
)
# What a round took, beside its row: lists pass it over, and it has come to its end when this is known.
measures = sa.Table(
    "measures",
    metadata,
    sa.Column("jti", sa.Text, primary_key=True),
    sa.Column("memory_bytes", sa.Integer, nullable=True),  # the most that its processes were seen to hold
    sa.Column("loss", sa.JSON, nullable=False),  # [[update, loss]], see live.Curve
)
# Models that researchers sent for staff; the files are below ``models`` in the node's folder, by jti.
models = sa.Table(
    "models",
    metadata,
    sa.Column("jti", sa.Text, primary_key=True),
    _text("researcher"),
    _text("experiment_id"),
    _text("name"),
    _text("request", nullable=True),  # the Release, until its files are here
    sa.Column("size_bytes", sa.Integer, nullable=False),  # of all its files
    _time("asked_at"),
    _time("kept_at", nullable=True),  # before that it is on its way
    _text("sha256", nullable=True),  # of the model as it is kept
    sa.Column("parameters", sa.Integer, nullable=True),  # numbers in it
    sa.Column("rounds", sa.Integer, nullable=True),  # and the next two: as its card says
    _text("plan_sha256", nullable=True),
)
# What rounds come to, kept with each round in its transaction by triggers of the store (migration 0005): no page counts
# them. A migration that makes the table of rounds or of egress anew must make its triggers anew as well.
experiments = sa.Table(
    "experiments",
    metadata,
    sa.Column("experiment_id", sa.Text, primary_key=True),
    _text("researcher"),
    # Counts the requests of all experiments: the one with the largest was asked for last.
    sa.Column("last_request", sa.Integer, nullable=False, unique=True),
    _time("began_at"),
    _time("last_activity_at"),
    _text("latest_jti"),  # of the latest request
    _text("answered_jti", nullable=True),  # of the round that was answered last
    sa.Column("requests", sa.Integer, nullable=False),
    sa.Column("open", sa.Integer, nullable=False),  # rounds that wait or run
    sa.Column("trained_s", sa.Float, nullable=False),
)
HAS_OPEN = sa.text("open > 0")
sa.Index("experiments_open", experiments.c.last_request, sqlite_where=HAS_OPEN)
IS_UPDATE = sa.text("kind IN ('upload', 'enclosed')")
egress = sa.Table(
    "egress",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    _time("at"),
    _text("recipient"),
    _text("kind"),  # a message's kind; of an update 'upload', or 'enclosed' when its reply's bytes hold it
    _text("experiment_id", nullable=True),
    sa.Column("round", sa.Integer, nullable=True),
    sa.Column("tensors", sa.Integer, nullable=True),
    sa.Column("norm", sa.Float, nullable=True),  # L2, of an update
    sa.Column("size_bytes", sa.Integer, nullable=False),
    _text("sha256"),
    sa.Column("numbers", sa.Integer, nullable=True),  # of tests, in an answer, and beside an update
    # Each for all lines, and for those of updates, which few of the lines are.
    sa.Index("egress_by_time", "at"),
    sa.Index("egress_by_experiment", "experiment_id", "at"),
    sa.Index("egress_by_recipient", "recipient", "at"),
    sa.Index("updates_by_time", "at", sqlite_where=IS_UPDATE),
    sa.Index("updates_by_experiment", "experiment_id", "at", sqlite_where=IS_UPDATE),
    sa.Index("updates_by_recipient", "recipient", "at", sqlite_where=IS_UPDATE),
    sa.Index("updates_by_round", "experiment_id", "round", "norm", sqlite_where=IS_UPDATE),
)
# The sums over ``egress``, kept as ``experiments`` is.
egress_totals = sa.Table(
    "egress_totals",
    metadata,
    sa.Column("experiment_id", sa.Text, primary_key=True),  # empty: outside of any experiment
    sa.Column("recipient", sa.Text, primary_key=True),
    sa.Column("updates", sa.Integer, nullable=False),
    sa.Column("update_bytes", sa.Integer, nullable=False),
    _time("last_update_at", nullable=True),
    sa.Column("messages", sa.Integer, nullable=False),  # of all kinds
    sa.Column("size_bytes", sa.Integer, nullable=False),
    _time("last_at"),
)
traffic = sa.Table(
    "traffic",
    metadata,
    sa.Column("day", sa.Text, primary_key=True),
    sa.Column("recipient", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("messages", sa.Integer, nullable=False),
    sa.Column("size_bytes", sa.Integer, nullable=False),
)
audit = sa.Table(
    "audit",
    metadata,
    sa.Column("n", sa.Integer, primary_key=True),
    _text("text"),
    _text("hash"),
    # Derived, so that it cannot disagree with the line; a line that was tampered with may be no JSON any more.
    sa.Column(
        "subject",
        sa.Text,
        sa.Computed("CASE WHEN json_valid(text) THEN json_extract(text, '$.subject') END", persisted=False),
    ),
    sa.Index("audit_by_subject", "subject"),
)


class Store:
    """The open store. One warden may hold it at a time.

    Raises:
        FedWardError: STORE_BUSY when another warden holds it; STORE_CORRUPT when it cannot be read; DISK_FULL when the
            disk takes nothing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = folder / FILE_NAME
        self._lock_file = _lock(folder / "lock")
        self._write_lock = threading.RLock()
        self.engine = durable_engine(self.path)
        self._is_closed = False
        try:
            _migrate(self.engine)
            self.path.chmod(0o600)
        except FedWardError:
            self.close()
            raise
        except (sa.exc.DatabaseError, CommandError) as error:  # CommandError: a version that we do not know
            self.close()
            if takes_no_more(getattr(error, "orig", None)):
                raise FedWardError(f"{self.path}: the disk takes no more.", code=Code.DISK_FULL) from error
            raise FedWardError(
                f"{self.path} cannot be read as a store of this release.", code=Code.STORE_CORRUPT
            ) from error

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """One transaction; whatever raises inside it leaves nothing behind.

        Raises:
            FedWardError: DISK_FULL when the disk took no more; STORE_BUSY when the store was closed meanwhile.
        """
        with self._write_lock:
            if self._is_closed:  # and perhaps another warden's by now
                raise FedWardError("The store is closed.", code=Code.STORE_BUSY)
            with writing(self.engine) as connection:
                yield connection

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A consistent view that blocks nobody."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    def secret(self, name: str) -> str:
        """A random text that stays the same for the life of this store, such as our MQTT client id."""
        with self.write() as connection:
            value = connection.scalar(sa.select(settings.c.value).where(settings.c.name == name))
            if value is None:
                value = secrets.token_hex(16)
                connection.execute(settings.insert().values(name=name, value=value))
        return str(value)

    def setting(self, name: str) -> str | None:
        """A stored setting, or None."""
        with self.read() as connection:
            return setting(connection, name)

    def close(self) -> None:
        """Let go of the file and of the lock, once the transaction under way has ended."""
        with self._write_lock:
            if self._is_closed:
                return
            self._is_closed = True
            self.engine.dispose()
            settle(self.path)  # the GUI reads it from where it cannot write
            os.close(self._lock_file)


def setting(connection: sa.Connection, name: str) -> str | None:
    """A stored setting as the transaction sees it, or None."""
    return connection.scalar(sa.select(settings.c.value).where(settings.c.name == name))


def put_setting(connection: sa.Connection, name: str, value: str) -> None:
    """Store a setting, over an older one."""
    connection.execute(settings.delete().where(settings.c.name == name))
    connection.execute(settings.insert().values(name=name, value=value))


def rows(connection: sa.Connection, query: sa.Select[Any]) -> list[dict[str, Any]]:
    """A query's rows as dictionaries."""
    return [dict(row._mapping) for row in connection.execute(query)]  # noqa: SLF001 - SQLAlchemy's public name


def _lock(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if not takes_no_more(error):
            raise
        raise FedWardError(f"{path}: {error.strerror}.", code=Code.DISK_FULL) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise FedWardError(f"{path.parent} is in use by another warden.", code=Code.STORE_BUSY) from error
    return descriptor


def _migrate(engine: sa.Engine) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with writing(engine) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

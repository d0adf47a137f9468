"""Reading the node's store without being able to write it: what the command line and the GUI show.

It works while the warden is down, so that history can always be looked at.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from appliance.protocol import chain
from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.messages import PlanState
from appliance.transport.sqlite import reading_engine
from appliance.warden.audit import audit_lines
from appliance.warden.store import FILE_NAME, datasets, egress, permissions, plans, rounds, rows, traffic


class History:
    """The node's records.

    Args:
        home: The node's folder.

    Raises:
        FedWardError: STORE_CORRUPT when there is no readable store.
    """

    def __init__(self, home: Path) -> None:
        path = home / "store" / FILE_NAME
        if not home.is_dir():
            raise FedWardError(
                f"There is no folder {home}.",
                code=Code.CONFIGURATION_INVALID,
                remedy="Name the node's folder with --home or FEDWARD_NODE_HOME.",
            )
        if not path.is_file():
            raise FedWardError(f"{path} does not exist; the node has never run.", code=Code.NODE_NOT_RUNNING)
        self._path = path
        self._engine = reading_engine(path)

    def close(self) -> None:
        """Let go of the file."""
        self._engine.dispose()

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except sa.exc.DatabaseError as error:
            raise FedWardError(f"{self._path} cannot be read as a store.", code=Code.STORE_CORRUPT) from error

    def datasets(self) -> list[dict[str, Any]]:
        """All datasets, each with its permissions."""
        with self._read() as connection:
            found = rows(connection, sa.select(datasets).order_by(datasets.c.name))
            for dataset in found:
                query = sa.select(permissions).where(permissions.c.dataset_id == dataset["id"])
                dataset["permissions"] = rows(connection, query.order_by(permissions.c.researcher))
        return found

    def dataset(self, name: str) -> dict[str, Any]:
        """The dataset of that id or name."""
        found = [dataset for dataset in self.datasets() if name in (dataset["id"], dataset["name"])]
        if not found:
            raise FedWardError(f"There is no dataset '{name}' here.", code=Code.DATASET_UNKNOWN)
        return found[0]

    def plans(self) -> list[dict[str, Any]]:
        """All plans, the newest request first."""
        with self._read() as connection:
            return rows(connection, sa.select(plans).order_by(plans.c.requested_at.desc()))

    def plan(self, prefix: str) -> dict[str, Any]:
        """The plan whose hash begins so, or whose name is so."""
        with self._read() as connection:
            return find_plan(connection, prefix)

    def plan_diff(self, prefix: str) -> str:
        """A plan's changes against the last approved plan of the same name (unified diff); empty if there is none."""
        plan = self.plan(prefix)
        query = (
            sa.select(plans)
            .where(plans.c.name == plan["name"], plans.c.sha256 != plan["sha256"])
            .where(plans.c.state == PlanState.APPROVED)
            .order_by(plans.c.decided_at.desc())
        )
        with self._read() as connection:
            before = rows(connection, query.limit(1))
        if not before:
            return ""
        return "".join(
            difflib.unified_diff(
                before[0]["source"].splitlines(keepends=True),
                plan["source"].splitlines(keepends=True),
                f"approved {before[0]['sha256'][:12]}",
                f"{plan['state']} {plan['sha256'][:12]}",
            )
        )

    def rounds(self, experiment_id: str | None = None) -> list[dict[str, Any]]:
        """All rounds, the oldest first, without the requests' bodies and the plans' output."""
        columns = [column for column in rounds.c if column.name not in ("request", "record", "result")]
        query = sa.select(*columns).order_by(rounds.c.accepted_at)
        if experiment_id is not None:
            query = query.where(rounds.c.experiment_id == experiment_id)
        with self._read() as connection:
            return rows(connection, query)

    def record(self, experiment_id: str, round_number: int) -> str:
        """What the plan printed in a round, and its traceback; for staff only."""
        query = sa.select(rounds.c.record).where(
            rounds.c.experiment_id == experiment_id, rounds.c.round == round_number
        )
        with self._read() as connection:
            return "\n".join(connection.scalars(query))

    def egress(self) -> list[dict[str, Any]]:
        """Every update and every answer that left, the oldest first."""
        with self._read() as connection:
            return rows(connection, sa.select(egress).order_by(egress.c.id))

    def traffic(self) -> list[dict[str, Any]]:
        """Messages on the line, by day, recipient and kind."""
        with self._read() as connection:
            return rows(connection, sa.select(traffic).order_by(traffic.c.day, traffic.c.recipient, traffic.c.kind))

    def audit_lines(self) -> Iterator[chain.Line]:
        """The audit log, line by line."""
        with self._read() as connection:
            yield from audit_lines(connection)


def find_plan(connection: sa.Connection, prefix: str) -> dict[str, Any]:
    """The one plan whose hash begins with ``prefix`` (six characters at least) or whose name it is.

    Raises:
        FedWardError: There is none, or more than one.
    """
    by_hash = plans.c.sha256.startswith(prefix, autoescape=True) if len(prefix) >= 6 else sa.false()
    found = rows(connection, sa.select(plans).where(sa.or_(by_hash, plans.c.name == prefix)))
    if len(found) == 1:
        return found[0]
    if found:
        hashes = ", ".join(plan["sha256"][:12] for plan in found)
        raise FedWardError(f"'{prefix}' names {len(found)} plans: {hashes}.", code=Code.ARGUMENT_INVALID)
    raise FedWardError(f"No plan '{prefix}' is known here.", code=Code.PLAN_UNKNOWN)

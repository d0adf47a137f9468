"""Reading the node's store without being able to write it: what the command line and the GUI show.

It works while the warden is down, so that history can always be looked at. What the GUI shows a page at a time stays
quick however long the node has run: an index answers it, or a sum that is kept, or it looks at so many lines and says
where it stopped. What people make one by one (datasets, plans) is counted, and leafed through by page numbers. What the
node makes by itself (rounds, what left, the audit log) is neither counted nor read from its beginning.
"""

from __future__ import annotations

import difflib
import json
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from appliance.protocol import chain
from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.messages import PlanState
from appliance.protocol.rounds import RoundStep
from appliance.transport.sqlite import reading_engine
from appliance.warden.audit import audit_lines
from appliance.warden.findings import source_lines
from appliance.warden.store import (
    FILE_NAME,
    HAS_FAILED,
    HAS_OPEN,
    IS_ANSWERED,
    IS_OPEN,
    IS_UPDATE,
    audit,
    datasets,
    egress,
    egress_totals,
    experiments,
    measures,
    models,
    pauses,
    permissions,
    plan_decisions,
    plans,
    rounds,
    rows,
    traffic,
)

PAGE = 50
MODELS_FOLDER = "models"  # of the node's
SCANNED_AT_MOST = 10_000  # audit lines that one search looks at before it says how far it came
SUMMED_AT_MOST = 20_000  # lines of what left in a period whose sums are not kept
STUDIES_SHOWN = 20
UPDATES = ("upload", "enclosed")  # what an update's line in the egress record is called
MOST_POINTS = 300  # of a curve over rounds
ENDED = frozenset({"finished", "stopped", "failed"})  # where an experiment stands that asks for nothing at the moment
_LETTING_IN = ("account.invited", "account.roles-changed")
_ALTERED_IN_A_ROW = 20  # lines that are looked at to find one that says when it was written
_WHOLE_HASH = re.compile(r"[0-9a-f]{64}")
_WAITS_S = 86_400.0  # how long an unfinished experiment without a round here counts as being between two
_ROW: sa.ColumnClause[int] = sa.literal_column("rounds.rowid", sa.Integer)
_MODEL = [column for column in models.c if column is not models.c.request]
# What the index plans_listed holds: no text is read for a list.
_LISTED = (
    plans.c.requested_at,
    plans.c.sha256,
    plans.c.name,
    plans.c.origin,
    plans.c.requested_by,
    plans.c.state,
    plans.c.reviewer,
    plans.c.decided_at,
    plans.c.until,
    plans.c.revision,
    plans.c.first_approval,
)


@dataclass(frozen=True)
class Page:
    """Some rows of a list.

    Attributes:
        rows: Those of this page.
        total: How many the list has, over all pages.
        offset: How many come before this page.
        size: How many a page has at most.
    """

    rows: list[dict[str, Any]]
    total: int
    offset: int
    size: int


@dataclass(frozen=True)
class Stretch:
    """Some rows of a list that has no length: the latest, or those before one of them.

    Attributes:
        rows: Those of this stretch.
        older: Pass it as ``before`` for those that follow; None when there are none.
        newer: The same for those that come before these; 0 for the first ones, None when these are.
    """

    rows: list[dict[str, Any]]
    older: int | None = None
    newer: int | None = None


@dataclass(frozen=True)
class EgressTotals:
    """What left, summed up.

    Attributes:
        studies: For each experiment, the latest first, ``experiment_id`` (None outside of any), ``updates``,
            ``messages``, ``size_bytes`` and ``last_at``; at most ``STUDIES_SHOWN``.
        count: How many studies there are.
        updates: Of all of them, as ``size_bytes``.
        is_cut: Whether only the latest ``SUMMED_AT_MOST`` lines of the period were summed up.
    """

    studies: list[dict[str, Any]]
    count: int = 0
    updates: int = 0
    size_bytes: int = 0
    is_cut: bool = False


@dataclass(frozen=True)
class AuditPage:
    """Some lines of the audit log, the newest first.

    Attributes:
        lines: What each line says; one that was altered has ``n``, ``text`` and ``is_altered`` alone.
        searched_to: The number of the oldest line that was looked at; 0 when there was none.
        older: Pass it as ``before`` to go on; None when there is nothing older to look at.
    """

    lines: list[dict[str, Any]]
    searched_to: int
    older: int | None


@dataclass(frozen=True)
class EgressFilter:
    """Which of the lines of the egress record are meant; what is None does not matter.

    Attributes:
        since: Seconds since the epoch, as for ``until``, which is not within.
        updates_only: Leave out the answers that carry no update.
        up_to: The number of the last line; what left later is not meant.
    """

    experiment_id: str | None = None
    recipient: str | None = None
    since: float | None = None
    until: float | None = None
    updates_only: bool = True
    up_to: int | None = None

    def conditions(self) -> list[Any]:
        """The same for a query."""
        found: list[Any] = [IS_UPDATE] if self.updates_only else []
        found += [] if self.experiment_id is None else [egress.c.experiment_id == self.experiment_id]
        found += [] if self.recipient is None else [egress.c.recipient == self.recipient]
        found += [] if self.since is None else [egress.c.at >= self.since]
        found += [] if self.until is None else [egress.c.at < self.until]
        found += [] if self.up_to is None else [egress.c.id <= self.up_to]
        return found


@dataclass(frozen=True)
class AuditFilter:
    """Which lines of the audit log are meant; what is empty or None does not matter.

    A period is found by the lines' order: what was written while the machine's clock was set back may lie outside it.

    Attributes:
        search: A text that stands in the line, upper case or lower.
        subject: What the lines are about: the id of an experiment or a dataset, a plan's hash, an account.
        since: Seconds since the epoch, as for ``until``, which is not within.
        up_to: The number of the last line; what was written later is not meant.
    """

    search: str = ""
    subject: str | None = None
    since: float | None = None
    until: float | None = None
    up_to: int | None = None


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
        query = sa.select(datasets).where(sa.or_(datasets.c.id == name, datasets.c.name == name))
        with self._read() as connection:
            # An id before a name, as the warden reads it.
            found = rows(connection, query.order_by(datasets.c.id != name))
            if not found:
                raise FedWardError(f"There is no dataset '{name}' here.", code=Code.DATASET_UNKNOWN)
            granted = sa.select(permissions).where(permissions.c.dataset_id == found[0]["id"])
            found[0]["permissions"] = rows(connection, granted.order_by(permissions.c.researcher))
        return found[0]

    def dataset_page(self, *, search: str = "", state: str | None = None, offset: int = 0, size: int = PAGE) -> Page:
        """Datasets by name, each with its permissions.

        Args:
            search: Part of a name, a description or a tag.
            state: ``active``, ``suspended`` or ``changed``.
        """
        query = sa.select(datasets).order_by(datasets.c.name, datasets.c.id)
        if search:
            wanted = _contains(search, datasets.c.name, datasets.c.description, sa.cast(datasets.c.tags, sa.Text))
            query = query.where(wanted)
        if state:
            query = query.where(datasets.c.state == state)
        with self._read() as connection:
            page = _page(connection, query, offset, size)
            ids = [dataset["id"] for dataset in page.rows]
            granted = sa.select(permissions).where(permissions.c.dataset_id.in_(ids))
            found = rows(connection, granted.order_by(permissions.c.researcher))
        for dataset in page.rows:
            dataset["permissions"] = [row for row in found if row["dataset_id"] == dataset["id"]]
        return page

    def usable_datasets(self) -> int:
        """How many datasets somebody may train on now."""
        holds = sa.or_(permissions.c.until.is_(None), permissions.c.until > time.time())
        permitted = sa.exists().where(permissions.c.dataset_id == datasets.c.id, holds)
        query = sa.select(sa.func.count()).select_from(datasets).where(datasets.c.state == "active", permitted)
        with self._read() as connection:
            return connection.scalar(query) or 0

    def plan_page(
        self, *, search: str = "", states: Sequence[PlanState] = (), offset: int = 0, size: int = PAGE
    ) -> Page:
        """Plans without their texts, the newest request first; ``state`` is where a plan stands now.

        Args:
            search: Part of a name or of a requester's, or the beginning of a hash.
            states: Where they shall stand: any of these; none means all.
        """
        has_ended = sa.and_(plans.c.state == PlanState.APPROVED, plans.c.until <= time.time())
        standing = sa.case((sa.func.coalesce(has_ended, sa.false()), str(PlanState.EXPIRED)), else_=plans.c.state)
        columns = [column for column in _LISTED if column is not plans.c.state]
        query = sa.select(*columns, standing.label("state"))
        if search:
            is_hash = plans.c.sha256.startswith(search.lower(), autoescape=True)
            query = query.where(sa.or_(_contains(search, plans.c.name, plans.c.requested_by), is_hash))
        if states:
            query = query.where(standing.in_([str(state) for state in states]))
        with self._read() as connection:
            return _page(connection, query.order_by(plans.c.requested_at.desc(), plans.c.sha256), offset, size)

    def approvals_ending(self, since: float, until: float, *, size: int) -> list[dict[str, Any]]:
        """Approved plans (``sha256``, ``name``, ``until``) whose approval ends, or ended, between two moments."""
        query = (
            sa.select(plans.c.sha256, plans.c.name, plans.c.until)
            .where(plans.c.state == PlanState.APPROVED, plans.c.until.between(since, until))
            .order_by(plans.c.until.desc())
        )
        with self._read() as connection:
            return rows(connection, query.limit(size))

    def permissions_ending(self, since: float, until: float, *, size: int) -> list[dict[str, Any]]:
        """Permissions (``dataset_id``, ``name`` of the dataset, ``researcher``, ``until``) that end between them."""
        query = (
            sa.select(permissions.c.dataset_id, datasets.c.name, permissions.c.researcher, permissions.c.until)
            .join(datasets, datasets.c.id == permissions.c.dataset_id)
            .where(permissions.c.until.between(since, until))
            .order_by(permissions.c.until.desc())
        )
        with self._read() as connection:
            return rows(connection, query.limit(size))

    def plan_decisions(self, name: str) -> list[dict[str, Any]]:
        """What staff decided on all texts of that name, the latest first."""
        query = (
            sa.select(plan_decisions, plans.c.requested_by)
            .join(plans, plans.c.sha256 == plan_decisions.c.sha256)
            .where(plans.c.name == name)
            .order_by(plan_decisions.c.id.desc())
        )
        with self._read() as connection:
            return rows(connection, query.limit(PAGE))

    def plan_before(self, plan: dict[str, Any]) -> dict[str, Any] | None:
        """The plan of the same name that was approved last, beside this one; None if there is none."""
        query = (
            sa.select(plans)
            .where(plans.c.name == plan["name"], plans.c.sha256 != plan["sha256"])
            .where(plans.c.state == PlanState.APPROVED)
            .order_by(plans.c.decided_at.desc())
        )
        with self._read() as connection:
            found = rows(connection, query.limit(1))
        return found[0] if found else None

    def let_in_by(self, account: str) -> dict[str, float]:
        """Who made a GUI's account, or gave it its role or a new link, and when last."""
        with self._read() as connection:
            return let_in_by(connection, account)

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
        before = self.plan_before(plan)
        if before is None:
            return ""
        return "".join(
            difflib.unified_diff(
                _lines_to_compare(before["source"]),
                _lines_to_compare(plan["source"]),
                f"approved {before['sha256'][:12]}",
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

    def experiment_page(
        self, *, search: str = "", is_open: bool = False, before: int | None = None, size: int = PAGE
    ) -> Stretch:
        """Experiments, the one with the latest request first; each as ``experiment`` describes it.

        Args:
            search: The beginning of an id, or part of the researcher's.
            is_open: Only those with a round that waits or runs here.
            before: As a stretch has it.
        """
        query = _experiments()
        if search:
            by_id = experiments.c.experiment_id.startswith(search, autoescape=True)
            query = query.where(sa.or_(by_id, _contains(search, experiments.c.researcher)))
        if is_open:
            query = query.where(HAS_OPEN)
        place = None if before is None else (before,)
        with self._read() as connection:
            found = _stretch(connection, query, (experiments.c.last_request,), place, size)
            for row in found.rows:
                _describe(connection, row)
        return found

    def experiment(self, experiment_id: str) -> dict[str, Any]:
        """What an experiment did here.

        Returns:
            ``experiment_id``, ``researcher``, ``began_at``, ``last_activity_at``, ``requests`` (how many rounds were
            asked for), ``open`` (how many wait or run), ``trained_s``, of the latest request ``round``,
            ``round_limit``, ``step``, ``accepted_at``, ``expires_at``, ``dataset_id``, ``dataset``, ``plan_sha256``,
            ``federator`` (who asked in the researcher's name, or None), ``plan`` (names, None when unknown) and
            ``samples`` of the round that was answered last; ``state``:
            ``open``, ``between`` (rounds), ``finished``, ``stopped``, ``failed`` or ``quiet``; ``paused_by`` and
            ``paused_at`` (None unless staff paused it).

        Raises:
            FedWardError: JOB_UNKNOWN: nothing of it was ever accepted here.
        """
        with self._read() as connection:
            return find_experiment(connection, experiment_id)

    def experiment_rounds(self, experiment_id: str, *, last: int = PAGE) -> list[dict[str, Any]]:
        """An experiment's last rounds, the latest first; each with ``samples`` and ``memory_bytes`` (None: unknown)."""
        columns = [column for column in rounds.c if column.name not in ("request", "record")]
        query = (
            sa.select(*columns, measures.c.memory_bytes)
            .join(measures, measures.c.jti == rounds.c.jti, isouter=True)
            .where(_are_latest(experiment_id, last))
            .order_by(rounds.c.accepted_at.desc())
        )
        with self._read() as connection:
            found = rows(connection, query)
        for row in found:
            result = row.pop("result")
            row["samples"] = _answered(result if row["step"] == RoundStep.REPLIED else None)["samples"]
        return found

    def experiment_values(self, experiment_id: str) -> list[dict[str, Any]]:
        """What answered rounds returned: ``round``, ``metrics``, and ``norm`` of the update (None if there is none).

        In the order of their numbers, and no more than ``MOST_POINTS`` and the last: of more rounds, every second,
        third or so. Of a round that was asked for twice the later answer counts, and the larger norm.
        """
        of_it = sa.and_(rounds.c.experiment_id == experiment_id, IS_ANSWERED)
        ends = [sa.select(end(rounds.c.round)).where(of_it).scalar_subquery() for end in (sa.func.min, sa.func.max)]
        with self._read() as connection:
            first, last = connection.execute(sa.select(*ends)).one()
            if first is None:
                return []
            numbers = [*range(first, last, (last - first) // MOST_POINTS + 1), last]
            wanted = sa.func.json_each(json.dumps(numbers)).table_valued("value")
            nearest = (  # the number itself, or the one before it that was answered
                sa.select(_ROW)
                .where(of_it, rounds.c.round <= wanted.c.value)
                .order_by(rounds.c.round.desc(), rounds.c.accepted_at.desc())
                .limit(1)
                .correlate(wanted)
            )
            left = sa.select(sa.func.max(egress.c.norm).label("norm")).where(
                egress.c.experiment_id == experiment_id, egress.c.round == rounds.c.round, IS_UPDATE
            )
            found = rows(
                connection,
                sa.select(rounds.c.round, rounds.c.result, left.scalar_subquery().label("norm"))
                .where(_ROW.in_(sa.select(nearest.scalar_subquery()).select_from(wanted)))
                .order_by(rounds.c.round),
            )
        for row in found:
            row["metrics"] = _answered(row.pop("result"))["metrics"]
        return found

    def experiment_losses(self, experiment_id: str, *, last: int) -> list[dict[str, Any]]:
        """The curves inside the last rounds, the latest first: ``round`` and ``loss``, see ``live.Curve``."""
        query = (
            sa.select(rounds.c.round, measures.c.loss)
            .join(measures, measures.c.jti == rounds.c.jti)
            .where(_are_latest(experiment_id, last))
            .order_by(rounds.c.accepted_at.desc())
        )
        with self._read() as connection:
            return [row for row in rows(connection, query) if row["loss"]]

    def pauses(self) -> list[dict[str, Any]]:
        """The experiments that staff paused, the latest first: ``experiment_id``, ``staff``, ``since``."""
        with self._read() as connection:
            return rows(connection, sa.select(pauses).order_by(pauses.c.since.desc()))

    def experiment_names(self, ids: Collection[str]) -> dict[str, str]:
        """The names of the plans that experiments ran last, by the experiments' ids."""
        query = (
            sa.select(experiments.c.experiment_id, plans.c.name)
            .join(rounds, rounds.c.jti == experiments.c.latest_jti)
            .join(plans, plans.c.sha256 == rounds.c.plan_sha256)
            .where(experiments.c.experiment_id.in_(ids))
        )
        with self._read() as connection:
            return {row.experiment_id: row.name for row in connection.execute(query)}

    def argument_names(self) -> list[str]:
        """The names, dotted, of the training arguments that the latest rounds here came with."""
        query = sa.select(rounds.c.training_args).order_by(rounds.c.accepted_at.desc()).limit(PAGE)
        with self._read() as connection:
            return sorted({name for arguments in connection.scalars(query) for name in _dotted(arguments)})

    def open_rounds(self) -> list[dict[str, Any]]:
        """The rounds that wait or run, in the order in which the node takes them up."""
        columns = (rounds.c.jti, rounds.c.experiment_id, rounds.c.round, rounds.c.accepted_at, rounds.c.researcher)
        query = sa.select(*columns).where(IS_OPEN).order_by(rounds.c.accepted_at)
        with self._read() as connection:
            return rows(connection, query)

    def failed_rounds(self, since: float, *, size: int) -> list[dict[str, Any]]:
        """Rounds that failed since a moment, the latest first.

        Returns:
            ``jti``, ``experiment_id``, ``round``, ``researcher``, ``ended_at``, and ``plan``: its name, or None.
        """
        columns = (rounds.c.jti, rounds.c.experiment_id, rounds.c.round, rounds.c.researcher, rounds.c.ended_at)
        query = (
            sa.select(*columns, plans.c.name.label("plan"))
            .outerjoin(plans, plans.c.sha256 == rounds.c.plan_sha256)
            .where(HAS_FAILED, rounds.c.ended_at >= since)
            .order_by(rounds.c.ended_at.desc())
        )
        with self._read() as connection:
            return rows(connection, query.limit(size))

    def record(self, experiment_id: str, round_number: int) -> str:
        """What the plan printed in a round, and its traceback; for staff only."""
        query = sa.select(rounds.c.record).where(
            rounds.c.experiment_id == experiment_id, rounds.c.round == round_number
        )
        with self._read() as connection:
            return "\n".join(connection.scalars(query))

    def models(self) -> list[dict[str, Any]]:
        """The models that researchers sent, the newest first; ``kept_at`` is None while one is on its way."""
        with self._read() as connection:
            return rows(connection, sa.select(*_MODEL).order_by(models.c.asked_at.desc(), models.c.jti))

    def model(self, jti: str) -> dict[str, Any]:
        """One of them that is kept."""
        is_it = sa.and_(models.c.jti == jti, models.c.kept_at.is_not(None))
        with self._read() as connection:
            found = rows(connection, sa.select(*_MODEL).where(is_it))
        if not found:
            raise FedWardError("This model is not here any more.", code=Code.DECISION_STALE)
        return found[0]

    def model_file(self, model: Mapping[str, Any], name: str) -> Path:
        """Where a file of a kept model lies; ``name`` is one of ``RELEASE_FILES``."""
        return self._path.parent.parent / MODELS_FOLDER / str(model["jti"]) / name

    def egress(self) -> list[dict[str, Any]]:
        """Every update and every answer that left, the oldest first."""
        with self._read() as connection:
            return rows(connection, sa.select(egress).order_by(egress.c.id))

    def egress_page(self, wanted: EgressFilter, *, before: int | None = None, size: int = PAGE) -> Stretch:
        """What left, the latest first; ``before`` as a stretch has it.

        ``on_behalf_of`` is the researcher in whose name the recipient, a federator, asked for the experiment's latest
        round; else None.
        """
        latest = rounds.alias("latest")
        on_behalf_of = sa.case((latest.c.federator == egress.c.recipient, latest.c.researcher))
        query = (
            sa.select(egress, on_behalf_of.label("on_behalf_of"))
            .outerjoin(experiments, experiments.c.experiment_id == egress.c.experiment_id)
            .outerjoin(latest, latest.c.jti == experiments.c.latest_jti)
            .where(*wanted.conditions())
        )
        with self._read() as connection:
            at = connection.scalar(sa.select(egress.c.at).where(egress.c.id == before)) if before else None
            place = None if at is None else (at, before)
            return _stretch(connection, query, (egress.c.at, egress.c.id), place, size)

    def egress_lines(self, wanted: EgressFilter) -> Iterator[dict[str, Any]]:
        """All of what left, the oldest first, one by one: an export has no length that memory must hold."""
        with self._read() as connection:
            query = sa.select(egress).where(*wanted.conditions()).order_by(egress.c.id)
            for row in connection.execution_options(yield_per=PAGE).execute(query):
                yield dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name

    def egress_totals(self, wanted: EgressFilter) -> EgressTotals:
        """What left, for each experiment and in all.

        Of all times it is kept; of a period the latest ``SUMMED_AT_MOST`` lines are summed up.
        """
        is_kept = wanted.since is None and wanted.until is None and wanted.up_to is None
        each = (_kept_totals(wanted) if is_kept else _counted_totals(wanted)).subquery()
        in_all = [
            sa.func.sum(each.c[name]).over().label(f"all_{name}") for name in ("updates", "messages", "size_bytes")
        ]
        query = sa.select(each, sa.func.count().over().label("count"), *in_all).order_by(each.c.last_at.desc())
        with self._read() as connection:
            found = rows(connection, query.limit(STUDIES_SHOWN))
        if not found:
            return EgressTotals([])
        first = found[0]
        is_cut = not is_kept and first["all_messages"] == SUMMED_AT_MOST
        return EgressTotals(found, first["count"], first["all_updates"], first["all_size_bytes"], is_cut)

    def egress_recipients(self) -> list[str]:
        """Everybody to whom something left."""
        recipient = egress_totals.c.recipient
        with self._read() as connection:
            return list(connection.scalars(sa.select(recipient).distinct().order_by(recipient)))

    def traffic(self) -> list[dict[str, Any]]:
        """Messages on the line, by day, recipient and kind."""
        with self._read() as connection:
            return rows(connection, sa.select(traffic).order_by(traffic.c.day, traffic.c.recipient, traffic.c.kind))

    def audit_lines(self) -> Iterator[chain.Line]:
        """The audit log, line by line."""
        with self._read() as connection:
            yield from audit_lines(connection)

    def audit_texts(self, wanted: AuditFilter) -> Iterator[str]:
        """All lines that are meant, as an export holds them, the oldest first."""
        with self._read() as connection:
            yield from audit_texts(connection, wanted)

    def audit_length(self) -> int:
        """The number of the last line."""
        with self._read() as connection:
            return connection.scalar(sa.select(sa.func.max(audit.c.n))) or 0

    def verify_audit(self, so_far: chain.Verdict, *, most: int) -> chain.Verdict:
        """Go on to walk the audit log's chain from where it was found whole, over so many lines at most."""
        with self._read() as connection:
            return chain.verify(islice(audit_lines(connection, after=so_far.lines), most), so_far)

    def audit_page(
        self,
        *,
        search: str = "",
        subject: str | None = None,
        since: float | None = None,
        until: float | None = None,
        before: int | None = None,
        size: int = PAGE,
    ) -> AuditPage:
        """Lines of the audit log, the newest first.

        Looks at no more than ``SCANNED_AT_MOST`` lines at once and says how far it came.

        Args:
            search: As in ``AuditFilter``, like the others.
            before: The number of the line to begin before.
        """
        needle = search.casefold()
        up_to = None if before is None else before - 1
        with self._read() as connection:
            query = _audit_query(connection, AuditFilter(search, subject, since, until, up_to)).order_by(
                audit.c.n.desc()
            )
            lines: list[dict[str, Any]] = []
            searched_to, is_cut = 0, False
            found = connection.execution_options(yield_per=1000).execute(query.limit(SCANNED_AT_MOST + 1))
            for seen, (n, raw, hash_) in enumerate(found):
                if len(lines) == size or seen == SCANNED_AT_MOST:
                    is_cut = True
                    break
                text = (raw or b"").decode("utf-8", "surrogateescape")
                searched_to = n
                if needle in text.casefold():
                    lines.append(_audit_line(n, text, hash_))
        return AuditPage(lines, searched_to, searched_to if is_cut else None)


def last_audit_line(connection: sa.Connection) -> int:
    """The number of the audit log's last line."""
    return connection.scalar(sa.select(sa.func.max(audit.c.n))) or 0


def audit_texts(connection: sa.Connection, wanted: AuditFilter) -> Iterator[str]:
    """The lines of the audit log as an export holds them and as its hash is taken, the oldest first.

    Each is the line's own text, by whose hash the next line holds it; one that was altered is JSON that says so.
    """
    needle = wanted.search.casefold()
    query = _audit_query(connection, wanted).order_by(audit.c.n)
    for n, raw, hash_ in connection.execution_options(yield_per=1000).execute(query):
        text = (raw or b"").decode("utf-8", "surrogateescape")
        if needle in text.casefold():
            line = _audit_line(n, text, hash_)
            yield json.dumps(line) if line["is_altered"] else text


def _audit_query(connection: sa.Connection, wanted: AuditFilter) -> sa.Select[Any]:
    """Number, bytes and hash of the lines that are meant, but for the words to look for."""
    last = last_audit_line(connection)
    low = 1 if wanted.since is None else _first_line_at(connection, wanted.since, last)
    high = last if wanted.until is None else _first_line_at(connection, wanted.until, last) - 1
    high = high if wanted.up_to is None else min(high, wanted.up_to)
    columns = (audit.c.n, sa.cast(audit.c.text, sa.LargeBinary), audit.c.hash)
    query = sa.select(*columns).where(audit.c.n.between(low, high))
    return query if wanted.subject is None else query.where(audit.c.subject == wanted.subject)


def _dotted(arguments: dict[str, Any], before: str = "") -> Iterator[str]:
    for name, value in arguments.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{before}{name}.")
        else:
            yield f"{before}{name}"


def _lines_to_compare(source: str) -> list[str]:
    return [f"{line}\n" for line in source_lines(source)]


def _page(connection: sa.Connection, query: sa.Select[Any], offset: int, size: int) -> Page:
    total = connection.scalar(sa.select(sa.func.count()).select_from(query.order_by(None).subquery())) or 0
    return Page(rows(connection, query.limit(size).offset(offset)), total, offset, size)


def _contains(text: str, *columns: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    return sa.or_(*(column.icontains(text, autoescape=True) for column in columns))


def _are_latest(experiment_id: str, count: int) -> sa.ColumnElement[bool]:
    """Whether a round is among an experiment's last ones: an index alone tells, and no other row is read."""
    latest = sa.select(_ROW).where(rounds.c.experiment_id == experiment_id).order_by(rounds.c.accepted_at.desc())
    return _ROW.in_(latest.limit(count).correlate(None))


def _stretch(
    connection: sa.Connection,
    query: sa.Select[Any],
    keys: Sequence[sa.Column[Any]],
    before: tuple[Any, ...] | None,
    size: int,
) -> Stretch:
    """A stretch of a query's rows, ordered by keys of which the last one is a number that no other row has."""
    place, number = sa.tuple_(*keys), keys[-1]
    older = query if before is None else query.where(place < before)
    found = rows(connection, older.order_by(*(key.desc() for key in keys)).limit(size + 1))
    newer = None
    if before is not None:
        newer_rows = query.with_only_columns(number).where(place >= before).order_by(*keys)
        newer = connection.scalar(newer_rows.limit(1).offset(size)) or 0
    return Stretch(found[:size], found[size - 1][number.name] if len(found) > size else None, newer)


def _experiments() -> sa.Select[Any]:
    """Experiments with what their latest request, and the round that was answered last, say of them."""
    latest, answered = rounds.alias("latest"), rounds.alias("answered")
    # A request is kept as JSON text inside a JSON column.
    round_limit = sa.func.json_extract(sa.func.json_extract(latest.c.request, "$"), "$.round_limit")
    moments = (latest.c.accepted_at, latest.c.expires_at)
    of_latest = (latest.c.round, latest.c.step, *moments, latest.c.dataset_id, latest.c.plan_sha256, latest.c.federator)
    names = (plans.c.name.label("plan"), datasets.c.name.label("dataset"))
    paused = (pauses.c.staff.label("paused_by"), pauses.c.since.label("paused_at"))
    return (
        sa.select(experiments, *of_latest, round_limit.label("round_limit"), answered.c.result, *names, *paused)
        .join(latest, latest.c.jti == experiments.c.latest_jti)
        .outerjoin(answered, answered.c.jti == experiments.c.answered_jti)
        .outerjoin(plans, plans.c.sha256 == latest.c.plan_sha256)
        .outerjoin(datasets, datasets.c.id == latest.c.dataset_id)
        .outerjoin(pauses, pauses.c.experiment_id == experiments.c.experiment_id)
    )


def _describe(connection: sa.Connection, found: dict[str, Any]) -> dict[str, Any]:
    """An experiment as ``History.experiment`` has it."""
    found["samples"] = _answered(found.pop("result"))["samples"]
    found["dataset"] = found["dataset"] or _removed_dataset(connection, found["dataset_id"])
    found["state"] = _state(found)
    return found


def _kept_totals(wanted: EgressFilter) -> sa.Select[Any]:
    """For each experiment what left of it, of all times."""
    kept, of_updates = egress_totals.c, wanted.updates_only
    name = sa.func.nullif(kept.experiment_id, "").label("experiment_id")
    query = sa.select(
        name,
        sa.func.sum(kept.updates).label("updates"),
        sa.func.sum(kept.updates if of_updates else kept.messages).label("messages"),
        sa.func.sum(kept.update_bytes if of_updates else kept.size_bytes).label("size_bytes"),
        sa.func.max(kept.last_update_at if of_updates else kept.last_at).label("last_at"),
    )
    if of_updates:
        query = query.where(kept.updates > 0)
    if wanted.experiment_id is not None:
        query = query.where(kept.experiment_id == wanted.experiment_id)
    if wanted.recipient is not None:
        query = query.where(kept.recipient == wanted.recipient)
    return query.group_by(kept.experiment_id)


def _counted_totals(wanted: EgressFilter) -> sa.Select[Any]:
    """The same of a period."""
    is_update = sa.case((IS_UPDATE, 1), else_=0).label("is_update")
    lines = sa.select(egress.c.experiment_id, is_update, egress.c.size_bytes, egress.c.at).where(*wanted.conditions())
    line = lines.order_by(egress.c.at.desc()).limit(SUMMED_AT_MOST).subquery().c
    return sa.select(
        line.experiment_id,
        sa.func.sum(line.is_update).label("updates"),
        sa.func.count().label("messages"),
        sa.func.sum(line.size_bytes).label("size_bytes"),
        sa.func.max(line.at).label("last_at"),
    ).group_by(line.experiment_id)


def _removed_dataset(connection: sa.Connection, dataset_id: str) -> str | None:
    """The name of a dataset that is not here any more, as the log remembers it."""
    columns = (audit.c.n, sa.cast(audit.c.text, sa.LargeBinary), audit.c.hash)
    query = sa.select(*columns).where(audit.c.subject == dataset_id).order_by(audit.c.n).limit(_ALTERED_IN_A_ROW)
    for n, raw, hash_ in connection.execute(query):
        line = _audit_line(n, (raw or b"").decode("utf-8", "surrogateescape"), hash_)
        if not line["is_altered"] and line["event"] == "dataset.added":
            return str(line["details"]["name"])
    return None


def _state(found: dict[str, Any]) -> str:
    if found["open"]:
        return "open"
    if found["step"] != RoundStep.REPLIED:
        return str(found["step"])  # stopped or failed
    if found["round_limit"] is not None and found["round"] >= found["round_limit"]:
        return "finished"
    return "between" if found["last_activity_at"] > time.time() - _WAITS_S else "quiet"


def _answered(result: dict[str, Any] | None) -> dict[str, Any]:
    """What a round's answer said of it; nothing for one that has none, or was answered by an older release."""
    reply = json.loads(result["reply"]) if result else {}
    return {"samples": reply.get("sample_count"), "metrics": reply.get("metrics", [])}


def _first_line_at(connection: sa.Connection, at: float, last: int) -> int:
    """The number of the first line that was written at ``at`` or later; one behind the last if there is none."""
    low, high = 1, last + 1
    while low < high:
        middle = (low + high) // 2
        query = sa.select(sa.cast(audit.c.text, sa.LargeBinary)).where(audit.c.n >= middle).order_by(audit.c.n)
        written = map(_written_at, connection.scalars(query.limit(_ALTERED_IN_A_ROW)))
        if next((moment for moment in written if moment is not None), at) < at:
            low = middle + 1
        else:
            high = middle
    return low


def _written_at(raw: bytes | None) -> float | None:
    try:
        return float(json.loads(raw or b"")["at"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None  # altered


def _audit_line(n: int, text: str, hash_: str) -> dict[str, Any]:
    try:
        line = json.loads(text)
        if chain.digest(text) == hash_ and line["n"] == n:
            return {**line, "is_altered": False}
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    return {"n": n, "text": text.encode("utf-8", "backslashreplace").decode(), "is_altered": True}


def egress_text(line: dict[str, Any]) -> str:
    """A line of the egress record as an export holds it and as its hash is taken: one text for one line."""
    return json.dumps(line, separators=(",", ":"), sort_keys=True, ensure_ascii=False)


def plan_standing(plan: dict[str, Any]) -> PlanState:
    """Where a plan stands now: an approval ends by itself."""
    state = PlanState(plan["state"])
    has_ended = state is PlanState.APPROVED and plan["until"] is not None and plan["until"] <= time.time()
    return PlanState.EXPIRED if has_ended else state


def let_in_by(connection: sa.Connection, account: str) -> dict[str, float]:
    """Who made a GUI's account, or gave it its role or a new link, and when last: as the audit log tells."""
    columns = (audit.c.n, sa.cast(audit.c.text, sa.LargeBinary), audit.c.hash)
    about = sa.select(*columns).where(audit.c.subject == account)
    found = {}
    for event in _LETTING_IN:
        named = f'"event":"{event}"'
        for n, raw, hash_ in connection.execute(about.where(audit.c.text.contains(named)).order_by(audit.c.n)):
            line = _audit_line(n, (raw or b"").decode("utf-8", "surrogateescape"), hash_)
            if not line["is_altered"] and line["event"] == event:
                found[line["actor"].removeprefix("staff:")] = line["at"]
    return found


def find_experiment(connection: sa.Connection, experiment_id: str) -> dict[str, Any]:
    """What ``History.experiment`` returns; raises FedWardError as it does."""
    found = rows(connection, _experiments().where(experiments.c.experiment_id == experiment_id))
    if not found:
        raise FedWardError(f"No experiment '{experiment_id}' ran here.", code=Code.JOB_UNKNOWN)
    return _describe(connection, found[0])


def find_plan(connection: sa.Connection, prefix: str) -> dict[str, Any]:
    """The one plan whose hash begins with ``prefix`` (six characters at least) or whose name it is.

    A whole hash is never a name: whoever names a plan after another one's hash hides none.

    Raises:
        FedWardError: There is none, or more than one.
    """
    if _WHOLE_HASH.fullmatch(prefix):
        meant = plans.c.sha256 == prefix
    else:
        by_hash = plans.c.sha256.startswith(prefix, autoescape=True) if len(prefix) >= 6 else sa.false()
        meant = sa.or_(by_hash, plans.c.name == prefix)
    found = rows(connection, sa.select(plans).where(meant))
    if len(found) == 1:
        return found[0]
    if found:
        hashes = ", ".join(plan["sha256"][:12] for plan in found)
        raise FedWardError(f"'{prefix}' names {len(found)} plans: {hashes}.", code=Code.ARGUMENT_INVALID)
    raise FedWardError(f"No plan '{prefix}' is known here.", code=Code.PLAN_UNKNOWN)

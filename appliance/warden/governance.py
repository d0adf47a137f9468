"""The governance socket: how the hospital's staff steer their node, from the command line or the GUI.

A Unix socket in the node's folder that only the service's own user may open. Each call is a frame of JSON
``{"method", "params", "staff"}``, with the person who decides named on every one; the answer is ``{"result"}`` or
``{"error": {code, message, rule, remedy}}``. All writes by people go through here; reading needs no socket
(``history.py``).
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import sqlalchemy as sa
import structlog
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, validate_call

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.local.frames import Channel, listen
from appliance.protocol.local.jobs import SANDBOX_LEVELS, DatasetSource, InspectJob
from appliance.protocol.local.process import process_use
from appliance.protocol.local.runner_client import RunnerError
from appliance.protocol.messages import ArgumentRange, Finite, Tag
from appliance.protocol.register import Role
from appliance.protocol.wording import did_you_mean
from appliance.warden import datasets as dataset_states
from appliance.warden.config import NodeConfig
from appliance.warden.datasets import DatasetSpec, source_of
from appliance.warden.history import (
    AuditFilter,
    EgressFilter,
    audit_texts,
    find_experiment,
    find_plan,
    last_audit_line,
)
from appliance.warden.models import ModelShelf
from appliance.warden.queue import RoundQueue
from appliance.warden.services import Services
from appliance.warden.store import datasets, put_setting, rounds, setting

SOCKET_NAME = "run/governance.sock"
KEPT_WARM_S = 86_400.0  # longer than any runner keeps a child that waits
PROBLEMS_SHOWN = 10
_TOLD_UP_TO = "accounts_told_up_to"  # when what the GUI told last of its accounts had happened
AUDIT_EXPORT_TYPE = "fedward-audit-export+jws"
_log = structlog.get_logger(__name__)


_Name = Annotated[str, Field(min_length=1, max_length=128)]
_Note = Annotated[str, Field(max_length=4000)]
_Source = Annotated[str, Field(min_length=1, max_length=500_000)]
_Path = Annotated[str, Field(max_length=4096)]
_Description = Annotated[str, Field(max_length=2000)]
_Tags = Annotated[tuple[Tag, ...], Field(min_length=1, max_length=16)]
_Search = Annotated[str, Field(max_length=200)]
_Account = Annotated[str, Field(max_length=64)]
_ExperimentId = Annotated[str, Field(max_length=64)]
# What the GUI may say of its own: accounts, and whom it tells what happens.
AccountEvent = Literal[
    "account.signed-in",
    "account.signed-out",
    "account.refused",
    "account.locked",
    "account.invited",
    "account.created",
    "account.roles-changed",
    "account.disabled",
    "account.enabled",
    "account.removed",
    "account.password-changed",
    "account.second-factor-set",
    "account.second-factor-removed",
    "account.recovery-code-used",
    "notices.changed",
]


class Staff(BaseModel):
    """Who decides: a person of the hospital."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[^\W_][\w .@+-]{0,63}$")
    via: Literal["cli", "gui"]


class Governance:
    """What staff may do. Public methods are the socket's methods, named with a dot for the first underscore."""

    def __init__(self, services: Services, queue: RoundQueue, models: ModelShelf) -> None:
        self._services = services
        self._queue = queue
        self._models = models

    # Datasets

    def dataset_add(self, staff: Staff, spec: DatasetSpec) -> dict[str, Any]:
        """Register a dataset, after the runner has read all of it."""
        services = self._services
        for researcher in spec.researchers:
            self._require_researcher(researcher)
        source = DatasetSource(
            dataset_id="new",
            kind=spec.kind,
            path=str(services.datasets.locate(spec.path)),
            loading_plan=spec.loading_plan,
            fingerprint=None,
        )
        report = self._check(source)
        with services.store.write() as connection:
            dataset_id = services.datasets.add(connection, staff.name, spec, report)
        return {"dataset_id": dataset_id, **report}

    def dataset_check(
        self, staff: Staff, dataset: str, *, accept: bool = False, shown: int | None = None
    ) -> dict[str, Any]:
        """Read a dataset's files again: are they those registered? With ``accept``, take them as they are now.

        Args:
            shown: The revision that whoever accepts saw: a change made meanwhile refuses this one.
        """
        services = self._services
        with services.store.read() as connection:
            row = services.datasets.require_shown(connection, dataset, shown if accept else None)
        source = source_of(row).model_copy(update={"fingerprint": None})
        is_changed = self._inspect(source, "fingerprint")["fingerprint"] != row["fingerprint"]
        report = self._check(source) if is_changed and accept else {"rows": row["rows"]}
        with services.store.write() as connection:
            if is_changed and accept:
                # Reading a file takes its time.
                services.datasets.require_shown(connection, row["id"], row["revision"])
                services.datasets.accept_files(connection, staff.name, row["id"], report)
            elif is_changed:
                services.datasets.mark_changed(connection, row["id"])
            else:
                services.datasets.confirm_files(connection, staff.name, row["id"])
        if is_changed:
            self._stop_where(staff, rounds.c.dataset_id == row["id"])
        return {"changed": is_changed, "accepted": is_changed and accept, "rows": report["rows"]}

    def dataset_preview(self, staff: Staff, path: str, *, loading_plan: dict[str, JsonValue] | None = None) -> Any:
        """Header and first rows of a file in the data folder, for staff."""
        return self._look(staff, path, loading_plan or {}, "preview")

    def dataset_profile(self, staff: Staff, path: str, *, loading_plan: dict[str, JsonValue] | None = None) -> Any:
        """Types, missing values and ranges of a file in the data folder, for staff."""
        return self._look(staff, path, loading_plan or {}, "profile")

    def dataset_browse(self, _staff: Staff, *, folder: _Path = "") -> dict[str, Any]:
        """The names in a folder of the data folder, and which of them are registered already."""
        services = self._services
        listing = services.datasets.browse(folder)
        with services.store.read() as connection:
            registered = {row.path: row.name for row in connection.execute(sa.select(datasets.c.path, datasets.c.name))}
        for entry in listing["entries"]:
            is_file = entry["path"] is not None and not entry["is_folder"]
            entry["dataset"] = registered.get(str(services.datasets.locate(entry["path"]))) if is_file else None
        return listing

    def dataset_describe(
        self, staff: Staff, dataset: str, *, description: _Description, tags: _Tags, shown: int | None = None
    ) -> dict[str, Any]:
        """Change what researchers are told of a dataset, and the words it is found by."""
        services = self._services
        with services.store.write() as connection:
            row = services.datasets.require_shown(connection, dataset, shown)
            services.datasets.describe(connection, staff.name, row["id"], description=description, tags=tags)
        return {"dataset_id": row["id"]}

    def dataset_renew(
        self,
        staff: Staff,
        dataset: str,
        *,
        path: _Path | None = None,
        loading_plan: dict[str, JsonValue] | None = None,
        shown: int | None = None,
    ) -> dict[str, Any]:
        """A new version of a dataset, as a monthly export brings it; what runs on the old one ends.

        Args:
            path: The new file; None: the same as now.
            loading_plan: How it is read; None: as before.
        """
        services = self._services
        with services.store.read() as connection:
            row = services.datasets.require_shown(connection, dataset, shown)
        changes: dict[str, Any] = {"fingerprint": None}
        changes |= {} if path is None else {"path": str(services.datasets.locate(path))}
        changes |= {} if loading_plan is None else {"loading_plan": loading_plan}
        source = source_of(row).model_copy(update=changes)
        report = self._check(source)
        with services.store.write() as connection:
            services.datasets.require_shown(connection, row["id"], row["revision"])  # reading a file takes its time
            services.datasets.renew(connection, staff.name, row["id"], source, report)
        self._stop_where(staff, rounds.c.dataset_id == row["id"])
        return {"dataset_id": row["id"], "before": row["fingerprint"], **report}

    def dataset_suspend(self, staff: Staff, dataset: str, *, shown: int | None = None) -> dict[str, Any]:
        """Let no round use a dataset, and end those that do."""
        return self._set_state(staff, dataset, dataset_states.SUSPENDED, shown)

    def dataset_resume(self, staff: Staff, dataset: str, *, shown: int | None = None) -> dict[str, Any]:
        """Let a suspended dataset be used again."""
        return self._set_state(staff, dataset, dataset_states.ACTIVE, shown)

    def dataset_remove(self, staff: Staff, dataset: str, *, shown: int | None = None) -> dict[str, Any]:
        """Forget a dataset; its files stay."""
        services = self._services
        with services.store.write() as connection:
            row = services.datasets.require_shown(connection, dataset, shown)
            services.datasets.remove(connection, staff.name, row["id"])
        self._stop_where(staff, rounds.c.dataset_id == row["id"])
        return {"dataset_id": row["id"]}

    def dataset_permit(
        self, staff: Staff, dataset: str, researcher: str, *, until: Finite | None = None
    ) -> dict[str, Any]:
        """Let a researcher use a dataset, until a moment if one is given (seconds since the epoch)."""
        self._require_researcher(researcher)
        services = self._services
        with services.store.write() as connection:
            row = services.datasets.require(connection, dataset)
            services.datasets.permit(connection, staff.name, row["id"], researcher, until=until)
        return {"dataset_id": row["id"]}

    def dataset_forbid(self, staff: Staff, dataset: str, researcher: str) -> dict[str, Any]:
        """End a researcher's permission, and what runs under it."""
        services = self._services
        with services.store.write() as connection:
            row = services.datasets.require(connection, dataset)
            services.datasets.forbid(connection, staff.name, row["id"], researcher)
        self._stop_where(staff, (rounds.c.dataset_id == row["id"]) & (rounds.c.researcher == researcher))
        return {"dataset_id": row["id"]}

    # Training plans

    def plan_add(self, staff: Staff, name: _Name, source: _Source, *, description: _Note = "") -> dict[str, Any]:
        """Bring a plan of the hospital's own, which approves it."""
        with self._services.store.write() as connection:
            sha256 = self._services.plans.add(connection, staff.name, name, description, source)
        return {"sha256": sha256}

    def plan_approve(
        self,
        staff: Staff,
        plan: str,
        *,
        note: _Note = "",
        until: Finite | None = None,
        ranges: tuple[ArgumentRange, ...] | None = None,
        shown: int | None = None,
    ) -> dict[str, Any]:
        """Permit a plan's exact text to run; where policy asks for two reviewers, the second one's word counts.

        Args:
            shown: The revision that the reviewer saw: a decision made meanwhile refuses this one.
        """
        sha256 = self._plan(plan)
        with self._services.store.write() as connection:
            is_approved = self._services.plans.approve(
                connection, staff.name, sha256, note=note, until=until, ranges=ranges, shown=shown
            )
        return {"sha256": sha256, "is_approved": is_approved}

    def plan_reject(self, staff: Staff, plan: str, *, note: _Note = "", shown: int | None = None) -> dict[str, Any]:
        """Say no to a plan, and end what runs of it."""
        sha256 = self._plan(plan)
        with self._services.store.write() as connection:
            self._services.plans.reject(connection, staff.name, sha256, note=note, shown=shown)
        self._stop_where(staff, rounds.c.plan_sha256 == sha256)
        return {"sha256": sha256}

    def plan_revoke(self, staff: Staff, plan: str, *, note: _Note = "", shown: int | None = None) -> dict[str, Any]:
        """Take an approval back, and end what runs under it."""
        sha256 = self._plan(plan)
        with self._services.store.write() as connection:
            self._services.plans.revoke(connection, staff.name, sha256, note=note, shown=shown)
        self._stop_where(staff, rounds.c.plan_sha256 == sha256)
        return {"sha256": sha256}

    # Policy, experiments

    def policy_set(
        self, staff: Staff, changes: dict[str, JsonValue], *, shown: dict[str, JsonValue] | None = None
    ) -> list[dict[str, Any]]:
        """Change the site's own rules; only towards the stricter where the consortium has spoken.

        Args:
            shown: By rule, what whoever decides saw: the value in force, of ranges and overrides the site's own.
        """
        audit, actor = self._services.audit, f"staff:{staff.name}"
        self._services.policy.change(
            changes,
            lambda connection: audit.write(connection, actor, "policy.changed", "site", changes=changes),
            shown,
        )
        return self.policy_show(staff)

    def policy_own(self, _staff: Staff) -> dict[str, Any]:
        """What this site itself has set, by rule; None, or nothing in it, where it has left a rule to others."""
        return self._services.policy.own()

    def policy_show(self, _staff: Staff) -> list[dict[str, Any]]:
        """The rules in force, who set each, and what the consortium demands at least (None: nothing)."""
        policy = self._services.policy
        return [
            {"name": r.name, "value": r.value, "set_by": r.set_by, "floor": policy.floor(r.name)}
            for r in policy.rules()
        ]

    def experiment_stop(self, staff: Staff, experiment: str) -> dict[str, Any]:
        """End an experiment's work here, with all its processes; a pause stays."""
        return self._stop(staff, experiment)

    def experiment_pause(self, staff: Staff, experiment: _ExperimentId) -> dict[str, Any]:
        """Let no further round of an experiment begin here until it is resumed.

        One that seems to have ended can be paused as well: whether more follows is the researcher's to say.

        Returns:
            ``round``: the one that is under way, and goes on to its end; None when there is none.
        """
        services = self._services
        with services.store.write() as connection:
            found = find_experiment(connection, experiment)
            if found["paused_by"] is not None:
                raise FedWardError(f"{found['paused_by']} has paused it already.", code=Code.DECISION_STALE)
            self._queue.mark_paused(connection, experiment, staff.name)
            services.audit.write(connection, f"staff:{staff.name}", "experiment.paused", experiment)
        with suppress(FedWardError):  # it is in force: whoever waits is told with the next heartbeat
            self._queue.tell_paused()
        live = self._queue.live_of(experiment)
        return {"round": live[0]["round"] if live else None}

    def experiment_resume(self, staff: Staff, experiment: _ExperimentId) -> dict[str, Any]:
        """Let an experiment's rounds begin again: what waits is checked as if it had just come, and taken up."""
        services = self._services
        with services.store.write() as connection:
            find_experiment(connection, experiment)
            if not self._queue.mark_resumed(connection, experiment):
                raise FedWardError("The experiment is not paused.", code=Code.DECISION_STALE)
            services.audit.write(connection, f"staff:{staff.name}", "experiment.resumed", experiment)
        self._queue.notify()
        return {}

    def experiment_live(self, _staff: Staff, experiment: _ExperimentId) -> dict[str, Any]:
        """An experiment's round that is being worked on.

        Returns:
            ``running``: see ``LiveRound.describe``, None when there is none; ``loss``: its curve, pairs of update and
            loss.
        """
        running, loss = self._queue.live_of(experiment) or (None, [])
        return {"running": running, "loss": loss}

    # Models

    def model_download(self, staff: Staff, model: _Account) -> dict[str, Any]:
        """Write down that somebody takes a model along; the files are read from the node's folder."""
        with self._services.store.write() as connection:
            row = self._models.require(connection, model)
            self._services.audit.write(
                connection,
                f"staff:{staff.name}",
                "model.downloaded",
                row["experiment_id"],
                name=row["name"],
                sha256=row["sha256"],
            )
        return {}

    def model_delete(self, staff: Staff, model: _Account) -> dict[str, Any]:
        """Delete a model from the node."""
        with self._services.store.write() as connection:
            self._models.delete(connection, staff.name, model)
        self._models.discard(model)
        return {}

    # Records

    def egress_flush(self, _staff: Staff) -> dict[str, Any]:
        """Write what was only counted until now into the records, which the next heartbeat would do."""
        self._services.egress.flush(self._services.store)
        return {}

    def egress_export(
        self,
        staff: Staff,
        *,
        experiment_id: _Account | None = None,
        recipient: _Account | None = None,
        since: Finite | None = None,
        until: Finite | None = None,
        updates_only: bool = True,
    ) -> dict[str, Any]:
        """A statement on what left, in the node's signature; the lines themselves are read from the records.

        Returns:
            ``signature``: a JWS over the hash of the lines' texts; ``up_to``: the number of the last of them.
        """
        wanted = EgressFilter(experiment_id, recipient, since, until, updates_only)
        services = self._services
        services.egress.flush(services.store)  # what was only counted until now left, too
        with services.store.read() as connection:  # a long record keeps no round from its transactions
            statement = services.egress.statement(connection, services.signer, wanted)
        with services.store.write() as connection:
            services.audit.write(connection, f"staff:{staff.name}", "egress.exported", experiment_id or "")
        return statement

    def account_record(
        self,
        staff: Staff,
        event: AccountEvent,
        account: _Account,
        *,
        details: dict[_Account, _Note] | None = None,
        happened_at: Finite | None = None,
    ) -> dict[str, Any]:
        """Write down what happened to an account or to the notices of the GUI, which keeps them: the log is the node's.

        Args:
            staff: Who did it; for a sign-in that was refused, the name that was tried or the GUI itself.
            account: Whose account it is; ``notices`` for these.
            happened_at: Seconds since the epoch; the GUI tells what happened while the warden was down afterwards. In
                the log it lies between what was told before and now, and the line is dated when it was told.
        """
        if staff.via != "gui":
            raise FedWardError("Only the GUI keeps accounts.", code=Code.STAFF_REFUSED)
        services, now = self._services, time.time()
        with services.store.write() as connection:
            before = float(setting(connection, _TOLD_UP_TO) or 0)
            happened_at = min(max(now if happened_at is None else happened_at, before), now)
            put_setting(connection, _TOLD_UP_TO, repr(happened_at))
            said = {**(details or {}), "happened_at": round(happened_at, 3)}
            services.audit.write(connection, f"staff:{staff.name}", event, account, **said)
        return {}

    def audit_export(
        self,
        staff: Staff,
        *,
        search: _Search = "",
        subject: _Name | None = None,
        since: Finite | None = None,
        until: Finite | None = None,
    ) -> dict[str, Any]:
        """A statement on lines of the audit log, in the node's signature; the lines are read from the records.

        It says which lines were meant: no part of a log can be shown as the whole.

        Returns:
            ``signature``: a JWS (``fedward-audit-export+jws``) over the hash of the lines' texts; ``up_to``: the number
            of the log's last line.
        """
        services, digest, lines = self._services, hashlib.sha256(), 0
        with services.store.read() as connection:  # a long log keeps no round from its transactions
            wanted = AuditFilter(search, subject, since, until, last_audit_line(connection))
            for text in audit_texts(connection, wanted):
                digest.update(f"{text}\n".encode())
                lines += 1
        claims = {
            "node": services.signer.member_id,
            "at": int(time.time()),
            "staff": staff.name,
            "wanted": asdict(wanted),
            "lines": lines,
            "lines_sha256": digest.hexdigest(),
        }
        with services.store.write() as connection:
            services.audit.write(
                connection,
                f"staff:{staff.name}",
                "audit.exported",
                subject or "",
                lines=lines,
                sha256=digest.hexdigest(),
            )
        return {"signature": services.signer.sign_statement(AUDIT_EXPORT_TYPE, claims), "up_to": wanted.up_to}

    def node_status(self, _staff: Staff) -> dict[str, Any]:
        """What the node does at this moment. Every page asks, so it writes nothing and waits for no round's writing."""
        services = self._services
        return {
            "member": services.signer.member_id,
            "register_version": services.register.version,
            "running": self._queue.live(),
            "messages_waiting": services.mailbox.waiting,
            "is_connected": services.is_connected(),
            "contact_at": services.contact_at,
            "plan_approval": services.policy.value("plan_approval"),
            "sandbox_required": services.policy.value("sandbox"),
        }

    def node_sandbox(self, _staff: Staff) -> dict[str, Any]:
        """What confines plans here, and what policy requires."""
        required = self._services.policy.value("sandbox")
        level = self._services.runner.hello().sandbox
        return {"level": level.model_dump(), "required": required, "lacking": level.lacks(SANDBOX_LEVELS[required])}

    def node_machine(self, _staff: Staff) -> dict[str, Any]:
        """What the node's processes use, and what of the machine its plans may use.

        Returns:
            ``processes``: the warden's, and the runner's with its children, unless it does not answer; ``gpus``: those
            that the runner sees, None when it does not answer; ``gpu``: what policy says of them.
        """
        processes, gpus = [process_use("warden")], None
        try:
            runner = self._services.runner.hello()
        except FedWardError:
            _log.info("the runner does not say what it uses")
        else:
            processes += runner.processes
            gpus = [gpu.model_dump() for gpu in runner.gpus]
        gpu = self._services.policy.value("gpu")
        return {"processes": [process.model_dump() for process in processes], "gpus": gpus, "gpu": gpu}

    def node_settings(self, _staff: Staff) -> list[dict[str, Any]]:
        """The warden's settings in force, each with the release's: ``name``, ``here``, ``release``."""
        home = self._services.spool.parent.resolve()
        release = NodeConfig.model_construct()  # the environment's say left out

        def shown(value: Any) -> Any:
            if not isinstance(value, Path):
                return value
            return str(value.relative_to(home) if value.is_relative_to(home) else value)

        pairs = ((name, getattr(self._services.config, name)) for name in NodeConfig.model_fields)
        return [{"name": name, "here": shown(value), "release": shown(getattr(release, name))} for name, value in pairs]

    # Inside

    def _look(self, staff: Staff, path: str, loading_plan: dict[str, JsonValue], action: str) -> Any:
        services = self._services
        real = services.datasets.locate(path)
        source = DatasetSource(
            dataset_id="new", kind="tabular", path=str(real), loading_plan=loading_plan, fingerprint=None
        )
        with services.store.write() as connection:
            services.audit.write(connection, f"staff:{staff.name}", f"data.{action}", path)
        return self._inspect(source, action)

    def _check(self, source: DatasetSource) -> dict[str, Any]:
        """Rows, columns and fingerprint of a file that can become a dataset; raises FedWardError for another."""
        report = self._inspect(source, "check")
        if not report["is_usable"]:
            raise FedWardError(_problems(Path(source.path).name, report["problems"]), code=Code.DATASET_INVALID)
        self._services.policy.require_samples(report["rows"])
        return {
            "rows": report["rows"],
            "columns": [{"name": name, "type": kind} for name, kind in report["columns"].items()],
            "fingerprint": self._inspect(source, "fingerprint")["fingerprint"],
        }

    def _inspect(self, source: DatasetSource, action: Any) -> dict[str, Any]:
        required = SANDBOX_LEVELS[self._services.policy.value("sandbox")]
        job = InspectJob(job_id=os.urandom(8).hex(), action=action, dataset=source, sandbox=required)
        try:
            return self._services.runner.inspect(job)
        except RunnerError as error:
            # Whoever asks is of this hospital, and may read what never leaves it.
            what, _, remedy = error.detail.partition("\nWhat to do: ")
            raise FedWardError(
                what or error.message, code=error.code, remedy=remedy.removesuffix(f" ({error.code})")
            ) from error

    def _set_state(self, staff: Staff, dataset: str, state: str, shown: int | None) -> dict[str, Any]:
        services = self._services
        with services.store.write() as connection:
            row = services.datasets.require_shown(connection, dataset, shown)
            if state == dataset_states.ACTIVE and row["state"] == dataset_states.CHANGED:
                raise FedWardError("The dataset's files have changed.", code=Code.DATASET_CHANGED)
            services.datasets.set_state(connection, staff.name, row["id"], state)
        if state == dataset_states.SUSPENDED:
            self._stop_where(staff, rounds.c.dataset_id == row["id"])
        return {"dataset_id": row["id"], "state": state}

    def _stop_where(self, staff: Staff, condition: Any) -> None:
        """End every experiment that such rounds belong to: what trains first, then children that wait for a round."""
        is_running = rounds.c.ended_at.is_(None)
        recent = sa.or_(is_running, rounds.c.ended_at > time.time() - KEPT_WARM_S)
        query = sa.select(rounds.c.experiment_id).where(condition, recent).group_by(rounds.c.experiment_id)
        with self._services.store.read() as connection:
            experiments = list(connection.scalars(query.order_by(sa.func.max(is_running).desc())))
        for experiment in experiments:
            self._stop(staff, experiment)

    def _stop(self, staff: Staff, experiment: str) -> dict[str, Any]:
        services = self._services
        with services.store.write() as connection:
            was_running = self._queue.mark_stopped(connection, experiment, "the hospital's staff")
            if was_running:
                services.audit.write(connection, f"staff:{staff.name}", "experiment.stop", experiment)
        ended_at = self._queue.end(experiment)
        if was_running or ended_at is not None:
            with services.store.write() as connection:
                if not was_running:  # a process that waited for the next round
                    services.audit.write(connection, f"staff:{staff.name}", "experiment.stop", experiment)
                services.audit.write(connection, "node", "experiment.stopped", experiment, ended_at=ended_at)
        return {"was_running": was_running, "ended_at": ended_at}

    def _plan(self, prefix: str) -> str:
        with self._services.store.read() as connection:
            return str(find_plan(connection, prefix)["sha256"])

    def _require_researcher(self, member_id: str) -> None:
        known = [member.id for member in self._services.register.with_role(Role.RESEARCHER)]
        if member_id not in known:
            raise FedWardError(
                f"'{member_id}' is no active researcher of this consortium.{did_you_mean(member_id, known)}",
                code=Code.ARGUMENT_INVALID,
                remedy="Choose one of those under Members; the consortium's operator admits others.",
            )


class GovernanceServer:
    """Listens on the socket and runs each call in its own connection's thread."""

    def __init__(self, governance: Governance, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path = path
        self._socket = listen(path)
        self._methods = _methods(governance)
        self._thread = threading.Thread(target=self._serve, name="governance", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Answer nobody any more."""
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        channel = Channel(connection)
        try:
            while (frame := channel.receive()) is not None:
                frame.close()  # no call comes with descriptors
                channel.send(self._call(frame.data))
        except (FedWardError, OSError, ValueError) as error:  # ValueError: a result that JSON has no word for
            _log.info("governance connection ended", reason=type(error).__name__)
        finally:
            channel.close()

    def _call(self, call: dict[str, Any]) -> dict[str, Any]:
        method = self._methods.get(str(call.get("method")))
        if method is None:
            return _error(FedWardError("There is no such method.", code=Code.ARGUMENT_INVALID))
        try:
            staff = Staff.model_validate(call.get("staff"))
            return {"result": method(staff, **dict(call.get("params") or {}))}
        except FedWardError as error:
            return _error(error)
        except (ValidationError, TypeError, ValueError) as error:
            return _error(FedWardError(_first_fault(error), code=Code.ARGUMENT_INVALID))
        except Exception:  # noqa: BLE001 - the caller gets a reference, the log the rest
            reference = os.urandom(4).hex()
            _log.exception("governance call failed", reference=reference)
            return _error(FedWardError(f"The node failed inside; its log has the reference {reference}."))


def _methods(governance: Governance) -> dict[str, Callable[..., Any]]:
    names = [name for name in vars(Governance) if not name.startswith("_")]
    return {name.replace("_", ".", 1): validate_call(getattr(governance, name)) for name in names}


def _problems(file: str, problems: Sequence[dict[str, Any]]) -> str:
    """What is wrong with a data file, each fault with its place and its remedy."""
    lines = [f"{file} cannot be used as it is:"]
    for problem in problems[:PROBLEMS_SHOWN]:
        places = (("row", problem["row"]), ("column", problem["column"]))
        where = ", ".join(f"{name} {value}" for name, value in places if value is not None)
        lines.append(f"  {where + ': ' if where else ''}{problem['what']} {problem['remedy']}")
    if len(problems) > PROBLEMS_SHOWN:
        lines.append(f"  and {len(problems) - PROBLEMS_SHOWN} more.")
    return "\n".join(lines)


def _error(error: FedWardError) -> dict[str, Any]:
    shape = {"code": error.code, "message": error.message, "rule": error.rule, "remedy": error.remedy}
    return {"error": shape}


def _first_fault(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return "The call has wrong parameters."
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"])) or "the call"
    return f"{where}: {first['msg']}."

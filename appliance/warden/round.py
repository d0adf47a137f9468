"""One round's work at this node, from an accepted request to a recorded reply.

Governance accepted the request before it got here: a Round decides nothing. Run again after a crash, it goes on behind
its last persisted step: ACCEPTED (nothing has left; all is done again) or CHECKED (a large update lies sealed in the
spool). The steps in between live in memory, since repeating them costs less than a disk write in every round; so does
CHECKED for a small update, which its reply encloses: there, CHECKED and REPLIED are one transaction.
"""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import sqlalchemy as sa
import structlog
from pydantic import JsonValue

from appliance.protocol import sealing
from appliance.protocol.errors import Code, FedWardError, SealError, UpdateRefusedError, takes_no_more
from appliance.protocol.keys import b64url
from appliance.protocol.local.frozen import united
from appliance.protocol.local.jobs import SANDBOX_LEVELS, Limits, Progress, TrainJob
from appliance.protocol.local.reasons import ARGUMENT_REASONS
from appliance.protocol.local.runner_client import TrainedResult
from appliance.protocol.local.sealed import create_memfd, require_sealed, seal_memfd
from appliance.protocol.messages import (
    MAX_ENCLOSED_BYTES,
    ErrorReply,
    Override,
    Reached,
    Scalar,
    SealedFile,
    Timing,
    Train,
    TrainReply,
)
from appliance.protocol.numbers import rounded
from appliance.protocol.rounds import RoundStep
from appliance.protocol.tensors import AGGREGATOR_PREFIX, FROZEN_PREFIX, TensorFile
from appliance.transport.sqlite import Statement
from appliance.warden.datasets import source_of
from appliance.warden.egress import EgressGuard, ProgressGuard, numbers_of, released
from appliance.warden.live import LiveRound
from appliance.warden.policy import lookup
from appliance.warden.services import Services
from appliance.warden.store import measures, pauses, rounds

OnStep = Callable[[str, RoundStep], None]
RUNNER_TRIES = 6  # half a minute, in which a runner that died has started again
_UPDATE = ".update"
_KEEP_AFTER_S = 1.0
_MESSAGE, _RULE = 2000, 500  # characters, as ErrorReply takes them
# Codes whose message tells of this machine rather than of the request.
_PRIVATE = frozenset(
    {
        Code.INTERNAL,
        Code.DISK_FULL,
        Code.NETWORK_UNREACHABLE,
        Code.NETWORK_REFUSED,
        Code.CONFIGURATION_INVALID,
        Code.KEY_UNUSABLE,
        Code.STORE_CORRUPT,
        Code.STORE_BUSY,
    }
)
# What passes by itself: the round is put off and loses nothing.
_PASSING = frozenset({Code.DISK_FULL, Code.NETWORK_UNREACHABLE, Code.STORE_BUSY, Code.CLOCK_WRONG})
_LIMITS = {"memory_bytes": 16 << 30, "file_bytes": 8 << 30}
_MAX_WORKERS = 16
_STATE = Statement(
    sa.select(rounds.c.step, rounds.c.stop_reason, rounds.c.superseded_by).where(rounds.c.jti == sa.bindparam("of"))
)
_IS_THIS = rounds.c.jti == sa.bindparam("of")
_CHECKED, _ENDED = (
    Statement(rounds.update().where(_IS_THIS).values({name: sa.bindparam(name) for name in names}))
    for names in (
        ("step", "result", "record", "timing"),
        ("step", "result", "record", "timing", "request", "ended_at", "error"),
    )
)
_MEASURED = Statement(measures.insert().prefix_with("OR REPLACE"))
_PAUSE = Statement(sa.select(pauses.c.since).where(pauses.c.experiment_id == sa.bindparam("of")))
_log = structlog.get_logger(__name__)


# What the child says in words stays here: by then it may be the plan that speaks. These are ours, one for each code.
_PUBLIC = {
    Code.PLAN_INVALID: "The plan's text could not be used.",
    Code.TRAINING_FAILED: "The plan failed while it ran.",
    Code.TRAINING_DIVERGED: "The loss is not finite any more.",
    Code.METRIC_INVALID: "The plan's testing_step returned what is no number, or gave it a name that no metric has.",
    Code.ARGUMENT_INVALID: "The plan or its arguments do not fit this node's release.",
    Code.DATASET_CHANGED: "The dataset's files have changed since they were registered.",
    Code.DATASET_INVALID: "The dataset cannot be read; the hospital's record says where.",
    Code.PARAMETERS_INVALID: "The parameters do not fit the plan's model.",
    Code.ROUND_TIMEOUT: "The round took longer than this node allows.",
    Code.RUNNER_LIMIT: "The round used more than this node allows.",
    Code.SANDBOX_DENIED: "The plan tried what this node's sandbox denies.",
    Code.SANDBOX_INCOMPLETE: "This node's machine lacks a part of the sandbox that policy requires.",
    Code.RUNNER_UNAVAILABLE: "The node's runner is not available.",
    Code.TOO_FEW_SAMPLES: "Too few training records.",
}


class RunnerFailedError(FedWardError):
    """The runner ended without a result.

    Attributes:
        detail: What it said; for staff only.
        plan_line: The plan's line, when there is one.
        record: The plan's output and traceback; for staff only.
    """

    def __init__(self, cause: FedWardError, plan_lines: int) -> None:
        message = _PUBLIC.get(cause.code, "The round failed in the node's runner.")
        if cause.code is Code.ARGUMENT_INVALID and cause.message in ARGUMENT_REASONS:
            message = cause.message
        super().__init__(message, code=cause.code if cause.code in _PUBLIC else Code.TRAINING_FAILED)
        line = getattr(cause, "plan_line", None)
        self.plan_line = line if isinstance(line, int) and 1 <= line <= plan_lines else None
        self.detail = getattr(cause, "detail", "") or cause.message
        self.record: str = getattr(cause, "record", "") or ""


class RoundStoppedError(FedWardError):
    """Staff or the researcher stopped the experiment while the round was under way."""

    code = Code.ROUND_STOPPED


class RoundSupersededError(FedWardError):
    """The experiment went on to a later round while this one was open here."""

    code = Code.ROUND_SUPERSEDED


@dataclass(frozen=True)
class _Checked:
    """What CHECKED leaves: all that the reply says but its times, the sealed update, and what the record says of it."""

    reply: TrainReply
    update: SealedFile | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, row: dict[str, Any]) -> _Checked:
        return cls(
            TrainReply.model_validate_json(row["reply"]), SealedFile.model_validate_json(row["update"]), row["facts"]
        )

    def row(self, update: SealedFile) -> dict[str, Any]:
        return {"reply": self.reply.model_dump_json(), "update": update.model_dump_json(), "facts": self.facts}


class Round:
    """One accepted round.

    Args:
        services: The node's parts.
        row: The round as stored.
        stop: Set when the round shall end; transfers and training look at it.
        on_step: Told of each finished step.
        live: Told how far the round is.
    """

    def __init__(
        self, services: Services, row: dict[str, Any], stop: threading.Event, on_step: OnStep, live: LiveRound
    ) -> None:
        self._services = services
        self._row = row
        self._jti: str = row["jti"]
        self._researcher: str = row["researcher"]
        self._recipient: str = row["federator"] or row["researcher"]
        self._request = Train.model_validate_json(row["request"])
        self._stop = stop
        self._on_step = on_step
        self._live = live
        self._memory_bytes: int | None = None
        self._guard = EgressGuard(services.policy)
        self._timing: dict[str, float] = dict(row["timing"])
        self._uses_spool = row["step"] == RoundStep.CHECKED or self._request.parameters.content is None

    def run(self) -> None:
        """Do what is left to do, and end in REPLIED, FAILED or STOPPED.

        Raises:
            FedWardError: The disk is full, the network host out of reach, a clock wrong: to be run again later.
        """
        try:
            self._raise_if_stopped()
            checked = self._in_spool()
            if checked is None:
                self._finished(RoundStep.ACCEPTED)
                self._timing["queued_s"] = max(0.0, time.time() - self._row["accepted_at"])
                checked = self._train()
            self._deliver(checked)
        except Exception as error:  # noqa: BLE001 - a worker outlives whatever one round does
            self._fail(self._explained(error))

    def _in_spool(self) -> _Checked | None:
        """The update that lies checked and sealed here; a power cut may leave the row and not the whole file."""
        if self._row["step"] != RoundStep.CHECKED:
            return None
        checked = _Checked.read(self._row["result"])
        try:
            with self._spool(_UPDATE).open("rb") as file:
                is_whole = checked.update and hashlib.file_digest(file, "sha256").hexdigest() == checked.update.sha256
        except FileNotFoundError:
            return None
        return checked if is_whole else None

    def _explained(self, error: Exception) -> FedWardError:
        if isinstance(error, FedWardError):
            return error
        if isinstance(error, OSError) and takes_no_more(error):
            return FedWardError(f"{self._services.spool}: {error.strerror}.", code=Code.DISK_FULL)
        _log.error("round failed inside the warden", jti=self._jti, exc_info=error)
        return FedWardError(f"The node failed inside; its log has the reference {self._jti}.")

    # (1) to (3): until the update lies sealed in the spool

    def _train(self) -> _Checked:
        plan, dataset = self._still_permitted()
        with self._timed("fetch_s"):
            parameters = self._fetch()
        try:
            self._finished(RoundStep.FETCHED)
            model, _ = TensorFile(f"/proc/self/fd/{parameters}").split(AGGREGATOR_PREFIX)
            specs = model.split(FROZEN_PREFIX)[0].specs
            progress = _Progress(self._services, self._recipient, self._request, self._jti, self._live)
            result = self._run_plan(plan, dataset, parameters, progress)
        finally:
            os.close(parameters)
        with result, self._timed("check_s"):
            self._finished(RoundStep.TRAINED)
            checked = self._check(result, progress, specs, plan, dataset)
        self._row["record"] = result.reply.record
        if checked.update is not None and checked.update.upload_id is not None:
            self._persist_checked(checked, checked.update)
        self._finished(RoundStep.CHECKED)
        return checked

    def _still_permitted(self) -> tuple[str, dict[str, Any]]:
        """The plan's text and the dataset, after a last look: hours may lie between acceptance and this moment."""
        services, request = self._services, self._request
        for member in (self._researcher, self._recipient):
            if not services.register.is_active(member):
                raise FedWardError(f"'{member}' is not an active member any more.", code=Code.SENDER_UNKNOWN)
        with services.store.read() as connection:
            if self._is_late():
                if _PAUSE.first(connection, of=request.experiment_id):
                    raise FedWardError(
                        "The round's deadline passed while it waited for the hospital to resume the experiment, which "
                        "it had paused.",
                        code=Code.ROUND_TIMEOUT,
                    )
                raise FedWardError("The round's deadline passed while it waited here.", code=Code.ROUND_TIMEOUT)
            dataset = services.datasets.require_usable(connection, request.dataset_id, self._researcher)
            return services.plans.require_runnable(connection, request.plan_sha256)[0], dataset

    def _fetch(self) -> int:
        """The global parameters, opened into a sealed memory file; frozen layers that came apart are among them."""
        request = self._request
        context = f"{request.experiment_id}/{request.round}/parameters"
        parameters = self._opened(request.parameters, context, self._sealed)
        if request.frozen is None:
            return parameters
        try:
            frozen = self._opened(request.frozen, f"{request.experiment_id}/frozen", self._frozen)
            try:
                return united(parameters, frozen)
            finally:
                os.close(frozen)
        except SealError as error:
            message = "The frozen layers cannot be opened: they were sealed for another experiment, or are altered."
            raise SealError(message) from error
        finally:
            os.close(parameters)

    def _opened(self, sealed: SealedFile, context: str, source: Callable[[SealedFile], BinaryIO]) -> int:
        """A sealed file's content, in a sealed memory file."""
        key = sealing.open_key(sealed.content_key, self._services.signer.keys.sealing, context=context)
        memory = create_memfd("parameters")
        try:
            with source(sealed) as file, os.fdopen(os.dup(memory), "wb") as out:
                sealing.unseal(sealing.read_chunks(file), key, out)
            return seal_memfd(memory)
        except BaseException:
            os.close(memory)
            raise

    def _sealed(self, sealed: SealedFile) -> BinaryIO:
        """A sealed file: enclosed in the request, or from the network host."""
        enclosed = sealed.enclosed()
        return self._services.rest.download(sealed, stop=self._stop) if enclosed is None else io.BytesIO(enclosed)

    def _frozen(self, sealed: SealedFile) -> BinaryIO:
        """The sealed frozen layers: those that an earlier round left here, if they are the same."""
        kept = self._services.kept
        path = kept.frozen(self._owner, sealed.sha256)
        if path is None:
            with self._sealed(sealed) as source:
                path = kept.keep_frozen(self._owner, sealed.sha256, source)
        return path.open("rb")

    def _run_plan(self, plan: str, dataset: dict[str, Any], parameters: int, progress: _Progress) -> TrainedResult:
        """The only step that runs foreign code; again when the runner itself went away."""
        job = self._job(plan, dataset)

        def on_progress(step: Progress) -> None:
            self._raise_if_stopped()
            progress.tell(step)

        for attempt in range(1, RUNNER_TRIES + 1):
            self._raise_if_stopped()
            progress.begin(job.training_args, dataset["rows"])
            kept = self._services.kept.before(self._owner, job.round)
            try:
                return self._services.runner.train(job, parameters, on_progress, kept_fd=kept)
            except (UpdateRefusedError, RoundStoppedError):
                raise  # our own word, on progress
            except FedWardError as error:
                self._memory_bytes = getattr(error, "memory_bytes", None)
                if error.code is Code.DATASET_CHANGED:
                    with self._services.store.write() as connection:
                        self._services.datasets.mark_changed(connection, self._request.dataset_id)
                if error.code is Code.DISK_FULL:  # the runner's: a plan's own full scratch is its limit
                    raise
                if error.code is not Code.RUNNER_UNAVAILABLE or attempt == RUNNER_TRIES:
                    failed = RunnerFailedError(error, plan.count("\n") + 1)
                    if error.code is Code.SANDBOX_INCOMPLETE:
                        failed.rule = str(self._services.policy.rule("sandbox"))
                    raise failed from error
                self._stop.wait(2.0 ** (attempt - 1))
            finally:
                if kept is not None:
                    os.close(kept)
        raise AssertionError("unreachable")  # pragma: no cover - the loop returns or raises

    def _job(self, plan: str, dataset: dict[str, Any]) -> TrainJob:
        services, request = self._services, self._request
        arguments = self._row["training_args"]
        return TrainJob(
            job_id=self._jti,
            experiment_id=request.experiment_id,
            node_id=services.signer.member_id,
            round=request.round,
            dataset=source_of(dataset),
            plan_source=plan,
            plan_class=request.plan_class,
            model_args=request.model_args,
            training_args=arguments,
            aggregator_args=request.aggregator_args,
            train=request.train,
            use_gpu=services.policy.use_gpu(arguments.get("use_gpu")),
            limits=Limits(seconds=services.policy.value("maximum_round_s"), processes=_workers(arguments), **_LIMITS),
            sandbox=SANDBOX_LEVELS[services.policy.value("sandbox")],
        )

    def _check(
        self, result: TrainedResult, progress: _Progress, specs: dict[str, Any], plan: str, dataset: dict[str, Any]
    ) -> _Checked:
        """Let the guard look at everything that would leave, then seal it: checked bytes are the bytes that go."""
        rates = result.reply.learning_rates
        reply = TrainReply(
            experiment_id=self._request.experiment_id,
            round=self._request.round,
            dataset_id=self._request.dataset_id,
            update=None,
            sample_count=result.reply.sample_count,
            metrics=tuple(released(metrics, plan, self._services.policy) for metrics in result.reply.metrics),
            overrides=tuple(Override.model_validate_json(o) for o in self._row["overrides"]),
            reached=progress.last(result.reply.reached),
            learning_rates=None if rates is None else rounded(rates),
            is_optimizer_new=result.reply.is_optimizer_new,
        )
        if (result.update_fd is not None) is not self._request.train:
            raise UpdateRefusedError("The training process returned an update too many, or none.")
        self._guard.check_counts(self._request, reply, dataset["rows"])
        self._timing |= result.reply.timing.model_dump()
        self._memory_bytes = result.reply.memory_bytes
        if result.update_fd is None:
            return _Checked(reply)
        update, facts = self._seal_update(result.update_fd, specs)
        checked = _Checked(reply, update, {**facts, "numbers": numbers_of(reply.metrics)})
        if result.kept_fd is not None:
            self._guard.check_kept(require_sealed(result.kept_fd))
            self._services.kept.keep(self._owner, self._request.round, result.kept_fd)
        return checked

    def _seal_update(self, update_fd: int, specs: dict[str, Any]) -> tuple[SealedFile, dict[str, Any]]:
        size = require_sealed(update_fd)
        norm = self._guard.check(Path(f"/proc/self/fd/{update_fd}"), specs, size)
        is_enclosed = sealing.sealed_size(size) <= MAX_ENCLOSED_BYTES
        # Opened anew: the offset of a descriptor that the child made is the child's as well.
        with open(f"/proc/self/fd/{update_fd}", "rb", buffering=0) as plain:  # noqa: PTH123 - a name, not a path
            content, sealed = self._enclose(plain) if is_enclosed else (None, self._store(plain))
        recipient = self._services.register.require(self._recipient)
        request = self._request
        context = f"{request.experiment_id}/{request.round}/update/{self._services.signer.member_id}"
        file = SealedFile(
            upload_id=None if is_enclosed else str(uuid.uuid4()),
            content=content,
            sha256=sealed.sha256,
            size_bytes=sealed.size_bytes,
            content_key=sealing.seal_key(sealed.content_key, recipient.sealing, context=context),
        )
        return file, {"tensors": len(specs), "norm": norm}

    def _enclose(self, plain: BinaryIO) -> tuple[str, sealing.Sealed]:
        out = io.BytesIO()
        sealed = sealing.seal(plain, out)
        return b64url(out.getvalue()), sealed

    def _store(self, plain: BinaryIO) -> sealing.Sealed:
        self._uses_spool = True
        with self._spool(_UPDATE).open("wb") as out:
            return sealing.seal(plain, out)

    def _persist_checked(self, checked: _Checked, update: SealedFile) -> None:
        with self._services.store.write() as connection:
            _CHECKED.run(
                connection,
                of=self._jti,
                step=RoundStep.CHECKED,
                result=checked.row(update),
                record=self._row["record"],
                timing=self._timing,
            )
            self._record_update(connection, update, checked.facts)  # before its first byte is on the line
            self._record_measures(connection)

    def _record_update(self, connection: sa.Connection, update: SealedFile, facts: dict[str, Any]) -> None:
        self._services.egress.update(connection, self._recipient, self._request, update, **facts)

    def _record_measures(self, connection: sa.Connection) -> None:
        """What the round took, if it was trained since this warden's start."""
        loss = self._live.curve
        if self._memory_bytes is not None or loss:
            _MEASURED.run(connection, jti=self._jti, memory_bytes=self._memory_bytes, loss=loss)

    # (4), (5): from the spool to the researcher

    def _deliver(self, checked: _Checked) -> None:
        update = checked.update
        if update is not None:
            self._raise_if_stopped()
            if update.upload_id is not None:
                with self._timed("upload_s"):
                    self._upload(update, update.upload_id)
            self._finished(RoundStep.SUBMIT)
        reply = checked.reply.model_copy(update={"update": update, "timing": Timing(**self._timing)})
        self._reply(reply, checked.facts)

    def _upload(self, update: SealedFile, upload_id: str) -> None:
        # The disk has it only where the upload takes its time: else the network host has it before ours would. Until
        # one of them has, a power cut costs the training (see _in_spool), as it would have cost it while we waited.
        keep = threading.Timer(_KEEP_AFTER_S, _sync, args=(self._spool(_UPDATE),))
        keep.daemon = True
        keep.start()
        self._services.rest.upload(
            self._spool(_UPDATE),
            upload_id=upload_id,
            sha256=update.sha256,
            recipients=[self._recipient],
            purpose="update",
            experiment_id=self._request.experiment_id,
            stop=self._stop,
        )
        keep.cancel()  # not when it failed: then the file stays for the next try
        self._raise_if_stopped()

    def _reply(self, reply: TrainReply, facts: dict[str, Any]) -> None:
        services = self._services
        with services.store.write() as connection:
            if self._state(connection)["stop_reason"]:  # the last moment: behind it, a stop comes too late
                raise RoundStoppedError("The experiment was stopped.")
            if reply.update and reply.update.content:
                self._record_update(connection, reply.update, facts)
            signed = services.post(connection, self._recipient, reply, in_reply_to=self._jti)
            self._end(connection, RoundStep.REPLIED, reply=reply)
            services.audit.write(
                connection,
                "node",
                "round.replied",
                self._request.experiment_id,
                round=self._request.round,
                to=self._recipient,
                samples=reply.sample_count,
                update_sha256=reply.update.sha256 if reply.update else None,
            )
        self._finished(RoundStep.REPLIED)
        services.mailbox.send(signed)
        self._clear_spool()
        if self._request.round >= self._request.round_limit:
            with suppress(FedWardError):  # the experiment is over: its warm child need not wait for idling
                services.runner.stop(self._request.experiment_id)

    def _fail(self, error: FedWardError) -> None:
        services = self._services
        with services.store.write() as connection:
            state = self._state(connection)
            if RoundStep(state["step"]).is_final:
                return  # the reply is in the outbox: what failed came after it
            if state["superseded_by"]:
                error = RoundSupersededError(
                    f"It had not ended when the experiment went on to round {state['superseded_by']}, and was given up."
                )
            elif state["stop_reason"]:
                error = RoundStoppedError(f"The experiment was stopped by {state['stop_reason']}.")
            elif self._stop.is_set():
                return  # the warden itself is ending: the round goes on at its next start
            elif error.code in _PASSING and not self._is_late():
                raise error
            step = RoundStep.STOPPED if state["stop_reason"] else RoundStep.FAILED
            body = error_reply(error, self._request)
            signed = services.post(connection, self._recipient, body, in_reply_to=self._jti)
            detail = getattr(error, "detail", error.message)
            self._end(connection, step, f"{error.code}: {detail}", record=getattr(error, "record", ""))
            services.audit.write(
                connection,
                "node",
                f"round.{step}",
                self._request.experiment_id,
                round=self._request.round,
                code=error.code,
                reason=error.message,
            )
        services.mailbox.send(signed)
        self._clear_spool()
        self._finished(step)

    def _end(
        self,
        connection: sa.Connection,
        step: RoundStep,
        error: str | None = None,
        record: str = "",
        reply: TrainReply | None = None,
    ) -> None:
        _ENDED.run(
            connection,
            of=self._jti,
            step=step,
            ended_at=time.time(),
            timing=self._timing,
            error=error,
            record=record or self._row["record"],
            # What was enclosed has served: parameters with every round would outgrow the store.
            request=self._request.model_dump_json(exclude={"parameters": {"content"}, "frozen": {"content"}}),
            # Not the update, which the outbox holds for as long as it must.
            result=None if reply is None else {"reply": reply.model_copy(update={"update": None}).model_dump_json()},
        )
        self._record_measures(connection)

    def _state(self, connection: sa.Connection) -> dict[str, Any]:
        state = _STATE.first(connection, of=self._jti)
        assert state is not None
        return state

    @property
    def _owner(self) -> tuple[str, str, str]:
        return self._researcher, self._request.experiment_id, self._request.dataset_id

    def _is_late(self) -> bool:
        """Whether a reply would be of no use any more."""
        return bool(time.time() > self._row["expires_at"])

    def _clear_spool(self) -> None:
        if not self._uses_spool:
            return
        for file in self._services.spool.glob(f"{self._jti}.*"):
            file.unlink(missing_ok=True)

    def _raise_if_stopped(self) -> None:
        if self._stop.is_set():
            raise RoundStoppedError("The experiment was stopped.")

    def _finished(self, step: RoundStep) -> None:
        self._live.finish(step)
        self._on_step(self._jti, step)

    def _spool(self, suffix: str) -> Path:
        return self._services.spool / f"{self._jti}{suffix}"

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._timing[name] = time.monotonic() - started


def _workers(arguments: dict[str, Any]) -> int:
    """How many processes a plan may make: as many as were asked for to read its samples ahead."""
    asked = lookup(arguments, "loader_args.num_workers")
    return asked if type(asked) is int and 0 <= asked <= _MAX_WORKERS else 0  # another is refused in the runner


class _Progress:
    """Tells whoever asked and staff how far a round is: once a second, and what the rules of egress allow.

    The last update's progress goes with the reply, which follows at once.
    """

    def __init__(self, services: Services, recipient: str, request: Train, jti: str, live: LiveRound) -> None:
        self._services = services
        self._recipient = recipient
        self._request = request
        self._jti = jti
        self._live = live
        self._began = time.monotonic()
        self._told = 0

    def begin(self, arguments: Mapping[str, JsonValue], rows: int) -> None:
        """The training begins, or begins anew; see ``ProgressGuard``."""
        self._guard = ProgressGuard(arguments, rows)
        self._live.begin()

    def last(self, reached: Reached | None) -> Reached | None:
        """The last update's progress, as it may leave with the reply.

        Raises:
            UpdateRefusedError: It is none that this request can make.
        """
        if reached is None:
            return None
        reached = reached.model_copy(update={"values": self._guard.check(reached)})
        self._live.reach(reached)
        return reached

    def tell(self, progress: Progress) -> None:
        """Send progress with those of its values that may leave, or leave it out when it comes too often.

        Raises:
            UpdateRefusedError: It is none that this request can make.
        """
        values = self._guard.check(progress)
        self._live.reach(progress.model_copy(update={"values": values}))
        if self._told > time.monotonic() - self._began:
            return
        self._told += 1
        body = Scalar(
            experiment_id=self._request.experiment_id,
            round=self._request.round,
            split=progress.split,
            iteration=progress.iteration,
            iterations=progress.iterations,
            epoch=progress.epoch,
            values=values,
        )
        services = self._services
        signed = services.mailbox.sign(self._recipient, body, in_reply_to=self._jti)
        services.egress.message_later(signed)
        services.mailbox.publish(signed)


def _sync(path: Path) -> None:
    """Let the disk have a file; one that is delivered already, and gone, needs it no more."""
    with suppress(OSError), path.open("rb") as file:
        os.fsync(file.fileno())


def error_reply(error: FedWardError, request: Train | None) -> ErrorReply:
    """What a researcher is told: our own words, without what is this machine's own affair, and as long as may be."""
    message = _PUBLIC.get(error.code, "The node failed.") if error.code in _PRIVATE else error.message
    return ErrorReply(
        code=error.code,
        message=message[:_MESSAGE],
        rule=None if error.rule is None else error.rule[:_RULE],
        experiment_id=request.experiment_id if request else None,
        round=request.round if request else None,
        plan_line=getattr(error, "plan_line", None),
    )

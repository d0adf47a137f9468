"""One round: choose, upload, request, collect, aggregate.

Run again after a crash, a round goes on behind its last recorded step. Until its requests are out it may make things
anew; from then on the requests in the outbox are the ones that count, word for word. What is repeated in no time is not
recorded by itself: the choice of nodes, parameters and updates that are small enough to be enclosed, and what is
aggregated of them.
"""

from __future__ import annotations

import hashlib
import io
import json
import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog
from pydantic import JsonValue

from appliance.protocol.envelope import Envelope
from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.keys import b64url
from appliance.protocol.messages import (
    MAX_ENCLOSED_BYTES,
    ErrorReply,
    Reached,
    Scalar,
    SealedFile,
    Stop,
    Train,
    TrainReply,
)
from appliance.protocol.rounds import ResearcherStep
from appliance.protocol.sealing import Sealed, open_key, seal, seal_key, sealed_size
from appliance.protocol.tensors import AGGREGATOR_PREFIX, FROZEN_PREFIX, TensorFile, data_bytes
from appliance.training.source import PlanSource
from researcher_kit.aggregators.base import Aggregator, Update, require_like
from researcher_kit.errors import (
    AggregationError,
    ExperimentArgumentError,
    NetworkUnreachableError,
    NodeFailure,
    RoundStoppedError,
)
from researcher_kit.federation import Federation
from researcher_kit.frozen import FrozenFile, FrozenLayers
from researcher_kit.history import FailureRecord, NodeRecord, RoundRecord, RoundTiming
from researcher_kit.monitor import (
    NodeFailed,
    NodeGaveUp,
    NodePaused,
    NodeReceived,
    NodeReplied,
    Observer,
    ParametersUploaded,
    Progress,
    RoundStarted,
    StepFinished,
)
from researcher_kit.spool import Spool
from researcher_kit.store import Request, RoundBook, RoundRow
from researcher_kit.strategies.base import RoundView, Strategy, Verdict
from researcher_kit.wire import Files

DOWNLOADS_AT_ONCE = 4
EXPIRY_SLACK_S = 300
STOP_WAIT_S = 2.0  # a node that trains has stopped by then; one that is silent stops when it hears of it
_OURS = frozenset({Code.DISK_FULL, Code.NETWORK_UNREACHABLE, Code.CLOCK_WRONG})  # no node's fault: it mends itself
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Terms:
    """All that a round depends on.

    Attributes:
        datasets: The dataset of each node that has one.
        parameters: The tensor file of the global parameters.
        train: False: only test them.
        mandate: The researcher's, when a federator asks.
        frozen: Those of the parameters that nodes get and do not return.
    """

    experiment_id: str
    round: int
    round_limit: int
    datasets: Mapping[str, str]
    plan: PlanSource
    model_args: Mapping[str, JsonValue]
    training_args: Mapping[str, JsonValue]
    aggregator: Aggregator
    strategy: Strategy
    parameters: Path
    train: bool = True
    mandate: str | None = None
    frozen: frozenset[str] = frozenset()

    def digest(self) -> str:
        """A hash of what the requests say; a round begun on other terms is not taken up again."""
        said = [dict(self.datasets), self.plan.sha256, self.plan.class_name, dict(self.model_args)]
        said += [dict(self.training_args), self.aggregator.create_aggregator_args()]
        said += [] if self.train else ["test only"]
        said += [] if self.mandate is None else [self.mandate]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class ReceiptSeen:
    """A node has one of our messages."""

    jti: str


@dataclass(frozen=True)
class StopAsked:
    """Someone called ``stop``."""


@dataclass(frozen=True)
class _Fetched:
    node_id: str
    update: TensorFile | None  # None of a test
    seconds: float


@dataclass(frozen=True)
class _Refused:
    node_id: str
    error: FedWardError


class Inbox:
    """What arrives for one experiment: recorded by the federation's thread, then handed to the round that waits."""

    def __init__(self, book: RoundBook) -> None:
        self._book = book
        self._answer: Envelope | None = None
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def record(self, connection: sa.Connection, envelope: Envelope) -> None:
        """See ``federation.Listener``."""
        self._answer = envelope if self._book.record_reply(connection, envelope) else None

    def arrived(self, envelope: Envelope) -> None:
        """See ``federation.Listener``: of durable messages, only the first answer to a request is for the round.

        And what became of a round that was closed without its node, for the report.
        """
        body = envelope.body
        is_word_of_the_past = isinstance(body, ErrorReply) and body.code is Code.ROUND_SUPERSEDED
        if envelope is self._answer or is_word_of_the_past or not body.is_durable:
            self.events.put(envelope)

    def received(self, jti: str) -> None:
        """See ``federation.Listener``."""
        self.events.put(ReceiptSeen(jti))


class Round:
    """One pass over the nodes, from their choice to the next global parameters.

    Args:
        emit: Hears what happens, in the caller's thread.
    """

    def __init__(
        self, terms: Terms, *, federation: Federation, book: RoundBook, inbox: Inbox, spool: Spool, emit: Observer
    ) -> None:
        self._terms = terms
        self._federation = federation
        self._book = book
        self._inbox = inbox
        self._spool = spool
        self._emit = emit
        self._stop = threading.Event()
        self._began = time.monotonic()
        self._upload_s = 0.0
        self._content_key: bytes | None = None
        self._frozen = FrozenLayers(terms.experiment_id, federation, book)
        self._apart: FrozenFile | None = None  # frozen layers that do not travel with the parameters
        self._has_downloads = False
        self._is_recorded = False
        self._requests: dict[str, Request] = {}
        self._arrived: dict[str, _Fetched] = {}
        self._seconds: dict[str, float] = {}  # when each arrived, after the round was asked for
        self._origin = self._began
        self._failed: dict[str, NodeFailure] = {}
        self._paused: dict[str, int] = {}  # since when, by node

    @property
    def is_repeated(self) -> bool:
        """Whether to run it again would aggregate again, of the replies that are recorded."""
        return not self._is_recorded

    def run(self, *, obsolete_upload: str | None = None, meanwhile: Callable[[], None] = lambda: None) -> RoundRecord:
        """Go through the steps that are left; at the end the next parameters lie in the spool.

        Args:
            obsolete_upload: An earlier round's parameters at the network host, deleted while the nodes train.
            meanwhile: Called when the requests are out and nothing is left to do but to wait.

        Raises:
            FedWardError: What the strategy makes of failed or silent nodes, or what stands in the way here.
            RoundStoppedError: ``stop`` was called.
        """
        steps: dict[ResearcherStep, Callable[[RoundRow], RoundRow]] = {
            ResearcherStep.CHOSEN: self._upload,
            ResearcherStep.UPLOADED: self._request,
            ResearcherStep.REQUESTED: self._collect,
            ResearcherStep.COLLECTED: self._aggregate,
        }
        self._meanwhile = meanwhile
        row = self._begin()
        self._pool = ThreadPoolExecutor(DOWNLOADS_AT_ONCE, thread_name_prefix="fedward-download")
        if obsolete_upload:
            # A daemon of its own: nobody waits for it, not even when the line is down.
            threading.Thread(target=_delete, args=(self._federation.files, obsolete_upload), daemon=True).start()
        try:
            while step := steps.get(row.step):
                row = step(row)
                self._emit(StepFinished(self._terms.round, row.step))
        finally:
            self._stop.set()
            self._pool.shutdown(cancel_futures=True)
        assert row.record is not None
        self.upload_id: str | None = row.parameters.upload_id if row.parameters else None
        return row.record

    def abandon(self) -> None:
        """Forget the round: its requests are not repeated, and an answer to one counts for nothing."""
        self._federation.withdraw(self._book.abandon(self._terms.round))

    # The steps

    def _begin(self) -> RoundRow:
        terms, row = self._terms.digest(), None
        if not self._book.is_clear(self._terms.round):
            row = self._book.find(self._terms.round)
            if row is None or row.terms != terms or not self._is_open(row.step):
                asked, row = [] if row is None else [*row.chosen], None
                self.abandon()
                self._end_at(asked)  # else those that train still would refuse to be asked again
        is_resumed = row is not None
        if row is None:
            self._spool.clear()
            row = RoundRow(ResearcherStep.CHOSEN, terms, self._choose())
        self._spool.open()
        if row.step is ResearcherStep.AGGREGATED:
            self._spool.restore(self._terms.aggregator)
        institutions = {node: self._federation.institution(node) for node in row.chosen}
        is_test = not self._terms.train
        self._emit(RoundStarted(self._terms.round, self._terms.round_limit, institutions, is_resumed, is_test))
        if not is_resumed:
            self._emit(StepFinished(self._terms.round, row.step))
        return row

    def _is_open(self, step: ResearcherStep) -> bool:
        is_whole = step is not ResearcherStep.AGGREGATED or self._spool.aggregated.exists()
        return step is not ResearcherStep.CLOSED and is_whole

    def _choose(self) -> tuple[str, ...]:
        nodes = sorted(self._terms.datasets)
        chosen = tuple(sorted(set(self._terms.strategy.choose(nodes, self._terms.round))))
        if not chosen or not set(chosen) <= set(nodes):
            raise ExperimentArgumentError(f"The strategy chose {[*chosen]}; expected some of {nodes}.")
        return chosen

    def _upload(self, row: RoundRow) -> RoundRow:
        began = time.monotonic()
        upload_id = content = None
        self._apart = self._provide_frozen(row.chosen)
        tensors = self._tensors_for_nodes()
        if sealed_size(tensors.stat().st_size) <= MAX_ENCLOSED_BYTES:
            sealed, content = _enclosed(tensors)
        else:
            path, sealed = self._spool.seal_parameters(tensors)
            upload_id = self._upload_parameters(path, sealed, row.chosen)
            path.unlink()
        self._content_key = sealed.content_key
        # The key is sealed to ourselves, so that the store holds no secret in clear.
        key = seal_key(sealed.content_key, self._federation.keys.public.sealing, context=self._key_context)
        file = SealedFile(
            upload_id=upload_id,
            content=content,
            sha256=sealed.sha256,
            size_bytes=sealed.size_bytes,
            content_key=key,
        )
        row = replace(row, step=ResearcherStep.UPLOADED, parameters=file)
        if upload_id is not None and self._apart is None:  # whether it holds the frozen layers, no record says
            self._book.put(self._terms.round, row)
        self._upload_s = time.monotonic() - began
        self._emit(ParametersUploaded(self._terms.round, sealed.size_bytes + self._frozen_bytes, self._upload_s))
        return row

    def _provide_frozen(self, nodes: Sequence[str]) -> FrozenFile | None:
        """The frozen layers at the network host; None where they travel with the parameters.

        So they do where they are small, or where a node's release, or that of one not heard yet, is older.
        """
        layers = TensorFile(self._terms.parameters).only(self._terms.frozen)
        is_small = sealed_size(data_bytes(layers.specs)) <= MAX_ENCLOSED_BYTES
        if not layers or is_small or not self._frozen.are_understood(nodes):
            return None
        return self._frozen.provide(layers, nodes, self._terms.datasets, self._spool, self._stop)

    @property
    def _frozen_bytes(self) -> int:
        return self._apart.uploaded_bytes if self._apart else 0

    def _tensors_for_nodes(self) -> Path:
        """The file that the nodes get: the global parameters, and what the aggregator has for them."""
        more, frozen = self._terms.aggregator.node_tensors(), self._terms.frozen
        if not more and not frozen:
            return self._terms.parameters
        named = {f"{AGGREGATOR_PREFIX}{name}": array for name, array in more.items()}
        model = TensorFile(self._terms.parameters)
        for name, array in (model.without(frozen) if self._apart else model).items():
            named[f"{FROZEN_PREFIX}{name}" if name in frozen else name] = array
        return self._spool.write_request(named)

    def _upload_parameters(self, path: Path, sealed: Sealed, recipients: Sequence[str]) -> str:
        upload_id = str(uuid.uuid4())
        self._federation.files.upload(
            path,
            upload_id=upload_id,
            sha256=sealed.sha256,
            recipients=recipients,
            purpose="parameters",
            experiment_id=self._terms.experiment_id,
            stop=self._stop,
        )
        return upload_id

    def _request(self, row: RoundRow) -> RoundRow:
        file = row.parameters
        assert file is not None
        content_key = self._content_key or open_key(
            file.content_key, self._federation.keys.sealing, context=self._key_context
        )
        now, deadline_s = self._federation.clock(), self._terms.strategy.deadline_s
        deadline = None if deadline_s is None else int(now + deadline_s) + 1
        lifetime_s = None if deadline_s is None else min(int(deadline_s) + EXPIRY_SLACK_S, Train.lifetime_s)
        row = replace(row, step=ResearcherStep.REQUESTED, requested_at=now)
        with self._federation.outgoing() as out:
            for node in row.chosen:
                sealing = self._federation.register.require(node).sealing
                key = seal_key(content_key, sealing, context=self._key_context)
                frozen = self._apart.to(sealing) if self._apart else None
                train = self._train(node, file.model_copy(update={"content_key": key}), frozen, deadline)
                jti = out.post(node, train, lifetime_s=lifetime_s).envelope.jti
                dataset_id = self._terms.datasets[node]
                self._book.add_request(out.connection, self._terms.round, jti=jti, node_id=node, dataset_id=dataset_id)
            self._book.put_within(out.connection, self._terms.round, row)
        return row

    def _collect(self, row: RoundRow) -> RoundRow:
        assert row.requested_at is not None
        # Of this clock only the time between is used, but for a crash in between.
        self._origin = time.monotonic() - max(0.0, self._federation.clock() - row.requested_at)
        self._take_all(row)
        self._meanwhile()
        while True:
            view = self._view(time.monotonic() - self._origin)
            decision = self._terms.strategy.decide(view)
            if decision.verdict is Verdict.CLOSE:
                self._terms.strategy.closed(view)
                break
            if decision.verdict is Verdict.FAIL:
                self._fail(view)
            wait_s = None if decision.ask_again_s is None else max(0.0, decision.ask_again_s - view.elapsed_s)
            with suppress(queue.Empty):
                self._hear(self._inbox.events.get(timeout=wait_s))
        row = replace(row, step=ResearcherStep.COLLECTED, used=tuple(sorted(self._arrived)))
        if self._has_downloads:
            self._book.put(self._terms.round, row)
        return row

    def _aggregate(self, row: RoundRow) -> RoundRow:
        if not self._arrived:
            self._take_all(row)
            while not set(row.used) <= self._arrived.keys() | self._failed.keys():
                self._hear(self._inbox.events.get())
            if lost := [self._failed[node] for node in row.used if node in self._failed]:
                self.abandon()
                raise AggregationError(f"The update is lost: {lost[0]}", code=lost[0].code)
        began = time.monotonic()
        replies = [self._record_of(node) for node in row.used]
        tensors = self._aggregated(replies) if self._terms.train else None
        if tensors is not None:
            self._spool.write_aggregated(tensors, self._terms.aggregator, is_synced=self._has_downloads)
        aggregation_s = time.monotonic() - began
        record = self._record(row, replies, aggregation_s)
        row = replace(row, step=ResearcherStep.AGGREGATED, record=record)
        if self._has_downloads:
            self._book.put(self._terms.round, row)
            self._is_recorded = True
        return row

    # Collecting

    def _take_all(self, row: RoundRow) -> None:
        requests = self._book.requests(self._terms.round)
        self._requests = {request.jti: request for request in requests if request.node_id in (row.used or row.chosen)}
        self._parameters = TensorFile(self._terms.parameters).without(self._terms.frozen)
        self._expected = self._parameters.specs
        for request in self._requests.values():
            self._take(request)

    def _hear(self, event: object) -> None:
        match event:
            case Envelope(body=Scalar() as scalar) if scalar.experiment_id == self._terms.experiment_id:
                self._hear_scalar(event.sender, scalar)
            case Envelope(body=TrainReply() | ErrorReply() as reply) if event.in_reply_to in self._requests:
                self._take_answer(event.in_reply_to, reply)
            case Envelope(body=ErrorReply(code=Code.ROUND_SUPERSEDED, round=int(past)) as error) if (
                past < self._terms.round
            ):
                self._emit(NodeGaveUp(past, event.sender, error.message))
            case ReceiptSeen() if request := self._requests.get(event.jti):
                self._emit(NodeReceived(self._terms.round, request.node_id))
            case _Fetched() if event.node_id not in self._failed:
                self._arrived[event.node_id] = event
                self._seconds[event.node_id] = time.monotonic() - self._origin
                self._emit(NodeReplied(self._terms.round, self._record_of(event.node_id)))
            case _Refused():
                self._give_up(self._failure(event.node_id, event.error.code, event.error.message, event.error.rule))
            case Exception():
                raise event
            case StopAsked():
                self.abandon()
                raise RoundStoppedError(f"Round {self._terms.round} was stopped from this side.")

    def _hear_scalar(self, node_id: str, scalar: Scalar) -> None:
        is_asked = any(request.node_id == node_id for request in self._requests.values())
        if not is_asked or scalar.round != self._terms.round:
            return
        if scalar.paused_since is None:
            self._paused.pop(node_id, None)
            self._tell_progress(node_id, scalar)
        elif self._paused.get(node_id) != scalar.paused_since:  # it is said again with each heartbeat
            self._paused[node_id] = scalar.paused_since
            self._emit(NodePaused(self._terms.round, node_id, scalar.paused_since))

    def _tell_progress(self, node_id: str, reached: Reached) -> None:
        place = (reached.split, reached.epoch, reached.iteration, reached.iterations)
        self._emit(Progress(self._terms.round, node_id, *place, reached.values))

    def _take_answer(self, jti: str, reply: TrainReply | ErrorReply) -> None:
        request = self._requests[jti]
        if request.reply is None:  # else it was recorded before we looked, and is taken already
            self._requests[jti] = replace(request, reply=reply)
            self._take(self._requests[jti])

    def _take(self, request: Request) -> None:
        if isinstance(request.reply, TrainReply) and request.reply.reached is not None:
            self._tell_progress(request.node_id, request.reply.reached)
        match request.reply:
            case ErrorReply() as error:
                if error.code is Code.TRANSFER_MISSING:
                    self._frozen.renew()
                failure = self._failure(request.node_id, error.code, error.message, error.rule, error.plan_line)
                self._give_up(replace(failure, record=self._federation.record(request.node_id)))
            case TrainReply() if not self._terms.train:
                self._hear(_Fetched(request.node_id, None, 0.0))
            case TrainReply() as reply if reply.update is None or reply.sample_count is None:
                lacks = "an update" if reply.update is None else "a sample count"
                message = f"Its reply came without {lacks}."
                self._give_up(self._failure(request.node_id, Code.UPDATE_REFUSED, message))
            case TrainReply(update=SealedFile(upload_id=None) as update):
                self._hear(self._fetch(request.node_id, update))
            case TrainReply(update=SealedFile() as update):
                self._has_downloads = True
                self._pool.submit(lambda: self._inbox.events.put(self._fetch(request.node_id, update)))

    def _fetch(self, node_id: str, update: SealedFile) -> _Fetched | _Refused | Exception:
        """The update, or why there is none; to be heard of by the round's own thread."""
        began = time.monotonic()
        context = f"{self._terms.experiment_id}/{self._terms.round}/update/{node_id}"
        try:
            key = open_key(update.content_key, self._federation.keys.sealing, context=context)
            file = self._spool.fetch_update(node_id, update, key, self._federation.files, self._expected, self._stop)
        except FedWardError as error:
            return error if error.code in _OURS else _Refused(node_id, error)
        except Exception as error:  # noqa: BLE001 - whoever waits for the update must hear of it
            return error
        return _Fetched(node_id, file, time.monotonic() - began)

    def _view(self, elapsed_s: float) -> RoundView:
        asked = frozenset(request.node_id for request in self._requests.values())
        return RoundView(asked, frozenset(self._arrived), dict(self._failed), elapsed_s, dict(self._seconds))

    def _fail(self, view: RoundView) -> None:
        failures = [self._failed[node] for node in sorted(self._failed)]
        late = sorted(view.asked - view.arrived - view.failed.keys())
        deadline_s = self._terms.strategy.deadline_s
        for node in late if deadline_s is not None and view.elapsed_s >= deadline_s else ():
            why = ": the hospital has paused the experiment" if node in self._paused else ""
            message = f"No update within {view.elapsed_s:.0f} s{why}."
            failures.append(self._failure(node, Code.ROUND_TIMEOUT, message))
        self.abandon()
        self._end_at(late)
        raise self._terms.strategy.failure(view, tuple(failures))

    def _end_at(self, nodes: list[str]) -> None:
        """Spare nodes a training that is of no use any more, and that the next round would have to wait for."""
        stop = Stop(experiment_id=self._terms.experiment_id)
        with suppress(NetworkUnreachableError):
            self._federation.ask(dict.fromkeys(nodes, stop), timeout_s=STOP_WAIT_S)

    def _give_up(self, failure: NodeFailure) -> None:
        self._arrived.pop(failure.node_id, None)
        self._failed[failure.node_id] = failure
        self._emit(NodeFailed(self._terms.round, failure))

    def _failure(
        self, node_id: str, code: Code, message: str, rule: str | None = None, line: int | None = None
    ) -> NodeFailure:
        lines = self._terms.plan.text.splitlines()
        text = lines[line - 1].strip() if line and line <= len(lines) else ""
        institution = self._federation.institution(node_id)
        return NodeFailure(node_id, institution, code, message, rule, line, text, round=self._terms.round)

    # Aggregating

    def _aggregated(self, replies: list[NodeRecord]) -> Mapping[str, Any]:
        updates = []
        for reply in replies:
            update = self._arrived[reply.node_id].update
            assert update is not None
            updates.append(Update(reply.node_id, reply.sample_count, update, reply.learning_rates))
        tensors = self._terms.aggregator.aggregate(updates, self._parameters)
        fault = require_like(tensors, self._expected)
        if fault:
            raise AggregationError(
                f"{type(self._terms.aggregator).__name__}.aggregate() returned another model: {fault}.",
                remedy="Return an array of each tensor's own name, shape and type; of whole numbers (counters) an "
                "update holds the values themselves.",
            )
        whole = TensorFile(self._terms.parameters)
        return {**tensors, **{name: whole[name] for name in self._terms.frozen}}

    def _record_of(self, node_id: str) -> NodeRecord:
        request = next(request for request in self._requests.values() if request.node_id == node_id)
        reply = request.reply
        assert isinstance(reply, TrainReply)
        return NodeRecord(
            node_id=node_id,
            institution=self._federation.institution(node_id),
            dataset_id=request.dataset_id,
            sample_count=reply.sample_count or 0,
            metrics=reply.metrics,
            overrides=reply.overrides,
            timing=reply.timing,
            learning_rates=reply.learning_rates,
            is_optimizer_new=reply.is_optimizer_new,
            loss=reply.reached.values.get("loss") if reply.reached else None,
            update_bytes=reply.update.size_bytes if reply.update else 0,
            download_s=self._arrived[node_id].seconds,
        )

    def _record(self, row: RoundRow, replies: list[NodeRecord], aggregation_s: float) -> RoundRecord:
        assert row.requested_at is not None
        assert row.parameters is not None
        seconds = time.monotonic() - self._began
        missing = [node for node in row.chosen if node not in row.used]
        late = {node: self._failure(node, Code.ROUND_TIMEOUT, "No update before the round closed.") for node in missing}
        failures = [self._failed.get(node, late[node]) for node in missing]
        last = next(reply for reply in replies if reply.node_id == [*self._arrived][-1])
        return RoundRecord(
            round=self._terms.round,
            started_at=self._federation.clock() - seconds,
            seconds=seconds,
            timing=_timing(last, seconds, self._upload_s, aggregation_s),
            replies=tuple(replies),
            failures=tuple(
                FailureRecord(node_id=f.node_id, institution=f.institution, code=f.code, message=f.message)
                for f in failures
            ),
            parameters_bytes=row.parameters.size_bytes + self._frozen_bytes,
        )

    # Small helps

    @property
    def _key_context(self) -> str:
        return f"{self._terms.experiment_id}/{self._terms.round}/parameters"

    def _train(self, node: str, parameters: SealedFile, frozen: SealedFile | None, deadline: int | None) -> Train:
        terms = self._terms
        return Train(
            experiment_id=terms.experiment_id,
            round=terms.round,
            round_limit=terms.round_limit,
            dataset_id=terms.datasets[node],
            plan_sha256=terms.plan.sha256,
            plan_class=terms.plan.class_name,
            model_args=dict(terms.model_args),
            training_args=dict(terms.training_args),
            aggregator_args=terms.aggregator.create_aggregator_args(),
            parameters=parameters,
            frozen=frozen,
            train=terms.train,
            deadline=deadline,
            mandate=terms.mandate,
        )


def _enclosed(parameters: Path) -> tuple[Sealed, str]:
    """A small tensor file, encrypted, as a request carries it."""
    out = io.BytesIO()
    with parameters.open("rb", buffering=0) as source:
        return seal(source, out), b64url(out.getvalue())


def _delete(files: Files, upload_id: str) -> None:
    try:
        files.delete(upload_id)
    except FedWardError as error:
        _log.info("old parameters stay at the network host until they expire", reason=error.message)


def _timing(last: NodeRecord, seconds: float, upload_s: float, aggregation_s: float) -> RoundTiming:
    node = last.timing
    transfer_s = upload_s + node.fetch_s + node.upload_s + last.download_s
    training_s = node.start_s + node.train_s + node.check_s
    return RoundTiming(
        waiting_s=max(0.0, seconds - transfer_s - training_s - aggregation_s),
        transfer_s=transfer_s,
        training_s=training_s,
        aggregation_s=aggregation_s,
    )

"""The nodes of a local federation: they answer the researcher's messages, and let the runner train.

One thread reads the post of all nodes; a few more hand rounds to the runner, however many nodes there are. Nothing
that is sent here is lost on its way, and so a node keeps no outbox: it tells of a request's arrival only when the
answer has arrived, and until then the researcher repeats the request, also after a crash.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import queue
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import structlog

from appliance.protocol.envelope import Envelope, Signed, Signer, open_envelope
from appliance.protocol.errors import Code, FedWardError, UpdateRefusedError, takes_no_more
from appliance.protocol.files import replace_file
from appliance.protocol.keys import b64url
from appliance.protocol.local.frozen import united
from appliance.protocol.local.jobs import DatasetSource, Limits, Progress, TrainJob
from appliance.protocol.local.kept import KeptTensors
from appliance.protocol.local.runner_client import RunnerError, TrainedResult
from appliance.protocol.local.sealed import create_memfd, require_sealed, seal_memfd
from appliance.protocol.messages import (
    MAX_ENCLOSED_BYTES,
    Body,
    DatasetInfo,
    Datasets,
    ErrorReply,
    ListDatasets,
    Metrics,
    Ping,
    PlanApproval,
    PlanStanding,
    PlanState,
    PlanStatus,
    Pong,
    Receipt,
    Release,
    Scalar,
    SealedFile,
    Search,
    Stop,
    Stopped,
    Timing,
    Train,
    TrainReply,
)
from appliance.protocol.numbers import bounded, rounded, strange_name
from appliance.protocol.register import Register
from appliance.protocol.sealing import open_key, read_chunks, seal, seal_key, sealed_size, unseal
from appliance.protocol.topics import Topic, parse_topic
from appliance.training.arguments import TrainingArguments
from appliance.transport.mqtt import Arrived
from researcher_kit.local.runner import LocalRunner
from researcher_kit.local.wire import LocalFiles

_LIMITS = Limits(seconds=24 * 3600.0, memory_bytes=16 << 30, file_bytes=8 << 30)
_STOP_AGAIN_S = 0.2
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class LocalNode:
    """One node.

    Attributes:
        signer: Signs in its name, and holds its keys.
        source: Where its dataset lies.
        info: What researchers are told of it; without tags, any words find it.
    """

    signer: Signer
    source: DatasetSource
    info: DatasetInfo

    def found_by(self, tags: tuple[str, ...]) -> tuple[DatasetInfo, ...]:
        """Its dataset, if it carries these tags."""
        if not self.info.tags:
            return (self.info.model_copy(update={"tags": tags}),)
        return (self.info,) if set(tags) <= set(self.info.tags) else ()


@dataclass
class _Request:
    """A Train message and how far its work is."""

    node_id: str
    envelope: Envelope
    answer: Signed | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    superseded_by: int | None = None  # the later round for which it is stopped
    waits_for: threading.Thread | None = None  # which ends the rounds before it
    has_begun: bool = False
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def train(self) -> Train:
        assert isinstance(self.envelope.body, Train)
        return self.envelope.body

    def is_answered_by(self, jti: str) -> bool:
        """Whether this is its answer's jti."""
        return self.answer is not None and self.answer.envelope.jti == jti

    @property
    def owner(self) -> tuple[str, str, str]:
        """Whose work it is: researcher, experiment and node."""
        return self.envelope.sender, self.train.experiment_id, self.node_id


class LocalNodes:
    """All nodes of one local federation.

    Args:
        nodes: By id.
        register: The membership register.
        runner: Trains, in a sandbox.
        files: Where parameters and updates lie.
        plans: A folder for the plans' texts.
        kept: What nodes keep between rounds.
        arrive: Takes what is for the researcher.
        workers: How many nodes train at once.
    """

    def __init__(
        self,
        nodes: Mapping[str, LocalNode],
        register: Register,
        *,
        runner: LocalRunner,
        files: LocalFiles,
        plans: Path,
        kept: KeptTensors,
        arrive: Callable[[Arrived], None],
        workers: int,
    ) -> None:
        self._nodes = nodes
        self._register = register
        self._runner = runner
        self._files = files
        self._plans = plans
        self._kept = kept
        self._arrive = arrive
        self._records: dict[str, str] = {}
        self._uploads: dict[tuple[str, str, str], str] = {}  # the last update of a node for an experiment
        self._requests: dict[str, _Request] = {}  # by jti, until their answers have arrived
        self._over: set[str] = set()  # the jti of those whose answers have
        self._training = {node_id: threading.Lock() for node_id in nodes}
        self._lock = threading.Lock()
        self._post: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        # Whose turn was last comes first: of more nodes than the runner keeps processes for, theirs are still there.
        self._due: queue.PriorityQueue[tuple[int, int, _Request | None]] = queue.PriorityQueue()
        self._turns: dict[str, int] = {}
        self._count = itertools.count(1)
        # Daemons and no pool: a script that ends without ``close`` shall not wait for a training.
        self._threads = [threading.Thread(target=self._serve, name="fedward-local-nodes", daemon=True)]
        for n in range(workers):
            self._threads.append(threading.Thread(target=self._work, name=f"fedward-local-node-{n}", daemon=True))
        for thread in self._threads:
            thread.start()

    def deliver(self, topic: str, text: str) -> None:
        """Take a message of the researcher's; returns at once."""
        self._post.put((topic, text))

    def record(self, node_id: str) -> str:
        """What the plan printed in the node's last round, and the traceback if it failed."""
        return self._records.get(node_id, "")

    def close(self) -> None:
        """Take no more, and end what trains with the runner."""
        self._post.put(None)
        with self._lock:
            for request in self._requests.values():
                request.stop.set()
        self._runner.close()
        for _ in self._threads[1:]:
            self._due.put((-sys.maxsize, next(self._count), None))
        for thread in self._threads:
            thread.join()

    # The post

    def _serve(self) -> None:
        while (message := self._post.get()) is not None:
            try:
                node_id = parse_topic(message[0]).to
                node = self._nodes.get(node_id)
                if node is not None:
                    self._take(node_id, node, open_envelope(message[1], self._register, me=node_id))
            except Exception:  # noqa: BLE001 - one message must not end the post of all
                _log.exception("a local node could not take a message")

    def _take(self, node_id: str, node: LocalNode, envelope: Envelope) -> None:
        match envelope.body:
            case Train():
                self._take_train(node_id, envelope)
            case Receipt(received=jti):
                self._close_request(jti)
            case Stop(experiment_id=experiment_id):
                # In a thread of its own: the post must go on while a process ends.
                stopping = threading.Thread(target=self._stop, args=(node_id, experiment_id, envelope), daemon=True)
                stopping.start()
            case body:
                answer = self._answer(node, body)
                if answer is not None:
                    self._send(node_id, envelope.sender, answer, envelope.jti)
                if body.is_durable:
                    self._send(node_id, envelope.sender, Receipt(received=envelope.jti), envelope.jti)

    def _answer(self, node: LocalNode, body: Body) -> Body | None:
        match body:
            case Ping(sequence=sequence):
                return Pong(sequence=sequence)
            case Search(tags=tags):
                return Datasets(datasets=node.found_by(tags))
            case ListDatasets():
                return Datasets(datasets=(node.info,))
            case PlanStatus() | PlanApproval():
                return self._standing(body)
            case Release(experiment_id=experiment_id):
                message = "A local node has no staff to release a model to."
                return ErrorReply(code=Code.POLICY_REFUSED, message=message, experiment_id=experiment_id)
        return None

    def _standing(self, body: PlanStatus | PlanApproval) -> PlanStanding:
        path = self._plan(body.sha256)
        if isinstance(body, PlanApproval) and not path.exists():
            replace_file(path, body.source)
        state = PlanState.NOT_REQUIRED if path.exists() else PlanState.UNKNOWN
        return PlanStanding(sha256=body.sha256, state=state)

    def _take_train(self, node_id: str, envelope: Envelope) -> None:
        with self._lock:
            is_over, request = envelope.jti in self._over, self._requests.get(envelope.jti)
            if request is None and not is_over:
                self._begin(_Request(node_id, envelope))
        if is_over:
            self._send(node_id, envelope.sender, Receipt(received=envelope.jti), envelope.jti)
        elif request is not None and request.answer is not None:
            self._publish(request.answer)

    def _begin(self, new: _Request) -> None:
        # Whoever asks anew waits no more for an answer to what was asked before.
        left = [jti for jti, known in self._requests.items() if known.owner == new.owner and known.answer is not None]
        for jti in left:
            del self._requests[jti]
        behind = [known for known in self._requests.values() if known.owner == new.owner]
        behind = [known for known in behind if known.train.round < new.train.round and not known.stop.is_set()]
        for known in behind:  # as at a hospital: its round was closed without it
            known.superseded_by = new.train.round
        if behind:
            new.waits_for = threading.Thread(target=self._end, args=(behind,), daemon=True)
            new.waits_for.start()
        self._requests[new.envelope.jti] = new
        self._due.put((-self._turns.get(new.node_id, 0), next(self._count), new))

    def _close_request(self, answer_jti: str) -> None:
        """The answer has arrived: now the request may be forgotten there."""
        with self._lock:
            request = next((each for each in self._requests.values() if each.is_answered_by(answer_jti)), None)
            if request is None:
                return
            jti = request.envelope.jti
            del self._requests[jti]
            self._over.add(jti)
        self._send(request.node_id, request.envelope.sender, Receipt(received=jti), jti)

    def _stop(self, node_id: str, experiment_id: str, envelope: Envelope) -> None:
        owner = (envelope.sender, experiment_id, node_id)
        with self._lock:
            meant = [known for known in self._requests.values() if known.owner == owner and known.answer is None]
        was_running = self._end(meant) if meant else self._end_process(_seat(experiment_id, node_id))
        body = Stopped(experiment_id=experiment_id, was_running=was_running or bool(meant), ended_at=time.time())
        self._send(node_id, envelope.sender, body, envelope.jti)
        self._send(node_id, envelope.sender, Receipt(received=envelope.jti), envelope.jti)

    def _end(self, requests: Sequence[_Request]) -> bool:
        """End the work on requests of one node for one experiment; whether a process worked on them."""
        seat = _seat(requests[0].train.experiment_id, requests[0].node_id)
        for request in requests:
            request.stop.set()
        was_running = False
        for request in requests:
            # One that was on its way to the runner may have begun behind our back.
            while request.has_begun and not request.ended.is_set():
                was_running = self._end_process(seat) or was_running
                request.ended.wait(_STOP_AGAIN_S)
        return was_running

    def _end_process(self, seat: str) -> bool:
        """Whether there was one."""
        try:
            return self._runner.client().stop(seat).was_running
        except FedWardError as error:
            _log.warning("the local runner was not reached for a stop", reason=error.message)
            return False

    # A round

    def _work(self) -> None:
        while (request := self._due.get()[2]) is not None:
            self._turns[request.node_id] = next(self._count)
            self._answer_train(request)

    def _answer_train(self, request: _Request) -> None:
        train = request.train
        body: Body
        if request.waits_for is not None:  # else it would be taken for the work that is to end
            request.waits_for.join()
        try:
            with self._training[request.node_id]:  # one round of a node after the other
                request.has_begun = True
                self._require_wanted(request)
                body = self._train(request)
        except FedWardError as error:
            body = self._failure(request, error)
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            _log.exception("a local node failed inside", node=request.node_id)
            full = isinstance(error, OSError) and takes_no_more(error)
            code = Code.DISK_FULL if full else Code.INTERNAL
            message = f"The local node failed inside: {type(error).__name__}: {error}"
            body = ErrorReply(code=code, message=message[:2000], experiment_id=train.experiment_id, round=train.round)
        signer = self._nodes[request.node_id].signer
        signed = signer.sign(request.envelope.sender, body, in_reply_to=request.envelope.jti)
        request.answer = signed
        request.ended.set()
        self._publish(signed)

    def _require_wanted(self, request: _Request) -> None:
        if request.stop.is_set():
            raise FedWardError("The experiment was stopped.", code=Code.ROUND_STOPPED)
        deadline = request.train.deadline
        if deadline is not None and time.time() > deadline:
            raise FedWardError("The round's deadline passed while it waited here.", code=Code.ROUND_TIMEOUT)

    def _failure(self, request: _Request, error: FedWardError) -> ErrorReply:
        if request.superseded_by is not None:
            message = (
                f"It had not ended when the experiment went on to round {request.superseded_by}, and was given up."
            )
            error = FedWardError(message, code=Code.ROUND_SUPERSEDED)
        elif request.stop.is_set():
            error = FedWardError("The experiment was stopped.", code=Code.ROUND_STOPPED)
        self._records[request.node_id] = error.record if isinstance(error, RunnerError) else ""
        return ErrorReply(
            code=error.code,
            message=error.message[:2000],
            experiment_id=request.train.experiment_id,
            round=request.train.round,
            plan_line=getattr(error, "plan_line", None),
        )

    def _train(self, request: _Request) -> TrainReply:
        train, node = request.train, self._nodes[request.node_id]
        times: dict[str, float] = {"queued_s": max(0.0, time.time() - request.envelope.issued_at)}
        job = self._job(request, node)
        began = time.monotonic()
        parameters = self._open_parameters(train, node)
        times["fetch_s"] = time.monotonic() - began
        kept = None
        try:
            kept = self._kept.before(request.owner, train.round)

            def on_progress(progress: Progress) -> None:
                self._tell(request, progress)

            result = self._runner.client().train(job, parameters, on_progress, kept_fd=kept)
        finally:
            os.close(parameters)
            if kept is not None:
                os.close(kept)
        with result:
            self._records[request.node_id] = result.reply.record
            if result.kept_fd is not None:
                self._kept.keep(request.owner, train.round, result.kept_fd)
            return self._reply(request, result, times, job.plan_source)

    def _job(self, request: _Request, node: LocalNode) -> TrainJob:
        train = request.train
        try:
            plan = self._plan(train.plan_sha256).read_bytes().decode()
        except FileNotFoundError:
            raise FedWardError("The training plan's text is not here.", code=Code.PLAN_NOT_APPROVED) from None
        if train.dataset_id != node.info.dataset_id:
            raise FedWardError(f"There is no dataset '{train.dataset_id}' here.", code=Code.DATASET_UNKNOWN)
        arguments = TrainingArguments.parse(train.training_args)
        return TrainJob(
            job_id=request.envelope.jti,
            experiment_id=_seat(train.experiment_id, request.node_id),
            node_id=request.node_id,
            round=train.round,
            dataset=node.source,
            plan_source=plan,
            plan_class=train.plan_class,
            model_args=train.model_args,
            training_args=train.training_args,
            aggregator_args=train.aggregator_args,
            train=train.train,
            use_gpu=arguments.use_gpu,
            limits=_LIMITS.model_copy(update={"processes": arguments.loader_args.num_workers}),
        )

    def _open_parameters(self, train: Train, node: LocalNode) -> int:
        """The global parameters, opened into a sealed memory file; frozen layers that came apart are among them."""
        parameters = self._opened(train.parameters, f"{train.experiment_id}/{train.round}/parameters", node)
        if train.frozen is None:
            return parameters
        try:
            frozen = self._opened(train.frozen, f"{train.experiment_id}/frozen", node)
            try:
                return united(parameters, frozen)
            finally:
                os.close(frozen)
        finally:
            os.close(parameters)

    def _opened(self, file: SealedFile, context: str, node: LocalNode) -> int:
        key = open_key(file.content_key, node.signer.keys.sealing, context=context)
        memory = create_memfd("parameters")
        try:
            with self._sealed(file) as source, os.fdopen(os.dup(memory), "wb") as out:
                unseal(read_chunks(source), key, out)
            return seal_memfd(memory)
        except BaseException:
            os.close(memory)
            raise

    def _sealed(self, file: SealedFile) -> BinaryIO:
        enclosed = file.enclosed()
        return self._files.download(file) if enclosed is None else io.BytesIO(enclosed)

    def _tell(self, request: _Request, progress: Progress) -> None:
        if request.stop.is_set():
            raise FedWardError("The experiment was stopped.", code=Code.ROUND_STOPPED)  # which ends the training
        reached = progress.model_dump(exclude={"job_id", "kind"})
        reached["values"] = _rounded(progress.values)
        train = request.train
        body = Scalar(experiment_id=train.experiment_id, round=train.round, **reached)
        self._send(request.node_id, request.envelope.sender, body, request.envelope.jti)

    def _reply(self, request: _Request, result: TrainedResult, times: Mapping[str, float], plan: str) -> TrainReply:
        train, trained = request.train, result.reply
        reached = trained.reached
        began = time.monotonic()
        update = None if result.update_fd is None else self._seal_update(request, result.update_fd)
        check_s = time.monotonic() - began
        return TrainReply(
            experiment_id=train.experiment_id,
            round=train.round,
            dataset_id=train.dataset_id,
            update=update,
            sample_count=trained.sample_count,
            metrics=tuple(_permitted(found, plan) for found in trained.metrics),
            timing=Timing(**times, **trained.timing.model_dump(), check_s=check_s),
            reached=reached and reached.model_copy(update={"values": _rounded(reached.values)}),
            learning_rates=None if trained.learning_rates is None else rounded(trained.learning_rates),
            is_optimizer_new=trained.is_optimizer_new,
        )

    def _seal_update(self, request: _Request, update_fd: int) -> SealedFile:
        train, content, upload_id = request.train, None, None
        with open(f"/proc/self/fd/{update_fd}", "rb", buffering=0) as plain:  # noqa: PTH123 - a name, not a path
            if sealed_size(require_sealed(update_fd)) <= MAX_ENCLOSED_BYTES:
                memory = io.BytesIO()
                sealed = seal(plain, memory)
                content = b64url(memory.getvalue())
            else:
                upload_id = str(uuid.uuid4())
                with self._files.open_new(upload_id) as out:
                    sealed = seal(plain, out)
                self._forget_last_update(request, upload_id)
        recipient = self._register.require(request.envelope.sender)
        context = f"{train.experiment_id}/{train.round}/update/{request.node_id}"
        return SealedFile(
            upload_id=upload_id,
            content=content,
            sha256=sealed.sha256,
            size_bytes=sealed.size_bytes,
            content_key=seal_key(sealed.content_key, recipient.sealing, context=context),
        )

    def _forget_last_update(self, request: _Request, upload_id: str) -> None:
        """Delete the update before this one, which was aggregated: the next request came after it."""
        with self._lock:
            last, self._uploads[request.owner] = self._uploads.get(request.owner), upload_id
        if last is not None:
            self._files.delete(last)

    # Sending

    def _send(self, node_id: str, to: str, body: Body, in_reply_to: str) -> None:
        self._publish(self._nodes[node_id].signer.sign(to, body, in_reply_to=in_reply_to))

    def _publish(self, signed: Signed) -> None:
        envelope = signed.envelope
        topic = str(Topic(envelope.to, envelope.sender, envelope.kind))
        self._arrive(Arrived(topic, signed.text.encode()))

    def _plan(self, sha256: str) -> Path:
        return self._plans / f"{sha256}.py"


def _seat(experiment_id: str, node_id: str) -> str:
    """The runner keeps one process for each experiment, and here for each node of it."""
    return hashlib.sha256(f"{experiment_id}/{node_id}".encode()).hexdigest()[:32]


def _permitted(test: Metrics, plan: str) -> Metrics:
    """A test's numbers as they may leave a hospital; raises FedWardError for what may not."""
    if (name := strange_name(test.values | test.counts, plan)) is not None:
        message = f"The metric '{name}' is no word of the plan's text, and so no hospital would let it leave."
        raise UpdateRefusedError(message)
    return test.model_copy(update={"values": bounded(test.values, plan)})


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: rounded(value) for name, value in values.items()}

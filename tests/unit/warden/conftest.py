"""A node without its wires: a real store, real keys and real signatures; the line, the files and the runner are fakes.

The fakes keep the contracts of what they stand for: a file is there whole or not at all, tensors come and go as sealed
memory files, a stopped experiment's training ends with a RunnerError.
"""

# ruff: noqa: D102 - the fakes' methods are described by what they stand for
from __future__ import annotations

import hashlib
import io
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import sqlalchemy as sa

from appliance.protocol.envelope import Clock, Envelope, Signed, Signer, open_envelope
from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.keys import b64url
from appliance.protocol.local.jobs import (
    SANDBOX_LEVELS,
    Ended,
    Failed,
    Gpu,
    HelloReply,
    InspectJob,
    Progress,
    RoundTiming,
    SandboxLevel,
    Trained,
    TrainJob,
)
from appliance.protocol.local.kept import KeptTensors
from appliance.protocol.local.runner_client import RunnerError, TrainedResult
from appliance.protocol.local.sealed import require_sealed, sealed_memfd
from appliance.protocol.messages import (
    CARD_FILE,
    CARD_TEXT,
    MAX_ENCLOSED_BYTES,
    MODEL_FILE,
    RELEASE_FILES,
    Body,
    Metrics,
    PlanApproval,
    Reached,
    Receipt,
    Release,
    SealedFile,
    Train,
)
from appliance.protocol.sealing import open_key, read_chunks, seal, seal_key, unseal
from appliance.protocol.tensors import TensorFile, tensor_bytes
from appliance.protocol.topics import Topic
from appliance.transport.mailbox import Mailbox
from appliance.transport.mqtt import Arrived
from appliance.transport.rest import TransferStoppedError
from appliance.warden.approval import PlanBook
from appliance.warden.audit import AuditLog, audit_lines
from appliance.warden.datasets import DatasetBook, DatasetSpec
from appliance.warden.desk import Desk
from appliance.warden.egress import EgressLog
from appliance.warden.governance import Governance, Staff
from appliance.warden.history import MODELS_FOLDER
from appliance.warden.live import LiveRound
from appliance.warden.models import ModelShelf
from appliance.warden.policy import Policy
from appliance.warden.queue import RoundQueue
from appliance.warden.round import OnStep, Round
from appliance.warden.services import Services
from appliance.warden.store import Store, metadata, rounds, rows
from tests.conftest import Members

PLAN = 'class Plan:\n    def testing_step(self):\n        return {"auc": 0.5}\n'
PLAN_SHA = hashlib.sha256(PLAN.encode()).hexdigest()
COLUMNS = [{"name": "age", "type": "number"}, {"name": "outcome", "type": "integer"}]
STAFF = Staff(name="Dr. Weiss", via="cli")
WAIT_S = 20.0
MEMORY_BYTES = 412_300_000  # of every training


@dataclass
class OffsetClock:
    """The machine's clock, which a test may set forward."""

    ahead_s: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


class FakeRest:
    """The network host's files: whole or absent, each for its recipients only."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.recipients: dict[str, list[str]] = {}
        self.faults: list[FedWardError] = []
        self.on_upload: Callable[[], None] = lambda: None

    def put(self, content: bytes) -> str:
        upload_id = str(uuid.uuid4())
        self.files[upload_id] = content
        return upload_id

    def upload(
        self,
        source: Path,
        *,
        upload_id: str,
        sha256: str,
        recipients: list[str],
        purpose: str,
        experiment_id: str,
        stop: threading.Event,
    ) -> None:
        self.on_upload()
        self._pass(stop)
        content = source.read_bytes()
        assert hashlib.sha256(content).hexdigest() == sha256
        self.files[upload_id], self.recipients[upload_id] = content, recipients

    def download(self, sealed: SealedFile, *, stop: threading.Event) -> BinaryIO:
        self._pass(stop)
        content = self.files[sealed.upload_id]
        assert hashlib.sha256(content).hexdigest() == sealed.sha256
        return io.BytesIO(content)

    def _pass(self, stop: threading.Event) -> None:
        if stop.is_set():
            raise TransferStoppedError
        if self.faults:
            raise self.faults.pop(0)


Training = Callable[[TrainJob, dict[str, np.ndarray]], "Outcome"]


@dataclass
class Outcome:
    """What a training left: the update's file, and what is said of it."""

    update: bytes | None
    samples: int = 80
    metrics: tuple[Metrics, ...] = (Metrics(stage="local", samples=20, values={"auc": 0.75}),)
    record: str = "epoch 1 done"
    kept: bytes | None = None


def honest(job: TrainJob, parameters: dict[str, np.ndarray]) -> Outcome:
    """Moves every float by a tenth."""
    update = {k: np.full_like(v, 0.1) if v.dtype.kind == "f" else v for k, v in parameters.items()}
    return Outcome(tensor_bytes(update) if job.train else None)


@dataclass
class FakeRunner:
    """The runner: takes sealed parameters, gives sealed updates, and ends what it is told to end."""

    training: Training = honest
    trained: list[TrainJob] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    reached: Reached | None = None
    report: dict[str, Any] = field(
        default_factory=lambda: {
            "rows": 100,
            "columns": {c["name"]: c["type"] for c in COLUMNS},
            "problems": [],
            "is_usable": True,
            "fingerprint": "a" * 64,
        }
    )
    level: SandboxLevel = SANDBOX_LEVELS["full"]
    gpus: tuple[Gpu, ...] = ()
    is_gone: bool = False
    blocks: bool = False

    def __post_init__(self) -> None:
        self.is_training = threading.Event()
        self.learning_rates: float | None = None
        self.is_optimizer_new: bool | None = None
        self.given: list[dict[str, np.ndarray]] = []  # the parameters, by job
        self.given_back: list[bytes | None] = []  # what the node kept, by job
        self._ends: dict[str, threading.Event] = {}

    def train(
        self, job: TrainJob, params_fd: int, on_progress: Callable[[Progress], None], *, kept_fd: int | None = None
    ) -> TrainedResult:
        self._require_here()
        self.given_back.append(None if kept_fd is None else Path(f"/proc/self/fd/{kept_fd}").read_bytes())
        require_sealed(params_fd)
        file = TensorFile(f"/proc/self/fd/{params_fd}")
        self.trained.append(job)
        for step in self.progress:
            on_progress(step)
        if self.blocks:
            end = self._ends.setdefault(job.experiment_id, threading.Event())
            self.is_training.set()
            assert end.wait(WAIT_S)
            raise failed(Code.ROUND_STOPPED, "The round was stopped.")
        self.given.append(dict(file))
        outcome = self.training(job, dict(file))
        reply = Trained(
            job_id=job.job_id,
            sample_count=outcome.samples,
            metrics=outcome.metrics,
            timing=RoundTiming(start_s=0.1, train_s=0.2),
            reached=self.reached,
            learning_rates=self.learning_rates,
            is_optimizer_new=self.is_optimizer_new,
            record=outcome.record,
            memory_bytes=MEMORY_BYTES,
        )
        update = None if outcome.update is None else sealed_memfd("update", outcome.update)
        return TrainedResult(reply, update, None if outcome.kept is None else sealed_memfd("kept", outcome.kept))

    def hello(self) -> HelloReply:
        self._require_here()
        return HelloReply(pid=1, sandbox=self.level, gpus=self.gpus)

    def inspect(self, job: InspectJob) -> dict[str, Any]:
        self._require_here()
        assert Path(job.dataset.path).is_absolute()
        if job.action == "fingerprint":
            return {"fingerprint": self.report["fingerprint"]}
        return {k: v for k, v in self.report.items() if k != "fingerprint"}

    def stop(self, experiment_id: str) -> Ended:
        self._require_here()
        self.stopped.append(experiment_id)
        end = self._ends.get(experiment_id)
        if end is None:
            return Ended(experiment_id=experiment_id, was_running=False)
        end.set()
        return Ended(experiment_id=experiment_id, was_running=True, ended_at=time.time())

    def _require_here(self) -> None:
        if self.is_gone:
            raise FedWardError("The runner at /srv/node/run/runner.sock went away.", code=Code.RUNNER_UNAVAILABLE)


def failed(code: Code, message: str, **more: Any) -> RunnerError:
    """What RunnerClient raises when the runner answers Failed."""
    return RunnerError(Failed(code=code, message=message, **more))


class Node:
    """The node 'north' with its staff, and everybody who writes to it."""

    def __init__(self, root: Path, members: Members, on_step: OnStep = lambda _jti, _step: None) -> None:
        self.root = root
        self.members = members
        self.clock = OffsetClock()
        self.rest, self.runner = FakeRest(), FakeRunner()
        self.model = {"w": np.zeros((3, 2), np.float32), "steps": np.array(4, np.int64)}
        self.sent: list[tuple[str, str]] = []
        self.store = Store(root / "store")
        self.services = self._services(members)
        self.queue = RoundQueue(self.services, 1, on_step)
        self.models = ModelShelf(self.services, root / MODELS_FOLDER, self.clock)
        self.desk = Desk(self.services, self.queue, self.models)
        self.governance = Governance(self.services, self.queue, self.models)

    def _services(self, members: Members) -> Services:
        for name in ("data", "spool"):
            (self.root / name).mkdir(exist_ok=True)
        signer = Signer("north", members.keys["north"])
        self._register = members.register
        audit, policy = AuditLog(self.clock), Policy(self.store, self.root / "consortium-policy.toml")
        egress = EgressLog(self.clock)

        def publish(topic: str, text: str) -> None:
            egress.count(topic, text)
            self.sent.append((topic, text))

        return Services(
            signer=signer,
            read_register=lambda: self._register,
            store=self.store,
            audit=audit,
            egress=egress,
            policy=policy,
            datasets=DatasetBook((self.root / "data").resolve(), audit, self.clock),
            plans=PlanBook(policy, audit, self.clock),
            mailbox=Mailbox(self.store.engine, signer, lambda: self._register, publish),
            rest=self.rest,  # type: ignore[arg-type] - a fake
            runner=self.runner,  # type: ignore[arg-type] - a fake
            spool=self.root / "spool",
            kept=KeptTensors(self.root / "kept"),
        )

    def close(self) -> None:
        self.queue.close()
        self.models.close()
        self.store.close()

    # What people write to the node

    def sign(self, sender: str, body: Body, *, clock: Clock = time.time, **options: Any) -> Signed:
        return Signer(sender, self.members.keys[sender], clock).sign("north", body, **options)

    def deliver(self, sender: str, body: Body) -> Signed:
        """A message arrives, on the topic that is its own."""
        signed = self.sign(sender, body)
        self.arrive(signed)
        return signed

    def arrive(self, signed: Signed) -> None:
        envelope = signed.envelope
        self.raw(str(Topic("north", envelope.sender, envelope.kind)), signed.text)

    def raw(self, topic: str, text: str | bytes) -> None:
        self.desk.handle(Arrived(topic, text.encode() if isinstance(text, str) else text))

    # What came of it

    def received(self, member: str, kind: type[Body]) -> list[Any]:
        """The bodies of a kind that ``member`` got, checked as that member would."""
        return [e.body for e in self.envelopes(member) if isinstance(e.body, kind)]

    def envelopes(self, member: str) -> list[Envelope]:
        texts = [text for topic, text in self.sent if topic.startswith(f"to/{member}/from/north/")]
        return [open_envelope(text, self.members.register, me=member) for text in texts]

    def receipts(self, member: str) -> list[str]:
        return [body.received for body in self.received(member, Receipt)]

    def settle(self, member: str) -> None:
        """``member`` acknowledges all that it got."""
        for envelope in self.envelopes(member):
            if envelope.body.is_durable:
                self.deliver(member, Receipt(received=envelope.jti))

    def events(self) -> list[str]:
        """The audit log's events, in order."""
        return [line["event"] for line in self.audit()]

    def audit(self) -> list[dict[str, Any]]:
        with self.store.read() as connection:
            return [json.loads(line.text) for line in audit_lines(connection)]

    def table(self, table: sa.Table) -> list[dict[str, Any]]:
        with self.store.read() as connection:
            return rows(connection, sa.select(table))

    def counts(self) -> dict[str, int]:
        """How many rows each table holds."""
        with self.store.read() as connection:
            return {
                table.name: connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
                for table in metadata.sorted_tables
            }

    # How a round comes about

    def add_dataset(self, name: str = "trial", *, researchers: tuple[str, ...] = ("alice",), rows_: int = 100) -> str:
        """A registered dataset; returns its id."""
        (self.root / "data" / f"{name}.csv").write_text("age,outcome\n")
        spec = DatasetSpec(name=name, path=f"{name}.csv", tags=("opt",), researchers=researchers)
        report = {"rows": rows_, "columns": COLUMNS, "fingerprint": "a" * 64}
        with self.store.write() as connection:
            return self.services.datasets.add(connection, "Dr. Weiss", spec, report)

    def add_plan(self, source: str = PLAN, **approval: Any) -> str:
        """An approved plan; returns its hash."""
        sha256 = hashlib.sha256(source.encode()).hexdigest()
        asked = PlanApproval(name="plan", description="", source=source, sha256=sha256)
        options: dict[str, Any] = {"note": "", "until": None, "ranges": None} | approval
        with self.store.write() as connection:
            self.services.plans.request(connection, "alice", asked)
            self.services.plans.approve(connection, "Dr. Weiss", sha256, **options)
        return sha256

    def parameters(self, researcher: str = "alice", experiment: str = "e-1", round_: int = 1) -> SealedFile:
        """Global parameters, sealed to north and uploaded."""
        plain = tensor_bytes(self.model)
        out = io.BytesIO()
        sealed = seal(io.BytesIO(plain), out)
        context = f"{experiment}/{round_}/parameters"
        return SealedFile(
            upload_id=self.rest.put(out.getvalue()),
            sha256=sealed.sha256,
            size_bytes=sealed.size_bytes,
            content_key=seal_key(sealed.content_key, self.members.keys["north"].public.sealing, context=context),
        )

    def layers(self, tensors: dict[str, np.ndarray] | bytes, experiment: str = "e-1") -> SealedFile:
        """Frozen layers, sealed to north for an experiment and uploaded."""
        content = tensors if isinstance(tensors, bytes) else tensor_bytes(tensors)
        return self._sealed(content, f"{experiment}/frozen", uploads=True)

    def train(self, dataset_id: str, **changes: Any) -> Train:
        """A request as an honest researcher writes it."""
        experiment, round_ = changes.get("experiment_id", "e-1"), changes.get("round", 1)
        fields: dict[str, Any] = {
            "experiment_id": experiment,
            "round": round_,
            "round_limit": 20,
            "dataset_id": dataset_id,
            "plan_sha256": PLAN_SHA,
            "plan_class": "Plan",
            "training_args": {"epochs": 1},
        }
        changes.setdefault("parameters", self.parameters(experiment=experiment, round_=round_))
        return Train(**(fields | changes))

    def release(self, *, experiment_id: str = "e-1", uploads: bool = False, **changes: Any) -> Release:
        """A model as an honest researcher sends it, but for other files (bytes) or another sender in ``changes``."""
        model = changes.pop(MODEL_FILE, tensor_bytes(self.model))
        card = {"experiment_id": experiment_id, "researcher": changes.pop("researcher", "alice")}
        card |= {"files_sha256": {MODEL_FILE: hashlib.sha256(model).hexdigest()}, "parameters_after_round": 20}
        card |= {"training_plan": {"class": "Plan", "sha256": PLAN_SHA}} | changes.pop("says", {})
        files = {
            MODEL_FILE: model,
            CARD_FILE: changes.pop(CARD_FILE, json.dumps(card).encode()),
            CARD_TEXT: changes.pop(CARD_TEXT, b"# Bleeding risk\n"),
        }
        place = f"{experiment_id}/release"
        parts = {f: self._sealed(files[name], f"{place}/{name}", uploads) for f, name in RELEASE_FILES.items()}
        return Release(**({"experiment_id": experiment_id, "name": "Bleeding risk"} | parts | changes))

    def _sealed(self, content: bytes, context: str, uploads: bool) -> SealedFile:
        out = io.BytesIO()
        sealed = seal(io.BytesIO(content), out)
        uploads = uploads or sealed.size_bytes > MAX_ENCLOSED_BYTES
        place = {"upload_id": self.rest.put(out.getvalue())} if uploads else {"content": b64url(out.getvalue())}
        key = seal_key(sealed.content_key, self.members.keys["north"].public.sealing, context=context)
        return SealedFile(**place, sha256=sealed.sha256, size_bytes=sealed.size_bytes, content_key=key)

    def answered(self, experiment_id: str = "e-1") -> None:
        """A round of alice's, answered."""
        jti = self.accepted(experiment_id=experiment_id)
        Round(self.services, self.row(jti), threading.Event(), lambda _jti, _step: None, LiveRound("e", 1)).run()

    def accepted(self, **changes: Any) -> str:
        """A round that governance has accepted; returns its jti."""
        dataset_id = self.add_dataset() if not self.table(rounds) else self.table(rounds)[0]["dataset_id"]
        self.add_plan()
        signed = self.deliver("alice", self.train(dataset_id, **changes))
        assert signed.envelope.jti in [row["jti"] for row in self.table(rounds)], self.audit()[-1]
        return signed.envelope.jti

    def row(self, jti: str) -> dict[str, Any]:
        return next(row for row in self.table(rounds) if row["jti"] == jti)

    def round(self, jti: str, *, stop: threading.Event | None = None, on_step: OnStep | None = None) -> Round:
        """The round as a worker would take it up now."""
        row, stop = self.row(jti), stop or threading.Event()
        live = LiveRound(row["experiment_id"], row["round"])
        return Round(self.services, row, stop, on_step or (lambda _jti, _step: None), live)

    def open_update(
        self, sealed: SealedFile, *, member: str = "alice", experiment: str = "e-1", round_: int = 1
    ) -> bytes:
        """The update's plain bytes, as ``member`` opens them; raises SealError for whom they are not."""
        context = f"{experiment}/{round_}/update/north"
        key = open_key(sealed.content_key, self.members.keys[member].sealing, context=context)
        plain = io.BytesIO()
        unseal(read_chunks(io.BytesIO(self.rest.files[sealed.upload_id])), key, plain)
        return plain.getvalue()

    def with_register(self, members: Members) -> None:
        """The operator issued a new register."""
        self._register = members.register


def await_stop() -> None:
    """Return when the Stop that arrived was dealt with."""
    for thread in threading.enumerate():
        if thread.name == "stop":
            thread.join(WAIT_S)


@pytest.fixture(autouse=True)
def uploads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' models are small: without this they would all be enclosed, and no file would ever be transferred."""
    if "encloses" not in request.fixturenames:
        monkeypatch.setattr("appliance.warden.round.MAX_ENCLOSED_BYTES", 0)


@pytest.fixture
def encloses() -> None:
    """Let small files travel inside their messages, as outside the tests."""


@pytest.fixture
def node(tmp_path: Path, members: Members) -> Iterator[Node]:
    """A node that has just been started for the first time; no worker runs."""
    node = Node(tmp_path, members)
    yield node
    node.close()


@pytest.fixture
def staff() -> Staff:
    """Somebody of the hospital."""
    return STAFF


@pytest.fixture
def dataset_id(node: Node) -> str:
    """A dataset that alice may use."""
    return node.add_dataset()

"""A consortium in memory: real keys, register, envelopes, mailboxes and sealed files; only the wires are not.

    consortium = Consortium(tmp_path, nodes=["north", "south"])
    with consortium.federation("alice") as federation:
        ...

A node obeys the protocol as a warden does, but trains by a function that a test may replace. What can go wrong on
the way is a switch: a broker that drops messages, holds them back and hands them over in another order, a node that
is silent, and a parameter store that breaks.
"""

from __future__ import annotations

import hashlib
import io
import queue
import threading
import time
import uuid
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors.numpy import load

from appliance.protocol.counts import Counts
from appliance.protocol.envelope import Envelope, Signer
from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.home import MemberHome
from appliance.protocol.keys import MemberKeys, b64url, write_secret
from appliance.protocol.messages import (
    MODEL_FILE,
    RELEASE_FILES,
    Body,
    DatasetInfo,
    Datasets,
    ErrorReply,
    Heartbeat,
    ListDatasets,
    Metrics,
    ModelKept,
    Ping,
    PlanApproval,
    PlanStanding,
    PlanState,
    PlanStatus,
    Pong,
    Reached,
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
from appliance.protocol.register import CONSORTIUM, Member, Register, Role, sign_register
from appliance.protocol.sealing import open_key, read_chunks, seal, seal_key, unseal
from appliance.protocol.tensors import AGGREGATOR_PREFIX, FROZEN_PREFIX, tensor_bytes
from appliance.protocol.topics import Topic, last_will_topic, parse_topic
from appliance.transport import mailbox
from appliance.transport.mailbox import Mailbox
from appliance.transport.mqtt import Arrived, Event, LinkDown, LinkUp
from appliance.transport.sqlite import durable_engine, writing
from researcher_kit.federation import Federation

Arrays = dict[str, np.ndarray]
Trainer = Callable[["SimulatedNode", Train, Arrays], tuple[Arrays, int]]


class MemoryBroker:
    """Carries messages between links; remembers nothing for those who are away.

    Attributes:
        passed: How many messages of each kind went through.
        requests: The ``jti``-bearing texts of each Train that was published, as often as it was.
    """

    def __init__(self) -> None:
        self.passed: Counter[str] = Counter()
        self.texts: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._links: list[MemoryLink] = []
        self._to_drop: Counter[str] = Counter()
        self._order: list[str] = []
        self._held: dict[str, tuple[str, str]] = {}
        self._is_down = False

    def drop(self, kind: str, times: int) -> None:
        """Lose the next ``times`` messages of a kind."""
        self._to_drop[kind] += times

    def deliver_replies_in(self, order: list[str]) -> None:
        """Hold each round's TrainReplies until all of these nodes have sent theirs, then hand them over in order."""
        self._order = order

    def connect(self, link: MemoryLink) -> None:
        """A member's line stands, unless the broker is down."""
        with self._lock:
            self._links.append(link)
        if not self._is_down:
            link.raise_up()

    def disconnect(self, link: MemoryLink) -> None:
        """A member's line ends."""
        with self._lock:
            self._links = [other for other in self._links if other is not link]

    @contextmanager
    def down(self) -> Iterator[None]:
        """The broker is killed, forgets everything, and starts again at the end."""
        self._is_down = True
        for link in [*self._links]:
            link.fall()
        yield
        self._is_down = False
        for link in [*self._links]:
            link.raise_up()

    def publish(self, topic: str, text: str) -> None:
        """Hand a message to everybody whose topic it is."""
        parsed = parse_topic(topic)
        with self._lock:
            if self._is_down:
                return
            if self._to_drop[parsed.kind] > 0:
                self._to_drop[parsed.kind] -= 1
                return
            self.passed[parsed.kind] += 1
            self.texts.append((topic, text))
            ready = self._in_order(parsed, topic, text)
            links = [*self._links]
        for topic_, text_ in ready:
            to = parse_topic(topic_).to
            for link in links:
                if to == link.member_id or (to == CONSORTIUM and link.hears_presence):
                    link.events.put(Arrived(topic_, text_.encode()))

    def _in_order(self, topic: Topic, name: str, text: str) -> list[tuple[str, str]]:
        if topic.kind != "train-reply" or not self._order:
            return [(name, text)]
        self._held[topic.sender] = (name, text)
        if not set(self._order) <= set(self._held):
            return []
        held, self._held = self._held, {}
        return [held[node] for node in self._order]


@dataclass(eq=False)
class MemoryLink:
    """One member's line to the broker; see ``researcher_kit.wire.Link``."""

    broker: MemoryBroker
    member_id: str
    hears_presence: bool = False
    is_up: bool = False
    events: queue.SimpleQueue[Event | None] = field(default_factory=queue.SimpleQueue)

    def open(self) -> None:
        """Connect."""
        self.broker.connect(self)

    def close(self) -> None:
        """Go."""
        self.is_up = False
        self.broker.disconnect(self)

    def raise_up(self) -> None:
        """The line stands."""
        self.is_up = True
        self.events.put(LinkUp())

    def fall(self) -> None:
        """The line breaks."""
        self.is_up = False
        self.events.put(LinkDown())

    def publish(self, topic: str, text: str) -> None:
        """Hand a message to the broker, if the line stands."""
        assert parse_topic(topic).sender == self.member_id, "the broker's access list forbids it"
        if self.is_up:
            self.broker.publish(topic, text)

    def receive(self, timeout_s: float) -> Iterator[Event]:
        """What happened."""
        with suppress(queue.Empty):
            event = self.events.get(timeout=timeout_s)
            while event is not None:
                yield event
                event = self.events.get_nowait()

    def wake(self) -> None:
        """End a wait."""
        self.events.put(None)


@dataclass
class _Upload:
    owner: str
    recipients: frozenset[str]
    content: bytes


class MemoryStore:
    """The network host's parameter store as a dict, with its access rule: owner and recipients only."""

    def __init__(self) -> None:
        self.uploads: dict[str, _Upload] = {}
        self.uploaded: Counter[str] = Counter()  # by owner
        self.faults: list[FedWardError] = []  # raised by the next downloads
        self.jobs: dict[str, dict[str, Any]] = {}

    def of(self, member_id: str) -> MemoryFiles:
        """The store in a member's name."""
        return MemoryFiles(self, member_id)


@dataclass
class MemoryFiles:
    """See ``researcher_kit.wire.Files``."""

    store: MemoryStore
    member_id: str

    def upload(
        self,
        source: Path | bytes,
        *,
        upload_id: str,
        sha256: str,
        recipients: Any,
        purpose: str,
        experiment_id: str,
        stop: threading.Event | None = None,
    ) -> None:
        """Take a file, whole."""
        content = source if isinstance(source, bytes) else source.read_bytes()
        assert hashlib.sha256(content).hexdigest() == sha256
        self.store.uploads[upload_id] = _Upload(self.member_id, frozenset(recipients), content)
        self.store.uploaded[self.member_id] += 1

    def download(self, sealed: SealedFile, *, stop: threading.Event | None = None) -> BinaryIO:
        """Give a file to whoever may have it."""
        return io.BytesIO(self.read(sealed))

    def read(self, sealed: SealedFile) -> bytes:
        """The bytes of a file that we may have."""
        if (enclosed := sealed.enclosed()) is not None:
            return enclosed
        if self.store.faults:
            raise self.store.faults.pop(0)
        upload = self.store.uploads.get(sealed.upload_id)
        if upload is None or self.member_id not in upload.recipients | {upload.owner}:
            raise FedWardError(f"There is no upload {sealed.upload_id}.", code=Code.TRANSFER_MISSING)
        assert hashlib.sha256(upload.content).hexdigest() == sealed.sha256
        return upload.content

    def close(self) -> None:
        """Nothing to close."""

    def jobs_submit(self, job_id: str, *, federator: str, spec: Any, mandate: str) -> dict[str, Any]:
        """Put a job into a federator's queue."""
        given = {"id": job_id, "owner": self.member_id, "federator": federator, "spec": spec, "mandate": mandate}
        more = {"state": "queued", "progress": None, "outcome": None}
        return self.store.jobs.setdefault(job_id, given | more | self._now("submitted_at", "changed_at"))

    def jobs_list(self, *, state: str | None = None) -> list[dict[str, Any]]:
        """Ours."""
        ours = [job for job in self.store.jobs.values() if self._may_see(job)]
        return [job for job in reversed(ours) if state in (None, job["state"])]

    def jobs_show(self, job_id: str) -> dict[str, Any]:
        """One of ours."""
        job = self.store.jobs.get(job_id)
        if job is None or not self._may_see(job):
            raise FedWardError("There is no such job.", code=Code.JOB_UNKNOWN)
        return dict(job)

    def jobs_cancel(self, job_id: str) -> dict[str, Any]:
        """Take it back."""
        return self._move(job_id, ("queued", "claimed"), state="cancelled")

    def jobs_claim(self) -> dict[str, Any] | None:
        """The oldest that waits."""
        waiting = [job for job in self.store.jobs.values() if job["federator"] == self.member_id]
        first = next((job["id"] for job in waiting if job["state"] == "queued"), None)
        if first is None:
            return None
        self.store.jobs[first]["state"] = "claimed"
        return self.jobs_show(first)

    def jobs_progress(self, job_id: str, progress: Any) -> dict[str, Any]:
        """How far it is."""
        return self._move(job_id, ("claimed", "done", "failed"), progress=progress)

    def jobs_finish(self, job_id: str, outcome: Any) -> dict[str, Any]:
        """It is done."""
        return self._move(job_id, ("claimed", "done"), state="done", outcome=outcome)

    def jobs_fail(self, job_id: str, outcome: Any) -> dict[str, Any]:
        """It could not be done."""
        return self._move(job_id, ("claimed", "failed"), state="failed", outcome=outcome)

    def _may_see(self, job: dict[str, Any]) -> bool:
        return self.member_id == job["owner"] or (self.member_id == job["federator"] and job["state"] != "queued")

    def _move(self, job_id: str, before: tuple[str, ...], **changes: Any) -> dict[str, Any]:
        job = self.jobs_show(job_id)
        if job["state"] not in before:
            raise FedWardError(f"The job is {job['state']}.", code=Code.JOB_STATE)
        self.store.jobs[job_id] = job | changes | self._now("changed_at")
        return self.store.jobs[job_id]

    def _now(self, *names: str) -> dict[str, str]:
        return dict.fromkeys(names, datetime.now(UTC).isoformat())

    def register_besides(self, _sha256: str, **_: object) -> None:
        """The register of a simulated consortium never changes."""

    def delete(self, upload_id: str) -> None:
        """Forget a file of ours."""
        upload = self.store.uploads.pop(upload_id, None)  # one that is gone already is no fault
        assert upload is None or upload.owner == self.member_id


def drift(node: SimulatedNode, train: Train, parameters: Arrays) -> tuple[Arrays, int]:
    """A training that is a pure function of node, round and parameters: pulls towards the node's own point."""
    rng = np.random.default_rng([zlib.crc32(node.member_id.encode()), train.round])
    update = {}
    for name, array in sorted(parameters.items()):
        if array.dtype.kind == "f":
            goal = rng.standard_normal(array.shape).astype(np.float32)
            update[name] = (np.float32(0.3) * (goal - array)).astype(array.dtype)
        else:
            update[name] = array + 1
    return update, 40 + 7 * len(node.member_id)


@dataclass(eq=False)
class SimulatedNode:
    """A hospital's node without a hospital: a thread that answers as a warden does.

    Attributes:
        datasets: What it has.
        standing: Where any plan stands once its text is here.
        train: How it trains; raises FedWardError to fail.
        replies: How often it sends each TrainReply, each time in a new envelope.
        is_silent: It takes requests and never answers them.
        trained: The jti of each Train that it worked on.
        scores: What its test of the global parameters says in each round, by metric.
        counts: What its test says for metrics over all nodes, in each round.
        learning_rates: As in its replies.
        loss: Of the last update of each round.
        sent: The aggregator's tensors of its last round.
        kept: The files of the model that it got last.
        layers: The frozen layers of each request that named a file of them.
    """

    consortium: Consortium
    member_id: str
    datasets: list[DatasetInfo] = field(default_factory=list)
    standing: PlanState = PlanState.APPROVED
    train: Trainer = drift
    replies: int = 1
    plan_line: int | None = None
    is_silent: bool = False
    note: str = ""
    plans: dict[str, str] = field(default_factory=dict)
    trained: list[str] = field(default_factory=list)
    stopped: list[str] = field(default_factory=list)
    scores: Callable[[int], dict[str, float]] | None = None
    counts: Callable[[int], dict[str, Counts]] | None = None
    learning_rates: float | None = None
    loss: Callable[[int], float] = lambda _round: 0.4
    sent: Arrays = field(default_factory=dict)
    takes_no_models: bool = False
    kept: dict[str, bytes] = field(default_factory=dict)
    layers: list[SealedFile] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keys = self.consortium.keys[self.member_id]
        self.signer = Signer(self.member_id, self.keys)
        self.files = self.consortium.store.of(self.member_id)
        self._link = MemoryLink(self.consortium.broker, self.member_id)
        # A file, as outside the tests: threads that share one connection in memory end each other's transactions.
        self._engine = durable_engine(self.consortium.folder / f"{self.member_id}.db")
        mailbox.metadata.create_all(self._engine)
        self._mailbox = Mailbox(self._engine, self.signer, lambda: self.consortium.register, self._link.publish)
        self._is_open = True
        self._thread = threading.Thread(target=self._serve, name=self.member_id)
        self._thread.start()
        self._link.open()

    @property
    def sealing_of(self) -> Callable[[str], str]:
        """The key to seal to, by member."""
        return lambda member_id: self.consortium.register.require(member_id).sealing

    def close(self) -> None:
        """Go."""
        self._is_open = False
        self._link.wake()
        self._thread.join()
        self._link.close()
        self._engine.dispose()

    def beat(self, *, at: float | None = None) -> None:
        """Sign and send a heartbeat."""
        signer = self.signer if at is None else Signer(self.member_id, self.keys, lambda: at)
        signed = signer.sign(CONSORTIUM, Heartbeat(every_s=10.0, running_rounds=0))
        self._link.publish(str(Topic(CONSORTIUM, self.member_id, "heartbeat")), signed.text)

    def leave_a_last_will(self) -> None:
        """What the broker says when the line breaks."""
        self.consortium.broker.publish(last_will_topic(self.member_id), "")

    def send(self, to: str, body: Body, *, in_reply_to: str | None = None) -> str:
        """Send any message, now and until its Receipt if it must arrive; returns its jti."""
        if not body.is_durable:
            return self._mailbox.send_once(to, body, in_reply_to=in_reply_to).envelope.jti
        with writing(self._engine) as connection:
            signed = self._mailbox.post(connection, to, body, in_reply_to=in_reply_to)
        self._mailbox.send(signed)
        return signed.envelope.jti

    @property
    def waiting(self) -> int:
        """How many of its messages wait for their Receipt."""
        return self._mailbox.waiting

    def _serve(self) -> None:
        while self._is_open:
            for event in self._link.receive(self._mailbox.next_due_s()):
                if isinstance(event, LinkUp):
                    self._mailbox.repeat_all()
                elif isinstance(event, Arrived) and (envelope := self._mailbox.open(event)):
                    self._take(envelope)
            self._mailbox.repeat_due()

    def _take(self, envelope: Envelope) -> None:
        if envelope.body.is_durable:
            with writing(self._engine) as connection:
                self._mailbox.accept(connection, envelope)
            self._mailbox.acknowledge(envelope)
        if self.is_silent:
            return
        for answer in self._answers(envelope):
            self.send(envelope.sender, answer, in_reply_to=envelope.jti)

    def _answers(self, envelope: Envelope) -> Iterator[Body]:
        match envelope.body:
            case Ping(sequence=sequence):
                yield Pong(sequence=sequence)
            case Search(tags=tags):
                yield Datasets(datasets=tuple(info for info in self.datasets if set(tags) <= set(info.tags)))
            case ListDatasets():
                yield Datasets(datasets=tuple(self.datasets))
            case PlanApproval(sha256=sha256, source=source):
                self.plans[sha256] = source
                yield PlanStanding(sha256=sha256, state=self.standing, note=self.note)
            case PlanStatus(sha256=sha256):
                state = self.standing if sha256 in self.plans else PlanState.UNKNOWN
                yield PlanStanding(sha256=sha256, state=state, note=self.note)
            case Stop(experiment_id=experiment_id):
                self.stopped.append(experiment_id)
                yield Stopped(experiment_id=experiment_id, was_running=bool(self.trained), ended_at=time.time())
            case Release() as release:
                yield self._keep(release)
            case Train() as train:
                yield from self._round(envelope, train)

    def _round(self, envelope: Envelope, train: Train) -> Iterator[Body]:
        self.trained.append(envelope.jti)
        place = {"experiment_id": train.experiment_id, "round": train.round}
        yield Scalar(**place, iteration=1, iterations=2, epoch=1, values={"loss": 0.5})
        try:
            tensors = self._parameters(train)
            prefixes = (AGGREGATOR_PREFIX, FROZEN_PREFIX)
            self.sent = {name: tensors.pop(name) for name in [*tensors] if name.startswith(prefixes)}
            update, samples = self.train(self, train, tensors)
        except FedWardError as error:
            yield ErrorReply(**place, code=error.code, message=error.message, rule=error.rule, plan_line=self.plan_line)
            return
        sealed = self._upload(envelope.sender, train, update) if train.train else None
        for _ in range(self.replies):
            yield TrainReply(
                **place,
                dataset_id=train.dataset_id,
                update=sealed,
                sample_count=samples,
                metrics=self._tests(train.round),
                learning_rates=self.learning_rates,
                timing=Timing(train_s=0.01),
                reached=Reached(iteration=2, iterations=2, epoch=1, values={"loss": self.loss(train.round)}),
            )

    def _keep(self, release: Release) -> Body:
        if self.takes_no_models:
            return ErrorReply(code=Code.POLICY_REFUSED, message="This node takes no models.")
        place = f"{release.experiment_id}/release"
        self.kept = {n: self._unseal(getattr(release, f), f"{place}/{n}") for f, n in RELEASE_FILES.items()}
        digest = hashlib.sha256(self.kept[MODEL_FILE]).hexdigest()
        return ModelKept(experiment_id=release.experiment_id, model_sha256=digest)

    def _tests(self, round_: int) -> tuple[Metrics, ...]:
        if self.scores is None:
            return ()
        counts = self.counts(round_) if self.counts else {}
        return (Metrics(stage="global", samples=20, values=self.scores(round_), counts=counts),)

    def _parameters(self, train: Train) -> Arrays:
        tensors = load(self._unseal(train.parameters, f"{train.experiment_id}/{train.round}/parameters"))
        if train.frozen is not None:
            self.layers.append(train.frozen)
            layers = load(self._unseal(train.frozen, f"{train.experiment_id}/frozen"))
            tensors |= {f"{FROZEN_PREFIX}{name}": array for name, array in layers.items()}
        return tensors

    def _unseal(self, sealed: SealedFile, context: str) -> bytes:
        key = open_key(sealed.content_key, self.keys.sealing, context=context)
        plain = io.BytesIO()
        unseal(read_chunks(io.BytesIO(self.files.read(sealed))), key, plain)
        return plain.getvalue()

    def _upload(self, researcher: str, train: Train, update: Mapping[str, np.ndarray]) -> SealedFile:
        out = io.BytesIO()
        sealed = seal(io.BytesIO(tensor_bytes(update)), out)
        context = f"{train.experiment_id}/{train.round}/update/{self.member_id}"
        is_enclosed = train.parameters.content is not None
        upload_id = None if is_enclosed else str(uuid.uuid4())
        if upload_id:
            self.files.upload(
                out.getvalue(),
                upload_id=upload_id,
                sha256=sealed.sha256,
                recipients=[researcher],
                purpose="update",
                experiment_id=train.experiment_id,
            )
        return SealedFile(
            upload_id=upload_id,
            content=b64url(out.getvalue()) if is_enclosed else None,
            sha256=sealed.sha256,
            size_bytes=sealed.size_bytes,
            content_key=seal_key(sealed.content_key, self.sealing_of(researcher), context=context),
        )


@dataclass
class MemoryWire:
    """See ``researcher_kit.wire.Wire``."""

    consortium: Consortium

    def link(self, home: MemberHome) -> MemoryLink:
        """A line."""
        return MemoryLink(self.consortium.broker, home.member_id, hears_presence=True)

    def files(self, home: MemberHome, signer: Signer) -> MemoryFiles:
        """The store."""
        return self.consortium.store.of(home.member_id)


class Consortium:
    """Hospitals, researchers and an operator, with one dataset tagged ``demo`` at each hospital.

    Args:
        folder: Where the member folders of researchers and federators are made.
    """

    def __init__(
        self,
        folder: Path,
        *,
        nodes: tuple[str, ...] = ("north", "south", "west"),
        researchers: tuple[str, ...] = ("alice",),
        federators: tuple[str, ...] = ("fed",),
    ) -> None:
        self.folder = folder
        self.operator = MemberKeys.generate()
        roles = dict.fromkeys(nodes, Role.NODE) | dict.fromkeys(researchers, Role.RESEARCHER)
        roles |= dict.fromkeys(federators, Role.FEDERATOR)
        self.keys = {member: MemberKeys.generate() for member in roles}
        self.register = Register(
            consortium="Test",
            version=1,
            issued_at=int(time.time()),
            members=tuple(self._member(member, role) for member, role in roles.items()),
        )
        for member in (*researchers, *federators):
            self._make_home(member)
        self.broker, self.store = MemoryBroker(), MemoryStore()
        self.nodes = {node: SimulatedNode(self, node, [dataset(node)]) for node in nodes}

    def federation(self, researcher: str = "alice", *, store: Path | None = None) -> Federation:
        """A new connection, as another process of that researcher, or of a federator, would open it."""
        return Federation(self.folder / researcher, wire=MemoryWire(self), store=store)

    def close(self) -> None:
        """End the nodes."""
        for node in self.nodes.values():
            node.close()

    def _member(self, member: str, role: Role) -> Member:
        public = self.keys[member].public
        institution = f"{member.title()} Hospital" if role is Role.NODE else "University"
        contact = f"it@{member}.example"
        return Member(
            id=member, role=role, institution=institution, contact=contact,
            identity=public.identity, sealing=public.sealing,
        )  # fmt: skip

    def _make_home(self, member: str) -> None:
        home = self.folder / member
        self.keys[member].save(home / "keys")
        (home / "tls").mkdir()
        write_secret(home / "tls/key.pem", b"not used in memory")
        (home / "register.jws").write_text(sign_register(self.register, self.operator))
        (home / "member.toml").write_text(
            f'id = "{member}"\noperator = "{self.operator.public.identity}"\n'
            '[[endpoints]]\nbroker_host = "memory"\nbroker_port = 1\nrest_url = "https://memory"\n'
        )


def dataset(node: str, name: str = "cohort", *, tags: tuple[str, ...] = ("demo",)) -> DatasetInfo:
    """A dataset as a permitted researcher sees it."""
    return DatasetInfo(
        dataset_id=f"{node}-{name}", name=name, kind="tabular", description="", tags=tags, rows=100,
        columns=(), fingerprint=hashlib.sha256(name.encode()).hexdigest(),
    )  # fmt: skip

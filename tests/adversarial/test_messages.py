"""Members who lie, strangers with a valid certificate, and members who were expelled, at the real broker and host.

Each is refused, and the refusal is written down; afterwards alice's round completes. Beside each refusal stands what
shows that it is one: the same thing, done by whom it belongs to, succeeds.
"""

from __future__ import annotations

import hashlib
import secrets
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from appliance.embedded.consortium import NETWORK, OPERATOR
from appliance.enrolment.authority import Authority
from appliance.enrolment.joining import admit, complete, prepare
from appliance.enrolment.register_book import RegisterBook
from appliance.protocol.envelope import MAX_ENVELOPE_BYTES, MESSAGE_TYPE, Signer
from appliance.protocol.errors import Code
from appliance.protocol.files import replace_file
from appliance.protocol.home import MemberHome
from appliance.protocol.jose import sign_text
from appliance.protocol.keys import MemberKeys, unb64url
from appliance.protocol.messages import (
    Datasets,
    ErrorReply,
    ListDatasets,
    Ping,
    PlanApproval,
    PlanStanding,
    PlanStatus,
    Pong,
    Scalar,
    SealedFile,
    Search,
    Stop,
    Stopped,
    Train,
)
from appliance.protocol.register import Register, Role, key_id
from appliance.protocol.sealing import seal_key
from appliance.transport.rest import RefusedError, RestClient
from appliance.transport.sqlite import reading_engine
from researcher_kit.monitor import NodeReceived
from tests.adversarial.post import Person, Post
from tests.hospitals import PLAN, AuditTail, Hospitals, training_args
from tests.integration.network.hosts import fetch, wait_until

PLAN_SHA256 = hashlib.sha256(PLAN.read_bytes()).hexdigest()
MakePerson = Callable[[str], Person]


@pytest.fixture
def register(hospitals: Hospitals) -> Register:
    """Everybody's keys."""
    return MemberHome(hospitals.home("north")).register()


@pytest.fixture
def person(hospitals: Hospitals, register: Register) -> Iterator[MakePerson]:
    """Connects people; all leave at the end."""
    people: list[Person] = []

    def connect(name: str) -> Person:
        people.append(Person(MemberHome(hospitals.home(name)), register))
        return people[-1]

    yield connect
    for one in people:
        one.close()


@pytest.fixture
def alice(person: MakePerson) -> Person:
    """The researcher whom both hospitals permit."""
    return person("alice")


@pytest.fixture
def mallory(person: MakePerson) -> Person:
    """A researcher whom nobody permits."""
    return person("mallory")


@pytest.fixture
def eve(hospitals: Hospitals, person: MakePerson) -> Person:
    """A stranger: the authority gave her a certificate, the operator's register does not list her."""
    home = hospitals.home("eve")
    if not home.exists():
        root = hospitals.consortium.root
        request = prepare(home, "eve", role=Role.RESEARCHER, institution="Nowhere", contact="eve@example.org")
        operator = MemberKeys.load(hospitals.home(OPERATOR) / "keys")
        (root / "aside").mkdir()
        (root / "aside/register.jws").write_text((root / "authority/register.jws").read_text())
        aside = RegisterBook(root / "aside/register.jws", operator, consortium="Embedded consortium")
        authority = Authority.open(root / "authority", "Embedded consortium")
        complete(home, admit(request, authority, aside, endpoints=[hospitals.consortium.endpoint]))
    return person("eve")


@pytest.fixture
def north(hospitals: Hospitals) -> AuditTail:
    """What north's audit log says from here on."""
    return hospitals.since("north")


@pytest.fixture(autouse=True)
def nothing_else_is_disturbed(hospitals: Hospitals) -> Iterator[None]:
    """Whatever was tried, alice's next round completes at both hospitals, and both logs are whole."""
    yield
    with hospitals.federation() as federation:
        experiment = hospitals.experiment(federation, round_limit=1)
        experiment.run()
    assert {reply.node_id for reply in experiment.history[0].replies} == {"north", "south"}


def _dataset(hospitals: Hospitals, node: str = "north") -> str:
    return str(hospitals.history(node).dataset("cells")["id"])


def _train(hospitals: Hospitals, register: Register, **changes: Any) -> Train:
    """A request whose terms are right; its parameters do not exist, so that what is accepted fails at the fetch."""
    known: dict[str, Any] = {
        "experiment_id": f"exp-{secrets.token_hex(6)}",
        "round": 1,
        "round_limit": 1,
        "dataset_id": _dataset(hospitals),
        "plan_sha256": PLAN_SHA256,
        "plan_class": "WidePlan",
        "model_args": {"width": 8},
        "training_args": training_args(),
        "parameters": SealedFile(
            upload_id=str(uuid.uuid4()), sha256="0" * 64, size_bytes=1, content_key=_key(register, "north")
        ),
    }
    return Train(**(known | changes))


def _key(register: Register, member: str) -> str:
    return seal_key(b"k" * 32, register.require(member).sealing, context="nothing")


def _rounds(hospitals: Hospitals, node: str = "north") -> int:
    return len(hospitals.history(node).rounds())


# On another's topic, in another's name, in another's inbox


def test_nobody_publishes_on_anothers_topic(hospitals: Hospitals, alice: Person, mallory: Person) -> None:
    """The broker drops it, so that not even a forged sender's name reaches a hospital."""
    with_norths_eyes = Post(alice.endpoint, MemberHome(hospitals.home("north")).tls)
    with_norths_eyes.subscribe("to/north/from/+/+")
    topic = "to/north/from/alice/ping"

    assert mallory.post.publish(topic, b"from mallory") == "Not authorized"
    assert alice.post.publish(topic, b"from alice") == "Success"

    first = with_norths_eyes.hear(lambda arrived: arrived.topic == topic)
    with_norths_eyes.close()
    assert first.payload == b"from alice"


@pytest.mark.parametrize("key", ["her own", "alice's"])
def test_nobody_speaks_as_another(key: str, register: Register, mallory: Person, north: AuditTail) -> None:
    """A signature is by one key: with another's name over it, it is worth nothing."""
    named = register.require("alice").kid if key == "alice's" else key_id("alice", mallory.keys.public.identity)
    payload = mallory.forged("north", Ping(sequence=1)).split(".")[1]
    forged = sign_text(unb64url(payload).decode(), mallory.keys, typ=MESSAGE_TYPE, kid=named)
    mallory.send("north", "ping", forged)
    line = north.wait_for("message.refused")

    assert line["details"]["code"] == (Code.MESSAGE_UNSIGNED if key == "alice's" else Code.SENDER_UNKNOWN)
    assert "alice" in line["details"]["reason"]
    assert isinstance(mallory.ask("north", Ping(sequence=2)).body, Pong)


def test_nobody_hears_what_is_for_another(alice: Person, mallory: Person) -> None:
    """The broker grants every subscription and delivers by the access list alone."""
    mallory.post.subscribe("to/north/from/+/+", "to/alice/from/+/+", "to/+/from/+/+", "#", "$SYS/#")
    assert isinstance(alice.ask("north", Ping(sequence=1)).body, Pong)
    assert isinstance(mallory.ask("north", Ping(sequence=2)).body, Pong)

    recipients = {arrived.topic.split("/")[1] for arrived in mallory.post.heard}
    assert recipients <= {"mallory", "consortium"}


# Another's session


def test_a_guessed_client_id_ends_nobodys_session(hospitals: Hospitals, alice: Person, mallory: Person) -> None:
    """Two connections with one client id: the broker ends the older one. So ids are secret, and hard to guess."""
    secret = _client_id(hospitals)
    guesses = ["north", "mallory", "fedward-north", "0" * 32, secret[:-1] + ("0" if secret[-1] != "0" else "1")]
    for guess in guesses:
        Post(mallory.endpoint, mallory.home.tls, guess, keeps=True).close()

    assert len(secret) == 32
    assert not _was_taken_over(hospitals, secret)
    assert isinstance(alice.ask("north", Ping(sequence=1)).body, Pong)


def test_a_known_client_id_brings_nothing_but_a_short_break(
    hospitals: Hospitals, alice: Person, mallory: Person
) -> None:
    """Should the secret ever leak: the thief hears nothing of what is for north, and north comes back by itself."""
    thief = Post(mallory.endpoint, mallory.home.tls, _client_id(hospitals), keeps=True)
    assert alice.send("north", "ping", alice.signer.sign("north", Ping(sequence=1)).text) == "Success"
    assert thief.was_cut.wait(20), "north takes its session back"
    thief.close()

    assert _was_taken_over(hospitals, _client_id(hospitals))
    assert thief.heard == []
    wait_until(lambda: _answers(alice))


def test_mallory_can_end_only_her_own_session(alice: Person, mallory: Person) -> None:
    """Her own client id twice ends her own first connection, and no one else's."""
    mine = secrets.token_hex(16)
    first = Post(mallory.endpoint, mallory.home.tls, mine)
    second = Post(mallory.endpoint, mallory.home.tls, mine)

    assert first.was_cut.wait(20)
    assert not alice.post.was_cut.is_set()
    assert isinstance(alice.ask("north", Ping(sequence=1)).body, Pong)
    for post in (first, second):
        post.close()


# Replays


@pytest.fixture
def captured(hospitals: Hospitals, alice: Person) -> dict[str, str]:
    """Alice's own texts by kind, word for word, as a curious post office sees them."""
    spy = Post(alice.endpoint, MemberHome(hospitals.home("north")).tls)
    spy.subscribe("to/north/from/alice/+")
    with hospitals.federation() as federation:
        experiment = hospitals.experiment(federation, round_limit=1)
        experiment.request_approval("Once more.")
        experiment.run()
        experiment.stop()
    texts = {kind: spy.hear(_of(kind)).payload.decode() for kind in ("plan-approval", "train", "stop")}
    spy.close()
    return texts


@pytest.mark.parametrize("kind", ["train", "stop", "plan-approval"])
def test_what_alice_said_cannot_be_said_again_by_another(
    kind: str, captured: dict[str, str], mallory: Person, north: AuditTail
) -> None:
    """Her signature is real; the topic says who carries it, and that is not she."""
    mallory.send("north", kind, captured[kind])
    line = north.wait_for("message.refused", code=Code.MESSAGE_MISADDRESSED)

    assert line["subject"] == f"to/north/from/mallory/{kind}"


@pytest.mark.parametrize("kind", ["train", "stop", "plan-approval"])
def test_what_alice_said_acts_once(kind: str, captured: dict[str, str], hospitals: Hospitals, alice: Person) -> None:
    """A post office that repeats itself is answered with a Receipt, and nothing is done twice."""
    before, lines = _rounds(hospitals), len(hospitals.audit("north"))
    alice.post.heard.clear()
    alice.send("north", kind, captured[kind])
    alice.post.hear(_of("receipt"))

    assert _rounds(hospitals) == before
    assert len(hospitals.audit("north")) == lines
    assert {arrived.topic for arrived in alice.post.heard} == {"to/alice/from/north/receipt"}


# Messages that are not as they must be: alice's own, so that nothing but the one fault stands in their way


def _nested(alice: Person) -> str:
    return alice.signed('{"body":' + "[" * 150_000 + "]" * 150_000 + "}")


_FAULTS: dict[str, tuple[Code, Callable[[Person], str | bytes]]] = {
    "expired": (Code.MESSAGE_EXPIRED, lambda a: a.forged("south", Ping(sequence=1), **_at(-3600))),
    "from the future": (Code.CLOCK_WRONG, lambda a: a.forged("south", Ping(sequence=1), **_at(3600))),
    "for north": (Code.MESSAGE_MISADDRESSED, lambda a: a.signer.sign("north", Ping(sequence=1)).text),
    "of another kind": (Code.MESSAGE_MISADDRESSED, lambda a: a.signer.sign("south", ListDatasets()).text),
    "oversized": (Code.MESSAGE_TOO_LARGE, lambda a: a.signed('"' + "x" * MAX_ENVELOPE_BYTES + '"')),
    "unsigned": (Code.MESSAGE_MALFORMED, lambda a: b'{"v":"1.0","to":"south","kind":"ping","body":{"sequence":1}}'),
    "without a signature": (Code.MESSAGE_UNSIGNED, lambda a: _ping(a).rpartition(".")[0] + "."),
    "wrongly signed": (Code.MESSAGE_UNSIGNED, lambda a: _ping(a).rpartition(".")[0] + "." + "A" * 86),
    "altered": (Code.MESSAGE_UNSIGNED, lambda a: _altered(_ping(a))),
    "no JSON": (Code.MESSAGE_MALFORMED, lambda a: a.signed('{"v": "1.0", "to"')),
    "no object": (Code.MESSAGE_MALFORMED, lambda a: a.signed("[]")),
    "nested deeply": (Code.MESSAGE_MALFORMED, _nested),
    "no number": (Code.MESSAGE_MALFORMED, lambda a: a.signed('{"v": NaN}')),
    "bytes": (Code.MESSAGE_MALFORMED, lambda a: b"\xff\xfe\x00\n"),
    "empty": (Code.MESSAGE_MALFORMED, lambda a: b""),
    "an unknown claim": (Code.MESSAGE_MALFORMED, lambda a: a.forged("south", Ping(sequence=1), urgent=True)),
    "of another major version": (Code.MESSAGE_VERSION, lambda a: a.forged("south", Ping(sequence=1), v="2.0")),
}  # fmt: skip


@pytest.mark.parametrize("fault", _FAULTS)
def test_a_message_is_refused_that_is(fault: str, hospitals: Hospitals, alice: Person) -> None:
    """Refused with its reason, unanswered; the next message, without the fault, is answered."""
    code, make = _FAULTS[fault]
    south = hospitals.since("south")  # each hospital writes down so many refusals a minute, and counts the others
    alice.send("south", "ping", make(alice))
    alice.ask("south", Ping(sequence=7))

    (line,) = south.lines("message.refused")
    assert (line["details"]["code"], line["subject"]) == (code, "to/south/from/alice/ping")
    assert len(line["details"]["reason"]) < 300
    pongs = [arrived for arrived in alice.post.heard if arrived.topic.endswith("/pong")]
    assert len(pongs) == 1


def _ping(person: Person) -> str:
    return person.signer.sign("south", Ping(sequence=1)).text


def _altered(text: str) -> str:
    header, payload, signature = text.split(".")
    place = len(payload) // 2
    other = "A" if payload[place] != "A" else "B"
    return f"{header}.{payload[:place]}{other}{payload[place + 1 :]}.{signature}"


def _at(seconds: int) -> dict[str, object]:
    then = int(time.time()) + seconds
    return {"iat": then, "exp": then + 60}


# What mallory may not have


def test_a_dataset_of_someone_elses_is_unknown(
    hospitals: Hospitals, register: Register, alice: Person, mallory: Person, north: AuditTail
) -> None:
    """Whether it exists is nobody's business but that of those permitted."""
    before = _rounds(hospitals)
    answer = mallory.ask("north", _train(hospitals, register)).body
    invented = mallory.ask("north", _train(hospitals, register, dataset_id="no-such-thing")).body

    assert isinstance(answer, ErrorReply)
    assert isinstance(invented, ErrorReply)
    assert answer.code is Code.DATASET_UNKNOWN
    assert answer.message.replace(_dataset(hospitals), "X") == invented.message.replace("no-such-thing", "X")
    assert north.wait_for("round.refused", code=Code.DATASET_UNKNOWN)["actor"] == "mallory"
    assert _rounds(hospitals) == before
    accepted = alice.ask("north", _train(hospitals, register)).body  # asked by her, it is tried
    assert isinstance(accepted, ErrorReply)
    assert accepted.code is not Code.DATASET_UNKNOWN
    assert _rounds(hospitals) == before + 1


def test_another_hospitals_dataset_is_unknown(hospitals: Hospitals, register: Register, alice: Person) -> None:
    """A request that was made out to the wrong hospital trains nothing there."""
    answer = alice.ask("north", _train(hospitals, register, dataset_id=_dataset(hospitals, "south"))).body

    assert isinstance(answer, ErrorReply)
    assert answer.code is Code.DATASET_UNKNOWN


def test_mallory_sees_no_dataset(alice: Person, mallory: Person) -> None:
    """Only a dataset's policy makes it visible."""
    for question in (Search(tags=("cells",)), ListDatasets()):
        hers, his = alice.ask("north", question).body, mallory.ask("north", question).body
        assert isinstance(hers, Datasets)
        assert isinstance(his, Datasets)
        assert len(hers.datasets) >= 1
        assert his.datasets == ()


def test_mallory_does_not_stop_alices_experiment(hospitals: Hospitals, mallory: Person, north: AuditTail) -> None:
    """An experiment's id is no secret; who may end it is a matter of signatures."""
    answers: list[Any] = []
    with hospitals.federation() as federation:
        arguments = training_args(3)
        experiment = hospitals.experiment(
            federation, model_args={"width": 8, "pause_s": 0.3}, training_args=arguments, round_limit=1
        )

        def try_it(event: object) -> None:
            if isinstance(event, NodeReceived) and event.node_id == "north":
                answers.append(mallory.ask("north", Stop(experiment_id=experiment.id)).body)

        experiment.on_event(try_it)
        experiment.run()
        stopped = experiment.stop()

    assert [answer.code for answer in answers] == [Code.PERMISSION_DENIED]
    line = north.wait_for("stop.refused", code=Code.PERMISSION_DENIED)
    assert (line["actor"], line["subject"]) == ("mallory", experiment.id)
    assert [entry["step"] for entry in hospitals.history("north").rounds(experiment.id)] == ["replied"]
    assert stopped.answers.keys() == {"north", "south"}  # by alice herself


def test_a_researcher_lifts_no_pause(hospitals: Hospitals, register: Register, alice: Person, north: AuditTail) -> None:
    """Not by asking again, not by a Stop before it, and not by a message that nobody else has thought of."""
    with hospitals.federation() as federation:
        experiment = hospitals.experiment(federation, round_limit=3)
        experiment.run_once()
    staff = hospitals.staff("north")
    staff.call("experiment.pause", experiment=experiment.id)
    try:
        alice.send("north", "resume", alice.forged("north", Ping(sequence=1), kind="resume"))
        refused = north.wait_for("message.refused", code=Code.MESSAGE_MALFORMED)
        stopped = alice.ask("north", Stop(experiment_id=experiment.id)).body
        again = _train(hospitals, register, experiment_id=experiment.id, round=2, round_limit=3)
        told = alice.ask("north", again).body
        held = hospitals.history("north").experiment(experiment.id)
    finally:
        staff.call("experiment.stop", experiment=experiment.id)
        staff.call("experiment.resume", experiment=experiment.id)

    assert "resume" in refused["details"]["reason"]
    assert isinstance(stopped, Stopped)
    assert isinstance(told, Scalar)
    assert told.paused_since is not None
    assert (held["round"], held["step"], held["paused_by"]) == (2, "accepted", "nurse")


def test_mallory_takes_no_part_in_alices_experiment(
    hospitals: Hospitals, register: Register, alice: Person, mallory: Person
) -> None:
    """Permitted or not, nobody trains on in another's warm process under another's id."""
    first = _train(hospitals, register)
    alice.ask("north", first)
    hospitals.staff("north").call("dataset.permit", dataset="cells", researcher="mallory")
    try:
        answer = mallory.ask("north", first.model_copy(update={"round": 2})).body
    finally:
        hospitals.staff("north").call("dataset.forbid", dataset="cells", researcher="mallory")

    assert isinstance(answer, ErrorReply)
    assert answer.code is Code.ROUND_REFUSED


# Plans


def test_a_plan_whose_text_is_not_its_hashs_is_refused(alice: Person, north: AuditTail) -> None:
    """Staff would read one text and approve another's hash."""
    text = PLAN.read_text() + f"# {secrets.token_hex(8)}\n"
    body = PlanApproval(name="wide", description="", source=text, sha256=PLAN_SHA256)
    answer = alice.ask("north", body).body
    honest = body.model_copy(update={"sha256": hashlib.sha256(text.encode()).hexdigest()})

    assert isinstance(answer, ErrorReply)
    assert answer.code is Code.PLAN_INVALID
    assert north.wait_for("plan.refused", code=Code.PLAN_INVALID)["subject"] == PLAN_SHA256
    assert isinstance(alice.ask("north", honest).body, PlanStanding)


def test_an_unknown_plan_does_not_run(
    hospitals: Hospitals, register: Register, alice: Person, north: AuditTail
) -> None:
    """A text that nobody here has read."""
    answer = alice.ask("north", _train(hospitals, register, plan_sha256="1" * 64)).body

    assert isinstance(answer, ErrorReply)
    assert answer.code is Code.PLAN_UNKNOWN
    assert north.wait_for("round.refused", code=Code.PLAN_UNKNOWN)["actor"] == "alice"


def test_a_plan_that_waits_for_review_does_not_run(
    hospitals: Hospitals, register: Register, alice: Person, north: AuditTail
) -> None:
    """To ask is not to be allowed."""
    text = PLAN.read_text() + f"# {secrets.token_hex(8)}\n"
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    alice.ask("north", PlanApproval(name="other", description="", source=text, sha256=sha256))
    answer = alice.ask("north", _train(hospitals, register, plan_sha256=sha256)).body

    assert isinstance(answer, ErrorReply)
    assert answer.code is Code.PLAN_NOT_APPROVED
    north.wait_for("round.refused", code=Code.PLAN_NOT_APPROVED)


def test_arguments_outside_the_approved_range_do_not_run(
    hospitals: Hospitals, register: Register, alice: Person, north: AuditTail
) -> None:
    """The approval covers a text and how it may be used."""
    ranges = [{"name": "optimizer_args.lr", "maximum": 0.1}, {"name": "model_args.width", "maximum": 16}]
    hospitals.staff("north").call("plan.approve", plan=PLAN_SHA256, ranges=ranges)
    try:
        for change in (
            {"training_args": training_args() | {"optimizer_args": {"lr": 0.2}}},
            {"training_args": {"num_updates": 1}},
            {"model_args": {"width": 17}},
        ):
            answer = alice.ask("north", _train(hospitals, register, **change)).body
            assert isinstance(answer, ErrorReply)
            assert answer.code is Code.ARGUMENT_OUT_OF_RANGE
            assert answer.rule
            assert "set by the plan's approval" in answer.rule
        inside = alice.ask("north", _train(hospitals, register)).body
    finally:
        hospitals.staff("north").call("plan.approve", plan=PLAN_SHA256, ranges=[])

    assert isinstance(inside, ErrorReply)
    assert inside.code is not Code.ARGUMENT_OUT_OF_RANGE
    assert len(north.lines("round.refused")) == 3


# Files at the network host


@pytest.fixture
def upload(hospitals: Hospitals, tmp_path: Path) -> SealedFile:
    """A file of alice's for north."""
    content = secrets.token_bytes(2000)
    file = SealedFile(
        upload_id=str(uuid.uuid4()),
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        content_key="AAAA",
    )
    client = _rest(hospitals, "alice")
    assert file.upload_id
    client.upload(
        content,
        upload_id=file.upload_id,
        sha256=file.sha256,
        recipients=["north"],
        purpose="parameters",
        experiment_id="mine",
    )
    client.close()
    return file


def _rest(hospitals: Hospitals, certificate: str, token: Person | None = None) -> RestClient:
    """A line with one member's certificate, and the tokens of another if given."""
    home = MemberHome(hospitals.home(certificate))
    signer = token.signer if token else Signer(home.member_id, home.keys())
    return RestClient(home.settings.endpoints[0].rest_url, home.tls, signer, give_up_s=10)


def test_mallory_cannot_fetch_alices_files(
    hospitals: Hospitals, upload: SealedFile, mallory: Person, tmp_path: Path
) -> None:
    """Whom a file is for was said by its owner; to others it is not there."""
    for name, person_ in (("mallory", None), ("north", mallory)):  # nor with north's certificate and her own token
        client = _rest(hospitals, name, person_)
        with pytest.raises(RefusedError) as refusal:
            fetch(client, upload, tmp_path / "stolen")
        client.close()
        assert refusal.value.code is Code.TRANSFER_MISSING
    client = _rest(hospitals, "north")
    fetch(client, upload, tmp_path / "mine")
    client.close()

    assert not (tmp_path / "stolen").exists()
    lines = [line for line in hospitals.network_audit("request.answered") if line["actor"] == "mallory"]
    assert [line["details"]["status"] for line in lines[-2:]] == [404, 404]


def test_mallory_cannot_delete_alices_files(hospitals: Hospitals, upload: SealedFile, tmp_path: Path) -> None:
    """A researcher who could would end every round of every other."""
    assert upload.upload_id
    client = _rest(hospitals, "mallory")
    client.delete(upload.upload_id)  # nothing of hers by that id: no fault, and no effect
    client.close()
    client = _rest(hospitals, "north")
    fetch(client, upload, tmp_path / "mine")
    client.close()

    assert (tmp_path / "mine").stat().st_size == upload.size_bytes


# Strangers, and members who were


def test_a_stranger_with_a_certificate_is_no_member(
    hospitals: Hospitals, register: Register, eve: Person, mallory: Person, north: AuditTail
) -> None:
    """A stolen authority can open lines; it cannot make a member."""
    for body in (Ping(sequence=1), _train(hospitals, register), PlanStatus(sha256=PLAN_SHA256)):
        assert eve.send("north", body.kind, eve.signer.sign("north", body).text) == "Success"
        line = north.wait_for("message.refused", code=Code.SENDER_UNKNOWN)
        assert "'eve' is not in the membership register" in line["details"]["reason"]
    mallory.ask("north", Ping(sequence=1))  # one whom the register lists is answered

    assert len(north.lines("message.refused")) == 3
    assert [arrived for arrived in eve.post.heard if arrived.topic.startswith("to/eve/")] == []


def test_a_strangers_token_is_refused(hospitals: Hospitals, eve: Person, upload: SealedFile, tmp_path: Path) -> None:
    """Identity is the register's word, not the certificate's."""
    for certificate in ("eve", "north"):
        client = _rest(hospitals, certificate, eve)
        with pytest.raises(RefusedError) as refusal:
            fetch(client, upload, tmp_path / "stolen")
        client.close()
        assert (refusal.value.status, refusal.value.code) == (401, Code.SENDER_UNKNOWN)

    lines = [line for line in hospitals.network_audit("request.answered") if line["details"].get("claimed") == "eve"]
    assert [(line["actor"], line["details"]["status"]) for line in lines[-2:]] == [("anonymous", 401)] * 2


def test_a_revoked_member_is_refused(
    hospitals: Hospitals, person: MakePerson, register: Register, north: AuditTail
) -> None:
    """Her certificate is valid for weeks and her line stands; from the new register on she is nobody."""
    oscar = person("oscar")
    hospitals.staff("north").call("dataset.permit", dataset="cells", researcher="oscar")
    assert isinstance(oscar.ask("north", Ping(sequence=1)).body, Pong)
    client = _rest(hospitals, "oscar")
    assert client.register()

    _revoke(hospitals, "oscar")
    request = _train(hospitals, register)
    for body in (Ping(sequence=2), request):
        oscar.send("north", body.kind, oscar.signer.sign("north", body).text)
    line = north.wait_for("message.refused", code=Code.SENDER_UNKNOWN)
    wait_until(lambda: len(north.lines("message.refused")) == 2)

    assert "'oscar' is revoked" in line["details"]["reason"]
    assert hospitals.history("north").rounds(request.experiment_id) == []
    with pytest.raises(RefusedError) as refusal:
        client.register()
    client.close()
    assert refusal.value.code is Code.SENDER_UNKNOWN


def _revoke(hospitals: Hospitals, member: str) -> None:
    """As the operator does it: a new register, which hospitals and host take at once."""
    root = hospitals.consortium.root
    operator = MemberKeys.load(hospitals.home(OPERATOR) / "keys")
    book = RegisterBook(root / "authority/register.jws", operator, consortium="Embedded consortium")
    book.revoke(member)
    text = book.issue()
    for home in ("north", "south", "alice", NETWORK):
        replace_file(hospitals.home(home) / "register.jws", text)
    hospitals.fedward(
        "network", "register", "import", root / "authority/register.jws", "--home", hospitals.home(NETWORK)
    )


def _of(kind: str) -> Callable[[Any], bool]:
    return lambda arrived: arrived.topic.endswith(f"/{kind}")


def _client_id(hospitals: Hospitals) -> str:
    engine = reading_engine(hospitals.home("north") / "store/node.db")
    with engine.connect() as connection:
        found = connection.scalar(sa.text("SELECT value FROM settings WHERE name = 'mqtt_client_id'"))
    engine.dispose()
    return str(found)


def _was_taken_over(hospitals: Hospitals, client_id: str) -> bool:
    log = (hospitals.home(NETWORK) / "log/broker.log").read_text()
    return f"Client {client_id} already connected, closing old connection" in log


def _answers(person: Person) -> bool:
    signed = person.signer.sign("north", Ping(sequence=9))
    person.send("north", "ping", signed.text)
    return any(arrived.topic == "to/alice/from/north/pong" for arrived in person.post.heard)

"""The desk: what arrives is accepted once, answered, or refused without a trace but its line in the log."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Any

import pytest
import sqlalchemy as sa

from appliance.protocol.envelope import MAX_ENVELOPE_BYTES, MESSAGE_TYPE, Signer
from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.jose import sign_text, write_json
from appliance.protocol.keys import MemberKeys, unb64url
from appliance.protocol.messages import (
    ArgumentRange,
    Body,
    Datasets,
    ErrorReply,
    ListDatasets,
    Ping,
    PlanApproval,
    PlanStanding,
    PlanState,
    PlanStatus,
    Pong,
    Search,
    Stop,
    Stopped,
    Train,
)
from appliance.protocol.register import MemberState, key_id
from appliance.protocol.rounds import FINAL_STEPS, RoundStep
from appliance.transport.mailbox import inbox, outbox
from appliance.warden import desk as desk_module
from appliance.warden.desk import REFUSALS_PER_MINUTE
from appliance.warden.store import egress, plans, rounds
from tests.conftest import Members
from tests.unit.warden.conftest import PLAN, PLAN_SHA, WAIT_S, Node, OffsetClock, await_stop

APPROVAL = PlanApproval(name="plan", description="", source=PLAN, sha256=PLAN_SHA)


@pytest.fixture
def ready(node: Node, dataset_id: str) -> Node:
    """A node on which alice may train."""
    node.add_plan()
    return node


@pytest.fixture
def request_(ready: Node, dataset_id: str) -> Train:
    """A request that is accepted."""
    return ready.train(dataset_id)


def refusal(node: Node, member: str = "alice") -> ErrorReply:
    """The one error that ``member`` got."""
    (found,) = node.received(member, ErrorReply)
    assert isinstance(found, ErrorReply)
    return found


# Questions


def test_a_ping_is_answered_to_the_one_that_asked(node: Node) -> None:
    """And to nobody else."""
    node.deliver("alice", Ping(sequence=7))
    assert node.received("alice", Pong) == [Pong(sequence=7)]
    assert len(node.sent) == 1


def test_a_search_finds_the_datasets_that_carry_all_tags_and_name_the_researcher(node: Node, dataset_id: str) -> None:
    """Everything else does not exist for him."""
    for sender, tags, found in (("alice", ("opt",), 1), ("alice", ("opt", "x"), 0), ("mallory", ("opt",), 0)):
        node.sent.clear()
        node.deliver(sender, Search(tags=tags))
        assert len(node.received(sender, Datasets)[0].datasets) == found


def test_a_list_names_all_that_the_researcher_may_use(node: Node, dataset_id: str) -> None:
    """An empty one is an answer, silence is not."""
    node.deliver("alice", ListDatasets())
    node.deliver("mallory", ListDatasets())
    assert [d.dataset_id for d in node.received("alice", Datasets)[0].datasets] == [dataset_id]
    assert node.received("mallory", Datasets) == [Datasets(datasets=())]


def test_a_plans_standing_is_told(ready: Node) -> None:
    """The researcher waits for it."""
    ready.deliver("alice", PlanStatus(sha256=PLAN_SHA))
    ready.deliver("alice", PlanStatus(sha256="0" * 64))
    assert [s.state for s in ready.received("alice", PlanStanding)] == [PlanState.APPROVED, PlanState.UNKNOWN]


def test_a_request_for_review_is_kept_receipted_and_answered(node: Node) -> None:
    """It may wait for weeks."""
    signed = node.deliver("alice", APPROVAL)
    assert node.receipts("alice") == [signed.envelope.jti]
    assert node.received("alice", PlanStanding)[0].state is PlanState.PENDING
    assert node.table(plans)[0]["source"] == PLAN


def test_a_text_that_hides_a_line_end_is_refused_by_its_place(node: Node) -> None:
    """The researcher is told what to mend, and nothing waits for review."""
    text = "# harmless\rimport os\n"
    asked = APPROVAL.model_copy(update={"source": text, "sha256": hashlib.sha256(text.encode()).hexdigest()})
    node.deliver("alice", asked)
    answer = refusal(node)
    assert answer.code is Code.PLAN_INVALID
    assert "Line 1 of the plan ends in a carriage return" in answer.message
    assert node.table(plans) == []


def test_every_answer_is_in_the_egress_record(node: Node, dataset_id: str) -> None:
    """What was told of a dataset left the hospital too."""
    node.deliver("alice", Ping(sequence=1))
    node.deliver("alice", ListDatasets())
    assert [(line["recipient"], line["kind"]) for line in node.table(egress)] == [
        ("alice", "pong"),
        ("alice", "datasets"),
    ]


# Train


def test_an_accepted_round_is_committed_audited_and_receipted(ready: Node, request_: Train) -> None:
    """In this order: the Receipt speaks of what is on the disk."""
    signed = ready.deliver("alice", request_)
    assert ready.receipts("alice") == [signed.envelope.jti]
    assert ready.row(signed.envelope.jti)["step"] == RoundStep.ACCEPTED
    line = ready.audit()[-1]
    assert (line["event"], line["actor"], line["details"]["plan"]) == ("round.accepted", "alice", PLAN_SHA)


def test_a_request_that_comes_again_is_receipted_again_and_done_once(ready: Node, request_: Train) -> None:
    """The first Receipt was lost."""
    signed = ready.deliver("alice", request_)
    before = ready.counts()
    ready.arrive(signed)
    assert ready.receipts("alice") == [signed.envelope.jti] * 2
    assert ready.counts() == before


def test_a_round_that_is_under_way_is_refused_in_another_envelope(ready: Node, request_: Train) -> None:
    """A second jti for the same round would train it twice at once."""
    ready.deliver("alice", request_)
    ready.deliver("alice", request_)
    assert refusal(ready).code is Code.ROUND_REFUSED
    assert len(ready.table(rounds)) == 1


@pytest.mark.parametrize("step", sorted(FINAL_STEPS))
def test_a_round_that_has_ended_may_be_asked_for_again(step: RoundStep, ready: Node, request_: Train) -> None:
    """The researcher mended the cause, waited for another hospital, or went back to an earlier breakpoint."""
    first = ready.deliver("alice", request_)
    with ready.store.write() as connection:
        connection.execute(rounds.update().values(step=step, ended_at=time.time()))
    second = ready.deliver("alice", request_)
    assert ready.receipts("alice") == [first.envelope.jti, second.envelope.jti]
    assert ready.received("alice", ErrorReply) == []


def test_a_request_that_needs_a_newer_release_is_refused_with_an_answer(ready: Node, request_: Train) -> None:
    """Nothing of it is done, and its sender need not repeat it for a week."""
    signed = ready.sign("alice", request_)
    claims = json.loads(unb64url(signed.text.split(".")[1]))
    claims |= {"v": "1.9", "crit": ["weighting"], "body": claims["body"] | {"weighting": "age"}}
    keys = ready.members.keys["alice"]
    text = sign_text(write_json(claims), keys, typ=MESSAGE_TYPE, kid=key_id("alice", keys.public.identity))
    for _ in range(2):
        ready.raw("to/north/from/alice/train", text)

    error = refusal(ready)
    assert (error.code, error.experiment_id) == (Code.MESSAGE_VERSION, request_.experiment_id)
    assert ready.receipts("alice") == [signed.envelope.jti] * 2
    assert ready.table(rounds) == []
    assert ready.audit()[-1]["event"] == "round.refused"


def test_nobody_trains_under_another_researchers_experiment(ready: Node, request_: Train, dataset_id: str) -> None:
    """The experiment's warm process would be his as well."""
    ready.deliver("alice", request_)
    other = ready.add_dataset("other", researchers=("mallory",))
    ready.deliver("mallory", ready.train(other, round=2))
    assert refusal(ready, "mallory").code is Code.ROUND_REFUSED
    assert len(ready.table(rounds)) == 1


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"dataset_id": "0" * 16}, Code.DATASET_UNKNOWN),
        ({"plan_sha256": "0" * 64}, Code.PLAN_UNKNOWN),
        ({"training_args": {"test_ratio": 0.9}}, Code.TOO_FEW_SAMPLES),
        ({"deadline": 1}, Code.ROUND_TIMEOUT),
        ({"mandate": "from alice"}, Code.MANDATE_INVALID),
    ],
)
def test_a_refused_request_is_answered_receipted_audited_and_not_done(
    ready: Node, request_: Train, changes: dict[str, Any], code: Code
) -> None:
    """Asking again changes nothing, so it need not be repeated."""
    signed = ready.deliver("alice", request_.model_copy(update=changes))
    assert refusal(ready).code is code
    assert (refusal(ready).experiment_id, refusal(ready).round) == ("e-1", 1)
    assert ready.receipts("alice") == [signed.envelope.jti]
    assert ready.audit()[-1]["event"] == "round.refused"
    assert ready.audit()[-1]["details"]["code"] == code
    assert ready.table(rounds) == []
    ready.arrive(signed)
    assert len(ready.received("alice", ErrorReply)) == 1


def test_an_argument_outside_the_approved_range_is_refused_with_the_rule(ready: Node, dataset_id: str) -> None:
    """Also one of the model's, and also one that an argument of that name tries to cover."""
    ready.add_plan(ranges=(ArgumentRange(name="model_args.width", maximum=8),))
    arguments = {"epochs": 1, "model_args": {"width": 4}}
    ready.deliver("alice", ready.train(dataset_id, training_args=arguments, model_args={"width": 1000}))
    assert refusal(ready).code is Code.ARGUMENT_OUT_OF_RANGE
    assert "model_args.width" in (refusal(ready).rule or "")


def test_an_override_is_put_down_for_the_reply(ready: Node, request_: Train) -> None:
    """The runner gets the node's value, the researcher the news."""
    ready.services.policy.change({"overrides": {"epochs": 3}}, lambda _connection: None)
    signed = ready.deliver("alice", request_)
    row = ready.row(signed.envelope.jti)
    assert row["training_args"] == {"epochs": 3}
    assert json.loads(row["overrides"][0])["asked"] == 1


def test_a_range_is_held_against_the_value_that_is_used(ready: Node, request_: Train) -> None:
    """An override must not lead out of a range either."""
    rules = {"overrides": {"epochs": 3}, "ranges": [{"name": "epochs", "maximum": 2}]}
    ready.services.policy.change(rules, lambda _connection: None)
    ready.deliver("alice", request_)
    assert refusal(ready).code is Code.ARGUMENT_OUT_OF_RANGE


def test_a_reviewers_long_note_does_not_keep_the_refusal_from_leaving(ready: Node, request_: Train) -> None:
    """A refusal that cannot be written would end the desk."""
    with ready.store.write() as connection:
        ready.services.plans.reject(connection, "Dr. Weiss", PLAN_SHA, note="no " * 1300)
    ready.deliver("alice", request_)
    assert refusal(ready).code is Code.PLAN_NOT_APPROVED
    assert len(refusal(ready).message) == 2000


def test_a_range_as_long_as_a_message_does_not_keep_the_refusal_from_leaving(ready: Node, dataset_id: str) -> None:
    """The researcher proposes ranges: a huge one must not be a way to end the desk."""
    ready.add_plan(ranges=(ArgumentRange(name="epochs", allowed=tuple(range(100, 5000))),))
    ready.deliver("alice", ready.train(dataset_id))
    assert len(refusal(ready).rule or "") == 500


# Refused messages


def unchanged(node: Node, before: dict[str, int]) -> None:
    """Nothing but audit lines was written, and nobody was answered."""
    after = node.counts()
    assert {k: v for k, v in after.items() if k != "audit"} == {k: v for k, v in before.items() if k != "audit"}
    assert node.sent == []


def signed_text(node: Node, sender: str, body: Body, keys: MemberKeys | None = None, *, to: str = "north") -> str:
    """An envelope's text, by whichever key."""
    return Signer(sender, keys or node.members.keys[sender]).sign(to, body).text


@pytest.mark.parametrize(
    ("topic", "write", "code"),
    [
        ("to/north/from/alice/train", lambda _n: "not a message", Code.MESSAGE_MALFORMED),
        ("to/north/from/alice/train", lambda _n: b"\xff\x00\xfe", Code.MESSAGE_MALFORMED),
        ("to/north/from/alice/train", lambda _n: "", Code.MESSAGE_MALFORMED),
        ("nonsense", lambda n: signed_text(n, "alice", APPROVAL), Code.MESSAGE_MALFORMED),
        (
            "to/north/from/alice/plan-approval",
            lambda n: signed_text(n, "alice", APPROVAL, n.members.keys["mallory"]),
            Code.SENDER_UNKNOWN,
        ),
        (
            "to/north/from/alice/plan-approval",
            lambda n: signed_text(n, "alice", APPROVAL)[:-6] + "AAAAAA",
            Code.MESSAGE_UNSIGNED,
        ),
        (
            "to/north/from/alice/plan-approval",
            lambda n: Signer("alice", n.members.keys["alice"], lambda: time.time() - 40 * 86400)
            .sign("north", APPROVAL)
            .text,
            Code.MESSAGE_EXPIRED,
        ),
        (
            "to/north/from/alice/plan-approval",
            lambda n: signed_text(n, "alice", APPROVAL, to="south"),
            Code.MESSAGE_MISADDRESSED,
        ),
        (
            "to/north/from/mallory/plan-approval",
            lambda n: signed_text(n, "alice", APPROVAL),
            Code.MESSAGE_MISADDRESSED,
        ),
        (
            "to/north/from/alice/plan-approval",
            lambda _n: "x" * (MAX_ENVELOPE_BYTES + 1),
            Code.MESSAGE_TOO_LARGE,
        ),
        (
            "to/north/from/eve/plan-approval",
            lambda n: signed_text(n, "eve", APPROVAL, MemberKeys.generate()),
            Code.SENDER_UNKNOWN,
        ),
        ("to/north/from/south/plan-approval", lambda n: signed_text(n, "south", APPROVAL), Code.SENDER_ROLE),
        ("to/north/from/network/ping", lambda n: signed_text(n, "network", Ping(sequence=1)), Code.SENDER_ROLE),
        (
            "to/north/from/alice/error",
            lambda n: signed_text(n, "alice", ErrorReply(code=Code.INTERNAL, message="no")),
            Code.MESSAGE_MALFORMED,
        ),
    ],
    ids=[
        "text", "bytes", "empty", "topic", "another's key", "altered", "expired", "for another", "another's topic",
        "oversized", "stranger", "role", "network host", "not for nodes",
    ],
)  # fmt: skip
def test_a_message_that_is_not_accepted_is_audited_and_changes_nothing(
    ready: Node, topic: str, write: Any, code: Code
) -> None:
    """Whoever hears or forges messages must move nothing here."""
    before = ready.counts()
    ready.raw(topic, write(ready))
    unchanged(ready, before)
    line = ready.audit()[-1]
    assert (line["event"], line["details"]["code"], line["subject"]) == ("message.refused", code, topic[:200])
    assert ready.counts()["audit"] == before["audit"] + 1


@pytest.mark.parametrize("state", [MemberState.SUSPENDED, MemberState.REVOKED])
def test_a_member_that_is_not_active_is_refused(
    ready: Node, members: Members, request_: Train, state: MemberState
) -> None:
    """Its certificate may still be valid for a while."""
    ready.with_register(members.with_state("alice", state))
    before = ready.counts()
    ready.deliver("alice", request_)
    unchanged(ready, before)
    assert [line["event"] for line in ready.audit()[-1:]] == ["message.refused"]


def test_an_old_key_is_refused_once_the_register_has_a_new_one(ready: Node, members: Members, request_: Train) -> None:
    """A stolen key ends with its rotation."""
    fresh = MemberKeys.generate()
    ready.with_register(members.with_changed("alice", identity=fresh.public.identity))
    before = ready.counts()
    ready.deliver("alice", request_)
    unchanged(ready, before)
    assert [line["event"] for line in ready.audit()[-1:]] == ["message.refused"]


def test_a_topic_from_a_stranger_is_cut_short_in_the_log(node: Node) -> None:
    """He must not choose how large the log grows."""
    node.raw("x" * 10_000, "y" * 10_000)
    assert len(node.audit()[-1]["subject"]) == 200


def test_a_flood_of_refused_messages_is_counted_and_not_written(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """It must not fill the disk; its size is put down when the minute is over."""
    now = [1_800_000_000.0]
    monkeypatch.setattr(desk_module.time, "time", lambda: now[0])
    for _ in range(REFUSALS_PER_MINUTE + 70):
        node.raw("to/north/from/alice/train", "nonsense")
    assert len(node.audit()) == REFUSALS_PER_MINUTE
    node.desk.tick()
    assert len(node.audit()) == REFUSALS_PER_MINUTE
    now[0] += 60
    node.desk.tick()
    assert node.audit()[-1]["details"] == {"counts": {"MESSAGE_MALFORMED": 70}}
    node.raw("to/north/from/alice/train", "nonsense")
    assert node.audit()[-1]["event"] == "message.refused"


def test_a_members_flood_of_refused_requests_is_not_answered_and_hinders_no_other(
    ready: Node, request_: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mallory may sign as much as he likes; rows in the store are dearer than signatures."""
    monkeypatch.setattr(desk_module, "REFUSALS_PER_MINUTE", 3)
    monkeypatch.setattr(desk_module.time, "time", lambda: 1_800_000_000.0)
    for _ in range(10):
        ready.deliver("mallory", request_)
    assert len(ready.received("mallory", ErrorReply)) == 3
    assert len(ready.table(inbox)) == 3
    ready.deliver("alice", request_)
    assert len(ready.table(rounds)) == 1


# Crashes


@pytest.mark.parametrize("where", ["audit.write", "mailbox.accept", "datasets.require_usable", "policy.require_terms"])
def test_a_crash_at_any_point_leaves_no_half_done_rows_and_no_receipt(
    ready: Node, request_: Train, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The same text comes again, and is then accepted."""
    part, method = where.split(".")
    target, before = getattr(ready.services, part), ready.counts()
    real = getattr(target, method)

    def crash(*args: Any, **options: Any) -> None:
        real(*args, **options)
        raise OSError("the plug was pulled")

    signed = ready.sign("alice", request_)
    with monkeypatch.context() as patch:
        patch.setattr(target, method, crash)
        ready.arrive(signed)
    assert ready.counts() == before
    assert ready.sent == []
    ready.arrive(signed)
    assert ready.receipts("alice") == [signed.envelope.jti]
    assert ready.row(signed.envelope.jti)["step"] == RoundStep.ACCEPTED


def test_a_full_disk_refuses_nobody(ready: Node, request_: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message was not received; it comes again, and no path of this machine is told."""
    signed = ready.sign("alice", request_)
    with monkeypatch.context() as patch:

        def full(*_: object, **__: object) -> None:
            raise FedWardError("/srv/node/store: the disk is full.", code=Code.DISK_FULL)

        patch.setattr(ready.services.audit, "write", full)
        ready.arrive(signed)
    assert ready.sent == []
    assert ready.table(inbox) == []
    ready.arrive(signed)
    assert ready.receipts("alice") == [signed.envelope.jti]


def test_the_desk_goes_on_after_whatever_one_message_did(ready: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """One message must not silence a hospital."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(ready.services.datasets, "visible_to", fail)
        ready.deliver("alice", ListDatasets())
    ready.deliver("alice", Ping(sequence=1))
    assert ready.received("alice", Pong) == [Pong(sequence=1)]


def test_an_answer_too_large_for_a_message_is_not_sent(
    node: Node, dataset_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would take it; the desk goes on."""
    monkeypatch.setattr("appliance.transport.mailbox.MAX_ENVELOPE_BYTES", 100)
    node.deliver("alice", ListDatasets())
    assert node.sent == []


# Stop


def stop_and_wait(node: Node, sender: str = "alice") -> None:
    """Deliver a Stop and wait until it was dealt with."""
    node.deliver(sender, Stop(experiment_id="e-1"))
    await_stop()


def test_a_stop_is_answered_when_nothing_runs_any_more(ready: Node, request_: Train) -> None:
    """With the Receipt behind it: a stop that a crash interrupts comes again."""
    ready.runner.blocks = True
    ready.deliver("alice", request_)
    ready.queue.start()
    assert ready.runner.is_training.wait(WAIT_S)
    stop_and_wait(ready)
    (stopped,) = ready.received("alice", Stopped)
    assert stopped.was_running
    assert stopped.ended_at is not None
    assert ready.table(rounds)[0]["step"] == RoundStep.STOPPED
    assert refusal(ready).code is Code.ROUND_STOPPED
    assert "the researcher alice" in refusal(ready).message
    assert len(ready.receipts("alice")) == 2


def test_a_stop_also_ends_what_waits_in_the_queue(ready: Node, request_: Train) -> None:
    """It must not begin a minute later."""
    ready.deliver("alice", request_)
    stop_and_wait(ready)
    assert ready.received("alice", Stopped)[0].was_running
    ready.queue.start()
    ready.queue.end("e-1")
    assert ready.runner.trained == []


def test_a_stop_of_something_unknown_is_answered_all_the_same(ready: Node) -> None:
    """Silence would leave the researcher waiting."""
    stop_and_wait(ready)
    (stopped,) = ready.received("alice", Stopped)
    assert (stopped.was_running, stopped.ended_at) == (False, None)


def test_nobody_stops_another_researchers_experiment(ready: Node, request_: Train) -> None:
    """Else mallory could keep alice from ever finishing."""
    ready.deliver("alice", request_)
    stop_and_wait(ready, "mallory")
    assert refusal(ready, "mallory").code is Code.PERMISSION_DENIED
    assert ready.table(rounds)[0]["stop_reason"] is None
    assert ready.runner.stopped == []


def test_a_late_stop_ends_what_was_asked_for_before_it_and_nothing_newer(ready: Node, request_: Train) -> None:
    """It may wait for a day, and the researcher ask anew meanwhile: that round is wanted."""
    old = ready.sign("alice", request_, clock=OffsetClock(-30))
    late = ready.sign("alice", Stop(experiment_id="e-1"), clock=OffsetClock(-20))
    new = ready.sign("alice", request_.model_copy(update={"round": 2}), clock=OffsetClock(-10))
    for signed in (old, new, late):
        ready.arrive(signed)
    await_stop()

    reasons = {row["jti"]: row["stop_reason"] for row in ready.table(rounds)}
    assert reasons == {old.envelope.jti: "the researcher alice", new.envelope.jti: None}
    assert ready.received("alice", Stopped)[0].was_running


def test_a_late_stop_leaves_a_newer_round_that_runs_its_process(ready: Node, request_: Train) -> None:
    """The child is the experiment's: to end it for a round that is over would fail the one that is not."""
    late = ready.sign("alice", Stop(experiment_id="e-1"), clock=OffsetClock(-20))
    ready.runner.blocks = True
    ready.arrive(ready.sign("alice", request_, clock=OffsetClock(-10)))
    ready.queue.start()
    assert ready.runner.is_training.wait(WAIT_S)
    ready.arrive(late)
    await_stop()

    assert ready.runner.stopped == []
    assert not ready.received("alice", Stopped)[0].was_running
    assert ready.queue.running == 1


def test_a_stop_that_could_not_be_recorded_is_not_receipted(ready: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes again, and then it is."""
    signed = ready.sign("alice", Stop(experiment_id="e-1"))
    with monkeypatch.context() as patch:

        def full(*_: object, **__: object) -> None:
            raise FedWardError("full", code=Code.DISK_FULL)

        patch.setattr(ready.services.mailbox, "accept", full)
        ready.arrive(signed)
        await_stop()
    assert ready.sent == []
    ready.arrive(signed)
    await_stop()
    assert ready.receipts("alice") == [signed.envelope.jti]


def test_a_stop_without_a_runner_does_not_claim_to_have_seen_an_end(ready: Node, request_: Train) -> None:
    """The record must not say what nobody saw."""
    ready.deliver("alice", request_)
    ready.runner.is_gone = True
    stop_and_wait(ready)
    assert ready.received("alice", Stopped)[0].ended_at is None


def test_what_is_owed_is_in_the_outbox_until_alice_has_it(ready: Node, request_: Train) -> None:
    """Refusals too must arrive."""
    ready.deliver("alice", request_.model_copy(update={"plan_sha256": "0" * 64}))
    assert [row["kind"] for row in ready.table(outbox)] == ["error"]
    ready.settle("alice")
    with ready.store.write() as connection:
        ready.services.mailbox.forget_expired(connection)
    with ready.store.read() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(outbox)) == 0

"""Rounds that a federator asks for: within the researcher's mandate, counted against it, and for the researcher."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from appliance.protocol.errors import Code
from appliance.protocol.keys import thumbprint
from appliance.protocol.mandate import Mandate
from appliance.protocol.messages import ArgumentRange, ErrorReply, PrivacyTerms, Scalar, Stop, Stopped, TrainReply
from appliance.protocol.register import MemberState
from appliance.warden.store import egress, rounds, withdrawals
from tests.conftest import Members
from tests.unit.warden.conftest import PLAN_SHA, Node, await_stop

Give = Callable[..., str]
Ask = Callable[..., ErrorReply | None]
ARGUMENTS = {"epochs": 1, "optimizer_args": {"lr": 0.1}}


@pytest.fixture
def give(node: Node, members: Members, dataset_id: str) -> Give:
    """Signs a mandate of alice's for three rounds of ``e-1`` by fed, unless told otherwise."""
    node.add_plan()

    def sign(by: str = "alice", **changes: Any) -> str:
        now = int(time.time())
        fields: dict[str, Any] = {
            "id": "job-1",
            "federator": "fed",
            "federator_key": thumbprint(members.keys["fed"].public.identity),
            "experiment_id": "e-1",
            "plan_sha256": PLAN_SHA,
            "plan_class": "Plan",
            "datasets": {"north": dataset_id},
            "first_round": 1,
            "last_round": 3,
            "training_args": ARGUMENTS,
            "issued_at": now - 10,
            "expires_at": now + 3600,
        }
        return Mandate(**(fields | changes)).sign(members.signer(by))

    return sign


@pytest.fixture
def ask(node: Node, dataset_id: str, give: Give) -> Ask:
    """Fed asks for a round; gives the refusal, or None."""

    def deliver(mandate: str | None = "", by: str = "fed", **changes: Any) -> ErrorReply | None:
        fields = {"training_args": ARGUMENTS, "mandate": give() if mandate == "" else mandate}
        request = node.train(changes.pop("dataset_id", dataset_id), **(fields | changes))
        signed = node.deliver(by, request)
        answers = [e.body for e in node.envelopes(by) if e.in_reply_to == signed.envelope.jti]
        return next((body for body in answers if isinstance(body, ErrorReply)), None)

    return deliver


def end(node: Node) -> None:
    """All rounds here are done."""
    for row in node.table(rounds):
        if row["ended_at"] is None:
            node.round(row["jti"]).run()


def test_a_round_within_the_mandate_is_the_researchers(node: Node, ask: Ask, dataset_id: str) -> None:
    """What alice may, fed may for her, and the books name both."""
    assert ask() is None

    (row,) = node.table(rounds)
    assert (row["researcher"], row["federator"], row["mandate_id"]) == ("alice", "fed", "job-1")
    line = node.audit()[-1]
    assert (line["actor"], line["details"]["researcher"], line["details"]["mandate"]) == ("fed", "alice", "job-1")


def test_the_update_is_sealed_to_the_federator(node: Node, ask: Ask) -> None:
    """It is the one that aggregates; what stays here for the next round is kept as the researcher's."""
    ask()
    end(node)

    (reply,) = node.received("fed", TrainReply)
    assert node.open_update(reply.update, member="fed")
    assert node.received("alice", TrainReply) == []
    assert {line["recipient"] for line in node.table(egress)} == {"fed"}


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        (Code.MANDATE_EXCEEDED, {"experiment_id": "e-2"}),
        (Code.MANDATE_EXCEEDED, {"plan_sha256": "0" * 64}),
        (Code.MANDATE_EXCEEDED, {"plan_class": "Other"}),
        (Code.MANDATE_EXCEEDED, {"dataset_id": "another"}),
        (Code.MANDATE_EXCEEDED, {"round": 4}),
        pytest.param(Code.MANDATE_EXCEEDED, {"train": False}, id="a test without training"),
        (Code.MANDATE_EXCEEDED, {"model_args": {"width": 9}}),
        (Code.MANDATE_EXCEEDED, {"aggregator_args": {"rho": 1}}),
        (Code.MANDATE_EXCEEDED, {"privacy": PrivacyTerms(guarantee="record", epsilon=8.0, delta=1e-5)}),
        (Code.MANDATE_EXCEEDED, {"training_args": {"epochs": 1, "optimizer_args": {"lr": 0.2}}}),
        (Code.MANDATE_EXCEEDED, {"training_args": {"epochs": True, "optimizer_args": {"lr": 0.1}}}),
        (Code.MANDATE_EXCEEDED, {"training_args": {"epochs": 1, "optimizer_args": {"lr": 0.1}, "dry_run": True}}),
        (Code.MANDATE_INVALID, {"mandate": None}),
        (Code.MANDATE_INVALID, {"mandate": "no.jws.atall"}),
    ],
)
def test_what_the_mandate_does_not_say_is_refused(code: Code, changes: dict[str, Any], node: Node, ask: Ask) -> None:
    """Deny by default: every part of a request is the mandate's or nobody's."""
    refusal = ask(**changes)

    assert refusal is not None
    assert refusal.code is code, refusal
    assert node.table(rounds) == []


@pytest.mark.parametrize(
    ("code", "by", "changes"),
    [
        (Code.MANDATE_INVALID, "alice", {"federator": "rival"}),
        (Code.MANDATE_INVALID, "alice", {"federator_key": "A" * 43}),
        (Code.MANDATE_INVALID, "fed", {}),
        (Code.DATASET_UNKNOWN, "mallory", {}),
        (Code.MANDATE_EXCEEDED, "alice", {"datasets": {"south": "trial"}}),
        (Code.MANDATE_EXPIRED, "alice", {"issued_at": 1_000_000, "expires_at": 1_000_100}),
        (Code.CLOCK_WRONG, "alice", {"issued_at": 1 << 33, "expires_at": (1 << 33) + 60}),
    ],
)
def test_another_mandate_is_no_mandate(code: Code, by: str, changes: dict[str, Any], ask: Ask, give: Give) -> None:
    """Whoever signs, and whatever it is for: only a permitted researcher's, for this federator and now, counts."""
    refusal = ask(give(by, **changes))

    assert refusal is not None
    assert refusal.code is code, refusal


def test_a_range_lets_an_argument_change(ask: Ask, give: Give) -> None:
    """A schedule's rounds differ in one argument, within bounds that the researcher signed."""
    mandate = give(ranges=(ArgumentRange(name="optimizer_args.lr", minimum=0.01, maximum=0.1),))

    assert ask(mandate, training_args={"epochs": 1, "optimizer_args": {"lr": 0.05}}) is None
    beyond = ask(mandate, round=2, training_args={"epochs": 1, "optimizer_args": {"lr": 0.2}})
    assert beyond is not None
    assert beyond.code is Code.MANDATE_EXCEEDED


def test_rounds_are_counted(node: Node, ask: Ask) -> None:
    """Or a federator would ask for one round a hundred times, each with other parameters, to look into the data."""
    for _ in range(3):
        assert ask(round=1) is None
        end(node)

    refusal = ask(round=1)
    assert refusal is not None
    assert (refusal.code, "used up" in refusal.message) == (Code.MANDATE_EXCEEDED, True)


def test_the_count_outlives_a_restart(node: Node, ask: Ask, give: Give, members: Members, dataset_id: str) -> None:
    """Or whoever can make a node restart has as many rounds as he likes."""
    mandate = give(last_round=1)
    ask(mandate)
    end(node)
    node.close()
    again = Node(node.root, members)
    again.deliver("fed", node.train(dataset_id, training_args=ARGUMENTS, mandate=mandate))

    assert [error.code for error in again.received("fed", ErrorReply)] == [Code.MANDATE_EXCEEDED]
    again.close()


def test_the_same_request_twice_counts_once(node: Node, dataset_id: str, give: Give) -> None:
    """A repeat is no second request."""
    signed = node.deliver("fed", node.train(dataset_id, training_args=ARGUMENTS, mandate=give(last_round=1)))
    node.arrive(signed)

    assert len(node.table(rounds)) == 1
    assert node.receipts("fed") == [signed.envelope.jti] * 2


def test_a_revoked_researchers_mandate_is_void(node: Node, members: Members, ask: Ask, give: Give) -> None:
    """A federator has no rights of its own."""
    mandate = give()
    node.with_register(members.with_state("alice", MemberState.REVOKED))

    refusal = ask(mandate)
    assert refusal is not None
    assert refusal.code is Code.MANDATE_INVALID


def test_a_round_under_way_ends_with_either_membership(node: Node, members: Members, ask: Ask) -> None:
    """The researcher's, or the federator's."""
    ask()
    with node.store.write() as connection:
        assert node.queue.mark_departed(connection, members.with_state("alice", MemberState.REVOKED).register) == [
            "e-1"
        ]
        assert node.queue.mark_departed(connection, members.with_state("fed", MemberState.REVOKED).register) == ["e-1"]
        assert node.queue.mark_departed(connection, members.register) == []


def test_the_researchers_stop_withdraws_the_mandate(node: Node, ask: Ask, give: Give) -> None:
    """What the federator goes on to ask for is nobody's wish; a new mandate, given later, counts again."""
    ask()
    node.deliver("alice", Stop(experiment_id="e-1"))
    await_stop()

    refusal = ask(round=2)
    assert refusal is not None
    assert refusal.code is Code.MANDATE_WITHDRAWN
    later = int(time.time()) + 5
    assert ask(give(id="job-2", issued_at=later), round=2) is None


def test_a_federator_stops_what_it_asked_for_and_nothing_else(node: Node, ask: Ask, dataset_id: str) -> None:
    """The researcher's own round goes on, and so does the mandate."""
    ask()
    node.deliver("fed", Stop(experiment_id="e-1"))
    await_stop()
    own = node.deliver("alice", node.train(dataset_id, round=2)).envelope.jti
    node.deliver("fed", Stop(experiment_id="e-1"))
    await_stop()

    assert node.row(own)["stop_reason"] is None
    assert node.table(withdrawals) == []
    assert len(node.received("fed", Stopped)) == 2


def test_another_federator_stops_nothing(node: Node, ask: Ask) -> None:
    """Nor does it learn that there is something to stop."""
    ask()
    node.deliver("rival", Stop(experiment_id="e-1"))

    assert [error.code for error in node.received("rival", ErrorReply)] == [Code.PERMISSION_DENIED]


def test_a_pause_is_told_to_the_one_who_asked(node: Node, ask: Ask) -> None:
    """The federator waits, so the federator must know why."""
    with node.store.write() as connection:
        node.queue.mark_paused(connection, "e-1", "Dr. Weiss")
    ask()

    assert [scalar.paused_since is not None for scalar in node.received("fed", Scalar)] == [True]


def test_a_mandate_is_a_federators_to_bring(ask: Ask) -> None:
    """In person a researcher asks for himself; nobody may be misled about who did."""
    refusal = ask(by="alice")

    assert refusal is not None
    assert refusal.code is Code.MANDATE_INVALID

"""A federator that wants more than its researcher gave it, at a real node: each request is refused, and written down.

Beside the refusals stands the request that keeps to the mandate, and is accepted.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from appliance.protocol.errors import Code
from appliance.protocol.home import MemberHome
from appliance.protocol.keys import b64url, thumbprint, unb64url
from appliance.protocol.mandate import Mandate
from appliance.protocol.messages import ErrorReply, ListDatasets, PlanStatus, SealedFile, Stop, Stopped, Train
from appliance.protocol.register import Register
from appliance.protocol.sealing import seal_key
from tests.adversarial.post import Person
from tests.hospitals import PLAN, AuditTail, Hospitals, training_args

PLAN_SHA256 = hashlib.sha256(PLAN.read_bytes()).hexdigest()
Give = Callable[..., str]
Ask = Callable[..., Code | None]


@pytest.fixture
def register(hospitals: Hospitals) -> Register:
    """Everybody's keys."""
    return MemberHome(hospitals.home("north")).register()


@pytest.fixture
def people(hospitals: Hospitals, register: Register) -> Iterator[dict[str, Person]]:
    """Alice, her federator, and another one."""
    found = {name: Person(MemberHome(hospitals.home(name)), register) for name in ("alice", "fed", "rival")}
    yield found
    for one in found.values():
        one.close()


@pytest.fixture
def north(hospitals: Hospitals) -> AuditTail:
    """What north's audit log says from here on."""
    return hospitals.since("north")


@pytest.fixture
def experiment() -> str:
    """A fresh one's id."""
    return f"exp-{secrets.token_hex(6)}"


@pytest.fixture
def give(hospitals: Hospitals, people: dict[str, Person], register: Register, experiment: str) -> Give:
    """Alice gives fed two rounds, unless told otherwise."""

    def sign(by: str = "alice", **changes: Any) -> str:
        now = int(time.time())
        known: dict[str, Any] = {
            "id": str(uuid.uuid4()),
            "federator": "fed",
            "federator_key": thumbprint(register.require("fed").identity),
            "experiment_id": experiment,
            "plan_sha256": PLAN_SHA256,
            "plan_class": "WidePlan",
            "datasets": {"north": str(hospitals.history("north").dataset("cells")["id"])},
            "first_round": 1,
            "last_round": 2,
            "model_args": {"width": 8},
            "training_args": training_args(),
            "issued_at": now,
            "expires_at": now + 600,
        }
        return Mandate(**(known | changes)).sign(people[by].signer)

    return sign


@pytest.fixture
def ask(hospitals: Hospitals, people: dict[str, Person], register: Register, experiment: str) -> Ask:
    """Somebody asks north for a round; gives the code of the refusal.

    The parameters do not exist, so that what is accepted fails at the fetch.
    """

    def deliver(mandate: str | None, by: str = "fed", **changes: Any) -> Code | None:
        key = seal_key(b"k" * 32, register.require("north").sealing, context="nothing")
        known: dict[str, Any] = {
            "experiment_id": experiment,
            "round": 1,
            "round_limit": 2,
            "dataset_id": str(hospitals.history("north").dataset("cells")["id"]),
            "plan_sha256": PLAN_SHA256,
            "plan_class": "WidePlan",
            "model_args": {"width": 8},
            "training_args": training_args(),
            "parameters": SealedFile(upload_id=str(uuid.uuid4()), sha256="0" * 64, size_bytes=1, content_key=key),
            "mandate": mandate,
        }
        answer = people[by].ask("north", Train(**(known | changes))).body
        assert isinstance(answer, ErrorReply)
        return answer.code

    return deliver


def altered(mandate: str, **changes: Any) -> str:
    """The mandate with other claims under alice's signature."""
    header, payload, signature = mandate.split(".")
    claims = json.loads(unb64url(payload)) | changes
    return f"{header}.{b64url(json.dumps(claims).encode())}.{signature}"


def test_within_the_mandate_a_round_is_accepted(give: Give, ask: Ask, north: AuditTail) -> None:
    """And fails for want of parameters alone: what the refusals below refuse is nothing else."""
    assert ask(give()) is Code.SEAL_BROKEN

    line = north.lines("round.accepted")[0]
    assert (line["actor"], line["details"]["researcher"]) == ("fed", "alice")


def test_rounds_are_not_asked_for_more_often_than_mandated(give: Give, ask: Ask, north: AuditTail) -> None:
    """Many updates of one round, each of other parameters, would tell of single records."""
    mandate = give()
    asked = [ask(mandate, round=1) for _ in range(3)]

    assert asked == [Code.SEAL_BROKEN, Code.SEAL_BROKEN, Code.MANDATE_EXCEEDED]
    assert len(north.lines("round.accepted")) == 2


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"training_args": training_args(99)}, id="arguments"),
        pytest.param({"model_args": {"width": 9}}, id="model-arguments"),
        pytest.param({"plan_sha256": "0" * 64}, id="plan"),
        pytest.param({"dataset_id": "another"}, id="dataset"),
        pytest.param({"experiment_id": "exp-another"}, id="experiment"),
        pytest.param({"round": 3}, id="round"),
        pytest.param({"train": False}, id="test"),
    ],
)
def test_a_mandate_is_not_stretched(changes: dict[str, Any], give: Give, ask: Ask, north: AuditTail) -> None:
    """Each part of a request is held against it."""
    assert ask(give(), **changes) is Code.MANDATE_EXCEEDED
    assert north.wait_for("round.refused", code=Code.MANDATE_EXCEEDED)["actor"] == "fed"
    assert north.lines("round.accepted") == []


def test_without_a_mandate_a_federator_may_nothing(ask: Ask, people: dict[str, Person], north: AuditTail) -> None:
    """Not even look which datasets and plans there are."""
    assert ask(None) is Code.MANDATE_INVALID
    for question in (ListDatasets(), PlanStatus(sha256=PLAN_SHA256)):
        people["fed"].send("north", question.kind, people["fed"].signer.sign("north", question).text)
        north.wait_for("message.refused", code=Code.SENDER_ROLE)


def test_an_altered_mandate_is_none(give: Give, ask: Ask) -> None:
    """The signature is over every word of it."""
    assert ask(altered(give(), last_round=1000), round=3) is Code.MANDATE_INVALID


def test_a_federator_gives_itself_no_mandate(give: Give, ask: Ask) -> None:
    """Its key is a member's; a mandate is a researcher's."""
    assert ask(give("fed")) is Code.MANDATE_INVALID


def test_another_federator_cannot_use_it(give: Give, ask: Ask) -> None:
    """Whoever carries the messages reads the mandate; it is of no use to him."""
    assert ask(give(), by="rival") is Code.MANDATE_INVALID


def test_an_expired_mandate_is_over(give: Give, ask: Ask) -> None:
    """Its researcher thought of an end."""
    now = int(time.time())
    assert ask(give(issued_at=now - 600, expires_at=now - 300)) is Code.MANDATE_EXPIRED


def test_a_stopped_experiments_mandate_is_withdrawn(
    give: Give, ask: Ask, people: dict[str, Person], experiment: str
) -> None:
    """A federator that does not hear of the stop, or does not want to, asks in vain."""
    mandate = give()
    assert isinstance(people["alice"].ask("north", Stop(experiment_id=experiment)).body, Stopped)

    assert ask(mandate) is Code.MANDATE_WITHDRAWN

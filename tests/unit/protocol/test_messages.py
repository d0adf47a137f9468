"""The bodies of messages: exact fields, exact types, and what a newer version may add."""

from __future__ import annotations

import json
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from appliance.protocol import messages as m
from appliance.protocol.errors import Code, MessageRefusedError
from appliance.protocol.register import Role
from tests.unit.protocol.conftest import EVERY_BODY, REPLY, TRAIN


def data(body: m.Body) -> Any:
    """A body as it lies in an envelope, free to be changed."""
    return json.loads(json.dumps(body.model_dump(mode="json")))


def parse(body_data: object, kind: str = "train", *, version: str = "1.0") -> m.Body:
    """What a receiver makes of it."""
    return m.parse_body(kind, body_data, version=version)[0]


def refusal(body_data: object, kind: str = "train", **how: Any) -> MessageRefusedError:
    """The error with which a receiver refuses it."""
    with pytest.raises(MessageRefusedError) as caught:
        parse(body_data, kind, **how)
    return caught.value


def test_every_kind_is_tested_here() -> None:
    """A message that is added has to show that it survives the way."""
    assert {body.kind for body in EVERY_BODY} == set(m.BODIES)


def test_a_body_survives_the_way(any_body: m.Body) -> None:
    """Written and read again it is the same."""
    assert parse(data(any_body), any_body.kind) == any_body


@pytest.mark.parametrize("version", ["1.2", "1.02"])
def test_an_unknown_field_is_refused(any_body: m.Body, version: str) -> None:
    """A misspelt field must not pass as a new one, in any kind of message."""
    assert refusal(data(any_body) | {"extra": 1}, any_body.kind, version=version).code is Code.MESSAGE_MALFORMED


def test_a_reply_of_protocol_1_0_is_read() -> None:
    """Such a node tells of its last update in a Scalar."""
    body = data(REPLY)
    del body["reached"]
    assert parse(body, "train-reply", version="1.0") == REPLY.model_copy(update={"reached": None})


def test_a_word_of_a_pause_reaches_a_researcher_of_protocol_1_1_as_no_progress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A hospital upgrades first: whoever has no word for a pause must not lose the round over it."""
    fields = {name: (field.annotation, field) for name, field in m.Scalar.model_fields.items()}
    older = pydantic.create_model(
        "Scalar", __base__=(m.Reached, m.Body), **{n: fields[n] for n in ("experiment_id", "round")}
    )
    older.kind, older.routes = "scalar", m.Scalar.routes
    monkeypatch.setattr(m, "MINOR", 1)
    monkeypatch.setitem(m.BODIES, "scalar", older)
    said = m.Scalar(experiment_id="e-1", round=2, iteration=0, iterations=0, paused_since=1_770_000_000)

    heard, left_out = m.parse_body("scalar", data(said), version="1.2")

    assert (heard.round, heard.iteration, heard.values, left_out) == (2, 0, {}, ("paused_since",))


def test_an_unknown_field_of_an_older_minor_is_refused(any_body: m.Body, monkeypatch: pytest.MonkeyPatch) -> None:
    """An older side cannot know fields that we do not."""
    monkeypatch.setattr(m, "MINOR", 3)

    assert refusal(data(any_body) | {"extra": 1}, any_body.kind, version="1.2").code is Code.MESSAGE_MALFORMED


def test_an_unknown_field_of_a_newer_minor_is_left_out(any_body: m.Body) -> None:
    """Hospitals upgrade one after the other."""
    assert parse(data(any_body) | {"extra": {"deep": [1]}}, any_body.kind, version="1.9") == any_body


def test_an_unknown_field_deep_inside_is_left_out(any_body: m.Body) -> None:
    """Also in the parts of a message, and inside lists."""
    assert parse(_with_extra_everywhere(data(any_body), any_body), any_body.kind, version="1.9") == any_body


def test_what_was_left_out_is_named() -> None:
    """The sender may have marked it as critical. A name has no place in a list: every element's field is meant."""
    body = data(REPLY) | {"extra": 1}
    body["metrics"][0]["weighting"] = "none"

    assert m.parse_body("train-reply", body, version="1.9")[1] == ("extra", "metrics.weighting")


def test_a_wrong_field_beside_an_unknown_one_is_refused() -> None:
    """A newer version is no licence for wrong values in fields that we know."""
    assert "round" in refusal(data(TRAIN) | {"extra": 1, "round": 0}, version="1.9").message


def test_a_rule_over_several_fields_holds_after_leaving_out() -> None:
    """It runs only once nothing unknown is left, and must end in a refusal there too."""
    approval = {"name": "p", "description": "", "source": "x", "sha256": "a" * 64}

    error = refusal(approval | {"ranges": [{"name": "epochs", "step": 3}]}, "plan-approval", version="1.9")

    assert error.code is Code.MESSAGE_MALFORMED


@pytest.mark.parametrize("version", ["2.0", "0.9", "x", ""])
def test_another_major_version_is_refused(version: str) -> None:
    """Its fields may mean anything."""
    assert refusal(data(TRAIN), version=version).code is Code.MESSAGE_VERSION


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("round", "1"),
        ("round", 1.5),
        ("round", 10**30),
        ("round", True),
        ("round", 0),
        ("train", "yes"),
        ("experiment_id", "../../etc/passwd"),
        ("experiment_id", "a" * 65),
        ("experiment_id", "e-1\n"),
        ("plan_class", "Plan; import os"),
        ("plan_sha256", "A" * 64),
        ("plan_sha256", "a" * 63),
        ("deadline", -1),
        ("deadline", 1 << 60),
        ("training_args", []),
        ("model_args", None),
        ("parameters", None),
        ("secagg", {"scheme": "masking", "min_nodes": 2}),
        ("privacy", {"guarantee": "record", "epsilon": 0, "delta": 1e-5}),
        ("privacy", {"guarantee": "record", "epsilon": 1, "delta": 1}),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(field: str, value: object) -> None:
    """The sender must learn which field to mend."""
    assert refusal(data(TRAIN) | {field: value}).message.startswith(f"train: {field}")


@pytest.mark.parametrize("number", [float("inf"), float("nan")])
def test_a_number_that_is_none_is_refused_anywhere(number: float) -> None:
    """Also in arguments, whose types the protocol leaves open."""
    assert refusal(data(TRAIN) | {"training_args": {"lr": number}}).code is Code.MESSAGE_MALFORMED


@pytest.mark.parametrize("body", [None, [], "x", 5, {"a": "\ud800"}])
def test_what_is_no_object_is_refused(body: object) -> None:
    """Whatever it is."""
    assert refusal(body).code is Code.MESSAGE_MALFORMED


def test_a_bottomless_body_is_refused() -> None:
    """Nesting must not end the receiver."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]

    assert refusal(data(TRAIN) | {"training_args": {"x": deep}}).code is Code.MESSAGE_MALFORMED


def test_a_long_name_is_cut_short_in_the_refusal() -> None:
    """Names come from the sender and go into the log: short, and on one line."""
    message = refusal(data(REPLY) | {"line\nbreak" * 10_000: 1}, "train-reply").message

    assert len(message) < 300
    assert "\n" not in message


def test_a_refusal_does_not_repeat_the_value() -> None:
    """A value in the wrong place could be a record."""
    assert "Mueller" not in refusal(data(REPLY) | {"sample_count": "Mueller, born 1961"}, "train-reply").message


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=5))
def test_no_value_ends_in_anything_but_a_refusal(value: object) -> None:
    """A member may lie, and yet must not bring a receiver down."""
    for field in m.Train.model_fields:
        try:
            body = parse(data(TRAIN) | {field: value}, version="1.9")
        except MessageRefusedError:
            continue
        assert isinstance(body, m.Train)


@pytest.mark.parametrize(
    "limits", [{}, {"minimum": 2.0, "maximum": 1.0}, {"maximum": float("inf")}, {"minimum": float("nan")}]
)
def test_a_range_that_says_nothing_is_refused(limits: dict[str, float]) -> None:
    """Staff approve ranges: one that bounds nothing would look like a bound."""
    with pytest.raises(ValidationError):
        m.ArgumentRange(name="epochs", **limits)


def test_only_presence_may_be_broadcast() -> None:
    """Everything else is for one member, who decides."""
    assert {kind for kind, body in m.BODIES.items() if body.is_broadcast} == {"heartbeat"}


def test_work_and_its_results_are_durable() -> None:
    """What must not be lost stays in the outbox until the Receipt."""
    durable = {kind for kind, body in m.BODIES.items() if body.is_durable}

    assert durable == {"train", "train-reply", "plan-approval", "release", "model-kept", "stop", "stopped", "error"}


@pytest.mark.parametrize("kind", ["search", "list", "plan-approval", "plan-status"])
def test_a_federator_asks_for_no_more_than_rounds(kind: str) -> None:
    """It needs no more: what it knows of datasets and plans, its researchers gave it."""
    assert m.BODIES[kind].routes == {(Role.RESEARCHER, Role.NODE)}


@pytest.mark.parametrize("kind", ["train", "stop"])
def test_only_researcher_and_federator_direct_nodes(kind: str) -> None:
    """The network host cannot start a training, nor end one."""
    assert m.BODIES[kind].routes == {(Role.RESEARCHER, Role.NODE), (Role.FEDERATOR, Role.NODE)}


def test_only_a_researcher_releases_a_model() -> None:
    """An unattended service speaks of rounds alone, and no other member has a model to give."""
    assert m.Release.routes == {(Role.RESEARCHER, Role.NODE)}
    assert m.ModelKept.routes == {(Role.NODE, Role.RESEARCHER)}


def test_a_node_never_addresses_a_node() -> None:
    """But for presence and Receipts, which ask for nothing."""
    between_nodes = {kind for kind, body in m.BODIES.items() if (Role.NODE, Role.NODE) in body.routes}

    assert between_nodes == {"heartbeat", "receipt"}


def test_a_reply_may_come_without_count_and_metrics() -> None:
    """Under secure aggregation the sum carries them, and one hospital's numbers stay at home."""
    body = data(REPLY)
    del body["sample_count"], body["metrics"]

    assert parse(body, "train-reply").sample_count is None


def _with_extra_everywhere(value: Any, part: Any) -> Any:
    """An unknown field in every part of a message, but not where any name is allowed."""
    if isinstance(part, (tuple, list)):
        return [_with_extra_everywhere(v, p) for v, p in zip(value, part, strict=True)]
    if not isinstance(part, m._Part):
        return value
    return {name: _with_extra_everywhere(v, getattr(part, name)) for name, v in value.items()} | {"extra": [{}]}

"""What the protocol's tests share: bodies of every kind, and envelopes written by hand."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.protocol import messages as m
from appliance.protocol.envelope import MESSAGE_TYPE, new_jti
from appliance.protocol.errors import Code
from appliance.protocol.keys import MemberKeys, b64url
from appliance.protocol.register import key_id
from tests.conftest import NOW

SHA = "a" * 64
FILE = m.SealedFile(upload_id="u-1", sha256=SHA, size_bytes=1024, content_key="k" * 107)
TRAIN = m.Train(
    experiment_id="e-1",
    round=1,
    round_limit=20,
    dataset_id="d-1",
    plan_sha256=SHA,
    plan_class="Plan",
    training_args={"epochs": 1, "optimizer_args": {"lr": 0.1}},
    parameters=FILE,
)
INFO = m.DatasetInfo(
    dataset_id="d-1",
    name="opt",
    kind="tabular",
    description="",
    tags=("opt",),
    rows=823,
    columns=(m.Column(name="Age", type="number"),),
    fingerprint=SHA,
)
REPLY = m.TrainReply(
    experiment_id="e-1",
    round=1,
    dataset_id="d-1",
    update=FILE,
    sample_count=173,
    metrics=(m.Metrics(stage="local", samples=40, values={"auc": 0.7}),),
    overrides=(m.Override(argument="batch_size", asked=8, used=16, rule="batch_size at least 16"),),
    reached=m.Reached(iteration=9, iterations=9, epoch=1, values={"loss": 0.25}),
)
EVERY_BODY: tuple[m.Body, ...] = (
    m.Ping(sequence=1),
    m.Pong(sequence=1),
    m.Heartbeat(every_s=20.0, running_rounds=0),
    m.Search(tags=("opt",)),
    m.ListDatasets(),
    m.Datasets(datasets=(INFO,)),
    m.PlanApproval(
        name="p", description="", source="x = 1", sha256=SHA, ranges=(m.ArgumentRange(name="epochs", maximum=5),)
    ),
    m.PlanStatus(sha256=SHA),
    m.PlanStanding(sha256=SHA, state=m.PlanState.PENDING),
    TRAIN,
    REPLY,
    m.Release(
        experiment_id="e-1", name="Risk", model=TRAIN.parameters, card=TRAIN.parameters, card_text=TRAIN.parameters
    ),
    m.ModelKept(experiment_id="e-1", model_sha256=SHA),
    m.Receipt(received="f" * 32),
    m.Scalar(experiment_id="e-1", round=1, split="train", iteration=1, iterations=9, epoch=0, values={"loss": 0.5}),
    m.Stop(experiment_id="e-1"),
    m.Stopped(experiment_id="e-1", was_running=True, ended_at=1.5),
    m.ErrorReply(code=Code.PLAN_NOT_APPROVED, message="no"),
)


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a Ping from alice to north; a change to ``...`` leaves a claim out."""
    ping = {
        "v": "1.0",
        "jti": new_jti(),
        "to": "north",
        "kind": "ping",
        "iat": NOW,
        "exp": NOW + 60,
        "re": None,
        "body": {"sequence": 1},
    } | changes
    return {name: value for name, value in ping.items() if value is not ...}


def handwritten(payload: object, keys: MemberKeys, *, name: str = "alice", **header: Any) -> str:
    """An envelope as somebody with a library of his own would write it."""
    text = payload if isinstance(payload, (str, bytes)) else json.dumps(payload)
    fields = {"alg": "Ed25519", "kid": key_id(name, keys.public.identity), "typ": MESSAGE_TYPE} | header
    signing_input = (
        f"{b64url(json.dumps(fields).encode())}.{b64url(text if isinstance(text, bytes) else text.encode())}"
    )
    return f"{signing_input}.{b64url(keys._identity.sign(signing_input.encode()))}"


@pytest.fixture(params=EVERY_BODY, ids=lambda body: body.kind)
def any_body(request: pytest.FixtureRequest) -> m.Body:
    """A body of each kind."""
    return request.param

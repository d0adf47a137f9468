"""The messages between warden and runner."""

from __future__ import annotations

import json

import pytest

from appliance.protocol.errors import Code, MessageRefusedError
from appliance.protocol.local.jobs import Failed, Limits, SandboxLevel, StopExperiment, parse_reply, parse_request


def test_a_request_is_read_as_it_was_written() -> None:
    """Both processes are ours, of one version."""
    request = StopExperiment(experiment_id="e-1")

    assert parse_request(request.model_dump_json().encode()) == request


def test_a_reply_is_read_as_it_was_written() -> None:
    """As above."""
    reply = Failed(job_id="j-1", code=Code.ROUND_TIMEOUT, message="late", plan_line=3)

    assert parse_reply(reply.model_dump_json().encode()) == reply


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"kind": "nonsense"}', '{"kind": "stop"}', '{"kind": "stop", "experiment_id": "e", "more": 1}'],
)
def test_what_is_no_request_is_refused(text: str) -> None:
    """The runner tells its caller what was wrong and goes on."""
    with pytest.raises(MessageRefusedError):
        parse_request(text.encode())


def test_a_refusal_repeats_no_value() -> None:
    """A value could be a path, or a piece of a plan."""
    with pytest.raises(MessageRefusedError) as caught:
        parse_request(json.dumps({"kind": "stop", "experiment_id": "patient 17"}).encode())

    assert "patient" not in caught.value.message


def test_metrics_must_be_finite_numbers() -> None:
    """JSON of some writers has NaN, and sums of it have it too."""
    text = (
        '{"kind":"trained","job_id":"j","sample_count":1,"metrics":[{"stage":"global","samples":1,"values":{"a":NaN}}]}'
    )
    with pytest.raises(MessageRefusedError):
        parse_reply(text.encode())


def test_a_level_names_what_it_lacks() -> None:
    """Staff read it, and policy decides by it."""
    here = SandboxLevel(landlock=2, seccomp=True)

    assert here.lacks(SandboxLevel(landlock=3, seccomp=True, cgroup=True)) == ("landlock", "cgroup")
    assert here.lacks(SandboxLevel(landlock=1)) == ()


def test_no_limit_is_unlimited() -> None:
    """A forgotten field must not mean for ever."""
    with pytest.raises(ValueError, match="finite"):
        Limits(seconds=float("inf"))

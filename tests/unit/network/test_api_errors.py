"""Every error has one shape, whoever raised it."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.network.audit import selectors
from appliance.protocol.errors import Code

CASES = {
    "no such address": ("GET", "/nothing", 404, {}),
    "no such upload": ("GET", "/api/v1/uploads/00000000-0000-4000-8000-000000000000/content", 404, {}),
    "wrong method": ("PUT", "/api/v1/register", 405, {}),
    "not JSON": ("POST", "/api/v1/jobs", 400, {"data": b"{", "content_type": "application/json"}),
    "nested too deeply": ("POST", "/api/v1/jobs", 400, {"data": b"[" * 99_999, "content_type": "application/json"}),
    "not an object": ("POST", "/api/v1/jobs", 400, {"data": b"[]", "content_type": "application/json"}),
    "a number that is none": ("POST", "/api/v1/jobs", 400, {"data": b'{"a":NaN}', "content_type": "application/json"}),
    "fields missing": ("POST", "/api/v1/jobs", 400, {"data": b"{}", "content_type": "application/json"}),
    "too large": ("POST", "/api/v1/jobs", 413, {"data": b" " * (1 << 20) + b"{}", "content_type": "application/json"}),
    "not our media type": ("POST", "/api/v1/jobs", 415, {"data": b"a=1", "content_type": "text/plain"}),
    "no answer in that type": ("GET", "/api/v1/jobs", 406, {"HTTP_ACCEPT": "image/png"}),
    "wrong role": ("POST", "/api/v1/jobs/claim", 403, {}),
    "another tus": ("POST", "/api/v1/uploads", 412, {"HTTP_TUS_RESUMABLE": "0.2"}),
}


@pytest.mark.parametrize("case", CASES)
def test_every_error_is_a_code_a_message_and_a_remedy(case: str, alice: Any) -> None:
    """A client, and the person behind it, need one way to read all refusals."""
    method, path, status, options = CASES[case]

    answer = alice.generic(method, path, **options)

    assert answer.status_code == status
    assert set(answer.json()) == {"code", "message", "remedy"}
    assert answer.json()["code"] in set(Code)
    assert all(answer.json().values())


def test_an_error_inside_is_told_by_a_reference_alone(alice: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback in an answer shows strangers how the host is made."""

    def fail(*_: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("appliance.network.jobs.selectors.job_list", fail)

    answer = alice.get("/api/v1/jobs")

    assert answer.status_code == 500
    assert answer.json()["code"] == "INTERNAL"
    assert "reference" in answer.json()["message"]
    assert "secret detail" not in answer.content.decode()


def test_an_unknown_address_is_not_copied_into_the_log(alice: Any) -> None:
    """An address may hold anything, a token or a patient's name included."""
    alice.get("/api/v1/patients/Smith")

    assert not [line for line in selectors.line_stream() if "Smith" in line.text]

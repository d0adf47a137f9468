"""The audit log, and who may read it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.network.audit import selectors
from appliance.network.audit.models import AuditHead, AuditLine
from appliance.protocol import chain


@pytest.fixture
def lines(north: Any) -> int:
    """Five calls, and so some lines."""
    for _ in range(5):
        north.get("/api/v1/register")
    return selectors.head_show().n


def test_each_call_leaves_a_line(north: Any) -> None:
    """With who, what, how it ended and how much; the address as a template."""
    north.get("/api/v1/register")

    line = json.loads(list(selectors.line_stream())[-1].text)
    assert (line["actor"], line["event"]) == ("north", "request.answered")
    assert line["details"]["path"] == "/api/v1/register"
    assert (line["details"]["method"], line["details"]["status"]) == ("GET", 200)
    assert line["details"]["sent"] > 0


def test_a_log_as_it_was_written_is_whole(lines: int) -> None:
    """The check says how far it looked."""
    assert selectors.log_verify() == chain.Verdict(lines, selectors.head_show().hash)


def test_a_changed_byte_is_found_at_its_line(lines: int) -> None:
    """Whoever can write to the database still cannot change the past unseen."""
    line = AuditLine.objects.get(n=3)
    AuditLine.objects.filter(n=3).update(text=line.text.replace("GET", "PUT"))

    assert selectors.log_verify().altered_line == 3


def test_a_line_taken_out_is_found(lines: int) -> None:
    """The next one does not follow."""
    AuditLine.objects.filter(n=3).delete()

    assert selectors.log_verify().altered_line == 3


def test_a_log_cut_short_is_found(lines: int) -> None:
    """The chain alone cannot show it; the head can."""
    AuditLine.objects.filter(n=lines).delete()

    assert selectors.log_verify().altered_line == lines


def test_a_long_log_is_read_in_pages(lines: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Years of lines do not fit into memory."""
    monkeypatch.setattr(selectors, "_PAGE", 2)

    assert selectors.log_verify().is_whole
    assert len(list(selectors.line_stream())) == lines


def test_any_member_may_note_the_head(lines: int, north: Any) -> None:
    """Noted elsewhere, it shows a log that was written anew."""
    head = north.get("/api/v1/audit/head").json()

    assert head == {"lines": lines, "hash": AuditLine.objects.get(n=lines).hash}


def test_the_operator_reads_the_log(lines: int, world: Any) -> None:
    """As text that 'verify' takes."""
    answer = world.client("operator").get("/api/v1/audit/lines")
    text = b"".join(answer.streaming_content).decode()

    assert chain.verify(chain.read_export(text.splitlines(keepends=True))).is_whole


def test_nobody_else_reads_it(lines: int, alice: Any) -> None:
    """It tells of all members."""
    assert alice.get("/api/v1/audit/lines").status_code == 403


def test_a_call_whose_line_cannot_be_written_fails(north: Any) -> None:
    """What is not in the log must not look done."""
    AuditHead.objects.all().delete()

    assert north.get("/api/v1/register").status_code == 500

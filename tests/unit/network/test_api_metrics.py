"""GET /metrics."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from rest_framework.test import APIClient

from appliance.network.audit import selectors as audit
from appliance.network.metrics import TOKEN_FILE
from appliance.network.presence import services
from appliance.protocol.keys import write_secret

TOKEN = "5e" * 32
LINE = re.compile(
    r"# (HELP|TYPE) fedward_\w+ .+|"
    r'fedward_\w+(\{\w+="([^"\\\n]|\\["\\n])*"(,\w+="([^"\\\n]|\\["\\n])*")*\})? -?[0-9.e+]+'
)


@pytest.fixture(autouse=True)
def nobody_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has heard nobody yet."""
    monkeypatch.setattr(services, "_seen", {})


@pytest.fixture
def operator(host: Any, world: Any) -> APIClient:
    """Who looks after the network host."""
    return world.client("operator")


def look(client: APIClient) -> dict[str, float]:
    """The numbers by name and labels."""
    answer = client.get("/metrics")
    assert answer.status_code == 200
    rows = [row for row in answer.content.decode().splitlines() if not row.startswith("#")]
    return {name: float(value) for name, value in (row.rsplit(" ", 1) for row in rows)}


def test_it_is_the_format_that_prometheus_reads(operator: APIClient, north: APIClient) -> None:
    """Each line is one of the grammar's, each name has its kind, and the end is a line's end."""
    north.get("/api/v1/register")
    answer = operator.get("/metrics")
    text = answer.content.decode()
    names = {line.split("{")[0].split(" ")[0] for line in text.splitlines() if not line.startswith("#")}

    assert answer["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert [line for line in text.splitlines() if not LINE.fullmatch(line)] == []
    assert names <= set(re.findall(r"^# TYPE (\w+) (?:gauge|counter)$", text, re.MULTILINE))
    assert text.endswith("\n")


def test_it_counts_members_jobs_uploads_and_lines(
    operator: APIClient, north: APIClient, alice: APIClient, letter: Any
) -> None:
    """From the database, so that every worker says the same."""
    letter.announce(north, letter.content)
    state = {
        "version": "0.1.0",
        "disk_free_bytes": 5,
        "disk_total_bytes": 10,
        "certificate_until": 9,
        "running_rounds": 2,
    }
    north.put("/api/v1/members/me/state", state, format="json")
    job = {"id": "7b0c6f0e-0d5b-4a6e-9b1a-111111111111", "federator": "fed", "spec": {}, "mandate": "m"}
    assert alice.post("/api/v1/jobs", job, format="json").status_code == 201
    found = look(operator)

    assert found["fedward_uploads"] == 1
    assert found["fedward_uploads_stored_bytes"] == len(letter.content)
    assert found['fedward_jobs{state="queued"}'] == 1
    assert found['fedward_member_running_rounds{member="north"}'] == 2
    assert found['fedward_member_certificate_end_seconds{member="north"}'] == 9
    assert found['fedward_member_info{member="north",role="node",state="active",version="0.1.0"}'] == 1
    assert found['fedward_member_last_seen_seconds{member="alice"}'] > 1e9
    assert 'fedward_member_last_seen_seconds{member="south"}' not in found
    assert found["fedward_audit_lines_total"] == audit.head_show().n


@pytest.mark.parametrize("member", ["north", "alice", "mallory", "fed"])
def test_other_members_do_not_see_it(member: str, host: Any, world: Any) -> None:
    """Who trains when, and how full a hospital's disk is, is not another hospital's affair."""
    assert world.client(member).get("/metrics").status_code == 403


def test_nobody_sees_it_without_a_token(host: Any, world: Any) -> None:
    """As with every call."""
    assert world.client().get("/metrics").status_code == 401
    assert world.client(token=TOKEN).get("/metrics").status_code == 401


def test_the_scrape_token_opens_the_metrics_and_nothing_else(host: Any, world: Any) -> None:
    """Prometheus signs nothing: its token is a secret file's text, and no member's."""
    write_secret(Path(host.FEDWARD_HOME) / TOKEN_FILE, f"{TOKEN}\n".encode())
    scraper = world.client(token=TOKEN)

    assert scraper.get("/metrics").status_code == 200
    assert scraper.get("/api/v1/register").status_code == 401
    assert world.client(token=TOKEN[:-1] + "f").get("/metrics").status_code == 401
    assert world.client("north").get("/metrics").status_code == 403


@pytest.mark.parametrize("text", ["", "\n", "short"])
def test_a_token_that_can_be_guessed_is_none(text: str, host: Any, world: Any) -> None:
    """An empty file would open it to everybody."""
    write_secret(Path(host.FEDWARD_HOME) / TOKEN_FILE, text.encode())

    assert world.client(token=text.strip() or "x").get("/metrics").status_code == 401


def test_a_token_file_that_others_may_read_opens_nothing(host: Any, world: Any) -> None:
    """It is a fault of the host's, and told to the operator."""
    path = Path(host.FEDWARD_HOME) / TOKEN_FILE
    path.write_text(TOKEN)
    path.chmod(0o644)

    assert world.client(token=TOKEN).get("/metrics").status_code == 500


def test_a_look_leaves_a_line_only_where_it_was_refused(operator: APIClient, north: APIClient) -> None:
    """Prometheus asks four times a minute."""
    before = audit.head_show().n
    operator.get("/metrics")
    quiet = audit.head_show().n
    north.get("/metrics")

    assert (quiet, audit.head_show().n) == (before, before + 1)

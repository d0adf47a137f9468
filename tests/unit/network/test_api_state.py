"""PUT /api/v1/members/me/state, and when a member was last seen."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from django.db import DatabaseError
from rest_framework.test import APIClient

from appliance.network.audit import selectors as audit
from appliance.network.presence import selectors, services
from appliance.network.presence.models import Presence

ADDRESS = "/api/v1/members/me/state"
STATE = {
    "version": "0.1.0",
    "disk_free_bytes": 5,
    "disk_total_bytes": 10,
    "certificate_until": 1_800_000_000,
    "running_rounds": 1,
}


@pytest.fixture(autouse=True)
def nobody_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has heard nobody yet."""
    monkeypatch.setattr(services, "_seen", {})


def tell(client: APIClient, **changes: Any) -> Any:
    """PUT the state; a change to ``...`` leaves a field out."""
    state = {name: value for name, value in (STATE | changes).items() if value is not ...}
    return client.put(ADDRESS, state, format="json")


def row(member: str) -> dict[str, Any]:
    """What ``fedward status`` shows of a member."""
    return next(row for row in selectors.status_show()["members"] if row["id"] == member)


def test_a_member_says_how_it_is_and_the_last_word_counts(north: APIClient) -> None:
    """The operator sees it; nothing is kept of what was said before."""
    tell(north)
    answer = tell(north, disk_free_bytes=4)

    assert answer.status_code == 204
    assert Presence.objects.count() == 1
    assert {name: row("north")[name] for name in STATE} == STATE | {"disk_free_bytes": 4, "certificate_until": 1.8e9}


def test_a_member_speaks_for_itself_alone(north: APIClient, mallory: APIClient) -> None:
    """The token says whose state it is; there is no field for it."""
    tell(north)
    tell(mallory, running_rounds=7)
    refused = tell(mallory, member="north")

    assert refused.status_code == 400
    assert (row("north")["running_rounds"], row("mallory")["running_rounds"]) == (1, 7)


@pytest.mark.parametrize(
    "change",
    [
        {"version": "<b>"},
        {"version": "x" * 33},
        {"disk_free_bytes": -1},
        {"disk_total_bytes": 1 << 64},
        {"certificate_until": 1 << 40},
        {"certificate_until": "soon"},
        {"running_rounds": ...},
        {"patients": 823},
    ],
)
def test_what_is_not_one_of_five_plain_values_is_refused(change: dict[str, Any], north: APIClient) -> None:
    """A field for text would be a way out for text."""
    answer = tell(north, **change)

    assert answer.status_code == 400
    assert next(iter(change)) in answer.json()["message"]
    assert row("north")["stated_at"] is None


def test_only_members_have_a_state(host: Any, world: Any) -> None:
    """Without a token there is nobody to be."""
    assert tell(world.client()).status_code == 401


def test_any_call_is_a_sign_of_life(north: APIClient) -> None:
    """Also one that was refused: the member proved who it is."""
    assert row("north")["seen_at"] is None
    north.post("/api/v1/jobs/claim")

    assert row("north")["seen_at"] is not None
    assert row("south")["seen_at"] is None


def test_a_call_without_a_valid_token_is_nobodys(host: Any, world: Any) -> None:
    """Else anybody could keep a dead hospital alive."""
    world.client(token=world.token("north")[:-4] + "AAAA").get("/api/v1/register")

    assert row("north")["seen_at"] is None


def test_calls_within_half_a_minute_are_one_write(north: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Members call several times a second while they transfer."""
    north.get("/api/v1/register")
    first = row("north")["seen_at"]
    north.get("/api/v1/register")
    same = row("north")["seen_at"]
    monkeypatch.setattr(services, "SEEN_EVERY", dt.timedelta())
    north.get("/api/v1/register")

    assert first == same
    assert row("north")["seen_at"] > first


def test_a_disk_that_takes_nothing_fails_no_call(north: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Presence is a convenience."""

    def full(**_fields: Any) -> None:
        raise DatabaseError("database or disk is full")

    monkeypatch.setattr(Presence.objects, "update_or_create", full)

    assert north.get("/api/v1/register").status_code == 200


def test_a_state_leaves_a_line_only_where_it_was_refused(north: APIClient) -> None:
    """Once a minute from every hospital, it would bury the log."""
    before = audit.head_show().n
    tell(north)
    quiet = audit.head_show().n
    tell(north, running_rounds=-1)

    assert (quiet, audit.head_show().n) == (before, before + 1)


def test_a_member_that_left_the_register_is_shown_no_more(north: APIClient) -> None:
    """The register says who is a member; a row is no membership."""
    tell(north)
    Presence.objects.create(member="nobody", seen_at=dt.datetime.now(dt.UTC))

    assert "nobody" not in {row["id"] for row in selectors.status_show()["members"]}

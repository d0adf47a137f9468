"""GET /api/v1/health."""

from __future__ import annotations

from typing import Any

from appliance.network.audit import selectors


def test_health_needs_no_token(host: Any, world: Any) -> None:
    """Whoever watches the host is no member."""
    answer = world.client().get("/api/v1/health")

    assert answer.status_code == 200
    assert answer.json()["status"] == "ok"


def test_health_leaves_no_line(host: Any, world: Any) -> None:
    """Asked every few seconds, it would bury the log."""
    before = selectors.head_show().n

    world.client().get("/api/v1/health")

    assert selectors.head_show().n == before

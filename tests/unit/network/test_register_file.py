"""The register that the operator puts into the network host's folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from appliance.network.audit import selectors
from appliance.network.members import services
from appliance.network.members.models import RegisterVersion
from appliance.protocol.keys import MemberKeys
from appliance.protocol.register import open_register, sign_register


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "_seen", None)


def put(tmp_path: Path, text: str) -> None:
    """As a playbook does it: under another name first."""
    (tmp_path / "register.new").write_text(text)
    (tmp_path / "register.new").replace(tmp_path / "register.jws")


def test_a_newer_one_counts_from_the_next_call_on(north: Any, world: Any, tmp_path: Path) -> None:
    """A revocation must not wait for a restart."""
    assert north.get("/api/v1/register").status_code == 200

    put(tmp_path, world.register(version=2, north="revoked"))

    assert north.get("/api/v1/register").status_code == 401


def test_the_health_check_tells_its_version(host: Any, world: Any, tmp_path: Path) -> None:
    """By it the hub makes sure that the register was taken."""
    put(tmp_path, world.register(version=7))

    assert world.client().get("/api/v1/health").json()["register"] == 7


def test_the_log_says_what_became_of_whom(north: Any, world: Any, tmp_path: Path) -> None:
    """In a line of its own, beside that of the call."""
    put(tmp_path, world.register(version=2, mallory="revoked", south="suspended"))
    north.get("/api/v1/register")

    imported, call = [json.loads(line.text) for line in list(selectors.line_stream())[-2:]]
    assert (imported["actor"], imported["event"], call["actor"]) == ("operator", "register.imported", "north")
    assert imported["details"]["changes"] == {"mallory": "revoked", "south": "suspended"}


@pytest.mark.parametrize("lie", ["forged", "older", "nonsense", "another of the same version"])
def test_one_that_is_refused_leaves_the_one_held(lie: str, north: Any, world: Any, tmp_path: Path) -> None:
    """Whoever can write a file in the folder must not decide who is a member, nor stop the service."""
    services.register_import(world.register(version=3))
    forged = sign_register(open_register(world.register(version=4), world.operator), MemberKeys.generate())
    texts = {"forged": forged, "older": world.register(version=2, north="revoked"), "nonsense": "\0" * 100}
    put(tmp_path, texts.get(lie) or world.register(version=3, north="revoked"))

    assert north.get("/api/v1/register").status_code == 200
    assert RegisterVersion.objects.order_by("-version").first().version == 3

"""A model that is none: what a researcher, or who took his keys, may send to a hospital's staff as a release.

Each is refused by the node's own look at the bytes; nothing of it is in the node's folder afterwards.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.protocol.errors import Code
from appliance.protocol.messages import CARD_FILE, CARD_TEXT, MODEL_FILE, ErrorReply, SealedFile
from appliance.protocol.tensors import tensor_bytes
from appliance.warden import models as models_module
from appliance.warden.store import models
from node_gui.access import Role
from tests.conftest import Members
from tests.unit.node_gui.hospital import Hospital
from tests.unit.warden.conftest import Node

SCRIPT = "# Risk\n<script>alert(1)</script>\n<img src=x onerror=alert(1)>\n[x](javascript:alert(1))\n\u202egnp.exe\n"


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("../../keys/identity.json", "{}")
    return out.getvalue()


def _with_metadata() -> bytes:
    header = json.dumps({"__metadata__": {"run": "curl evil"}}).encode()
    return len(header).to_bytes(8, "little") + header


HOSTILE: dict[str, dict[str, Any]] = {
    "pickle": {MODEL_FILE: pickle.dumps({"w": [1.0]})},
    "archive with a path that leads out": {MODEL_FILE: _zip()},
    "text in the tensor file's header": {MODEL_FILE: _with_metadata()},
    "bytes behind the tensors": {MODEL_FILE: b"\x02\0\0\0\0\0\0\0{}MZ"},
    "card that is no JSON": {CARD_FILE: b"<html>"},
    "card that is a list": {CARD_FILE: b"[]"},
    "card of depth without end": {CARD_FILE: b"[" * 100_000},
    "card with NaN": {CARD_FILE: b'{"a": NaN}'},
    "card of another model": {"says": {"files_sha256": {MODEL_FILE: "0" * 64}}},
    "card of another experiment": {"says": {"experiment_id": "e-2"}},
    "card in another's name": {"researcher": "bob"},
    "text that is none": {CARD_TEXT: b"\xff\xfe\x00"},
}


@pytest.fixture
def hospital(tmp_path: Path, members: Members) -> Iterator[Hospital]:
    """A hospital that answered a round of alice's experiment e-1."""
    hospital = Hospital(tmp_path, members)
    hospital.node.answered()
    hospital.node.sent.clear()
    yield hospital
    hospital.close()


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_model_is_refused_and_leaves_nothing(hospital: Hospital, name: str) -> None:
    """Only tensors, JSON and text pass, and only where they belong together."""
    node = hospital.node
    node.deliver("alice", node.release(**HOSTILE[name]))
    assert node.models.fetch_waiting()
    (refused,) = node.received("alice", ErrorReply)
    assert refused.code is Code.PARAMETERS_INVALID
    assert node.table(models) == []
    assert list((node.root / "models").iterdir()) == []
    assert node.audit()[-1]["event"] == "model.refused"


def test_a_strangers_model_is_refused(hospital: Hospital) -> None:
    """Of an experiment that is alice's, only alice may send the model; whoever is no member is not even heard."""
    node = hospital.node
    node.deliver("mallory", node.release(researcher="mallory"))
    (refused,) = node.received("mallory", ErrorReply)
    assert refused.code is Code.PERMISSION_DENIED
    assert node.table(models) == []


@pytest.mark.parametrize("part", ["model", "card", "card_text"])
def test_an_oversize_file_is_refused_unfetched(hospital: Hospital, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    """By what the signed message states; a file that is longer than stated is cut by the line itself."""
    node = hospital.node
    monkeypatch.setattr(node.rest, "download", lambda *_, **__: pytest.fail("it was fetched"))
    huge = SealedFile(upload_id="a" * 8, sha256="0" * 64, size_bytes=1 << 40, content_key="AA")
    node.deliver("alice", node.release(**{part: huge}))
    assert node.models.fetch_waiting()
    assert len(node.received("alice", ErrorReply)) == 1


def test_a_flood_of_models_fills_no_disk(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stated counts from the first message on, fetched or not."""
    monkeypatch.setattr(models_module, "ALL_BYTES", 5000)
    node = hospital.node
    for _ in range(20):
        node.deliver("alice", node.release())
    assert sum(row["size_bytes"] for row in node.table(models)) <= 5000


def test_a_key_sealed_for_a_round_opens_no_release(hospital: Hospital) -> None:
    """Nor the other way: a file has one purpose."""
    node = hospital.node
    node.deliver("alice", node.release(model=node.parameters()))
    node.models.fetch_waiting()
    assert node.received("alice", ErrorReply)[0].code is Code.SEAL_BROKEN


def test_a_card_is_text_on_every_page(hospital: Hospital) -> None:
    """Whatever a researcher writes into a card, or into a name, no browser of the staff runs it."""
    node = hospital.node
    name = "<b>risk</b>\u202e"
    jti = node.deliver("alice", node.release(name=name, **{CARD_TEXT: SCRIPT.encode()})).envelope.jti
    node.models.fetch_waiting()
    manager = hospital.signed_in(Role.DATA_MANAGER)
    for path in ("/models/", f"/models/{jti}", f"/models/{jti}/remove", "/audit/"):
        page = manager.get(path).text
        assert "<script>alert" not in page
        assert "<img src=x" not in page
        assert "<b>risk" not in page
        assert "\u202e" not in page
    assert "&lt;script&gt;alert(1)" in manager.get(f"/models/{jti}").text


def test_the_archive_has_our_names_alone(hospital: Hospital) -> None:
    """A name that leads out of the folder would be the unpacking person's trouble."""
    node = hospital.node
    jti = node.deliver("alice", node.release(name="../../etc/cron.d/x")).envelope.jti
    node.models.fetch_waiting()
    reply = hospital.signed_in(Role.REVIEWER).get(f"/models/{jti}/model.zip")
    assert "/" not in reply.headers["Content-Disposition"].partition("filename=")[2]
    names = zipfile.ZipFile(io.BytesIO(reply.data)).namelist()
    assert names == [f"model-e-1/{name}" for name in (MODEL_FILE, CARD_FILE, CARD_TEXT)]


@pytest.mark.parametrize("jti", ["..%2f..%2fkeys", "%2e%2e", ".", "..\\keys", "x" * 300, "%00"])
def test_no_address_leads_out_of_the_models(hospital: Hospital, jti: str) -> None:
    """A path is made of a row's own id, never of what the address says."""
    manager = hospital.signed_in(Role.DATA_MANAGER)
    for page in ("", "/model.zip", "/remove"):
        assert manager.get(f"/models/{jti}{page}").status_code in (302, 308, 404, 409)
    assert manager.post(f"/models/{jti}/remove").status_code in (308, 404, 409)


@pytest.mark.parametrize("role", [Role.ADMINISTRATOR, Role.AUDITOR])
def test_who_decides_on_no_data_takes_no_model_along(hospital: Hospital, role: Role) -> None:
    """Nor deletes one."""
    node: Node = hospital.node
    jti = node.deliver("alice", node.release()).envelope.jti
    node.models.fetch_waiting()
    person = hospital.signed_in(role)
    assert person.get(f"/models/{jti}/model.zip").status_code == 403
    assert person.post(f"/models/{jti}/remove").status_code == 403
    assert tensor_bytes(node.model) == (node.root / "models" / jti / MODEL_FILE).read_bytes()

"""The Models page: what researchers sent, read about, taken along and deleted."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.protocol.messages import CARD_TEXT, MODEL_FILE
from appliance.protocol.tensors import tensor_bytes
from node_gui.access import Role
from tests.conftest import Members
from tests.unit.node_gui.hospital import Hospital


@pytest.fixture
def hospital(tmp_path: Path, members: Members) -> Iterator[Hospital]:
    """A hospital that answered a round of alice's experiment e-1."""
    hospital = Hospital(tmp_path, members)
    hospital.node.answered()
    yield hospital
    hospital.close()


@pytest.fixture
def jti(hospital: Hospital) -> str:
    """A model that is kept."""
    jti = hospital.node.deliver("alice", hospital.node.release()).envelope.jti
    hospital.node.models.fetch_waiting()
    return jti


def test_everybody_sees_what_came_and_reads_its_card(hospital: Hospital, jti: str) -> None:
    """With the plan, if it is known here, and the hash to compare by telephone."""
    for role in Role:
        browser = hospital.signed_in(role)
        assert "Bleeding risk" in browser.get("/models/").text
        page = browser.get(f"/models/{jti}").text
        assert "# Bleeding risk" in page
        assert "/plans/" in page


def test_the_archive_holds_the_very_files(hospital: Hospital, jti: str) -> None:
    """Whole, and readable by any program for archives; the log has the name of who took it."""
    reply = hospital.signed_in(Role.REVIEWER, "Ruth Lindqvist").get(f"/models/{jti}/model.zip")
    with zipfile.ZipFile(io.BytesIO(reply.data)) as archive:
        assert archive.testzip() is None
        assert archive.read(f"model-e-1/{MODEL_FILE}") == tensor_bytes(hospital.node.model)
        assert archive.read(f"model-e-1/{CARD_TEXT}") == b"# Bleeding risk\n"
    said = [(line["event"], line["actor"]) for line in hospital.node.audit()]
    assert ("model.downloaded", "staff:Ruth Lindqvist") in said


def test_one_on_its_way_is_listed_and_cannot_be_opened(hospital: Hospital) -> None:
    """Staff see that something comes, and nothing of it before it was looked at."""
    jti = hospital.node.deliver("alice", hospital.node.release()).envelope.jti
    manager = hospital.signed_in(Role.DATA_MANAGER)
    assert "on its way" in manager.get("/models/").text
    assert manager.get(f"/models/{jti}").status_code == 409
    assert manager.get(f"/models/{jti}/model.zip").status_code == 409


def test_the_data_manager_deletes_after_a_word_on_what_is_gone(hospital: Hospital, jti: str) -> None:
    """Asked first, then told; a colleague's open page finds it gone."""
    manager = hospital.signed_in(Role.DATA_MANAGER)
    assert "only alice can send them again" in manager.get(f"/models/{jti}/remove").text
    assert manager.post(f"/models/{jti}/remove").status_code == 302
    assert "is deleted from this node" in manager.get("/models/").text
    assert "No researcher has sent a model yet." in manager.get("/models/").text
    assert manager.post(f"/models/{jti}/remove").status_code == 409


def test_files_that_somebody_removed_are_missed_in_words(hospital: Hospital, jti: str) -> None:
    """No page of a defect, and no half archive."""
    (hospital.node.root / "models" / jti / CARD_TEXT).unlink()
    manager = hospital.signed_in(Role.DATA_MANAGER)
    for path in (f"/models/{jti}", f"/models/{jti}/model.zip"):
        assert manager.get(path).status_code == 409


def test_the_models_are_read_while_the_warden_is_down(hospital: Hospital, jti: str) -> None:
    """History can always be looked at; what is written down needs the warden."""
    hospital.stop_warden()
    manager = hospital.signed_in(Role.DATA_MANAGER)
    assert "# Bleeding risk" in manager.get(f"/models/{jti}").text
    assert manager.get(f"/models/{jti}/model.zip").status_code == 503

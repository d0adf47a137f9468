"""Models that researchers send: taken by rule, fetched, looked at, kept within bounds, deleted by staff."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.messages import CARD_FILE, CARD_TEXT, MODEL_FILE, ErrorReply, ModelKept, Release
from appliance.protocol.register import MemberState
from appliance.protocol.tensors import tensor_bytes
from appliance.warden import models as models_module
from appliance.warden.governance import Staff
from appliance.warden.history import History
from appliance.warden.models import ModelShelf
from appliance.warden.store import models
from tests.conftest import Members
from tests.unit.warden.conftest import PLAN_SHA, Node


@pytest.fixture
def took_part(node: Node) -> Node:
    """A node that answered a round of alice's experiment e-1."""
    node.answered()
    node.sent.clear()
    return node


def refusal(node: Node, member: str = "alice") -> ErrorReply:
    """The one error that ``member`` got."""
    (found,) = node.received(member, ErrorReply)
    assert isinstance(found, ErrorReply)
    return found


@pytest.mark.parametrize("uploads", [False, True])
def test_a_model_is_kept_for_the_staff_and_its_sender_is_told(took_part: Node, uploads: bool) -> None:
    """Small files come inside the message, large ones over the network host; the staff find the same."""
    jti = took_part.deliver("alice", took_part.release(uploads=uploads)).envelope.jti
    assert took_part.receipts("alice") == [jti]
    assert took_part.models.fetch_waiting()

    model = tensor_bytes(took_part.model)
    digest = hashlib.sha256(model).hexdigest()
    assert took_part.received("alice", ModelKept) == [ModelKept(experiment_id="e-1", model_sha256=digest)]
    found = History(took_part.root).model(jti)
    assert (found["name"], found["sha256"], found["parameters"]) == ("Bleeding risk", digest, 7)
    assert (found["rounds"], found["plan_sha256"]) == (20, PLAN_SHA)
    folder = took_part.root / "models" / jti
    assert (folder / MODEL_FILE).read_bytes() == model
    assert {path.name for path in folder.iterdir()} == {MODEL_FILE, CARD_FILE, CARD_TEXT}
    assert took_part.events()[-2:] == ["model.accepted", "model.kept"]


def test_what_was_enclosed_is_not_kept_twice(took_part: Node) -> None:
    """The store is read for every page."""
    took_part.deliver("alice", took_part.release())
    took_part.models.fetch_waiting()
    assert took_part.table(models)[0]["request"] is None


def test_a_model_of_an_experiment_without_this_node_is_refused(node: Node) -> None:
    """The release's rule: a stranger's model is of no use here, and fills the disk."""
    node.deliver("alice", node.release())
    assert refusal(node).rule == "models = own (set by the release)"
    assert node.table(models) == []


def test_policy_may_let_in_any_model_or_none(node: Node) -> None:
    """That is the hospital's to say, within what the consortium demands."""
    staff = Staff(name="Dr. Weiss", via="cli")
    node.governance.policy_set(staff, {"models": "all"})
    node.deliver("alice", node.release())
    assert len(node.table(models)) == 1
    node.governance.policy_set(staff, {"models": "off"})
    node.deliver("alice", node.release())
    assert refusal(node).message == "This node takes no models."


def test_a_node_keeps_only_so_many(took_part: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old ones are not thrown away for new ones: that is the staff's decision."""
    monkeypatch.setattr(models_module, "OF_ONE_RESEARCHER", 1)
    took_part.deliver("alice", took_part.release())
    took_part.deliver("alice", took_part.release())
    assert len(took_part.table(models)) == 1
    assert "at most" in refusal(took_part).message


def test_the_largest_model_is_the_largest_update(took_part: Node) -> None:
    """One rule for the size of what is a model; nothing is fetched to find out."""
    took_part.governance.policy_set(Staff(name="Dr. Weiss", via="cli"), {"maximum_update_bytes": 100})
    took_part.deliver("alice", took_part.release(uploads=True))
    assert refusal(took_part).rule == "maximum_update_bytes = 100 (set by the site)"


def test_a_network_host_out_of_reach_puts_a_model_off(took_part: Node) -> None:
    """It passes by itself; what was accepted is not lost."""
    took_part.deliver("alice", took_part.release(uploads=True))
    took_part.rest.faults.append(FedWardError("no line", code=Code.NETWORK_UNREACHABLE))
    assert not took_part.models.fetch_waiting()
    assert took_part.models.fetch_waiting()
    assert len(took_part.received("alice", ModelKept)) == 1


def test_a_restart_takes_up_what_waits_and_clears_what_was_half_there(took_part: Node) -> None:
    """A power cut at any instant loses no accepted work and leaves nothing half-done to be found."""
    jti = took_part.deliver("alice", took_part.release()).envelope.jti
    for left in (f".{jti}", jti, "stray"):
        (took_part.root / "models" / left).mkdir(parents=True)
    again = ModelShelf(took_part.services, took_part.root / "models")
    again.start()
    again.notify()
    again.close()
    again.fetch_waiting()
    took_part.models.fetch_waiting()
    assert [path.name for path in (took_part.root / "models").iterdir()] == [jti]
    assert len(took_part.received("alice", ModelKept)) == 1


def test_a_model_of_someone_who_left_meanwhile_is_not_kept(took_part: Node, members: Members) -> None:
    """Between acceptance and the fetch the operator may have ended a membership."""
    took_part.deliver("alice", took_part.release())
    took_part.with_register(members.with_state("alice", MemberState.REVOKED))
    assert took_part.models.fetch_waiting()
    assert took_part.table(models) == []
    assert took_part.audit()[-1]["details"]["code"] == Code.SENDER_UNKNOWN


def test_staff_delete_a_model_and_the_log_says_who(took_part: Node, staff: Staff) -> None:
    """Row and files; a second click finds it gone."""
    jti = took_part.deliver("alice", took_part.release()).envelope.jti
    took_part.models.fetch_waiting()
    took_part.governance.model_delete(staff, jti)
    assert not (took_part.root / "models" / jti).exists()
    assert took_part.audit()[-1]["actor"] == f"staff:{staff.name}"
    with pytest.raises(FedWardError, match="not here any more") as caught:
        took_part.governance.model_delete(staff, jti)
    assert caught.value.code is Code.DECISION_STALE


def test_a_download_stands_in_the_log_with_the_files_hash(took_part: Node, staff: Staff) -> None:
    """So that one can say later who took which model along."""
    jti = took_part.deliver("alice", took_part.release()).envelope.jti
    took_part.models.fetch_waiting()
    took_part.governance.model_download(staff, jti)
    line = took_part.audit()[-1]
    assert (line["event"], line["details"]["sha256"]) == ("model.downloaded", took_part.table(models)[0]["sha256"])


def test_the_files_are_only_this_users(took_part: Node) -> None:
    """Like everything in the node's folder."""
    jti = took_part.deliver("alice", took_part.release()).envelope.jti
    took_part.models.fetch_waiting()
    assert (took_part.root / "models" / jti).stat().st_mode & 0o077 == 0


def test_a_release_is_its_three_files_and_nothing_else(took_part: Node) -> None:
    """There is no name of a file, and no room for a fourth one, in the message."""
    fields = json.loads(took_part.release().model_dump_json())
    with pytest.raises(ValueError, match="extra_forbidden"):
        Release.model_validate_json(json.dumps(fields | {"plan": fields["card"]}))
    assert Path(MODEL_FILE).name == MODEL_FILE

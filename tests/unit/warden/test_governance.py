"""The governance socket: what staff may do, each in his own name."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.jose import read_jws
from appliance.protocol.local.frames import connect, listen
from appliance.protocol.local.jobs import Ended, Gpu, Progress
from appliance.protocol.messages import ErrorReply, Scalar
from appliance.protocol.rounds import RoundStep
from appliance.warden.client import GovernanceClient
from appliance.warden.config import NodeConfig
from appliance.warden.datasets import LISTED_AT_MOST
from appliance.warden.governance import SOCKET_NAME, GovernanceServer
from appliance.warden.history import AuditFilter, EgressFilter, History, egress_text
from appliance.warden.store import datasets, measures, pauses, permissions, plans, rounds
from tests.unit.warden.conftest import PLAN, PLAN_SHA, WAIT_S, Node, Outcome

METHODS = {
    "dataset.add": {"spec": {"name": "n", "path": "trial.csv", "tags": ["opt"]}},
    "dataset.browse": {},
    "dataset.describe": {"dataset": "trial", "description": "", "tags": ["opt"]},
    "dataset.renew": {"dataset": "trial"},
    "dataset.check": {"dataset": "trial"},
    "dataset.preview": {"path": "trial.csv"},
    "dataset.profile": {"path": "trial.csv"},
    "dataset.suspend": {"dataset": "trial"},
    "dataset.resume": {"dataset": "trial"},
    "dataset.remove": {"dataset": "trial"},
    "dataset.permit": {"dataset": "trial", "researcher": "alice"},
    "dataset.forbid": {"dataset": "trial", "researcher": "alice"},
    "plan.add": {"name": "p", "source": "x = 1"},
    "plan.approve": {"plan": "plan"},
    "plan.reject": {"plan": "plan"},
    "plan.revoke": {"plan": "plan"},
    "policy.set": {"changes": {}},
    "policy.own": {},
    "policy.show": {},
    "experiment.stop": {"experiment": "e-1"},
    "experiment.pause": {"experiment": "e-1"},
    "experiment.resume": {"experiment": "e-1"},
    "experiment.live": {"experiment": "e-1"},
    "model.download": {"model": "m"},
    "model.delete": {"model": "m"},
    "egress.export": {},
    "egress.flush": {},
    "account.record": {"event": "account.signed-in", "account": "Dr. Weiss"},
    "audit.export": {},
    "node.status": {},
    "node.sandbox": {},
    "node.machine": {},
    "node.settings": {},
}


@pytest.fixture
def served(node: Node) -> Iterator[Node]:
    """A node that answers its staff."""
    server = GovernanceServer(node.governance, node.root / SOCKET_NAME)
    server.start()
    yield node
    server.close()


@pytest.fixture
def call(served: Node) -> Any:
    """Calls in Dr. Weiss's name."""
    return GovernanceClient(served.root / SOCKET_NAME, staff="Dr. Weiss", via="cli").call


def raw(node: Node, message: dict[str, Any]) -> dict[str, Any]:
    """A call as somebody with a library of his own would write it."""
    with connect(node.root / SOCKET_NAME) as channel:
        channel.send(message)
        frame = channel.receive(timeout_s=WAIT_S)
        assert frame is not None
        return frame.data


def test_the_socket_offers_these_methods_and_no_others(served: Node) -> None:
    """A helper that becomes public by its name would be a door that nobody meant to open."""
    server = GovernanceServer(served.governance, served.root / "run/other.sock")
    server.close()
    assert set(server._methods) == set(METHODS)


def test_the_socket_is_for_the_services_own_user(served: Node) -> None:
    """Whoever may open it decides for the hospital."""
    socket = served.root / SOCKET_NAME
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "staff",
    [
        None,
        {},
        {"name": "", "via": "cli"},
        {"name": "Dr. Weiss"},
        {"name": "Dr. Weiss", "via": "telnet"},
        {"name": "x" * 65, "via": "cli"},
        {"name": "Dr.\nWeiss", "via": "cli"},
        {"name": "Dr. Weiss\n", "via": "cli"},
        {"name": "\u202eeve", "via": "cli"},
        {"name": "Dr. Weiss", "via": "cli", "role": "admin"},
        "Dr. Weiss",
    ],
)
def test_nobody_does_anything_without_saying_who_he_is(served: Node, method: str, staff: Any) -> None:
    """Every line of the log names a person."""
    served.add_dataset()
    before = served.counts()
    answer = raw(served, {"method": method, "params": METHODS[method], "staff": staff})
    assert answer["error"]["code"] == Code.ARGUMENT_INVALID
    assert served.counts() == before


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"method": "dataset.drop"},
        {"method": "_stop"},
        {"method": ".stop"},
        {"method": "dataset_add"},
        {"method": "__init__"},
        {"method": ["node.status"]},
        {"method": "plan.approve", "params": {}},
        {"method": "plan.approve", "params": {"plan": "plan", "staff": {"name": "eve", "via": "cli"}}},
        {"method": "plan.approve", "params": {"plan": "plan", "until": "tomorrow"}},
        {"method": "plan.approve", "params": {"plan": "plan", "force": True}},
        {"method": "plan.approve", "params": ["plan"]},
        {"method": "plan.reject", "params": {"plan": "plan", "note": "x" * 4001}},
        {"method": "plan.add", "params": {"name": "p", "source": ""}},
        {"method": "plan.add", "params": {"name": "p", "source": "x" * 500_001}},
        {"method": "plan.add", "params": {"name": "p", "source": "x = '\ud800'"}},
        {"method": "dataset.add", "params": {"spec": {"name": "n"}}},
        {"method": "policy.set", "params": {"changes": {"minimum_smaples": 3}}},
    ],
)
def test_a_malformed_call_is_answered_and_changes_nothing(served: Node, message: dict[str, Any]) -> None:
    """With what is wrong, and never with a traceback."""
    before = served.counts()
    answer = raw(served, {"staff": {"name": "Dr. Weiss", "via": "cli"}} | message)
    assert answer["error"]["code"] == Code.ARGUMENT_INVALID
    assert "Traceback" not in answer["error"]["message"]
    assert served.counts() == before


def test_an_approval_cannot_last_until_no_number(served: Node) -> None:
    """Stored, it would read as 'for ever'."""
    served.add_plan()
    channel = connect(served.root / SOCKET_NAME)
    text = '{"method": "plan.approve", "params": {"plan": "plan", "until": NaN}, "staff": {"name": "W", "via": "cli"}}'
    payload = text.encode()
    channel._socket.sendall(len(payload).to_bytes(4, "big") + b"\0" + payload)
    frame = channel.receive(timeout_s=WAIT_S)
    channel.close()
    assert frame is not None
    assert "until" in frame.data["error"]["message"]


def test_a_caller_that_speaks_nonsense_is_hung_up_on_and_others_are_served(served: Node, call: Any) -> None:
    """The next call is another connection."""
    channel = connect(served.root / SOCKET_NAME)
    channel._socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert channel.receive(timeout_s=WAIT_S) is None
    channel.close()
    assert call("node.status")["member"] == "north"


def test_an_error_inside_is_told_by_its_reference_only(
    served: Node, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its text goes to the log."""

    def fail() -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(served.services.policy, "rules", fail)
    with pytest.raises(FedWardError, match="reference") as refusal:
        call("policy.show")
    assert "secret" not in refusal.value.message


def test_a_result_that_json_has_no_word_for_ends_the_call_and_no_more(served: Node, call: Any) -> None:
    """A profile's mean may be no number."""
    served.add_dataset()
    served.runner.report["mean"] = float("nan")
    with pytest.raises(FedWardError):
        call("dataset.profile", path="trial.csv")
    assert call("node.status")["member"] == "north"


def test_calls_run_at_once(served: Node, call: Any) -> None:
    """A large file being read must not keep staff from stopping a round."""
    served.add_dataset()
    reading, go_on = threading.Event(), threading.Event()
    real = served.runner.inspect

    def inspect(job: Any) -> Any:
        reading.set()
        assert go_on.wait(WAIT_S)
        return real(job)

    served.runner.inspect = inspect  # type: ignore[method-assign]
    thread = threading.Thread(target=lambda: call("dataset.profile", path="trial.csv"))
    thread.start()
    assert reading.wait(WAIT_S)
    assert call("experiment.stop", experiment="e-1")["was_running"] is False
    go_on.set()
    thread.join()


def test_without_a_warden_the_caller_is_told_how_to_start_it(tmp_path: Path) -> None:
    """Not a traceback about a socket."""
    with pytest.raises(FedWardError) as refusal:
        GovernanceClient(tmp_path / SOCKET_NAME, staff="Dr. Weiss", via="cli").call("node.status")
    assert refusal.value.code is Code.NODE_NOT_RUNNING


def test_a_policy_change_is_in_force_and_in_the_log_with_its_author(served: Node, call: Any) -> None:
    """And shown with who set it."""
    shown = call("policy.set", changes={"minimum_samples": 50, "ranges": [{"name": "epochs", "allowed": [1, 2]}]})
    assert {"name": "minimum_samples", "value": 50, "set_by": "site", "floor": None} in shown
    assert served.audit()[-1]["actor"] == "staff:Dr. Weiss"
    assert served.audit()[-1]["details"]["changes"]["minimum_samples"] == 50


# Datasets


def add(call: Any, served: Node, **changes: Any) -> Any:
    """Register trial.csv."""
    (served.root / "data" / "trial.csv").write_text("age,outcome\n")
    return call("dataset.add", spec={"name": "trial", "path": "trial.csv", "tags": ["opt"]} | changes)


def test_a_dataset_is_registered_as_the_runner_found_it(served: Node, call: Any) -> None:
    """The warden reads no file."""
    answer = add(call, served, researchers=["alice"])
    row = served.table(datasets)[0]
    assert (answer["rows"], row["fingerprint"], row["added_by"]) == (100, "a" * 64, "Dr. Weiss")
    assert row["columns"] == [{"name": "age", "type": "number"}, {"name": "outcome", "type": "integer"}]
    assert served.table(permissions)[0]["granted_by"] == "Dr. Weiss"


def test_a_file_with_faults_is_refused_with_row_column_and_remedy(served: Node, call: Any) -> None:
    """The data manager mends it there."""
    problem = {"row": 3, "column": "age", "what": "'x' is no number.", "remedy": "Write a number."}
    served.runner.report |= {"is_usable": False, "problems": [problem] * 12}
    with pytest.raises(FedWardError, match=r"row 3, column age: 'x' is no number\. Write a number\.") as refusal:
        add(call, served)
    assert refusal.value.code is Code.DATASET_INVALID
    assert "2 more" in refusal.value.message
    assert served.table(datasets) == []


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"path": "../keys/identity.pem"}, Code.DATASET_INVALID),
        ({"path": "/etc/passwd"}, Code.DATASET_INVALID),
        ({"path": "nothing.csv"}, Code.DATASET_INVALID),
        ({"path": "nul\0.csv"}, Code.DATASET_INVALID),
        ({"researchers": ["nobody"]}, Code.ARGUMENT_INVALID),
        ({"researchers": ["south"]}, Code.ARGUMENT_INVALID),
        ({"tags": []}, Code.ARGUMENT_INVALID),
        ({"kind": "x" * 33}, Code.ARGUMENT_INVALID),
    ],
)
def test_a_dataset_that_cannot_be_is_refused_before_anything_is_written(
    served: Node, call: Any, changes: dict[str, Any], code: Code
) -> None:
    """Each with what is wrong."""
    with pytest.raises(FedWardError) as refusal:
        add(call, served, **changes)
    assert refusal.value.code is code
    assert served.table(datasets) == []


def test_a_dataset_below_the_minimum_is_refused(served: Node, call: Any) -> None:
    """No round could ever run on it."""
    served.runner.report["rows"] = 19
    with pytest.raises(FedWardError) as refusal:
        add(call, served)
    assert refusal.value.code is Code.TOO_FEW_SAMPLES


def test_changed_files_lock_a_dataset_until_staff_accept_them(served: Node, call: Any) -> None:
    """And what trained on the old ones ends."""
    served.accepted()
    served.runner.report |= {"fingerprint": "b" * 64, "rows": 120}
    assert call("dataset.check", dataset="trial") == {"changed": True, "accepted": False, "rows": 100}
    assert served.table(datasets)[0]["state"] == "changed"
    assert served.runner.stopped == ["e-1"]
    with pytest.raises(FedWardError) as refusal:
        call("dataset.resume", dataset="trial")
    assert refusal.value.code is Code.DATASET_CHANGED
    assert call("dataset.check", dataset="trial", accept=True)["accepted"]
    assert (served.table(datasets)[0]["state"], served.table(datasets)[0]["rows"]) == ("active", 120)


def test_files_are_not_accepted_for_a_dataset_that_became_another_while_they_were_read(
    served: Node, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody else brought a new version meanwhile: that one stays."""
    served.add_dataset()
    served.runner.report |= {"fingerprint": "b" * 64, "rows": 120}
    inspect = served.runner.inspect

    def slow(job: Any) -> Any:
        if job.action == "check":
            with served.store.write() as connection:
                (row,) = served.table(datasets)
                served.services.datasets.describe(connection, "Otto", row["id"], description="new", tags=("x",))
        return inspect(job)

    monkeypatch.setattr(served.runner, "inspect", slow)
    with pytest.raises(FedWardError) as refusal:
        call("dataset.check", dataset="trial", accept=True)
    assert refusal.value.code is Code.DECISION_STALE
    assert served.table(datasets)[0]["rows"] == 100


def test_files_put_back_as_they_were_unlock_the_dataset(served: Node, call: Any) -> None:
    """There is nothing to accept."""
    served.add_dataset()
    served.runner.report["fingerprint"] = "b" * 64
    call("dataset.check", dataset="trial")
    served.runner.report["fingerprint"] = "a" * 64
    assert call("dataset.check", dataset="trial")["changed"] is False
    assert served.table(datasets)[0]["state"] == "active"


def test_looking_into_a_file_is_in_the_log(served: Node, call: Any) -> None:
    """A preview shows patients."""
    served.add_dataset()
    call("dataset.preview", path="trial.csv")
    line = served.audit()[-1]
    assert (line["event"], line["actor"], line["subject"]) == ("data.preview", "staff:Dr. Weiss", "trial.csv")


def test_only_a_researcher_of_the_register_can_be_permitted(served: Node, call: Any) -> None:
    """A mistyped id would wait for whoever gets it."""
    served.add_dataset()
    for nobody in ("alicia", "south", "network"):
        with pytest.raises(FedWardError):
            call("dataset.permit", dataset="trial", researcher=nobody)
    assert [p["researcher"] for p in served.table(permissions)] == ["alice"]


# What staff take back ends at once


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("plan.revoke", {"plan": "plan"}),
        ("plan.reject", {"plan": PLAN_SHA[:12]}),
        ("dataset.suspend", {"dataset": "trial"}),
        ("dataset.remove", {"dataset": "trial"}),
        ("dataset.forbid", {"dataset": "trial", "researcher": "alice"}),
        ("experiment.stop", {"experiment": "e-1"}),
    ],
)
def test_what_runs_ends_when_its_ground_is_taken_away(
    served: Node, call: Any, method: str, params: dict[str, Any]
) -> None:
    """The call returns when it has ended, and the record says when."""
    served.runner.blocks = True
    jti = served.accepted()
    served.queue.start()
    assert served.runner.is_training.wait(WAIT_S)
    call(method, **params)
    assert served.row(jti)["step"] == RoundStep.STOPPED
    assert served.received("alice", ErrorReply)[0].code is Code.ROUND_STOPPED
    events = {line["event"]: line for line in served.audit()}
    assert events["experiment.stop"]["actor"] == "staff:Dr. Weiss"
    assert events["experiment.stopped"]["details"]["ended_at"] is not None


def test_a_process_that_waits_for_its_next_round_ends_as_well(served: Node, call: Any) -> None:
    """It holds the data of a permission that was taken back."""
    served.round(served.accepted()).run()
    call("dataset.forbid", dataset="trial", researcher="alice")
    assert served.runner.stopped == ["e-1"]


def test_another_researchers_rounds_go_on(served: Node, call: Any) -> None:
    """Only alice's permission ended."""
    served.add_dataset(researchers=("alice", "mallory"))
    served.add_plan()
    dataset_id = served.table(datasets)[0]["id"]
    served.deliver("alice", served.train(dataset_id))
    served.deliver("mallory", served.train(dataset_id, experiment_id="m-1"))
    call("dataset.forbid", dataset="trial", researcher="alice")
    assert {row["researcher"]: row["stop_reason"] is None for row in served.table(rounds)} == {
        "alice": False,
        "mallory": True,
    }


def test_what_trains_is_stopped_before_what_only_waits(served: Node, call: Any) -> None:
    """A list of old experiments must not use up its five seconds."""
    for number in range(3):
        served.round(served.accepted(experiment_id=f"old-{number}")).run()
    served.accepted(experiment_id="running")
    call("plan.revoke", plan="plan")
    assert served.runner.stopped[0] == "running"
    assert len(served.runner.stopped) == 4


def test_a_stop_without_a_runner_still_answers(served: Node, call: Any) -> None:
    """And does not claim to have seen an end."""
    served.accepted()
    served.runner.is_gone = True
    assert call("experiment.stop", experiment="e-1") == {"was_running": True, "ended_at": None}


# Plans


def test_a_plan_is_approved_with_note_end_and_ranges(served: Node, call: Any) -> None:
    """All of it is what staff said."""
    served.add_plan()
    until = served.clock() + 3600
    ranges = [{"name": "epochs", "minimum": 1, "maximum": 5}, {"name": "optimizer", "allowed": ["sgd"]}]
    call("plan.approve", plan="plan", note="read", until=until, ranges=ranges)
    row = served.table(plans)[0]
    assert (row["state"], row["reviewer"], row["note"], row["until"]) == ("approved", "Dr. Weiss", "read", until)
    assert [r["name"] for r in row["ranges"]] == ["epochs", "optimizer"]


def test_the_hospital_brings_a_plan_of_its_own(served: Node, call: Any) -> None:
    """Approved at once, under its hash."""
    assert call("plan.add", name="ours", source=PLAN) == {"sha256": PLAN_SHA}
    assert served.table(plans)[0]["state"] == "approved"


def test_status_says_what_the_node_does_and_waits_for_nobody_s_writing(served: Node, call: Any) -> None:
    """Every page of the GUI asks for it, and a round may be writing."""
    with served.store.write():
        status = call("node.status")

    assert (status["member"], status["running"], status["plan_approval"]) == ("north", [], "required")


def test_what_was_only_counted_is_written_down_when_asked(served: Node, call: Any) -> None:
    """Whoever counts what left counts all of it."""
    served.services.egress.count("to/alice/from/north/pong", "xyz")
    call("egress.flush")

    assert not served.services.egress._messages


# A pause


def test_a_pause_and_its_end_are_in_the_log_with_their_author(served: Node, call: Any) -> None:
    """Whoever asks later why nothing was trained finds a name."""
    served.accepted()
    assert call("experiment.pause", experiment="e-1") == {"round": None}
    assert [row["staff"] for row in served.table(pauses)] == ["Dr. Weiss"]
    assert call("experiment.resume", experiment="e-1") == {}

    lines = [(line["actor"], line["event"], line["subject"]) for line in served.audit()[-2:]]
    assert lines == [
        ("staff:Dr. Weiss", "experiment.paused", "e-1"),
        ("staff:Dr. Weiss", "experiment.resumed", "e-1"),
    ]
    assert served.table(pauses) == []


def test_a_decision_on_what_is_not_so_any_more_changes_nothing(served: Node, call: Any) -> None:
    """A colleague was quicker."""
    served.accepted()
    call("experiment.pause", experiment="e-1")
    before = served.counts()
    with pytest.raises(FedWardError, match=r"Dr\. Weiss has paused it already") as refusal:
        call("experiment.pause", experiment="e-1")
    assert refusal.value.code is Code.DECISION_STALE
    assert served.counts() == before
    call("experiment.resume", experiment="e-1")
    with pytest.raises(FedWardError, match="The experiment is not paused") as refusal:
        call("experiment.resume", experiment="e-1")
    assert refusal.value.code is Code.DECISION_STALE


@pytest.mark.parametrize("method", ["experiment.pause", "experiment.resume"])
def test_nobody_decides_on_an_experiment_that_never_ran_here(served: Node, call: Any, method: str) -> None:
    """A mistyped id would hold what comes under it one day."""
    with pytest.raises(FedWardError, match="No experiment 'e-1' ran here") as refusal:
        call(method, experiment="e-1")
    assert refusal.value.code is Code.JOB_UNKNOWN
    assert served.table(pauses) == []


@pytest.mark.parametrize("state", ["finished", "stopped", "failed"])
def test_an_experiment_that_seems_to_have_ended_is_paused(served: Node, call: Any, state: str) -> None:
    """How many rounds there are is the researcher's word; who asks for more finds the pause in force."""
    if state == "failed":
        served.runner.training = lambda _job, _parameters: Outcome(b"no tensors")
    jti = served.accepted(round_limit=1)
    if state == "stopped":
        call("experiment.stop", experiment="e-1")
    stop = threading.Event()
    if state == "stopped":
        stop.set()
    served.round(jti, stop=stop).run()
    call("experiment.pause", experiment="e-1")
    served.accepted(round=2)

    assert [row["experiment_id"] for row in served.table(pauses)] == ["e-1"]
    assert [told.round for told in served.received("alice", Scalar) if told.paused_since] == [2]


def test_what_was_allowed_before_a_pause_is_asked_again_behind_it(served: Node, call: Any) -> None:
    """Days may lie between; a permission may have ended meanwhile."""
    jti = served.accepted()
    call("dataset.permit", dataset="trial", researcher="alice", until=served.clock() + 60)
    call("experiment.pause", experiment="e-1")
    served.clock.ahead_s = 3600
    call("experiment.resume", experiment="e-1")
    served.round(jti).run()

    assert served.row(jti)["step"] == RoundStep.FAILED
    assert served.runner.trained == []


def test_a_process_that_waited_is_stopped_with_its_author_in_the_log(served: Node, call: Any) -> None:
    """Between two rounds no round is stopped; a process is, and somebody decided it."""
    served.round(served.accepted()).run()
    served.runner.stop = lambda e: Ended(experiment_id=e, was_running=True, ended_at=served.clock())  # type: ignore[method-assign]
    answer = call("experiment.stop", experiment="e-1")

    lines = {line["event"]: line for line in served.audit()}
    assert answer["was_running"] is False
    assert lines["experiment.stop"]["actor"] == "staff:Dr. Weiss"
    assert lines["experiment.stopped"]["details"]["ended_at"] == answer["ended_at"]


def test_what_runs_is_told_with_its_curve(served: Node, call: Any) -> None:
    """To staff who watch; nothing of it is written anywhere before the round ends."""
    served.runner.blocks = True
    served.runner.progress = [
        Progress(job_id="j", iteration=n, iterations=9, epoch=1, values={"loss": 1.0 / n}) for n in (1, 2, 3)
    ]
    served.accepted()
    served.queue.start()
    assert served.runner.is_training.wait(WAIT_S)
    told = call("experiment.live", experiment="e-1")

    assert (told["running"]["round"], told["running"]["iteration"], told["running"]["iterations"]) == (1, 3, 9)
    assert [place for place, _ in told["loss"]] == [1, 2, 3]
    assert [one["experiment_id"] for one in call("node.status")["running"]] == ["e-1"]
    assert call("experiment.live", experiment="e-2") == {"running": None, "loss": []}
    assert served.table(measures) == []
    call("experiment.stop", experiment="e-1")
    (measured,) = served.table(measures)
    assert measured["loss"] == told["loss"]


# What the GUI asks for


def test_the_data_folder_is_browsed_by_name(served: Node, call: Any) -> None:
    """With what is registered already; hidden names and what leads out are left out and counted."""
    served.add_dataset()
    data = served.root / "data"
    (data / "sub").mkdir()
    (data / "link.csv").symlink_to("trial.csv")
    (data / "out").symlink_to(served.root)
    (data / "ring").symlink_to("ring")
    (data / ".hidden").write_text("")
    os.mkfifo(data / "pipe")
    listing = call("dataset.browse")

    shown = [(entry["name"], entry["is_folder"], entry["dataset"]) for entry in listing["entries"]]
    assert shown == [("sub", True, None), ("link.csv", False, "trial"), ("trial.csv", False, "trial")]
    assert listing["left_out"] == 3
    assert call("dataset.browse", folder="sub") == {"folder": "sub", "entries": [], "left_out": 0}


def test_a_folder_with_very_many_names_is_cut_and_says_so(served: Node, call: Any) -> None:
    """A page has an end; a frame has one as well."""
    for number in range(LISTED_AT_MOST + 3):
        (served.root / "data" / f"{number}.csv").touch()
    listing = call("dataset.browse")
    assert (len(listing["entries"]), listing["left_out"]) == (LISTED_AT_MOST, 3)


def test_a_new_version_is_read_before_it_is_taken(served: Node, call: Any) -> None:
    """And what runs on the old one ends."""
    served.accepted()
    (served.root / "data/second.csv").write_text("age,outcome\n")
    served.runner.report |= {"fingerprint": "b" * 64, "rows": 200}
    result = call("dataset.renew", dataset="trial", path="second.csv", shown=0)

    (row,) = served.table(datasets)
    assert (row["path"], row["rows"], row["fingerprint"]) == (str(served.root / "data/second.csv"), 200, "b" * 64)
    assert result["before"] == "a" * 64
    assert served.runner.stopped == ["e-1"]
    (line,) = [line for line in served.audit() if line["event"] == "dataset.renewed"]
    assert (line["details"]["before"], line["details"]["fingerprint"]) == ("a" * 64, "b" * 64)


def test_a_new_version_that_cannot_be_used_changes_nothing(served: Node, call: Any) -> None:
    """The old one is still the dataset."""
    served.accepted()
    before = served.table(datasets)
    served.runner.report |= {"is_usable": False}
    with pytest.raises(FedWardError):
        call("dataset.renew", dataset="trial", path="trial.csv")
    assert served.table(datasets) == before
    assert served.runner.stopped == []


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("dataset.describe", {"description": "", "tags": ["x"]}),
        ("dataset.check", {"accept": True}),
        ("dataset.renew", {"path": "trial.csv"}),
        ("dataset.suspend", {}),
        ("dataset.resume", {}),
        ("dataset.remove", {}),
    ],
)
def test_a_decision_on_a_dataset_as_it_was_is_refused(
    served: Node, call: Any, method: str, params: dict[str, Any]
) -> None:
    """Somebody else was quicker; without a revision, as at the command line, it is taken as it is now."""
    served.add_dataset()
    call("dataset.describe", dataset="trial", description="other", tags=["new"])
    with pytest.raises(FedWardError) as refusal:
        call(method, dataset="trial", shown=0, **params)
    assert refusal.value.code is Code.DECISION_STALE
    assert call(method, dataset="trial", **params) is not None


@pytest.mark.parametrize("method", ["plan.approve", "plan.reject", "plan.revoke"])
def test_a_decision_on_a_plan_as_it_was_is_refused(served: Node, call: Any, method: str) -> None:
    """Whatever it would have been."""
    served.add_plan()  # which is decision number one
    with pytest.raises(FedWardError) as refusal:
        call(method, plan="plan", shown=0)
    assert refusal.value.code is Code.DECISION_STALE
    assert "Dr. Weiss" in refusal.value.message
    call(method, plan="plan", shown=1)


@pytest.mark.parametrize("method", ["account.record", "node.status", "policy.show"])
def test_a_warden_that_hangs_is_soon_taken_for_one_that_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """Every page asks it something."""
    monkeypatch.setattr("appliance.warden.client.QUICK_TIMEOUT_S", 0.01)
    with listen(tmp_path / "silent.sock"), pytest.raises(FedWardError) as refusal:
        GovernanceClient(tmp_path / "silent.sock", staff="Dr. Weiss", via="gui").call(method)
    assert refusal.value.code is Code.NODE_NOT_RUNNING


def test_a_statement_on_a_long_record_keeps_nobody_from_writing(
    served: Node, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted and hashed before the transaction that notes it."""
    could_write = []
    statement, lock = served.services.egress.statement, served.store._write_lock

    def try_to_write() -> None:
        could_write.append(lock.acquire(blocking=False))
        if could_write[0]:
            lock.release()

    def look(*args: Any) -> Any:
        other = threading.Thread(target=try_to_write)
        other.start()
        other.join(WAIT_S)
        return statement(*args)

    monkeypatch.setattr(served.services.egress, "statement", look)
    call("egress.export")
    assert could_write == [True]
    assert "egress.exported" in [line["event"] for line in served.audit()]


def test_of_two_approvals_the_first_says_that_it_is_not_enough(served: Node, call: Any) -> None:
    """The caller tells the reviewer."""
    call("policy.set", changes={"second_reviewer": True})
    assert call("plan.add", name="ours", source=PLAN) == {"sha256": PLAN_SHA}
    assert served.table(plans)[0]["state"] == "pending"
    other = GovernanceClient(served.root / SOCKET_NAME, staff="Dr. Braun", via="gui").call
    assert other("plan.approve", plan="ours") == {"sha256": PLAN_SHA, "is_approved": True}


def test_what_happens_to_accounts_is_logged_for_the_gui_alone(served: Node, call: Any) -> None:
    """A closed list of events: the log is not the GUI's notepad."""
    gui = GovernanceClient(served.root / SOCKET_NAME, staff="Dr. Weiss", via="gui").call
    gui("account.record", event="account.locked", account="eve", details={"tries": "5"})
    line = served.audit()[-1]
    assert (line["event"], line["subject"], line["details"]["tries"]) == ("account.locked", "eve", "5")
    for caller, event in ((gui, "plan.approved"), (gui, "account.anything"), (call, "account.signed-in")):
        with pytest.raises(FedWardError):
            caller("account.record", event=event, account="eve")
    assert len(served.audit()) == 1


def test_an_account_s_event_is_dated_when_it_happened_between_what_was_told_and_now(served: Node) -> None:
    """The GUI tells later what the warden did not hear; no other time can be made up."""
    tell = GovernanceClient(served.root / SOCKET_NAME, staff="Dr. Weiss", via="gui").call
    began = time.time()
    for happened_at in (began - 3600, began - 7200, began + 7200, began - 60):
        tell("account.record", event="account.signed-in", account="Dr. Weiss", happened_at=happened_at)
    ended = time.time()

    hour_ago, before_that, in_future, after_that = [line["details"]["happened_at"] for line in served.audit()]
    assert hour_ago == before_that
    assert abs(hour_ago - (began - 3600)) < 0.01
    assert began - 0.01 <= in_future <= ended + 0.01
    assert after_that == in_future


def test_the_node_signs_what_its_own_records_say(served: Node, call: Any) -> None:
    """Not what somebody tells it of them."""
    served.round(served.accepted()).run()
    signed = call("egress.export", experiment_id="e-1")
    claims = json.loads(read_jws(signed["signature"]).payload_by(served.members.keys["north"].public.identity))

    lines = list(History(served.root).egress_lines(EgressFilter(experiment_id="e-1", up_to=signed["up_to"])))
    text = "".join(f"{egress_text(line)}\n" for line in lines)
    assert (claims["lines"], claims["size_bytes"]) == (len(lines), sum(line["size_bytes"] for line in lines))
    assert claims["lines_sha256"] == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "wanted", [{}, {"subject": "trial"}, {"search": "SUSPENDED"}, {"since": 1.0}, {"until": 2.0}], ids=str
)
def test_the_node_signs_which_lines_of_its_log_were_meant(served: Node, call: Any, wanted: dict[str, Any]) -> None:
    """A part of the log must not look like all of it, whoever carries it."""
    served.add_dataset()
    call("dataset.suspend", dataset="trial")
    call("dataset.resume", dataset="trial")
    signed = call("audit.export", **wanted)
    call("dataset.suspend", dataset="trial")  # later: not in it
    claims = json.loads(read_jws(signed["signature"]).payload_by(served.members.keys["north"].public.identity))

    lines = list(History(served.root).audit_texts(AuditFilter(**wanted, up_to=signed["up_to"])))
    assert claims["wanted"] == asdict(AuditFilter(**wanted, up_to=signed["up_to"]))
    assert (claims["lines"], claims["staff"]) == (len(lines), "Dr. Weiss")
    assert claims["lines_sha256"] == hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()
    exported = [line for line in served.audit() if line["event"] == "audit.exported"]
    assert exported[0]["details"] == {"lines": len(lines), "sha256": claims["lines_sha256"]}


def test_an_altered_line_is_exported_as_one(served: Node, call: Any) -> None:
    """Whatever bytes stand there now; the others keep their own."""
    served.add_dataset()
    call("dataset.suspend", dataset="trial")
    with served.store.write() as connection:
        connection.execute(sa.text("UPDATE audit SET text = CAST(X'ff0a7b' AS TEXT) WHERE n = 1"))
    signed = call("audit.export")
    lines = list(History(served.root).audit_texts(AuditFilter(up_to=signed["up_to"])))

    assert json.loads(lines[0])["is_altered"]
    assert [json.loads(line)["event"] for line in lines[1:]] == ["permission.granted", "dataset.suspended"]
    assert not any("\n" in line for line in lines)


def test_the_node_says_what_its_processes_use(served: Node, call: Any) -> None:
    """The warden its own, the runner what it tells; without a runner, the rest."""
    served.runner.gpus = (Gpu(name="NVIDIA T4", memory_bytes=16 << 30),)
    found = call("node.machine")
    assert [gpu["name"] for gpu in found["gpus"]] == ["NVIDIA T4"]
    (warden,) = found["processes"]
    assert warden["part"] == "warden"
    assert warden["memory_bytes"] > 10_000_000
    assert abs(warden["since"] - psutil.Process().create_time()) < 5

    served.runner.is_gone = True
    assert call("node.machine")["gpus"] is None


def test_settings_are_shown_beside_the_release_s(served: Node, call: Any) -> None:
    """Whoever looks for a fault wants to know what differs."""
    home = served.root.resolve()
    served.services.config = NodeConfig(heartbeat_s=5, data_folder=home / "data", runner_socket=Path("/run/r.sock"))
    found = {row["name"]: (row["here"], row["release"]) for row in call("node.settings")}

    assert found["heartbeat_s"] == (5.0, 10.0)
    assert found["data_folder"] == ("data", "data")
    assert found["runner_socket"] == ("/run/r.sock", "run/runner.sock")

"""A round: from an accepted request to one recorded reply, whatever happens in between."""

from __future__ import annotations

import errno
import io
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load

from appliance.protocol.errors import Code, FedWardError, SealError
from appliance.protocol.local.jobs import SANDBOX_LEVELS, Progress, TrainJob
from appliance.protocol.messages import ErrorReply, Metrics, Reached, Scalar, TrainReply
from appliance.protocol.register import MemberState
from appliance.protocol.rounds import RoundStep
from appliance.protocol.sealing import seal
from appliance.protocol.tensors import tensor_bytes
from appliance.transport.mailbox import outbox
from appliance.transport.rest import LocalFileError, RefusedError, UnreachableError
from appliance.warden import round as round_module
from appliance.warden.history import History
from appliance.warden.store import datasets, egress, rounds
from tests.conftest import Members
from tests.unit.warden.conftest import PLAN_SHA, Node, Outcome, failed, honest

SECRET = "Mrs. Example, born 1961"


def stop(node: Node, by: str = "the hospital's staff") -> None:
    """Staff's word, committed; the worker has not heard of it yet."""
    with node.store.write() as connection:
        node.queue.mark_stopped(connection, "e-1", by)


def reply(node: Node) -> TrainReply:
    """The one reply that alice got."""
    (found,) = node.received("alice", TrainReply)
    assert isinstance(found, TrainReply)
    return found


def error(node: Node) -> ErrorReply:
    """The one error that alice got."""
    (found,) = node.received("alice", ErrorReply)
    assert isinstance(found, ErrorReply)
    return found


def spooled(node: Node) -> list[str]:
    """What lies in the spool."""
    return sorted(file.name for file in (node.root / "spool").iterdir())


# The way of a round


def test_a_round_ends_with_the_update_sealed_to_the_researcher(node: Node) -> None:
    """From end to end: the plan's tensors arrive, and nobody else can open them."""
    node.round(node.accepted()).run()
    sealed = reply(node).update
    assert sealed is not None
    update = load(node.open_update(sealed))
    assert np.array_equal(update["w"], np.full((3, 2), 0.1, np.float32))
    assert update["steps"] == 4
    with pytest.raises(SealError):
        node.open_update(sealed, member="mallory")
    with pytest.raises(SealError):
        node.open_update(sealed, round_=2)
    assert node.rest.recipients[sealed.upload_id] == ["alice"]


def test_what_a_plan_keeps_is_there_in_the_next_round_and_never_leaves(node: Node) -> None:
    """Local layers go on where they were, and the researcher gets nothing of them."""
    kept = tensor_bytes({"local/norm": np.full(3, 7.5, np.float32)})
    node.runner.training = lambda job, p: replace(honest(job, p), kept=kept)
    node.round(node.accepted(round=1)).run()
    node.round(node.accepted(round=2)).run()

    assert node.runner.given_back == [None, kept]
    assert not any(kept in file for file in node.rest.files.values())


def test_a_plan_cannot_keep_more_than_an_update_may_have(node: Node) -> None:
    """A hospital's disk is not the researcher's."""
    node.services.policy.change({"maximum_update_bytes": 2000}, lambda _connection: None)
    node.runner.training = lambda job, p: replace(honest(job, p), kept=bytes(2001))
    node.round(node.accepted()).run()

    assert error(node).code is Code.UPDATE_REFUSED
    assert "between rounds" in error(node).message


@pytest.mark.parametrize("kind", ["aggregator", "frozen"])
def test_tensors_that_no_round_trains_are_no_part_of_the_update(node: Node, kind: str) -> None:
    """The update answers the tensors that are trained, and no others: an aggregator's, or layers that are frozen."""
    node.model[f"{kind}/w"] = np.zeros((3, 2), np.float32)
    node.runner.training = lambda job, p: honest(job, {name: p[name] for name in p if not name.startswith(kind)})
    node.round(node.accepted()).run()

    sealed = reply(node).update
    assert sealed is not None
    assert set(load(node.open_update(sealed))) == {"w", "steps"}


def test_an_update_with_a_frozen_tensor_is_refused(node: Node) -> None:
    """It has nothing to say about it: room for something else."""
    node.model["frozen/w2"] = np.zeros((3, 2), np.float32)
    node.runner.training = honest
    node.round(node.accepted()).run()

    assert error(node).code is Code.UPDATE_REFUSED


REASON = "Model argument 'n_features' is not the number of the data's columns."
PUBLIC = "The plan or its arguments do not fit this node's release."


@pytest.mark.parametrize(
    ("code", "said", "told"),
    [
        (Code.ARGUMENT_INVALID, REASON, REASON),
        (Code.ARGUMENT_INVALID, f"{REASON} 19610203", PUBLIC),
        (Code.ARGUMENT_INVALID, "Model argument 'n_features' is 19610203.", PUBLIC),
        (Code.TRAINING_FAILED, REASON, "The plan failed while it ran."),
    ],
    ids=["ours", "with more", "forged", "another code"],
)
def test_of_an_arguments_failure_only_our_own_reasons_leave(node: Node, code: Code, said: str, told: str) -> None:
    """A researcher must read what to mend; a plan must have no sentence of its own, and no number."""

    def fail(_job: Any, _parameters: Any) -> Outcome:
        raise failed(code, said)

    node.runner.training = fail
    node.round(node.accepted()).run()

    assert (error(node).code, error(node).message) == (code, told)


# Frozen layers that came apart


LAYERS = {"base": np.full((4, 3), 2, np.float32), "steps": np.array([7], np.int64)}


def head_only(job: TrainJob, parameters: dict[str, np.ndarray]) -> Outcome:
    """Trains what is not frozen, as the runner does."""
    return honest(job, {name: array for name, array in parameters.items() if not name.startswith("frozen/")})


@pytest.fixture
def transfer(node: Node) -> Node:
    """A node that trains a head."""
    node.model = {"w": np.zeros((3, 2), np.float32)}
    node.runner.training = head_only
    return node


def test_frozen_layers_are_fetched_once(transfer: Node) -> None:
    """A large base with a small head costs a hospital's line the head, round after round."""
    layers = transfer.layers(LAYERS)
    for number in (1, 2, 3):
        transfer.round(transfer.accepted(round=number, frozen=layers)).run()
        transfer.rest.files.pop(str(layers.upload_id), None)

    assert [set(given) for given in transfer.runner.given] == [{"w", "frozen/base", "frozen/steps"}] * 3
    assert all(np.array_equal(given["frozen/base"], LAYERS["base"]) for given in transfer.runner.given)
    updates = [found.update for found in transfer.received("alice", TrainReply)]
    assert [set(load(transfer.open_update(each, round_=n))) for n, each in enumerate(updates, 1)] == [{"w"}] * 3


def test_a_test_of_the_global_parameters_has_them_as_well(transfer: Node) -> None:
    """It is the whole model that is tested."""
    transfer.round(transfer.accepted(frozen=transfer.layers(LAYERS), train=False)).run()

    assert set(transfer.runner.given[0]) == {"w", "frozen/base", "frozen/steps"}


@pytest.mark.parametrize(
    "damage", [Path.unlink, lambda path: path.write_bytes(bytes(path.stat().st_size))], ids=["lost", "altered"]
)
def test_frozen_layers_that_were_lost_are_fetched_again(transfer: Node, damage: Callable[[Path], Any]) -> None:
    """A disk may lose a file or a part of it: that costs a transfer, and never a wrong model."""
    layers = transfer.layers(LAYERS)
    transfer.round(transfer.accepted(round=1, frozen=layers)).run()
    (kept,) = (transfer.root / "kept").glob("*/*/*/*.sealed")
    damage(kept)
    transfer.round(transfer.accepted(round=2, frozen=layers)).run()

    assert len(transfer.received("alice", TrainReply)) == 2
    assert np.array_equal(transfer.runner.given[1]["frozen/base"], LAYERS["base"])
    assert kept.exists()


def test_kept_layers_are_sealed_and_the_last_ones_only(transfer: Node) -> None:
    """The node's disk holds one file for an experiment, and no key to it."""
    for number in (1, 2):
        layers = transfer.layers(LAYERS | {"base": np.full((4, 3), number, np.float32)})
        transfer.round(transfer.accepted(round=number, frozen=layers)).run()
    (kept,) = (transfer.root / "kept").glob("*/*/*/*.sealed")

    assert kept.name == f"{layers.sha256}.sealed"
    assert np.full((4, 3), 2, np.float32).tobytes() not in kept.read_bytes()


def test_layers_that_are_on_their_way_leave_no_half_file(transfer: Node) -> None:
    """When the line breaks, the disk has its room back and the round is asked for again."""
    layers = transfer.layers(LAYERS)
    jti = transfer.accepted(frozen=layers)
    whole = transfer.rest.download

    def cut(sealed: Any, *, stop: threading.Event) -> Any:
        if sealed.upload_id == layers.upload_id:
            raise UnreachableError("The network host is out of reach.")
        return whole(sealed, stop=stop)

    transfer.rest.download = cut  # type: ignore[method-assign]
    with pytest.raises(UnreachableError):
        transfer.round(jti).run()

    assert not [path for path in (transfer.root / "kept").rglob("*") if path.is_file()]


def test_parameters_and_layers_together_have_the_size_that_the_node_allows(node: Node) -> None:
    """To cut them in two is no way around the hospital's rule."""
    node.services.policy.change({"maximum_update_bytes": 500}, lambda _connection: None)
    node.add_plan()
    layers = node.layers({"base": np.zeros(90, np.float32)})
    node.deliver("alice", node.train(node.add_dataset(), frozen=layers))

    assert error(node).code is Code.POLICY_REFUSED
    assert "maximum_update_bytes" in str(error(node).rule)


def test_the_sum_of_learning_rates_leaves_with_few_digits(node: Node) -> None:
    """The many digits of a number could spell something."""
    node.runner.learning_rates = 0.123456789
    node.round(node.accepted()).run()

    assert reply(node).learning_rates == 0.123457


def test_a_researcher_hears_that_an_optimizer_began_anew(node: Node) -> None:
    """What it had learnt about its steps may be lost with a disk."""
    node.runner.is_optimizer_new = True
    node.round(node.accepted()).run()

    assert reply(node).is_optimizer_new is True


def test_what_lies_at_the_network_host_is_not_readable_there(node: Node) -> None:
    """It stores and forwards, and is assumed to spy."""
    node.runner.training = lambda job, p: replace(
        honest(job, p), update=tensor_bytes({**p, "w": np.full((3, 2), 7.5, np.float32)})
    )
    node.round(node.accepted()).run()
    sealed = reply(node).update
    assert sealed is not None
    assert np.full((3, 2), 7.5, np.float32).tobytes() not in node.rest.files[sealed.upload_id]


def test_the_reply_tells_samples_metrics_timing_and_overrides(node: Node) -> None:
    """And each override with its rule."""
    node.services.policy.change({"overrides": {"epochs": 2}}, lambda _connection: None)
    node.round(node.accepted()).run()
    told = reply(node)
    assert (told.sample_count, told.metrics[0].values) == (80, {"auc": 0.75})
    assert (told.timing.start_s, told.timing.train_s) == (0.1, 0.2)
    assert [(o.argument, o.used, o.rule) for o in told.overrides] == [
        ("epochs", 2, "overrides.epochs = 2 (set by the site)")
    ]
    assert node.runner.trained[0].training_args == {"epochs": 2}


def test_the_runner_gets_the_approved_text_the_registered_file_and_the_nodes_limits(node: Node) -> None:
    """Nothing that it could choose for itself."""
    node.services.policy.change({"maximum_round_s": 60}, lambda _connection: None)
    node.round(node.accepted()).run()
    (job,) = node.runner.trained
    assert job.plan_source.startswith("class Plan")
    assert job.dataset.fingerprint == "a" * 64
    assert (job.limits.seconds, job.limits.processes, job.node_id) == (60, 0, "north")


@pytest.mark.parametrize(
    ("asked", "given"), [(2, 2), (0, 0), (17, 0), (-1, 0), ("2", 0), (True, 0), ({}, 0), (None, 0)]
)
def test_a_plan_may_make_as_many_processes_as_its_loader_has_workers(node: Node, asked: Any, given: int) -> None:
    """And none for an argument that its runner will refuse."""
    node.round(node.accepted(training_args={"loader_args": {"num_workers": asked}})).run()

    assert node.runner.trained[0].limits.processes == given


def test_a_test_only_round_uploads_nothing(node: Node) -> None:
    """Metrics alone are the answer."""
    node.round(node.accepted(train=False)).run()
    assert reply(node).update is None
    assert node.rest.recipients == {}
    assert [line["kind"] for line in node.table(egress)] == ["train-reply"]


def test_a_finished_round_leaves_no_file_behind(node: Node) -> None:
    """Parameters and updates do not pile up at the hospital."""
    node.round(node.accepted()).run()
    assert spooled(node) == []


def test_the_record_tells_of_every_byte_of_a_round(node: Node) -> None:
    """When, to whom, what, how large, with which hash."""
    node.round(node.accepted()).run()
    upload, message = node.table(egress)
    sealed = reply(node).update
    assert sealed is not None
    assert (upload["kind"], upload["recipient"], upload["experiment_id"], upload["round"]) == (
        "upload",
        "alice",
        "e-1",
        1,
    )
    assert (upload["size_bytes"], upload["sha256"]) == (sealed.size_bytes, sealed.sha256)
    assert (upload["tensors"], upload["norm"]) == (2, pytest.approx(np.sqrt(6) * 0.1, rel=1e-5))
    assert message["kind"] == "train-reply"


def test_an_upload_is_in_the_record_before_its_first_byte_leaves(node: Node) -> None:
    """Also if the line, the power or the round breaks during it."""
    seen: list[Any] = []
    node.rest.on_upload = lambda: seen.extend(History(node.root).egress())
    node.rest.faults = []
    node.round(node.accepted()).run()
    assert [line["kind"] for line in seen] == ["upload"]


def test_the_steps_come_in_their_order(node: Node) -> None:
    """Tests pull the plug at each."""
    steps: list[RoundStep] = []
    node.round(node.accepted(), on_step=lambda _jti, step: steps.append(step)).run()
    assert steps == [
        RoundStep.ACCEPTED,
        RoundStep.FETCHED,
        RoundStep.TRAINED,
        RoundStep.CHECKED,
        RoundStep.SUBMIT,
        RoundStep.REPLIED,
    ]


# After a crash


class PlugPulledError(BaseException):
    """The process is gone."""


def pull(step: RoundStep) -> Any:
    """Pulls the plug behind a step."""

    def on_step(_jti: str, reached: RoundStep) -> None:
        if reached is step:
            raise PlugPulledError

    return on_step


@pytest.mark.parametrize("step", [RoundStep.ACCEPTED, RoundStep.FETCHED, RoundStep.TRAINED])
def test_a_round_cut_short_before_its_check_is_done_again_from_the_start(node: Node, step: RoundStep) -> None:
    """Nothing had left."""
    jti = node.accepted()
    with pytest.raises(PlugPulledError):
        node.round(jti, on_step=pull(step)).run()
    assert node.row(jti)["step"] == RoundStep.ACCEPTED
    assert node.table(egress) == []
    node.round(jti).run()
    assert reply(node).update is not None


@pytest.mark.parametrize("step", [RoundStep.CHECKED, RoundStep.SUBMIT])
def test_a_round_cut_short_behind_its_check_goes_on_without_training(node: Node, step: RoundStep) -> None:
    """The same upload, under the same id and hash, recorded once."""
    jti = node.accepted()
    with pytest.raises(PlugPulledError):
        node.round(jti, on_step=pull(step)).run()
    assert node.row(jti)["step"] == RoundStep.CHECKED
    node.round(jti).run()
    assert len(node.runner.trained) == 1
    assert len(node.rest.recipients) == 1
    assert reply(node).timing.train_s == 0.2
    assert [line["kind"] for line in node.table(egress)] == ["upload", "train-reply"]


@pytest.mark.parametrize("left", [None, 0, 100])
def test_a_round_whose_spooled_update_is_lost_is_trained_again(node: Node, left: int | None) -> None:
    """A power cut may take a file, or its last bytes, and leave the row that speaks of it."""
    jti = node.accepted()
    with pytest.raises(PlugPulledError):
        node.round(jti, on_step=pull(RoundStep.CHECKED)).run()
    update = node.root / "spool" / f"{jti}.update"
    size = update.stat().st_size
    if left is None:
        update.unlink()
    else:
        update.write_bytes(update.read_bytes()[:left] + bytes(size - left))
    node.round(jti).run()
    assert len(node.runner.trained) == 2
    assert node.open_update(reply(node).update) is not None  # type: ignore[arg-type]


def test_a_reply_that_was_recorded_stands_whatever_fails_behind_it(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else alice would get an update and an error for one round."""

    def fail(_path: Path, **_options: object) -> None:
        raise OSError(errno.EIO, "I/O error")

    jti = node.accepted()
    round_ = node.round(jti)
    monkeypatch.setattr(type(round_), "_clear_spool", fail)
    round_.run()
    assert node.row(jti)["step"] == RoundStep.REPLIED
    assert node.received("alice", ErrorReply) == []


# Stop


def test_a_round_that_was_stopped_while_it_waited_does_not_begin(node: Node) -> None:
    """Not even its parameters are fetched."""
    jti = node.accepted()
    stop(node)
    event = threading.Event()
    event.set()
    node.round(jti, stop=event).run()
    assert node.row(jti)["step"] == RoundStep.STOPPED
    assert error(node).code is Code.ROUND_STOPPED
    assert "the hospital's staff" in error(node).message
    assert node.runner.trained == []


def test_a_round_that_is_stopped_while_it_trains_returns_nothing(node: Node) -> None:
    """What was computed until then stays here."""

    def training(job: Any, parameters: Any) -> Outcome:
        stop(node)
        raise failed(Code.ROUND_STOPPED, "The round was stopped.")

    node.runner.training = training
    jti = node.accepted()
    node.round(jti).run()
    assert node.row(jti)["step"] == RoundStep.STOPPED
    assert node.rest.recipients == {}


def test_a_round_that_is_stopped_before_its_upload_uploads_nothing(node: Node) -> None:
    """Trained, checked, and kept back."""
    event = threading.Event()

    def on_step(_jti: str, step: RoundStep) -> None:
        if step is RoundStep.CHECKED:
            stop(node)
            event.set()

    jti = node.accepted()
    node.round(jti, stop=event, on_step=on_step).run()
    assert node.row(jti)["step"] == RoundStep.STOPPED
    assert node.rest.recipients == {}
    assert spooled(node) == []


def test_a_stop_that_comes_during_the_upload_keeps_the_key_back(node: Node) -> None:
    """What lies at the network host then opens for nobody."""
    node.rest.on_upload = lambda: stop(node)
    jti = node.accepted()
    node.round(jti).run()
    assert node.row(jti)["step"] == RoundStep.STOPPED
    assert node.received("alice", TrainReply) == []
    assert "upload" in [line["kind"] for line in node.table(egress)]


def test_a_stop_that_comes_behind_the_reply_finds_nothing_to_stop(node: Node) -> None:
    """The record must not say that an update was held back that left."""
    node.round(node.accepted()).run()
    with node.store.write() as connection:
        assert not node.queue.mark_stopped(connection, "e-1", "staff")
    assert node.table(rounds)[0]["step"] == RoundStep.REPLIED


def test_a_warden_that_ends_leaves_its_round_to_the_next_one(node: Node) -> None:
    """A restart is no stop."""
    event = threading.Event()
    event.set()
    jti = node.accepted()
    node.round(jti, stop=event).run()
    assert node.row(jti)["step"] == RoundStep.ACCEPTED
    assert node.received("alice", ErrorReply) == []
    node.round(jti).run()
    assert reply(node).update is not None


def test_progress_ends_a_training_that_was_stopped_on_its_way_to_the_runner(node: Node) -> None:
    """The stop reached the runner before the job did."""
    event = threading.Event()
    node.runner.progress = [Progress(job_id="j", iteration=1, iterations=9, values={"loss": 1.0})]
    jti = node.accepted()

    def on_step(_jti: str, step: RoundStep) -> None:
        if step is RoundStep.FETCHED:
            stop(node)

    round_ = node.round(jti, stop=event, on_step=on_step)
    real = node.runner.train

    def train(*args: Any) -> Any:
        event.set()
        return real(*args)

    node.runner.train = train  # type: ignore[method-assign]
    round_.run()
    assert node.row(jti)["step"] == RoundStep.STOPPED


# Still permitted?


@pytest.mark.parametrize(
    ("happens", "code"),
    [
        ("forbidden", Code.DATASET_UNKNOWN),
        ("suspended", Code.DATASET_SUSPENDED),
        ("revoked", Code.PLAN_NOT_APPROVED),
        ("removed", Code.DATASET_UNKNOWN),
        ("struck", Code.SENDER_UNKNOWN),
    ],
)
def test_what_was_taken_back_while_a_round_waited_is_not_used(
    node: Node, members: Members, happens: str, code: Code
) -> None:
    """Hours may lie between acceptance and training."""
    jti = node.accepted()
    dataset_id = node.row(jti)["dataset_id"]
    book, plans = node.services.datasets, node.services.plans
    with node.store.write() as connection:
        match happens:
            case "forbidden":
                book.forbid(connection, "Dr. Weiss", dataset_id, "alice")
            case "suspended":
                book.set_state(connection, "Dr. Weiss", dataset_id, "suspended")
            case "revoked":
                plans.revoke(connection, "Dr. Weiss", PLAN_SHA, note="")
            case "removed":
                book.remove(connection, "Dr. Weiss", dataset_id)
            case _:
                node.with_register(members.with_state("alice", MemberState.REVOKED))
    node.round(jti).run()
    assert node.runner.trained == []
    assert node.row(jti)["step"] == RoundStep.FAILED
    assert error(node).code is code


def test_a_round_whose_deadline_passed_while_it_waited_is_not_trained(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would take its reply."""
    jti = node.accepted(deadline=4_000_000_000)
    monkeypatch.setattr(round_module.time, "time", lambda: 4_000_000_001.0)
    node.round(jti).run()
    assert node.runner.trained == []
    assert node.row(jti)["error"].startswith(Code.ROUND_TIMEOUT)


# Failures


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (Code.TRAINING_FAILED, Code.TRAINING_FAILED),
        (Code.PLAN_INVALID, Code.PLAN_INVALID),
        (Code.ARGUMENT_INVALID, Code.ARGUMENT_INVALID),
        (Code.DATASET_INVALID, Code.DATASET_INVALID),
        (Code.RUNNER_LIMIT, Code.RUNNER_LIMIT),
        (Code.INTERNAL, Code.TRAINING_FAILED),
        (Code.POLICY_REFUSED, Code.TRAINING_FAILED),
        (Code.QUOTA_EXCEEDED, Code.TRAINING_FAILED),
    ],
)
def test_what_the_runner_says_in_words_never_leaves(node: Node, code: Code, told: Code) -> None:
    """By then it may be the plan that speaks, with a patient's name in its mouth."""

    def training(job: Any, parameters: Any) -> Outcome:
        raise failed(code, SECRET, plan_line=2, detail=SECRET, record=f"Traceback: {SECRET}")

    node.runner.training = training
    jti = node.accepted()
    node.round(jti).run()
    assert (error(node).code, error(node).plan_line) == (told, 2)
    assert not any("Example" in envelope.body.model_dump_json() for envelope in node.envelopes("alice"))
    assert not any("Example" in str(line) for line in node.audit())
    assert SECRET in node.row(jti)["error"]
    assert SECRET in History(node.root).record("e-1", 1)


@pytest.mark.parametrize(("line", "told"), [(1, 1), (3, 3), (9, None), (None, None)])
def test_a_plans_line_is_told_only_if_the_plan_has_it(node: Node, line: int | None, told: int | None) -> None:
    """A number may carry a birthday."""

    def training(job: Any, parameters: Any) -> Outcome:
        raise failed(Code.TRAINING_FAILED, "", plan_line=line)

    node.runner.training = training
    node.round(node.accepted()).run()
    assert error(node).plan_line == told


@pytest.mark.parametrize(
    "fault",
    [
        LocalFileError("/srv/node/spool/x.update: Permission denied."),
        RefusedError("https://10.8.0.1/ said no", status=403, code=Code.NETWORK_REFUSED, remedy="none"),
        FedWardError("/srv/node/keys is gone", code=Code.KEY_UNUSABLE),
    ],
)
def test_what_concerns_this_machine_alone_is_not_told_to_the_researcher(node: Node, fault: FedWardError) -> None:
    """Paths and addresses of a hospital are nobody's business."""
    node.rest.faults = [fault]
    jti = node.accepted()
    node.round(jti).run()
    assert error(node).message == "The node failed."
    assert fault.message in node.row(jti)["error"]


def test_an_error_in_our_own_code_is_told_by_its_reference_only(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text could quote anything."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError(SECRET)

    jti = node.accepted()
    monkeypatch.setattr(node.services.policy, "use_gpu", fail)
    node.round(jti).run()
    assert (error(node).code, error(node).message) == (Code.INTERNAL, "The node failed.")
    assert jti in node.row(jti)["error"]


def test_output_of_the_plan_stays_here(node: Node) -> None:
    """Staff may release it."""
    node.runner.training = lambda job, p: replace(honest(job, p), record=SECRET)
    node.round(node.accepted()).run()
    assert History(node.root).record("e-1", 1) == SECRET
    assert not any("Example" in envelope.body.model_dump_json() for envelope in node.envelopes("alice"))


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(tensor_bytes({"w": np.zeros((3, 2), np.float32)})),
        Outcome(tensor_bytes({"w": np.full((3, 2), np.nan, np.float32), "steps": np.array(4)})),
        Outcome(b"not tensors"),
        Outcome(None),
        Outcome(tensor_bytes({"w": np.zeros((3, 2), np.float32), "steps": np.array(4)}), samples=1961),
        Outcome(
            tensor_bytes({"w": np.zeros((3, 2), np.float32), "steps": np.array(4)}),
            metrics=(Metrics(stage="local", samples=20, values={"Example-1961": 1.0}),),
        ),
    ],
    ids=["missing", "nan", "garbage", "none", "samples", "metric's name"],
)
def test_an_update_that_the_guard_refuses_never_leaves(node: Node, outcome: Outcome) -> None:
    """No upload, no reply, no file; the researcher reads that it was refused."""
    node.runner.training = lambda _job, _parameters: outcome
    jti = node.accepted()
    node.round(jti).run()
    assert node.row(jti)["step"] == RoundStep.FAILED
    assert error(node).code is Code.UPDATE_REFUSED
    assert node.rest.recipients == {}
    assert node.received("alice", TrainReply) == []
    assert spooled(node) == []
    assert "Example" not in error(node).message


def test_files_that_changed_lock_their_dataset(node: Node) -> None:
    """Until staff have looked at them."""

    def training(job: Any, parameters: Any) -> Outcome:
        raise failed(Code.DATASET_CHANGED, "changed")

    node.runner.training = training
    node.round(node.accepted()).run()
    assert node.table(datasets)[0]["state"] == "changed"
    assert error(node).code is Code.DATASET_CHANGED


def test_parameters_sealed_to_another_member_or_purpose_are_refused(node: Node) -> None:
    """A file of another round must not be trained on in this one."""
    jti = node.accepted(parameters=node.parameters(round_=2))
    node.round(jti).run()
    assert error(node).code is Code.SEAL_BROKEN


def test_parameters_that_are_no_tensors_are_refused(node: Node) -> None:
    """They never come near the runner."""
    parameters = node.parameters()
    out = io.BytesIO()
    sealed = seal(io.BytesIO(b"no tensors"), out)
    context = "e-1/1/parameters"
    key = round_module.sealing.seal_key(sealed.content_key, node.members.keys["north"].public.sealing, context=context)
    changed = parameters.model_copy(
        update={
            "upload_id": node.rest.put(out.getvalue()),
            "sha256": sealed.sha256,
            "size_bytes": sealed.size_bytes,
            "content_key": key,
        }
    )
    node.round(node.accepted(parameters=changed)).run()
    assert error(node).code is Code.PARAMETERS_INVALID
    assert node.runner.trained == []


def test_a_runner_that_went_away_is_tried_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is being started again."""
    jti = node.accepted()
    node.runner.is_gone = True

    class Impatient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            node.runner.is_gone = False
            return super().wait(0)

    node.round(jti, stop=Impatient()).run()
    assert reply(node).update is not None


def test_a_runner_that_stays_away_ends_the_round_without_naming_its_socket(node: Node) -> None:
    """The researcher runs it again later."""

    class Impatient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            return super().wait(0)

    node.runner.is_gone = True
    node.round(node.accepted(), stop=Impatient()).run()
    assert error(node).code is Code.RUNNER_UNAVAILABLE
    assert "/srv" not in error(node).message


# What passes by itself


@pytest.mark.parametrize(
    "fault",
    [
        UnreachableError("The network host at https://10.8.0.1 is out of reach."),
        LocalFileError("full", code=Code.DISK_FULL),
        RefusedError("It was written 3600 s in the future.", status=401, code=Code.CLOCK_WRONG, remedy="none"),
    ],
)
@pytest.mark.parametrize("trained", [False, True])
def test_a_round_is_put_off_while_network_or_disk_are_away(node: Node, fault: FedWardError, trained: bool) -> None:
    """A lost network, a full disk or a wrong clock loses no accepted work."""
    jti = node.accepted()
    if trained:
        node.rest.on_upload = lambda: node.rest.faults.append(fault) if not node.rest.recipients else None
    else:
        node.rest.faults = [fault]
    with pytest.raises(FedWardError):
        node.round(jti).run()
    assert node.row(jti)["step"] == (RoundStep.CHECKED if trained else RoundStep.ACCEPTED)
    assert node.received("alice", ErrorReply) == []
    node.rest.on_upload = lambda: None
    node.round(jti).run()
    assert reply(node).update is not None
    assert len(node.runner.trained) == 1


def test_a_spool_that_is_full_puts_the_round_off(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan's tensors did not fit this time."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    jti = node.accepted()
    with monkeypatch.context() as patch:
        patch.setattr(round_module.sealing, "seal", full)
        with pytest.raises(FedWardError) as refusal:
            node.round(jti).run()
    assert refusal.value.code is Code.DISK_FULL
    node.round(jti).run()
    assert reply(node).update is not None


def test_a_round_is_put_off_no_longer_than_its_deadline(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the researcher is told."""
    node.rest.on_upload = lambda: node.rest.faults.append(UnreachableError("away"))
    jti = node.accepted(deadline=4_000_000_000)
    with pytest.raises(UnreachableError):
        node.round(jti).run()
    monkeypatch.setattr(round_module.time, "time", lambda: 4_000_000_001.0)
    node.round(jti).run()
    assert node.row(jti)["step"] == RoundStep.FAILED
    assert node.row(jti)["error"].startswith(Code.NETWORK_UNREACHABLE)


# Progress


def progress(count: int, **values: float) -> list[Progress]:
    """What a plan says while it trains."""
    return [Progress(job_id="j", iteration=n, iterations=count, values=values) for n in range(1, count + 1)]


def test_progress_is_told_and_recorded(node: Node) -> None:
    """A loss is a number from the data."""
    node.runner.progress = progress(1, loss=0.5)
    node.round(node.accepted()).run()
    assert [scalar.values for scalar in node.received("alice", Scalar)] == [{"loss": 0.5}]
    node.services.egress.flush(node.store)
    assert "scalar" in [line["kind"] for line in node.table(egress)]


def test_the_last_progress_goes_with_the_reply(node: Node) -> None:
    """Rounded as every number that leaves."""
    node.runner.reached = Reached(iteration=1, iterations=1, epoch=1, values={"loss": 0.51234567})
    node.round(node.accepted()).run()
    assert node.received("alice", Scalar) == []
    assert reply(node).reached == Reached(iteration=1, iterations=1, epoch=1, values={"loss": 0.512346})


@pytest.mark.parametrize(
    "reached",
    [
        Reached(iteration=9, iterations=9, values={"Example": 1.0}),
        Reached(iteration=10, iterations=10, values={"loss": 1.0}),
        Reached(iteration=1, iterations=9, values={"loss": 1.0}),
    ],
    ids=["a name of its own", "other end", "back"],
)
def test_last_progress_that_no_round_makes_ends_the_round(reached: Reached, node: Node) -> None:
    """It is held to the same as what was told before it."""
    node.runner.progress = progress(9, loss=0.5)[:1]
    node.runner.reached = reached
    node.round(node.accepted()).run()
    assert error(node).code is Code.UPDATE_REFUSED


def test_a_plan_that_floods_progress_is_told_no_more_than_once_a_second(node: Node) -> None:
    """Else sixteen numbers at a time would carry the whole dataset out."""
    node.runner.progress = progress(500, loss=0.5)
    node.round(node.accepted(training_args={"num_updates": 500})).run()
    assert 1 <= len(node.received("alice", Scalar)) < 10


def test_a_node_that_lacks_what_policy_requires_says_so_with_the_rule(node: Node) -> None:
    """The researcher learns that it is not the plan; the machine's lack itself stays here."""
    node.services.policy.change({"sandbox": "isolated"}, lambda _connection: None)

    def refuse(job: TrainJob, _: Any) -> Outcome:
        assert job.sandbox == SANDBOX_LEVELS["isolated"]
        raise failed(Code.SANDBOX_INCOMPLETE, "This machine lacks own_uid.")

    node.runner.training = refuse
    jti = node.accepted()
    node.round(jti).run()
    told = error(node)

    assert (told.code, told.rule) == (Code.SANDBOX_INCOMPLETE, "sandbox = isolated (set by the site)")
    assert "own_uid" not in told.message
    assert "own_uid" in node.row(jti)["error"]


def test_progress_with_a_name_that_the_plan_made_up_ends_the_round(node: Node) -> None:
    """It could be a patient's."""
    node.runner.progress = progress(1, Example=1.0)
    jti = node.accepted()
    node.round(jti).run()
    assert node.received("alice", Scalar) == []
    assert error(node).code is Code.UPDATE_REFUSED


def test_the_answer_waits_in_the_outbox_for_the_researchers_receipt(node: Node) -> None:
    """Recorded and posted in one transaction."""
    node.round(node.accepted()).run()
    assert [row["kind"] for row in node.table(outbox)] == ["train-reply"]


# Small models


def test_a_small_update_travels_inside_its_reply(node: Node, encloses: None) -> None:
    """Nothing is transferred beside it; the researcher alone opens it."""
    node.round(node.accepted()).run()
    sealed = reply(node).update
    assert sealed is not None
    assert sealed.upload_id is None
    assert node.rest.recipients == {}
    content = sealed.enclosed()
    assert content is not None
    node.rest.files["enclosed"] = content
    moved = sealed.model_copy(update={"upload_id": "enclosed"})
    assert np.array_equal(load(node.open_update(moved))["w"], np.full((3, 2), 0.1, np.float32))


def test_an_enclosed_update_is_in_the_record_too(node: Node, encloses: None) -> None:
    """With its own hash, and told apart from an upload: its bytes are those of its reply."""
    node.round(node.accepted()).run()
    sealed = reply(node).update
    assert sealed is not None
    enclosed, message = node.table(egress)
    assert (enclosed["kind"], enclosed["sha256"], enclosed["tensors"]) == ("enclosed", sealed.sha256, 2)
    assert message["size_bytes"] > enclosed["size_bytes"]


@pytest.mark.parametrize("step", [RoundStep.CHECKED, RoundStep.SUBMIT])
def test_a_small_round_that_is_cut_short_before_its_reply_left_nothing(
    step: RoundStep, node: Node, encloses: None
) -> None:
    """Check and reply are one transaction: trained twice, it is in the record once, with the update that left."""
    jti = node.accepted()
    with pytest.raises(PlugPulledError):
        node.round(jti, on_step=pull(step)).run()
    assert node.table(egress) == []
    node.round(jti).run()
    enclosed, message = node.table(egress)
    sealed = reply(node).update
    assert sealed is not None
    assert (enclosed["sha256"], message["kind"]) == (sealed.sha256, "train-reply")
    assert node.row(jti)["step"] == RoundStep.REPLIED


def test_a_round_that_ended_keeps_no_update(node: Node, encloses: None) -> None:
    """The store would grow by every model that ever left."""
    jti = node.accepted()
    node.round(jti).run()
    result = node.row(jti)["result"]
    assert result.keys() == {"reply"}
    assert TrainReply.model_validate_json(result["reply"]).update is None
    assert '"content"' not in node.row(jti)["request"]

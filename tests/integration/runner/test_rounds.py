"""Rounds through a real runner: client, supervisor, confined child and back."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.local.jobs import Limits, Progress
from appliance.protocol.local.runner_client import RunnerClient
from appliance.protocol.local.sealed import create_memfd, require_sealed, sealed_memfd
from appliance.protocol.tensors import tensor_bytes
from tests.runners import PLAN, Runner, plan_with, tensors_of, write_table, zeros


def test_a_round_returns_the_difference_to_the_parameters_sent(runner: Runner) -> None:
    """What leaves a hospital is a difference; from zeros it is the trained model itself."""
    update = tensors_of(runner.train())

    assert {name: (array.shape, array.dtype.name) for name, array in update.items()} == {
        "weight": ((1, 1), "float32"),
        "bias": ((1,), "float32"),
    }
    assert np.abs(update["weight"]).sum() > 0


def test_integer_buffers_travel_as_values(runner: Runner) -> None:
    """A counter's difference means nothing to an aggregator."""
    plan = PLAN.replace('torch.nn.Linear(model_args.get("features", 1), 1)', "torch.nn.BatchNorm1d(1)")
    tensors = {
        "weight": np.ones(1, np.float32), "bias": np.zeros(1, np.float32), "running_mean": np.zeros(1, np.float32),
        "running_var": np.ones(1, np.float32), "num_batches_tracked": np.array(40, np.int64),
    }  # fmt: skip
    fd = sealed_memfd("parameters", tensor_bytes(tensors))
    update = tensors_of(runner.client.train(runner.job(plan), fd))
    os.close(fd)

    assert update["num_batches_tracked"] == 42


def test_frozen_layers_are_used_and_not_returned(runner: Runner) -> None:
    """Transfer learning: a large base goes to the node, and only the small head comes back."""
    plan = PLAN.replace(
        'torch.nn.Linear(model_args.get("features", 1), 1)',
        "torch.nn.Sequential(torch.nn.Linear(1, 9).requires_grad_(False), torch.nn.Linear(9, 1))",
    )
    head = {"1.weight": np.zeros((1, 9), np.float32), "1.bias": np.zeros(1, np.float32)}
    base = {"frozen/0.weight": np.ones((9, 1), np.float32), "frozen/0.bias": np.full(9, 5, np.float32)}
    fd = sealed_memfd("parameters", tensor_bytes(head | base))
    update = tensors_of(runner.client.train(runner.job(plan), fd))
    os.close(fd)

    assert set(update) == set(head)
    assert np.abs(update["1.weight"]).min() > 0


def test_declearns_optimizers_work_in_the_sandbox_and_remember(runner: Runner) -> None:
    """It imports much that opens files and asks the machine: all of it must be allowed, or not be needed."""
    plan = PLAN.replace(
        'torch.optim.SGD(self.model().parameters(), lr=optimizer_args.get("lr", 0.1))',
        'Optimizer(lrate=0.1, modules=["adam"])',
    ).replace("import torch\n", "import torch\nfrom declearn.optimizer import Optimizer\n", 1)
    found, kept, parameters = [], None, zeros()
    for text in (plan, plan, f"{plan}# altered\n"):
        job = runner.job(text, "remembers-momenta", limits=Limits(seconds=110.0))
        result = runner.client.train(job, parameters, kept_fd=kept)
        found.append(result.reply.is_optimizer_new)
        assert result.kept_fd is not None
        kept = os.dup(result.kept_fd)
        update = tensors_of(result)
    os.close(parameters)

    assert found == [True, False, True]
    assert np.abs(update["weight"]).sum() > 0


def test_the_update_is_sealed(runner: Runner) -> None:
    """The bytes that the warden checks must be the bytes that it sends."""
    with runner.train() as result:
        assert result.update_fd is not None
        assert require_sealed(result.update_fd) > 0


def test_the_same_round_gives_the_same_bits(runner: Runner) -> None:
    """An experiment repeated with one seed must end bit-equal, whichever child computes it."""
    first, second = (tensors_of(runner.train(experiment=name)) for name in ("same-a", "same-b"))

    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_a_further_round_finds_its_child_warm(runner: Runner) -> None:
    """Starting anew each round would cost more than many a training."""
    with runner.train(experiment="warm", round=1) as first, runner.train(experiment="warm", round=2) as second:
        assert (first.reply.is_warm, second.reply.is_warm) == (False, True)


def test_a_warm_child_gives_the_bits_of_a_fresh_one(runner: Runner) -> None:
    """What a child remembers must not change what it computes."""
    runner.train(experiment="remembers", round=1).close()
    warm = tensors_of(runner.train(experiment="remembers", round=2))
    fresh = tensors_of(runner.train(experiment="forgets", round=2))

    assert all(np.array_equal(warm[name], fresh[name]) for name in warm)


@pytest.mark.parametrize(
    "change", [{"plan": PLAN + "# changed\n"}, {"model_args": {"features": 1, "note": 2}}], ids=["plan", "model"]
)
def test_another_plan_or_model_gets_a_fresh_child(runner: Runner, change: dict[str, object]) -> None:
    """A process that ran one text must not pass for one that runs another, approved, text."""
    experiment = f"changes-{len(change)}-{next(iter(change))}"
    runner.train(experiment=experiment).close()
    with runner.train(**{"experiment": experiment, "round": 2, **change}) as second:
        assert not second.reply.is_warm


def test_a_changed_file_is_noticed_by_a_warm_child(runner: Runner, tmp_path: Path) -> None:
    """Staff approved the data that they registered, not what somebody put in its place."""
    table = write_table(tmp_path / "table.csv")
    dataset = runner.dataset(table)
    runner.train(experiment="swapped", dataset=dataset).close()
    write_table(table, rows=90)

    error = runner.failure(experiment="swapped", dataset=dataset, round=2)

    assert error.code is Code.DATASET_CHANGED


def test_a_touched_file_with_the_same_bytes_is_the_same_data(runner: Runner, tmp_path: Path) -> None:
    """A restored backup has new times and must not stop an experiment."""
    table = write_table(tmp_path / "table.csv")
    runner.train(experiment="touched", dataset=runner.dataset(table)).close()
    os.utime(table, (1, 1))

    with runner.train(experiment="touched", dataset=runner.dataset(table), round=2) as result:
        assert result.reply.sample_count > 0


def test_metrics_come_from_before_and_after_training(runner: Runner) -> None:
    """A researcher compares the global model with the local one, on the same held-out rows."""
    arguments = {
        "num_updates": 20, "test_ratio": 0.2, "test_metric": "ACCURACY",
        "test_on_global_updates": True, "test_on_local_updates": True,
    }  # fmt: skip
    with runner.train(training_args=arguments) as result:
        assert [(metric.stage, metric.samples) for metric in result.reply.metrics] == [("global", 20), ("local", 20)]
        assert result.reply.sample_count == 80


def test_a_test_only_round_has_no_update(runner: Runner) -> None:
    """Nothing leaves that was not asked for."""
    arguments = {"test_ratio": 0.2, "test_metric": "ACCURACY"}
    with runner.train(train=False, training_args=arguments) as result:
        assert result.update_fd is None
        assert [metric.stage for metric in result.reply.metrics] == ["global"]


def test_progress_is_told_first_and_last(runner: Runner) -> None:
    """A researcher sees that a round lives; hundreds of updates must not become hundreds of messages."""
    heard: list[Progress] = []
    fd = zeros()
    job = runner.job(training_args={"num_updates": 50, "log_interval": 1})
    with runner.client.train(job, fd, heard.append) as result:
        last = result.reply.reached
    os.close(fd)

    assert [progress.iteration for progress in heard] == [1]
    assert last is not None
    assert (last.iteration, last.iterations, [*last.values]) == (50, 50, ["loss"])


def test_a_training_of_one_update_tells_nothing_before_its_result(runner: Runner) -> None:
    """A message of its own, signed, would say what the reply says a millisecond later."""
    heard: list[Progress] = []
    fd = zeros()
    with runner.client.train(runner.job(training_args={"num_updates": 1}), fd, heard.append) as result:
        assert result.reply.reached is not None
    os.close(fd)

    assert heard == []


def test_what_a_plan_prints_stays_in_the_record(runner: Runner) -> None:
    """Staff can look at it, and decide whether anybody else may."""
    with runner.train(plan_with('print("forty patients")')) as result:
        assert result.reply.record == "forty patients\n" * 2


def test_the_memory_of_a_round_is_what_its_processes_held(runner: Runner) -> None:
    """Seen from outside: whoever plans a machine must not depend on a plan's own word."""
    plain, holding = plan_with("pass"), plan_with('self.kept = b"x" * 200_000_000')
    once = {"num_updates": 1}  # the second would make its bytes while the first's are still held
    with runner.train(plain, experiment="small", training_args=once) as result:
        small_bytes = result.reply.memory_bytes
    with runner.train(holding, experiment="large", training_args=once) as result:
        large_bytes = result.reply.memory_bytes

    assert small_bytes is not None
    assert large_bytes is not None
    assert 190_000_000 < large_bytes - small_bytes < 300_000_000


def test_the_words_of_an_exception_never_leave(runner: Runner) -> None:
    """An exception's text is a letter that a plan can write to the researcher."""
    error = runner.failure(plan_with('raise ValueError("patient 17 is positive")'))

    assert (error.code, error.message) == (Code.TRAINING_FAILED, "The training plan failed with ValueError.")
    assert "patient 17" in error.record


def test_the_name_of_an_exception_never_leaves(runner: Runner) -> None:
    """A class can be named after a record; only Python's own names are repeated."""
    error = runner.failure(plan_with('raise type("Patient17IsPositive", (KeyError,), {})()'))

    assert error.message == "The training plan failed with KeyError."


def test_a_failure_names_the_line_of_the_plan(runner: Runner) -> None:
    """The researcher has the plan's text, so a line says enough."""
    plan = plan_with("1 / 0")
    error = runner.failure(plan)

    assert plan.splitlines()[(error.plan_line or 0) - 1].strip() == "1 / 0"


def test_a_plan_that_does_not_import_names_its_line(runner: Runner) -> None:
    """A typing error must not cost a researcher a day of letters."""
    error = runner.failure("import nonsense_that_nobody_has\n" + PLAN)

    assert (error.code, error.plan_line) == (Code.PLAN_INVALID, 1)


def test_our_own_sentence_about_a_plan_is_told(runner: Runner) -> None:
    """A loss that is not finite is the commonest failure, and needs no text of the plan's."""
    error = runner.failure(plan_with("self.model().weight.data.fill_(float('nan'))"))

    assert error.message == "The loss is not finite at update 1 of 2."


def test_the_runner_says_what_its_processes_use(runner: Runner) -> None:
    """Its own and, of each experiment, all of its child's: the hospital's staff look for what fills the memory."""
    with runner.train(experiment_id="weighed"):
        found = {use.part: use for use in runner.client.hello().processes}

    assert {"runner", "weighed"} <= set(found)
    assert found["weighed"].memory_bytes > 0
    assert abs(found["runner"].since - runner.family.create_time()) < 5


def test_a_wrong_argument_is_named(runner: Runner) -> None:
    """The name, the value and what is allowed: anything less sends people searching."""
    error = runner.failure(training_args={"epoch": 3})

    assert error.code is Code.ARGUMENT_INVALID
    assert "Did you mean 'epochs'" in error.message


def test_parameters_of_another_model_are_refused(runner: Runner) -> None:
    """A shape error deep in a library would tell nobody whose mistake it was."""
    fd = zeros(features=3)
    with pytest.raises(FedWardError) as caught:
        runner.client.train(runner.job(), fd)
    os.close(fd)

    assert caught.value.code is Code.PARAMETERS_INVALID


def test_parameters_that_can_still_change_are_refused(runner: Runner) -> None:
    """Between a check and its use nobody may write."""
    fd = create_memfd("open")
    with pytest.raises(FedWardError, match="not sealed") as caught:
        runner.client.train(runner.job(), fd)
    os.close(fd)

    assert caught.value.code is Code.PARAMETERS_INVALID


def test_a_round_past_its_time_is_ended(runner: Runner) -> None:
    """A plan that never returns must not hold the node for ever."""
    error = runner.failure(plan_with("time.sleep(60)", "import time"), limits=Limits(seconds=1.0))

    assert error.code is Code.ROUND_TIMEOUT


def test_a_child_that_is_killed_is_reported_by_its_signal(runner: Runner) -> None:
    """The kernel's memory killer says nothing else."""
    error = runner.failure(plan_with("os.kill(os.getpid(), 9)", "import os"))

    assert (error.code, error.message) == (Code.RUNNER_LIMIT, "The training process was ended by SIGKILL.")


def test_the_other_experiment_goes_on_when_one_is_killed(runner: Runner) -> None:
    """Two researchers on one node must not feel each other."""
    runner.train(experiment="quiet").close()
    runner.failure(plan_with("os.kill(os.getpid(), 9)", "import os"))

    with runner.train(experiment="quiet", round=2) as result:
        assert result.reply.is_warm


@pytest.mark.parametrize("action", ["check", "preview", "profile", "headers"])
def test_a_file_is_looked_at_inside_the_sandbox(runner: Runner, action: str) -> None:
    """Files come from anywhere; their parsers run where plans run."""
    seen = runner.client.inspect(runner.inspection(action))

    assert {"check": "is_usable", "preview": "header", "profile": "columns", "headers": "headers"}[action] in seen


def test_a_fingerprint_is_that_of_the_file(runner: Runner) -> None:
    """It is what a registration rests on."""
    assert runner.client.inspect(runner.inspection("fingerprint")) == {"fingerprint": runner.dataset().fingerprint}


def test_a_missing_file_is_named(runner: Runner) -> None:
    """Staff must learn which file, without its folder."""
    job = runner.inspection("check").model_copy(
        update={"dataset": runner.dataset().model_copy(update={"path": "/no.csv"})}
    )
    with pytest.raises(FedWardError, match=r"no\.csv: No such file") as caught:
        runner.client.inspect(job)

    assert caught.value.code is Code.DATASET_INVALID


def test_a_runner_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    """The warden queues the round and tries again."""
    with pytest.raises(FedWardError) as caught:
        RunnerClient(tmp_path / "nobody.sock").hello()

    assert caught.value.code is Code.RUNNER_UNAVAILABLE

"""PyTorch plans and the engine around them."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from appliance.data import Dataset
from appliance.protocol.errors import Code
from appliance.protocol.tensors import TensorFile, write_tensors
from appliance.training import (
    ArgumentInvalidError,
    DataManager,
    ParametersInvalidError,
    PlanInvalidError,
    Ratio,
    TorchTrainingPlan,
    TrainingArguments,
    TrainingFailedError,
    TrainingProgress,
    TrainingStoppedError,
)
from appliance.training.errors import MetricInvalidError
from appliance.training.repeated_draws import BLOCK

Built = Callable[..., Any]


class _Logistic(TorchTrainingPlan):
    """A logistic regression with batch normalisation, so that there are buffers as well."""

    def init_model(self, model_args: dict[str, Any]) -> Any:
        return torch.nn.Sequential(torch.nn.BatchNorm1d(2), torch.nn.Linear(2, model_args.get("outputs", 1)))

    def training_data(self) -> DataManager:
        return DataManager(self.dataset.matrix(["x", "z"]), self.dataset.matrix(["y"]), batch_size=8)

    def training_step(self, data: Any, target: Any) -> Any:
        return torch.nn.functional.binary_cross_entropy_with_logits(self.model()(data), target)


@pytest.fixture
def built(build: Built) -> Built:
    """Builds a plan, the logistic regression unless another is given."""

    def make(plan: type = _Logistic, *args: Any, **arguments: Any) -> Any:
        return build(plan, *args, **arguments)

    return make


def bits(parameters: dict[str, Any]) -> dict[str, bytes]:
    """Parameters as bytes, for a comparison bit by bit."""
    return {name: array.tobytes() for name, array in parameters.items()}


def test_training_lowers_the_loss(built: Built) -> None:
    """The reason for all the rest."""
    losses: list[float] = []
    built(epochs=10, optimizer_args={"lr": 0.5}).train(lambda progress: losses.append(progress.values["loss"]))

    assert losses[-1] < losses[0]


def test_the_same_seed_gives_the_same_bits(built: Built) -> None:
    """Two runs with one seed end bit-equal."""
    first, second = built(epochs=2), built(epochs=2)
    first.train()
    second.train()

    assert bits(first.get_parameters()) == bits(second.get_parameters())


def test_a_warm_plan_gives_the_same_bits_as_a_cold_one(built: Built) -> None:
    """A node keeps its child between rounds; the result must not tell."""
    warm, cold = built(epochs=1, seed=1), built(epochs=1, seed=2)
    warm.train()
    warm.build({}, TrainingArguments.parse({"epochs": 1}), seed=2)
    warm.train()
    cold.train()

    assert bits(warm.get_parameters()) == bits(cold.get_parameters())


class _Counting(torch.nn.Module):
    """State that is no tensor, and a tensor that does not travel."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[int] = []
        self.register_buffer("noise", torch.randn(1), persistent=False)

    def forward(self, data: Any) -> Any:
        self.calls.append(len(data))
        return data * (1 + len(self.calls) / 100) + self.noise


class _Remembering(_Logistic):
    """Has all that a model or a plan can carry from one round into the next, behind a parameter of many numbers."""

    def init_model(self, model_args: dict[str, Any]) -> Any:
        wide = model_args["wide"]
        self.weights = [1.0]
        hidden = [torch.nn.Linear(2, wide), torch.nn.BatchNorm1d(wide), torch.nn.Dropout(0.5), _Counting()]
        return torch.nn.Sequential(*hidden, torch.nn.Linear(wide, 1))

    def training_step(self, data: Any, target: Any) -> Any:
        self.weights.append(0.9 * self.weights[-1])
        return self.weights[-1] * super().training_step(data, target)


_WIDE = {"wide": BLOCK}


def in_a_round(plan: Any, parameters: dict[str, Any], *, seed: int, shares_buffers: bool = True) -> dict[str, bytes]:
    """What a node's process does in one round, and the parameters behind it."""
    arguments = TrainingArguments.parse({"num_updates": 3, "share_persistent_buffers": shares_buffers})
    plan.build(_WIDE, arguments, seed=seed, are_parameters_to_follow=True)
    plan.set_parameters({name: parameters[name] for name in plan.get_parameters()})
    plan.train()
    return bits(plan.get_parameters())


@pytest.mark.parametrize("shares_buffers", [True, False])
def test_a_warm_plan_remembers_nothing_of_an_earlier_round(built: Built, *, shares_buffers: bool) -> None:
    """After a crash a round is trained again, in another process; a large model's is the same to the bit as well."""
    warm, cold = built(_Remembering, _WIDE), built(_Remembering, _WIDE)
    parameters = warm.get_parameters()
    first = in_a_round(warm, parameters, seed=1, shares_buffers=shares_buffers)

    second = in_a_round(warm, parameters, seed=2, shares_buffers=shares_buffers)

    assert second == in_a_round(cold, parameters, seed=2, shares_buffers=shares_buffers)
    assert second != first


def test_parameters_to_follow_change_no_bit_of_the_training(built: Built) -> None:
    """What is spared while the model is built must not show in what it learns."""

    class Wide(_Logistic):
        def init_model(self, model_args: dict[str, Any]) -> Any:
            return torch.nn.Sequential(torch.nn.Linear(2, BLOCK), torch.nn.Dropout(0.5), torch.nn.Linear(BLOCK, 1))

    whole = built(Wide, _WIDE, num_updates=3)
    spared = built(Wide, _WIDE)
    parameters = whole.get_parameters()
    whole.train()

    assert bits(whole.get_parameters()) == in_a_round(spared, parameters, seed=1)


def test_parameters_from_a_file_are_those_of_the_file(built: Built, tmp_path: Path) -> None:
    """They are read in parts, of whatever type and layout the model's tensors are."""

    class Mixed(_Logistic):
        def init_model(self, model_args: dict[str, Any]) -> Any:
            model = torch.nn.Sequential(torch.nn.Linear(2, BLOCK * 3), torch.nn.BatchNorm1d(BLOCK * 3))
            model[0].weight.data = model[0].weight.data.t().contiguous().t()
            return model.double()

    plan = built(Mixed)
    expected = {name: array + 1 for name, array in plan.get_parameters().items()}
    write_tensors(expected, tmp_path / "parameters")
    plan.set_parameters(TensorFile(tmp_path / "parameters"))

    assert bits(plan.get_parameters()) == bits(expected)


def test_a_warm_plan_reads_its_samples_once(built: Built) -> None:
    """A further round costs the training itself."""
    calls = []

    class Counting(_Logistic):
        def training_data(self) -> DataManager:
            calls.append(1)
            return super().training_data()

    plan = built(Counting, epochs=1)
    plan.train()
    plan.build({}, TrainingArguments.parse({"epochs": 1}), seed=2)
    plan.train()

    assert len(calls) == 1


def test_another_dataset_is_read_anew(built: Built, make_dataset: Callable[..., Dataset]) -> None:
    """Stale samples would train on data that the hospital took away."""
    plan = built(epochs=1)
    plan.split()
    plan.attach(make_dataset(16))

    assert plan.split() == (16, 0)


def test_a_notebooks_own_settings_are_left_as_they_were(built: Built) -> None:
    """The researcher's kit builds plans inside somebody's session."""
    torch.manual_seed(5)
    random.seed(5)
    threads = torch.get_num_threads()
    expected = torch.rand(1), random.random()
    torch.manual_seed(5)
    random.seed(5)
    built(epochs=1).train()

    assert (torch.rand(1), random.random()) == expected
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize(
    ("arguments", "updates"),
    [
        ({}, 5),
        ({"epochs": 2}, 10),
        ({"epochs": 2, "batch_maxnum": 3}, 6),
        ({"epochs": 2, "batch_maxnum": 0}, 10),
        ({"num_updates": 7}, 7),
        ({"num_updates": 7, "epochs": 9}, 7),
        ({"epochs": 1, "batch_size": 12}, 4),
        ({"epochs": 1, "batch_size": 12, "loader_args": {"drop_last": True}}, 3),
        ({"epochs": 1, "batch_size": 999}, 1),
        ({"epochs": 9, "dry_run": True}, 1),
    ],
)
def test_the_number_of_updates_is_as_asked(built: Built, arguments: dict[str, Any], updates: int) -> None:
    """40 rows, batches of 8 by the plan's DataManager."""
    assert built(**arguments).train().iterations == updates


def test_an_epoch_takes_every_sample_once(built: Built) -> None:
    """A shuffle is a permutation."""
    seen: list[float] = []

    class Watching(_Logistic):
        def training_step(self, data: Any, target: Any) -> Any:
            seen.extend(data[:, 0].tolist())
            return super().training_step(data, target)

    plan = built(Watching, epochs=1)
    plan.train()

    assert sorted(seen) == sorted(plan.dataset.matrix(["x"])[:, 0].tolist())
    assert seen != plan.dataset.matrix(["x"])[:, 0].tolist()


def test_progress_is_reported_first_at_intervals_and_last(built: Built) -> None:
    """A curve with both of its ends."""
    seen: list[TrainingProgress] = []
    built(num_updates=12, log_interval=5).train(seen.append)

    assert [progress.iteration for progress in seen] == [1, 5, 10, 12]
    assert (seen[-1].iterations, seen[-1].epoch) == (12, 3)


def test_training_stops_when_asked(built: Built) -> None:
    """Stop is either side's right."""
    answers = iter([False, False, True])

    with pytest.raises(TrainingStoppedError, match="before update 3") as caught:
        built(epochs=1).train(should_stop=lambda: next(answers))
    assert caught.value.code is Code.ROUND_STOPPED


def test_parameters_are_copies(built: Built) -> None:
    """The update is trained minus received: a view would make it zero."""
    plan = built(epochs=1)
    before = plan.get_parameters()
    kept = bits(before)
    plan.train()

    assert bits(before) == kept
    assert bits(plan.get_parameters()) != kept


def test_parameters_set_are_parameters_got(built: Built) -> None:
    """What a node is sent is what it trains from, integers included."""
    source, target = built(seed=1, epochs=1), built(seed=2)
    source.train()
    target.set_parameters(source.get_parameters())

    assert bits(target.get_parameters()) == bits(source.get_parameters())
    assert target.get_parameters()["0.num_batches_tracked"].dtype == np.int64


def test_read_only_parameters_are_taken(built: Built) -> None:
    """They come out of a mapped file."""
    plan = built()
    parameters = plan.get_parameters()
    for array in parameters.values():
        array.flags.writeable = False
    plan.set_parameters(parameters)

    assert bits(plan.get_parameters()) == bits(parameters)


def test_buffers_stay_at_home_when_asked(built: Built) -> None:
    """Batch normalisation's statistics describe one hospital's patients."""
    plan = built(share_persistent_buffers=False)

    assert sorted(plan.get_parameters()) == ["0.bias", "0.weight", "1.bias", "1.weight"]


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_parameters_of_another_model_are_refused(built: Built, change: str) -> None:
    """Broadcasting a (1,) into a (2,) would train nonsense."""
    plan = built()
    parameters = plan.get_parameters()
    match change:
        case "missing":
            del parameters["1.bias"]
        case "extra":
            parameters["patient"] = np.zeros(1, np.float32)
        case _:
            parameters["0.weight"] = np.zeros(1, np.float32)

    with pytest.raises(ParametersInvalidError) as caught:
        plan.set_parameters(parameters)
    assert "patient" not in caught.value.message


def test_fedprox_holds_the_model_near_the_received_one(built: Built) -> None:
    """Li et al., 2020: the larger mu, the shorter the way."""

    def way(mu: float) -> float:
        plan = built(epochs=5, fedprox_mu=mu, optimizer_args={"lr": 0.1})
        before = plan.get_parameters()
        plan.train()
        return float(np.abs(plan.get_parameters()["1.weight"] - before["1.weight"]).sum())

    assert way(5.0) < way(0.5) < way(0.0)


def test_held_out_patients_are_not_trained_on(built: Built, make_dataset: Callable[..., Dataset]) -> None:
    """Rows of one patient stay together without a word in the plan."""
    plan = built(test_ratio=0.25)
    plan.attach(make_dataset(40, groups=np.repeat(np.arange(10), 4)))

    train, test = plan.split()
    assert train + test == 40
    assert test % 4 == 0


def test_the_split_is_the_same_in_every_round(built: Built) -> None:
    """It depends on random_seed, never on the round's own seed."""
    first, second = built(seed=1, test_ratio=0.25), built(seed=2, test_ratio=0.25)

    assert first.predict_held_out()[0].tobytes() == second.predict_held_out()[0].tobytes()


def test_a_named_metric_is_computed_on_held_out_samples(built: Built) -> None:
    """The default testing step."""
    plan = built(test_ratio=0.5, test_metric="AUC", epochs=20, optimizer_args={"lr": 0.5})
    plan.train()
    outcome = plan.test()

    assert outcome.samples == 20
    assert outcome.values["AUC"] > 0.9


def test_a_metric_is_the_same_in_batches(built: Built) -> None:
    """An AUC is not a mean of batches' AUCs."""
    whole, parts = built(test_ratio=0.5, test_metric="AUC"), built(test_ratio=0.5, test_metric="AUC", test_batch_size=3)

    assert whole.test().values == pytest.approx(parts.test().values)


def test_a_test_leaves_the_buffers_alone(built: Built) -> None:
    """A test of the global model must not change it."""
    plan = built(test_ratio=0.5, test_metric="AUC")
    before = bits(plan.get_parameters())
    plan.test()

    assert bits(plan.get_parameters()) == before


def test_an_own_testing_step_wins(built: Built) -> None:
    """It may give several numbers; their means go by the batches' sizes, and what is not finite is absent."""

    def measure(_plan: object, data: Any, _target: object) -> dict[str, float]:
        return {"size": float(len(data)), "bad": float("nan")}

    own = type("Own", (_Logistic,), {"testing_step": measure})
    outcome = built(own, test_ratio=0.25, test_batch_size=8, test_metric="AUC").test()

    assert outcome.values == {"size": (8 * 8 + 2 * 2) / 10}


@pytest.mark.parametrize("returned", ["text", {"two words": 1.0}, {"ok": "text"}, None])
def test_a_testing_step_gives_numbers_by_plain_names(built: Built, returned: object) -> None:
    """A name of free text could carry a record out."""
    wrong = type("Wrong", (_Logistic,), {"testing_step": lambda _plan, _data, _target: returned})

    with pytest.raises(MetricInvalidError, match="testing_step"):
        built(wrong, test_ratio=0.5).test()


def test_a_test_without_a_measure_is_refused(built: Built) -> None:
    """Silence would look like a test that was passed."""
    with pytest.raises(ArgumentInvalidError, match="test_metric"):
        built(test_ratio=0.5).test()


def test_without_held_out_samples_there_is_no_test(built: Built) -> None:
    """Nothing to measure is not an error."""
    assert built(test_metric="AUC").test() is None


def test_nothing_left_to_train_on_is_refused(built: Built) -> None:
    """An update of nothing would count in the mean."""
    with pytest.raises(TrainingFailedError, match="held out") as caught:
        built(test_ratio=1.0).train()
    assert caught.value.code is Code.TOO_FEW_SAMPLES


def test_a_loss_that_is_not_finite_ends_training(built: Built) -> None:
    """The number of the update helps more than a refused tensor."""

    class Diverging(_Logistic):
        def training_step(self, data: Any, target: Any) -> Any:
            return super().training_step(data, target) * float("inf")

    with pytest.raises(TrainingFailedError, match="not finite at update 1"):
        built(Diverging).train()


@pytest.mark.parametrize("returned", [None, 1.0, torch.zeros(2, requires_grad=True), torch.zeros(1)])
def test_a_training_step_returns_the_loss(built: Built, returned: object) -> None:
    """The commonest slip is a forgotten return."""

    class Forgetful(_Logistic):
        def training_step(self, data: Any, target: Any) -> object:
            return returned

    with pytest.raises(TrainingFailedError, match="must return the loss"):
        built(Forgetful).train()


def test_a_model_of_another_kind_is_refused(built: Built) -> None:
    """In words of ours: the class's name could carry a record."""

    class Wrong(_Logistic):
        def init_model(self, model_args: dict[str, Any]) -> object:
            return object()

    with pytest.raises(PlanInvalidError, match=r"torch\.nn\.Module"):
        built(Wrong)


def test_arguments_that_the_optimizer_does_not_take_are_named(built: Built) -> None:
    """The default optimizer is ours, so no line of the plan would help."""
    with pytest.raises(ArgumentInvalidError, match="optimizer_args as given"):
        built(optimizer_args={"learning_rate": 1}).train()


def test_a_map_style_dataset_trains_as_its_tensors_do(built: Built) -> None:
    """Images come from a dataset, tables as arrays."""

    class Mapped(_Logistic):
        def training_data(self) -> DataManager:
            data, target = self.dataset.matrix(["x", "z"]), self.dataset.matrix(["y"])
            return DataManager(torch.utils.data.TensorDataset(torch.tensor(data), torch.tensor(target)), batch_size=8)

    mapped, plain = built(Mapped, epochs=2), built(epochs=2)
    mapped.train()
    plain.train()

    assert bits(mapped.get_parameters()) == bits(plain.get_parameters())


def test_a_data_manager_needs_a_target_for_each_sample() -> None:
    """One row less would shift every label."""
    with pytest.raises(PlanInvalidError, match="3 samples and 2 targets"):
        DataManager(np.zeros((3, 1)), np.zeros(2))


def test_plan_code_can_ask_for_its_arguments(built: Built) -> None:
    """Fed-BioMed's getters."""
    plan = built(model_args={"outputs": 1}, epochs=3, optimizer_args={"lr": 0.1})

    assert (plan.model_args(), plan.optimizer_args()) == ({"outputs": 1}, {"lr": 0.1})
    assert plan.training_args()["epochs"] == 3


# Where it computes


@pytest.mark.parametrize(
    ("use_gpu", "has_gpu", "device"), [(False, True, "cpu"), (True, False, "cpu"), (True, True, "cuda")]
)
def test_a_plan_trains_where_it_may(
    built: Built, monkeypatch: pytest.MonkeyPatch, use_gpu: bool, has_gpu: bool, device: str
) -> None:
    """No GPU is no failure."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, _device: module)
    plan = built()
    plan.build({}, TrainingArguments(), seed=1, use_gpu=use_gpu)

    assert plan.device.type == device


def test_the_gradients_are_let_go_after_training(built: Built) -> None:
    """They take up as much as the model, while the update is yet to be written."""
    plan = built()
    plan.train()

    assert all(parameter.grad is None for parameter in plan.model().parameters())


def test_parameters_are_copied_unless_told_otherwise(built: Built) -> None:
    """A researcher keeps them; the engine writes them away at once."""
    plan = built()
    kept, live = plan.get_parameters(), plan.get_parameters(copy=False)
    plan.train()

    assert not np.array_equal(kept["1.weight"], live["1.weight"])
    assert np.array_equal(live["1.weight"], plan.get_parameters()["1.weight"])


# Parameters that are filled quickly, because they are set next

WIDE = 512  # squared, four times the numbers that are drawn before they are repeated


class _WithATeacher(_Logistic):
    """Keeps a layer that nobody sets."""

    def init_model(self, model_args: dict[str, Any]) -> torch.nn.Module:
        self.teacher = torch.nn.Linear(WIDE, WIDE)
        return torch.nn.Sequential(torch.nn.Linear(2, WIDE), torch.nn.Linear(WIDE, WIDE), torch.nn.Linear(WIDE, 1))


class _Inverting(_Logistic):
    """Needs numbers that are drawn one by one."""

    def init_model(self, model_args: dict[str, Any]) -> torch.nn.Module:
        model = torch.nn.Sequential(torch.nn.Linear(2, WIDE), torch.nn.Linear(WIDE, WIDE))
        if torch.linalg.matrix_rank(model[1].weight.detach()) < WIDE:
            raise ValueError("singular")
        return model


@pytest.mark.parametrize("plan_class", [_WithATeacher, _Inverting])
def test_what_is_not_set_next_is_drawn_in_full(built: Built, plan_class: type[TorchTrainingPlan]) -> None:
    """A node's own random layer is as good as the researcher's, to the bit."""
    plan, ours = built(plan_class), built(plan_class)
    ours.build({}, TrainingArguments(), seed=1)
    plan.build({}, TrainingArguments(), seed=1, are_parameters_to_follow=True)

    assert bits(plan.get_parameters()) == bits(ours.get_parameters())
    if isinstance(plan, _WithATeacher) and isinstance(ours, _WithATeacher):
        assert torch.equal(plan.teacher.weight, ours.teacher.weight)


class _FedBN(_Logistic):
    """Batch norm stays at the node."""

    def local_parameters(self) -> list[str]:
        return ["0.*"]


class _FedBNOfAnotherName(_Logistic):
    """What its author believes to stay, and what would leave."""

    def local_parameters(self) -> list[str]:
        return ["0.*", "norm*"]


def test_a_local_parameter_that_the_model_lacks_is_refused(built: Built) -> None:
    """A pattern with a slip would send to everybody what was to stay at the hospital."""
    with pytest.raises(PlanInvalidError, match=r"names 'norm\*', and no tensor"):
        built(_FedBNOfAnotherName).get_parameters()


def test_local_parameters_do_not_travel_and_go_on_where_they_were(built: Built) -> None:
    """FedBN: each hospital normalises by its own statistics."""
    plan = built(_FedBN, epochs=2, optimizer_args={"lr": 0.1})
    assert set(plan.get_parameters()) == {"1.weight", "1.bias"}
    plan.train()
    kept = plan.get_kept_tensors()
    assert set(kept) == {f"local/0.{name}" for name in _NORM}

    again = built(_FedBN, epochs=2)
    again.set_parameters(plan.get_parameters())
    again.set_kept_tensors(kept, {})

    assert bits({f"local/{n}": v.numpy() for n, v in again.model().state_dict().items() if n[0] == "0"}) == bits(kept)


def test_buffers_that_are_not_shared_stay_at_the_node(built: Built) -> None:
    """share_persistent_buffers=False: the next round does not begin with a fresh running mean."""
    plan = built(epochs=1, share_persistent_buffers=False)
    plan.train()

    assert set(plan.get_kept_tensors()) == {f"local/0.{name}" for name in _NORM if name not in ("weight", "bias")}


def test_a_plan_that_shares_everything_keeps_nothing(built: Built) -> None:
    """A hospital's disk is not filled for nothing."""
    plan = built(epochs=1)
    plan.train()

    assert plan.get_kept_tensors() == {}


_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


class _TwoOptimizers(_Logistic):
    """Each layer has an optimizer of its own."""

    def init_optimizer(self, optimizer_args: dict[str, Any]) -> Any:
        return {
            "norm": torch.optim.SGD(self.model()[0].parameters(), lr=0.0),
            "linear": torch.optim.SGD(self.model()[1].parameters(), lr=0.1),
        }


def test_several_optimizers_step_together(built: Built) -> None:
    """One with a rate of nought leaves its layer as it was."""
    plan = built(_TwoOptimizers, num_updates=3)
    before = plan.get_parameters()
    plan.train()
    after = plan.get_parameters()

    assert np.array_equal(after["0.weight"], before["0.weight"])
    assert not np.array_equal(after["1.weight"], before["1.weight"])


class _Scheduled(_Logistic):
    """A rate that is nought from the second update on, and grows with the round."""

    def init_optimizer(self, optimizer_args: dict[str, Any]) -> Any:
        return torch.optim.SGD(self.model().parameters(), lr=0.1 * self.round)

    def init_scheduler(self) -> Any:
        return torch.optim.lr_scheduler.LambdaLR(self.optimizer(), lambda update: float(update == 0))


def test_a_scheduler_steps_after_each_update(built: Built) -> None:
    """Ten updates are as far as one."""
    one, ten = built(_Scheduled, num_updates=1), built(_Scheduled, num_updates=10)
    one.train()
    ten.train()

    assert bits({"w": one.get_parameters()["1.weight"]}) == bits({"w": ten.get_parameters()["1.weight"]})


def test_a_plan_knows_its_round(built: Built, north: Dataset) -> None:
    """For a rate that changes over rounds."""

    def way(round_: int) -> float:
        plan = _Scheduled()
        plan.build({}, TrainingArguments(num_updates=1), seed=1, round_=round_)
        plan.attach(north)
        before = plan.get_parameters()["1.weight"]
        plan.train()
        return float(np.abs(plan.get_parameters()["1.weight"] - before).sum())

    assert way(3) == pytest.approx(3 * way(1), rel=1e-4)


class _Alternating(TorchTrainingPlan):
    """Trains in a way of its own: two players' parameters in turn."""

    def init_model(self, model_args: dict[str, Any]) -> Any:
        return torch.nn.ModuleDict({"a": torch.nn.Linear(2, 1), "b": torch.nn.Linear(2, 1)})

    def init_optimizer(self, optimizer_args: dict[str, Any]) -> Any:
        return [torch.optim.SGD(self.model()[name].parameters(), lr=0.1) for name in "ab"]

    def training_data(self) -> DataManager:
        return DataManager(self.dataset.matrix(["x", "z"]), self.dataset.matrix(["y"]), batch_size=8)

    def training_update(self, data: Any, target: Any) -> Any:
        for name, optimizer in zip("ab", self.optimizer(), strict=True):
            optimizer.zero_grad()
            loss = (self.model()[name](data) - target).square().mean()
            loss.backward()
            optimizer.step()
        return loss


def test_a_plan_may_train_in_a_way_of_its_own(built: Built) -> None:
    """Without a training_step; progress has the loss that it returns, and FedProx holds its steps as well."""
    told: list[TrainingProgress] = []
    plan = built(_Alternating, num_updates=4, log_interval=1)
    before = plan.get_parameters()
    plan.train(told.append)
    held = built(_Alternating, num_updates=4, fedprox_mu=9.0)
    held.train()

    def way(trained: Any) -> float:
        return float(np.abs(trained.get_parameters()["a.weight"] - before["a.weight"]).sum())

    assert [progress.iteration for progress in told] == [1, 2, 3, 4]
    assert way(held) < way(plan)


class _Lost(_Alternating):
    """Returns no loss."""

    def training_update(self, data: Any, target: Any) -> Any:
        return "fine"


class _NotToBeScheduled(_Logistic):
    def init_scheduler(self) -> Any:
        return "cosine"


class _NoOptimizers(_Logistic):
    def init_optimizer(self, optimizer_args: dict[str, Any]) -> Any:
        return []


@pytest.mark.parametrize(
    ("plan", "error", "words"),
    [
        (_Lost, TrainingFailedError, "training_update must return the loss"),
        (_NotToBeScheduled, PlanInvalidError, "init_scheduler must return a scheduler"),
        (_NoOptimizers, PlanInvalidError, "init_optimizer must return an optimizer"),
    ],
)
def test_what_cannot_train_is_named(plan: type, error: type[Exception], words: str, built: Built) -> None:
    """With the hook at fault."""
    with pytest.raises(error, match=words):
        built(plan, num_updates=1).train()


class _Mean(TorchTrainingPlan):
    """A linear model without batch norm, whose loss is a mean over samples."""

    def init_model(self, model_args: dict[str, Any]) -> Any:
        return torch.nn.Linear(2, 1)

    def training_data(self) -> DataManager:
        return DataManager(self.dataset.matrix(["x", "z"]), self.dataset.matrix(["y"]), batch_size=10)

    def training_step(self, data: Any, target: Any) -> Any:
        self.sizes = [*getattr(self, "sizes", []), len(data)]
        return torch.nn.functional.binary_cross_entropy_with_logits(self.model()(data), target)


def test_gradients_of_micro_batches_add_up_to_the_batchs(built: Built) -> None:
    """The same training in less memory, the last piece being smaller."""
    whole, pieces = built(_Mean, epochs=2), built(_Mean, epochs=2, micro_batch_size=4)
    whole.train()
    pieces.train()

    assert pieces.sizes == [4, 4, 2] * 8
    for name, array in whole.get_parameters().items():
        assert pieces.get_parameters()[name] == pytest.approx(array, rel=1e-5)


def test_mixed_precision_computes_in_half_of_the_digits(built: Built) -> None:
    """The model's own numbers stay whole ones; the result is near, and not the same."""
    whole, half = built(_Mean, epochs=2), built(_Mean, epochs=2, mixed_precision=True)
    whole.train()
    half.train()
    found, expected = half.get_parameters()["weight"], whole.get_parameters()["weight"]

    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=0.05)
    assert not np.array_equal(found, expected)


def test_a_ratio_is_of_all_batches_together(built: Built) -> None:
    """A mean of the batches' ratios would weigh the last one, of two samples, like the others."""
    seen = iter([(8, 8), (0, 2)])
    own = type("Own", (_Logistic,), {"testing_step": lambda _plan, _data, _target: {"hits": Ratio(*next(seen))}})
    outcome = built(own, test_ratio=0.25, test_batch_size=8).test()

    assert outcome.values == {"hits": 0.8}
    assert outcome.counts["hits"].cells == (8.0, 10.0)


def test_a_ratio_of_nothing_has_no_value(built: Built) -> None:
    """No lesion in any of them: neither all nor none were found."""
    own = type("Own", (_Logistic,), {"testing_step": lambda _plan, _data, _target: {"hits": Ratio(0, 0)}})
    outcome = built(own, test_ratio=0.25).test()

    assert (outcome.values, outcome.counts["hits"].cells) == ({}, (0.0, 0.0))

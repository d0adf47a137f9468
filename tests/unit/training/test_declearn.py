"""declearn's optimizers at nodes, and at the researcher."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from declearn.optimizer import Optimizer

from appliance.data import Dataset
from appliance.training import ArgumentInvalidError, DataManager, TorchTrainingPlan
from researcher_kit.aggregators import FedAverage, Scaffold, ServerOptimizer, Update
from researcher_kit.breakpoints import SavedPart
from researcher_kit.errors import AggregationError, ExperimentArgumentError
from tests.unit.training.federated import federated

Built = Callable[..., Any]
Make = Callable[..., Dataset]
STEPS = {"num_updates": 4, "batch_size": 8, "random_seed": 3}
UPDATES = [Update("north", 1, {"w": np.float32([4.0])}), Update("south", 3, {"w": np.float32([0.0])})]


class _Net(TorchTrainingPlan):
    """A linear model, with the optimizer that its model arguments make."""

    def init_model(self, model_args: dict[str, Any]) -> torch.nn.Module:
        return torch.nn.Linear(2, 1)

    def init_optimizer(self, optimizer_args: dict[str, Any]) -> Any:
        return self.model_args()["make"](self.model().parameters())

    def training_data(self) -> DataManager:
        return DataManager(self.dataset.matrix(["x", "z"]), self.dataset.matrix(["y"]))

    def training_step(self, data: Any, target: Any) -> Any:
        return torch.nn.functional.mse_loss(self.model()(data), target)


def _trained(build: Built, make: Callable[..., Any], **arguments: Any) -> dict[str, np.ndarray]:
    plan = build(_Net, {"make": make}, **STEPS | arguments)
    plan.train()
    return plan.get_parameters()


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1), lambda _: Optimizer(lrate=0.1)),
        (
            lambda p: torch.optim.SGD(p, lr=0.1, weight_decay=0.02),
            lambda _: Optimizer(lrate=0.1, regularizers=[("ridge", {"alpha": 0.01})]),
        ),
    ],
)
def test_a_step_is_the_one_that_pytorch_makes(build: Built, ours: Any, theirs: Any) -> None:
    """The two name the same algorithm."""
    one, other = _trained(build, ours), _trained(build, theirs)

    for name, array in one.items():
        np.testing.assert_allclose(other[name], array, rtol=1e-5)


def test_a_proximal_term_is_the_one_of_fedprox_mu(build: Built) -> None:
    """It pulls to the parameters of the round's beginning, and not to those of the last step."""
    one = _trained(build, lambda p: torch.optim.SGD(p, lr=0.1), fedprox_mu=0.5)
    other = _trained(build, lambda _: Optimizer(lrate=0.1, regularizers=[("fedprox", {"alpha": 0.5})]))

    np.testing.assert_allclose(other["weight"], one["weight"], rtol=1e-5)


def test_our_proximal_term_works_with_declearns_modules(build: Built) -> None:
    """fedprox_mu is an argument of any PyTorch plan."""
    plain, pulled = (
        _trained(build, lambda _: Optimizer(lrate=0.1, modules=["adam"]), fedprox_mu=mu) for mu in (0, 9.0)
    )

    assert not np.array_equal(plain["weight"], pulled["weight"])


def test_its_scaffold_is_ours(make_dataset: Make) -> None:
    """Node by node and round by round the same model; and nothing but the update leaves a node."""
    hospitals = [make_dataset(20), make_dataset(60)]
    plans = [lambda p: torch.optim.SGD(p, lr=0.1), lambda _: Optimizer(lrate=0.1, modules=["scaffold-client"])]
    ours, theirs = (
        federated(_Net, hospitals, rounds=4, model_args={"make": make}, aggregator=Scaffold(), **STEPS).get_parameters()
        for make in plans
    )

    np.testing.assert_allclose(theirs["weight"], ours["weight"], rtol=1e-4)


@pytest.mark.parametrize(
    ("optimizer", "aggregator", "reason"),
    [
        ({"modules": ["scaffold-client"]}, FedAverage(), r"aggregator Scaffold\(\)"),
        ({"modules": ["adam"]}, Scaffold(), "ScaffoldClientModule"),
        ({"modules": ["scaffold-client", "adam"]}, Scaffold(), "the last module"),
        ({"modules": ["scaffold-client"], "w_decay": 0.1}, Scaffold(), "w_decay"),
    ],
)
def test_one_side_of_scaffold_alone_is_refused(
    make_dataset: Make, optimizer: dict[str, Any], aggregator: Any, reason: str
) -> None:
    """It would run, and be something else."""
    make = {"make": lambda _: Optimizer(lrate=0.1, **optimizer)}

    with pytest.raises(ArgumentInvalidError, match=reason):
        federated(_Net, [make_dataset(20)], model_args=make, aggregator=aggregator, **STEPS)


# What is remembered over rounds

WHOLE = {"batch_size": 8, "shuffle": False}


@pytest.mark.parametrize("modules", [["momentum"], ["adam"], ["yogi-momentum"], ["rmsprop", "ewma"]])
def test_an_optimizer_goes_on_where_its_last_round_ended(make_dataset: Make, modules: list[str]) -> None:
    """Two rounds of one epoch at the only hospital are one of two; begun anew, momenta would be lost."""
    args = {"make": lambda _: Optimizer(lrate=0.1, modules=modules)}
    whole, halves = (
        federated(_Net, [make_dataset(40)], rounds=rounds, model_args=args, epochs=2 // rounds, **WHOLE)
        for rounds in (1, 2)
    )

    np.testing.assert_allclose(halves.get_parameters()["weight"], whole.get_parameters()["weight"], rtol=1e-4)


def _second_round(build: Built, kept: dict[str, Any], make: Callable[..., Any], **model_args: Any) -> bool | None:
    plan = build(_Net, {"make": make, **model_args}, **STEPS)
    plan.set_kept_tensors(kept, {})
    found: bool | None = plan.train().is_optimizer_new
    return found


class _Same:
    """A function that reads the same in each round, as a plan's text does."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    def __call__(self, *given: Any) -> Any:
        return self.make(*given)

    def __repr__(self) -> str:
        return "an optimizer"


def _adam(lrate: float = 0.1, **options: Any) -> Callable[..., Any]:
    return _Same(lambda _: Optimizer(lrate=lrate, modules=[("adam", options)]))


def _kept_by(build: Built, make: Callable[..., Any]) -> dict[str, Any]:
    plan = build(_Net, {"make": make}, **STEPS)
    assert plan.train().is_optimizer_new
    kept: dict[str, Any] = plan.get_kept_tensors()
    return kept


def test_a_memory_is_of_one_plan_and_its_arguments(build: Built) -> None:
    """Momenta of another model, or of other modules, would be wrong numbers; another rate changes none of them."""
    kept = _kept_by(build, _adam())

    assert _second_round(build, kept, _adam()) is False
    assert _second_round(build, kept, _adam(lrate=0.01)) is False
    assert _second_round(build, kept, _adam(beta_1=0.5)) is True
    assert _second_round(build, kept, _adam(), width=3) is True


@pytest.mark.parametrize("spoilt", ["outline", "tensor", "nothing"])
def test_a_memory_that_is_lost_is_begun_anew_and_told(build: Built, spoilt: str) -> None:
    """A node that was restored from a backup goes on, and its researcher hears of it."""
    kept = _kept_by(build, _adam())
    if spoilt == "outline":
        kept["optimizer/outline"] = kept["optimizer/outline"][:-9]
    else:
        kept = {name: each for name, each in kept.items() if spoilt == "tensor" and name.endswith("outline")}

    assert _second_round(build, kept, _adam()) is True


def test_an_optimizer_without_a_memory_has_nothing_to_tell(build: Built) -> None:
    """PyTorch's own begins anew in each round, as everybody knows it."""
    plans = [lambda p: torch.optim.SGD(p, lr=0.1), lambda _: Optimizer(lrate=0.1, regularizers=["ridge"])]
    for make in plans:
        plan = build(_Net, {"make": make}, **STEPS)

        assert plan.train().is_optimizer_new is None
        assert plan.get_kept_tensors() == {}


def test_scaffold_and_a_momentum_remember_side_by_side(make_dataset: Make) -> None:
    """Its variate is kept once, with the correction."""
    args = {"make": lambda _: Optimizer(lrate=0.1, modules=["momentum", "scaffold-client"])}
    plan = federated(
        _Net, [make_dataset(20), make_dataset(60)], rounds=3, model_args=args, aggregator=Scaffold(), **STEPS
    )

    assert np.isfinite(plan.get_parameters()["weight"]).all()


def test_frozen_layers_have_no_step(build: Built) -> None:
    """Not even by weight decay."""

    class Frozen(_Net):
        def init_model(self, model_args: dict[str, Any]) -> torch.nn.Module:
            model = torch.nn.Linear(2, 1)
            model.bias.requires_grad_(False)
            return model

    plan = build(Frozen, {"make": lambda _: Optimizer(lrate=0.1, w_decay=0.1)}, **STEPS)
    before = plan.get_parameters()
    plan.train()

    assert plan.get_parameters()["bias"] == before["bias"]
    assert not np.array_equal(plan.get_parameters()["weight"], before["weight"])


def test_declearn_is_imported_only_where_it_is_used() -> None:
    """It takes seconds, for which every round of every plan would wait."""
    code = "import sys, researcher_kit; researcher_kit.TorchTrainingPlan; print('declearn' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "False"


# At the researcher


def test_a_rate_of_one_is_federated_averaging() -> None:
    """The mean update is the negative gradient."""
    found = ServerOptimizer(Optimizer(lrate=1.0)).aggregate(UPDATES, {"w": np.float32([10.0])})

    assert found["w"] == FedAverage().aggregate(UPDATES, {"w": np.float32([10.0])})["w"]


@pytest.mark.parametrize("modules", [["adam"], ["yogi"], ["adagrad"], ["momentum"], ["rmsprop"]])
def test_it_goes_on_from_a_breakpoint(modules: list[str]) -> None:
    """Bit by bit, through JSON and tensors."""
    parameters = {"w": np.float32([10.0])}
    whole = ServerOptimizer(Optimizer(lrate=0.1, modules=modules, regularizers=["ridge"]))
    whole.aggregate(UPDATES, parameters)
    resumed = ServerOptimizer()
    saved = SavedPart(name="ServerOptimizer", state=whole.state())
    resumed.restore(json.loads(saved.model_dump_json())["state"], whole.state_tensors())

    assert resumed.aggregate(UPDATES, parameters)["w"] == whole.aggregate(UPDATES, parameters)["w"]
    assert repr(resumed) == repr(whole)


def test_a_federator_without_declearn_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The job ends, and its researcher reads whose it is to mend."""
    state = ServerOptimizer(Optimizer(lrate=0.1)).state()
    monkeypatch.setitem(sys.modules, "declearn.optimizer", None)

    with pytest.raises(ExperimentArgumentError, match="not installed where the experiment runs") as caught:
        ServerOptimizer().restore(state, {})
    assert "operator" in caught.value.remedy


@pytest.mark.parametrize(
    ("optimizer", "reason"), [("adam", "declearn"), (Optimizer(lrate=1.0, modules=["scaffold-server"]), "of its own")]
)
def test_what_it_cannot_use_is_refused(optimizer: Any, reason: str) -> None:
    """Where the researcher types it."""
    with pytest.raises(ExperimentArgumentError, match=reason):
        ServerOptimizer(optimizer)


def test_without_an_optimizer_there_is_no_step() -> None:
    """A breakpoint's is restored; else the researcher forgot it."""
    with pytest.raises(AggregationError, match="no optimizer"):
        ServerOptimizer().aggregate(UPDATES, {"w": np.float32([10.0])})

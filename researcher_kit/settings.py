"""What an experiment is made of: a setter and a getter for each part, under the names that Fed-BioMed's users know."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import JsonValue, TypeAdapter, ValidationError

from appliance.protocol.messages import PlanApproval, Search
from appliance.protocol.wording import shorten
from appliance.training.arguments import TrainingArguments
from appliance.training.metrics import Metric
from appliance.training.plan import TrainingPlan
from appliance.training.source import PlanSource, plan_source
from researcher_kit import coming_from
from researcher_kit.aggregators import Aggregator, FedAverage
from researcher_kit.early_stopping import EarlyStopping
from researcher_kit.errors import ExperimentArgumentError
from researcher_kit.schedules import Cosine, Exponential, Schedules, Steps, scheduled
from researcher_kit.strategies import AllNodes, Strategy
from researcher_kit.tables import Table

MAX_ARGUMENTS_BYTES = 256 * 1024  # of a message of 1 MiB
_JSON: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


@dataclass(frozen=True)
class Info(Table):
    """What is set, and what is missing to run.

    Attributes:
        missing: Each missing part, with the setter that fills it.
    """

    missing: tuple[str, ...]


class Settings:
    """The parts of an experiment. ``Experiment`` adds what one does with them."""

    def __init__(self) -> None:
        self._name = ""
        self._tags: tuple[str, ...] = ()
        self._nodes: tuple[str, ...] | None = None
        self._choices: dict[str, str] = {}
        self._datasets: dict[str, str] = {}  # what tags, nodes and choices came to
        self._plan: PlanSource | None = None
        self._is_plan_new = True  # the parameters were not yet compared with it
        self._model_args: dict[str, JsonValue] = {}
        self._training_args = TrainingArguments()
        self._round_limit: int | None = None
        self._aggregator: Aggregator = FedAverage()
        self._strategy: Strategy = AllNodes()
        self._folder: Path | None = None
        self._save_breakpoints = False
        self._tensorboard: bool | Path = False
        self._schedules: dict[str, Steps | Exponential | Cosine] = {}
        self._early_stopping: EarlyStopping | None = None

    def __getattr__(self, name: str) -> NoReturn:
        """Say what to do instead where Fed-BioMed's users know a name that is not here."""
        if remedy := coming_from.METHODS.get(name):
            raise AttributeError(f"There is no '{name}' here. {remedy}")
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'", name=name, obj=self)

    # Setters

    def set_name(self, name: str) -> None:
        """A name for people, of up to 128 characters."""
        _require(isinstance(name, str) and len(name) <= 128, "name", name, "a text of up to 128 characters")
        self._name = name

    def set_tags(self, tags: Sequence[str]) -> None:
        """The words that a node's dataset must all carry to be trained on."""
        try:
            self._tags = Search(tags=tuple([tags] if isinstance(tags, str) else tags)).tags
        except (ValidationError, TypeError):
            _require(False, "tags", tags, "a list of 1 to 16 words of up to 64 characters")
        self._datasets = {}

    def set_nodes(self, nodes: Sequence[str] | None) -> None:
        """Train on these nodes only; None for all that have data."""
        is_list = nodes is None or (not isinstance(nodes, str) and all(isinstance(node, str) for node in nodes))
        _require(is_list and nodes != [], "nodes", nodes, "a list of node ids, or None")
        self._nodes = None if nodes is None else tuple(sorted(set(nodes)))
        self._datasets = {}

    def set_datasets(self, datasets: Mapping[str, str]) -> None:
        """Which dataset to use at a node that has several: ``{node id: dataset id}``."""
        is_map = isinstance(datasets, Mapping) and all(isinstance(v, str) for pair in datasets.items() for v in pair)
        _require(is_map, "datasets", datasets, "a mapping of node ids to dataset ids")
        self._choices = dict(datasets)
        self._datasets = {}

    def set_training_data(self, datasets: Mapping[str, str]) -> None:
        """See ``set_datasets``."""
        self.set_datasets(datasets)

    def set_training_plan_class(self, plan: type[TrainingPlan]) -> None:
        """The training plan; its exact text is what hospitals approve."""
        is_plan = isinstance(plan, type) and issubclass(plan, TrainingPlan)
        _require(is_plan, "training_plan_class", plan, "a class derived from TorchTrainingPlan or another plan")
        self._set_plan(plan_source(plan))

    def set_training_plan_file(self, path: Path | str) -> None:
        """The training plan as a file with one plan class."""
        path = Path(path)
        _require(path.is_file(), "training_plan_file", str(path), "an existing file")
        self._set_plan(plan_source(path))

    def set_training_plan_path(self, path: Path | str) -> None:
        """See ``set_training_plan_file``."""
        self.set_training_plan_file(path)

    def set_model_args(self, model_args: Mapping[str, Any]) -> None:
        """What the plan's ``init_model`` gets: JSON values."""
        self._model_args = _json("model_args", model_args)
        self._is_plan_new = True

    def set_training_args(self, training_args: Mapping[str, Any], reset: bool = True) -> None:
        """How to train in a round; ``TrainingArguments`` lists the names and what each may be.

        Args:
            training_args: The arguments.
            reset: False to keep those that were set before and are not among these.

        Raises:
            ArgumentInvalidError: Names the argument, its value and what is allowed.
        """
        _require(isinstance(training_args, Mapping), "training_args", training_args, "a mapping")
        self._set_arguments(({} if reset else self.training_args()) | dict(training_args))

    def set_round_limit(self, round_limit: int | None) -> None:
        """How many rounds the experiment has in all."""
        is_count = round_limit is None or (type(round_limit) is int and round_limit >= 1)
        _require(is_count, "round_limit", round_limit, "a whole number from 1, or None")
        self._round_limit = round_limit

    def set_aggregator(self, aggregator: Aggregator) -> None:
        """What makes the next parameters of the updates."""
        _require(isinstance(aggregator, Aggregator), "aggregator", aggregator, "an Aggregator, such as FedAverage()")
        self._aggregator = aggregator

    def set_strategy(self, strategy: Strategy) -> None:
        """What chooses the nodes and decides on late and lost ones."""
        _require(isinstance(strategy, Strategy), "strategy", strategy, "a Strategy, such as AllNodes()")
        self._strategy = strategy

    def set_experimentation_folder(self, folder: Path | str | None) -> None:
        """Where breakpoints go; None for a folder of this experiment in the researcher's own."""
        _require(folder is None or isinstance(folder, Path | str), "experimentation_folder", folder, "a path, or None")
        self._folder = None if folder is None else Path(folder).expanduser().absolute()

    def set_save_breakpoints(self, save_breakpoints: bool) -> None:
        """Keep the breakpoint of every round, not of the last one only."""
        _require(isinstance(save_breakpoints, bool), "save_breakpoints", save_breakpoints, "True or False")
        self._save_breakpoints = save_breakpoints

    def set_tensorboard(self, tensorboard: bool | Path | str) -> None:
        """Write curves for TensorBoard: True into the experiment's folder, a path into a folder of its own there."""
        is_right = isinstance(tensorboard, bool | Path | str) and tensorboard != ""
        _require(is_right, "tensorboard", tensorboard, "True, False, or a path")
        if not isinstance(tensorboard, bool):
            tensorboard = Path(tensorboard).expanduser().absolute()
        self._tensorboard = tensorboard

    def set_schedules(self, schedules: Schedules | None) -> None:
        """Training arguments that change from round to round: ``{"optimizer_args.lr": Exponential(0.1, 0.95)}``.

        Raises:
            ArgumentInvalidError: The value of round 1 is not allowed for the argument.
        """
        given = dict(schedules or {})
        is_right = all(isinstance(each, Steps | Exponential | Cosine) for each in given.values())
        _require(is_right, "schedules", schedules, "a mapping of argument names to Steps, Exponential or Cosine")
        TrainingArguments.parse(scheduled(self.training_args(), given, 1))
        self._schedules = given

    def set_early_stopping(self, early_stopping: EarlyStopping | None) -> None:
        """When to end before the round limit; None for never."""
        is_right = early_stopping is None or isinstance(early_stopping, EarlyStopping)
        _require(is_right, "early_stopping", early_stopping, 'an EarlyStopping("AUC", patience=5), or None')
        self._early_stopping = early_stopping

    def set_test_ratio(self, ratio: float) -> None:
        """The share of each dataset that is held out for tests."""
        self._change_arguments(test_ratio=ratio)

    def set_test_metric(self, metric: Any, **metric_args: Any) -> None:
        """The metric of tests, and its own arguments."""
        self._change_arguments(test_metric=metric, test_metric_args=metric_args)

    def set_test_on_local_updates(self, flag: bool) -> None:
        """Test at each node after local training."""
        self._change_arguments(test_on_local_updates=flag)

    def set_test_on_global_updates(self, flag: bool) -> None:
        """Test the global parameters at each node before local training."""
        self._change_arguments(test_on_global_updates=flag)

    # Getters

    def name(self) -> str:
        """The name for people."""
        return self._name

    def tags(self) -> tuple[str, ...]:
        """The words that datasets are found by."""
        return self._tags

    def nodes(self) -> tuple[str, ...] | None:
        """The nodes asked for, or None for all that have data."""
        return self._nodes

    def training_data(self) -> dict[str, str]:
        """The dataset of each node, once they have been searched."""
        return dict(self._datasets)

    def model_args(self) -> dict[str, JsonValue]:
        """What ``init_model`` gets."""
        return dict(self._model_args)

    def training_args(self) -> dict[str, Any]:
        """How to train, as it was given."""
        return self._training_args.as_dict()

    def test_ratio(self) -> float:
        """The share of each dataset that is held out for tests."""
        return self._training_args.test_ratio

    def test_metric(self) -> Metric | None:
        """The metric of tests."""
        return self._training_args.test_metric

    def test_metric_args(self) -> dict[str, JsonValue]:
        """The metric's own arguments."""
        return dict(self._training_args.test_metric_args)

    def test_on_local_updates(self) -> bool:
        """Whether each node tests after local training."""
        return self._training_args.test_on_local_updates

    def test_on_global_updates(self) -> bool:
        """Whether each node tests the global parameters before local training."""
        return self._training_args.test_on_global_updates

    def training_plan_text(self) -> str | None:
        """The exact text that hospitals approve."""
        return self._plan.text if self._plan else None

    def round_limit(self) -> int | None:
        """How many rounds in all."""
        return self._round_limit

    def aggregator(self) -> Aggregator:
        """What makes the next parameters of the updates."""
        return self._aggregator

    def strategy(self) -> Strategy:
        """What chooses the nodes and decides on late and lost ones."""
        return self._strategy

    def schedules(self) -> dict[str, Steps | Exponential | Cosine]:
        """Which training arguments change from round to round, and how."""
        return dict(self._schedules)

    def early_stopping(self) -> EarlyStopping | None:
        """When the experiment ends before its round limit."""
        return self._early_stopping

    def save_breakpoints(self) -> bool:
        """Whether every round's breakpoint is kept."""
        return self._save_breakpoints

    def info(self) -> Info:
        """What is set, and what is missing to run, as a table in the terminal and in a notebook."""
        missing = self._missing()
        title = f"Missing to run: {'; '.join(missing)}" if missing else "Ready to run"
        return Info(title, ("setting", "value"), tuple(self._info_rows()), missing)

    def _missing(self) -> tuple[str, ...]:
        parts = {
            "tags: set_tags([...])": self._tags or self._choices,
            "training plan: set_training_plan_class(...)": self._plan,
            "round limit: set_round_limit(...) or run(rounds=...)": self._round_limit,
        }
        return tuple(name for name, is_set in parts.items() if not is_set)

    def _info_rows(self) -> list[tuple[str, str]]:
        plan = f"{self._plan.class_name}, SHA-256 {self._plan.sha256[:12]}…" if self._plan else "missing"
        data = ", ".join(f"{node}: {dataset}" for node, dataset in sorted(self._datasets.items()))
        return [
            ("name", self._name or "—"),
            ("tags", ", ".join(self._tags) or ("missing" if not self._choices else "—")),
            ("nodes", "all with data" if self._nodes is None else ", ".join(self._nodes)),
            ("training data", data or "searched when the experiment runs"),
            ("training plan", plan),
            ("model arguments", json.dumps(self._model_args)),
            ("training arguments", json.dumps(self.training_args())),
            ("held out for tests", self._held_out_words()),
            *((f"schedule of {name}", repr(schedule)) for name, schedule in self._schedules.items()),
            ("aggregator", repr(self._aggregator)),
            ("strategy", repr(self._strategy)),
            ("round limit", "missing" if self._round_limit is None else str(self._round_limit)),
            ("early stopping", repr(self._early_stopping) if self._early_stopping else "—"),
            ("TensorBoard", "—" if not self._tensorboard else str(self._tensorboard)),
            ("breakpoints", "of every round" if self._save_breakpoints else "of the last round"),
        ]

    def _held_out_words(self) -> str:
        arguments = self._training_args
        if arguments.held_out:
            return f"{arguments.held_out:.0%} of each dataset"
        asks = arguments.test_metric or arguments.test_on_global_updates or arguments.test_on_local_updates
        return "nothing, so nothing is tested: set test_ratio, or folds and fold" if asks else "nothing"

    def _set_plan(self, plan: PlanSource) -> None:
        limit = next(
            part.max_length for part in PlanApproval.model_fields["source"].metadata if hasattr(part, "max_length")
        )
        size = len(plan.text)
        coming_from.require_plan(plan.text)
        _require(size <= limit, "training plan", f"{size} characters", f"a text of up to {limit} characters")
        self._plan = plan
        self._is_plan_new = True

    def _change_arguments(self, **changes: Any) -> None:
        self._set_arguments(self.training_args() | changes)

    def _set_arguments(self, arguments: dict[str, Any]) -> None:
        coming_from.require_training_arguments(arguments)
        parsed = TrainingArguments.parse(arguments)
        _json("training_args", parsed.as_dict())
        self._training_args = parsed


def _require(is_right: bool, name: str, value: object, expected: str) -> None:
    if not is_right:
        raise ExperimentArgumentError(f"{name} is {shorten(value)}; expected {expected}.")


def _json(name: str, value: Any) -> dict[str, JsonValue]:
    try:
        checked = _JSON.validate_python(value, strict=True)
        size = len(json.dumps(checked, allow_nan=False))
    except ValidationError as error:
        where = ".".join(map(str, (name, *error.errors()[0]["loc"])))
        raise ExperimentArgumentError(f"{where}: expected a mapping of JSON values with finite numbers.") from error
    except ValueError as error:
        raise ExperimentArgumentError(f"{name} holds a number that is not finite.") from error
    _require(size <= MAX_ARGUMENTS_BYTES, name, f"{size} bytes", f"{MAX_ARGUMENTS_BYTES} bytes at most")
    return checked

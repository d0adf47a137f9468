"""The training plan: the hooks that a researcher writes, and the engine that a node runs around them.

One round at a node is ``build``, ``attach``, ``set_parameters``, then ``split``, ``test`` and ``train`` as asked. A
plan may be built again for the next round; samples are kept while dataset and arguments stay the same.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from appliance.data import Dataset
from appliance.protocol.counts import Counts
from appliance.protocol.errors import Code
from appliance.protocol.tensors import TensorFile
from appliance.training.arguments import TrainingArguments
from appliance.training.data_manager import DataManager
from appliance.training.determinism import reproducible
from appliance.training.errors import (
    ArgumentInvalidError,
    MetricInvalidError,
    ParametersInvalidError,
    PlanInvalidError,
    TrainingFailedError,
    TrainingStoppedError,
)
from appliance.training.loader_workers import read_ahead
from appliance.training.metrics import measure
from appliance.training.metrics.counting import ratio
from appliance.training.split import Indices, derive_seed, fold_indices, split_indices
from appliance.training.standardise import PREFIX as STANDARDISATION
from appliance.training.standardise import Standardise

Array = NDArray[Any]
Arrays = dict[str, Array]

_METRIC_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


@dataclass(frozen=True)
class TrainingProgress:
    """How far training is: what a node may send on as a Scalar."""

    iteration: int
    iterations: int
    epoch: int
    values: dict[str, float]
    split: str = "train"


@dataclass(frozen=True)
class TrainOutcome:
    """What a training did.

    Attributes:
        sample_count: Samples that could be trained on: all but the held-out ones.
        iterations: Updates made.
        learning_rates: Their sum over all updates, where the aggregator needs it.
        is_optimizer_new: Whether an optimizer that remembers its last round began without one; None for any other.
    """

    sample_count: int
    iterations: int
    learning_rates: float | None = None
    is_optimizer_new: bool | None = None


@dataclass(frozen=True)
class TestOutcome:
    """What a test found.

    Attributes:
        samples: Held-out samples.
        values: Finite numbers by metric; a metric that the samples do not determine is absent.
        counts: What those metrics are made of that cannot be averaged over nodes.
    """

    __test__: ClassVar[bool] = False  # not a test case, whatever its name says to pytest

    samples: int
    values: dict[str, float] = field(default_factory=dict)
    counts: dict[str, Counts] = field(default_factory=dict)


@dataclass(frozen=True)
class Ratio:
    """What a ``testing_step`` returns for a value that is a part of a whole, instead of a number.

    Parts and wholes are added up over batches, and over the nodes of a federation: the result is what it would be of
    all samples at once, where a mean of ratios is something else.

    Attributes:
        part: Such as the voxels that were found, twice.
        whole: Such as the voxels that were predicted and those that are there.

    Example:
        >>> Ratio(part=3, whole=4)
        Ratio(part=3, whole=4)
    """

    part: Any
    whole: Any


class Samples(Protocol):
    """Samples in the form that a framework trains on.

    Attributes:
        are_in_memory: To take some is to copy them: nothing is read, computed or drawn.
    """

    are_in_memory: bool

    def take(self, indices: Indices) -> tuple[Any, Any]:
        """Data and targets at these positions, as one batch in memory; may be called in another process."""
        ...

    def place(self, data: Any, target: Any) -> tuple[Any, Any]:
        """A batch where the model computes."""
        ...


@dataclass(frozen=True)
class Loaded:
    """A plan's samples, and which of them are held out."""

    manager: DataManager
    samples: Samples
    train: Indices
    test: Indices


@dataclass(frozen=True)
class Batch:
    """Which samples the next update is made of."""

    iteration: int
    iterations: int
    epoch: int
    indices: Indices


Report = Callable[[TrainingProgress], None]
StopQuery = Callable[[], bool]


def _say_nothing(_: TrainingProgress) -> None:
    """The report of whoever does not listen."""


def _never() -> bool:
    return False


class TrainingPlan(ABC):
    """What is common to all plans: a researcher's is of ``Torch-``, ``Sklearn-`` or ``TensorTrainingPlan``.

    Attributes:
        text_sha256: Of the text that a node loaded it from; empty elsewhere.
    """

    text_sha256: ClassVar[str] = ""

    def __init__(self) -> None:
        self._model: Any = None
        self._optimizer: Any = None
        self._model_args: dict[str, Any] = {}
        self._arguments = TrainingArguments()
        self._aggregator_args: dict[str, Any] = {}
        self._round = 1
        self._seed = 0
        self._threads = 1
        self._dataset: Dataset | None = None
        self._dataset_file: str | None = None
        self._loaded: Loaded | None = None
        self._standardise: Standardise | None = None
        self._is_measuring = False  # in the round that finds what to standardise by

    # Hooks

    @abstractmethod
    def init_model(self, model_args: dict[str, Any]) -> Any:
        """Build the model and return it.

        At a node its parameters are set next, in every round, and so a large one is not filled number by number there.
        """

    def init_dependencies(self) -> list[str]:
        """Import lines that the plan needs, for a plan that is written in a notebook."""
        return []

    @abstractmethod
    def training_data(self) -> DataManager:
        """Make samples from ``self.dataset``."""

    def init_standardisation(self) -> Standardise | None:
        """What the data are standardised by, over all nodes: ``Standardise(features=…)``; None: they are not."""
        return None

    def preprocess(self, data: Any, target: Any) -> tuple[Any, Any]:
        """A batch of samples as they are to be used, before they are standardised; returns both."""
        return data, target

    def postprocess(self, output: Array) -> Array:
        """The model's outputs for a batch as ``test_metric`` is to see them."""
        return output

    def testing_step(self, data: Any, target: Any) -> Any:  # noqa: ARG002 - for the plans that have one
        """Return a number, or numbers by name, for held-out samples; without it ``test_metric`` is computed."""
        raise ArgumentInvalidError("A test needs 'test_metric' among the training arguments, or a testing_step.")

    # What hooks may ask for

    def model(self) -> Any:
        """What ``init_model`` returned."""
        return self._model

    def optimizer(self) -> Any:
        """What ``init_optimizer`` returned."""
        return self._optimizer

    def model_args(self) -> dict[str, Any]:
        """The model arguments."""
        return dict(self._model_args)

    def optimizer_args(self) -> dict[str, Any]:
        """The optimizer arguments."""
        return dict(self._arguments.optimizer_args)

    def training_args(self) -> dict[str, Any]:
        """All training arguments, defaults included."""
        return self._arguments.model_dump(mode="json")

    def prepare(self, data: Any, target: Any = None) -> Any:
        """Data as the model takes them: preprocessed and standardised. For predictions after the training."""
        return self._prepared(data, target)[0]

    @property
    def round(self) -> int:
        """The number of the round, from 1: for a learning rate that changes over rounds, say."""
        return self._round

    @property
    def dataset(self) -> Dataset:
        """The hospital's dataset, as its data loading plan presents it."""
        if self._dataset is None:
            raise TrainingFailedError("The plan asked for its dataset before one was attached.")
        return self._dataset

    @property
    def dataset_path(self) -> str:
        """A table with what ``self.dataset`` presents, and no more, for plans that read a file by themselves.

        It is a CSV file in the plan's own scratch, with commas and a line of names; a category stands there by name.
        """
        if self._dataset_file is None:
            dataset = self.dataset
            descriptor, self._dataset_file = tempfile.mkstemp(suffix=".csv")
            with os.fdopen(descriptor, "w", newline="") as file:
                dataset.write_csv(file)
        return self._dataset_file

    # The engine

    def build(
        self,
        model_args: Mapping[str, Any],
        arguments: TrainingArguments,
        *,
        seed: int,
        aggregator_args: Mapping[str, Any] | None = None,
        round_: int = 1,
        use_gpu: bool = False,
        threads: int = 1,
        are_parameters_to_follow: bool = False,
    ) -> None:
        """Make the model anew, for one round.

        Args:
            model_args: For ``init_model``.
            arguments: How to train.
            seed: Decides the initial parameters and everything drawn in this round; the split does not depend on it.
            aggregator_args: What the aggregator asks of nodes.
            round_: The round's number.
            use_gpu: Compute on the GPU, where there is one and the framework uses it.
            threads: For the framework; bits are the same only for the same number.
            are_parameters_to_follow: ``set_parameters`` is called next: what the model has until then need not be good.

        Raises:
            PlanInvalidError: ``init_model`` did not return a model that this kind of plan can train.
            ArgumentInvalidError: An argument that this kind of plan, or its model, does not take.
        """
        if (dict(model_args), arguments) != (self._model_args, self._arguments):
            self._loaded = None
        self._model_args, self._arguments = dict(model_args), arguments
        self._aggregator_args, self._round = dict(aggregator_args or {}), round_
        self._seed, self._threads = seed, threads
        self._check_arguments(arguments)
        self._optimizer = self._model = None  # the last round's, whose memory the new one takes
        self._standardise, self._is_measuring = self._init_standardisation(), False
        with self._reproducible():
            model = self._initial_model(are_parameters_to_follow=are_parameters_to_follow)
            self._model = self._adopt(model, use_gpu=use_gpu)

    def attach(self, dataset: Dataset) -> None:
        """Give the plan its dataset."""
        if dataset is not self._dataset:
            self._loaded = self._dataset_file = None
        self._dataset = dataset

    def get_parameters(self, *, copy: bool = True) -> Arrays:
        """The tensors that travel, by name: the model's, and what the data are standardised by.

        Args:
            copy: False for arrays that may be the model's own memory, and change when it trains on.
        """
        return self._model_tensors(copy=copy) | self._standardisation_tensors()

    def set_parameters(self, parameters: Mapping[str, Array]) -> None:
        """Give the model these tensors.

        Raises:
            ParametersInvalidError: They are not exactly the model's: other names or shapes.
        """
        if self._standardise is not None:
            parameters, found = _split(parameters, STANDARDISATION)
            require_like(found, {name: array.shape for name, array in self._standardise.tensors().items()})
            self._standardise.fill(found)
        self._fill_model(parameters)

    def trained_names(self) -> frozenset[str]:
        """Those of ``get_parameters`` that training changes by an optimizer; the others are buffers."""
        return frozenset(self._model_tensors(copy=False))

    def frozen_names(self) -> frozenset[str]:
        """Those of ``get_parameters`` that no round changes: nodes get them, and do not return them."""
        return frozenset()

    def set_kept_tensors(self, kept: Mapping[str, Array], sent: Mapping[str, Array]) -> None:
        """Go on where this node's last round ended; called behind ``set_parameters``.

        Args:
            kept: What ``get_kept_tensors`` returned then; empty in the first round, or where the node has it no more.
            sent: The aggregator's tensors for nodes.
        """

    def get_kept_tensors(self) -> Arrays:
        """The tensors that stay at this node for its next round, after ``train``."""
        return {}

    def get_returned_parameters(self) -> Arrays:
        """The tensors that the node returns, after ``train`` and tests; they may be the model's own memory."""
        return self.get_parameters(copy=False)

    def split(self) -> tuple[int, int]:
        """How many samples are trained on, and how many are held out."""
        loaded = self._load()
        return len(loaded.train), len(loaded.test)

    def train(self, report: Report = _say_nothing, should_stop: StopQuery = _never) -> TrainOutcome:
        """Train as the arguments say, from the parameters that the model has.

        A plan that standardises its data begins with a round that only measures them.

        Args:
            report: Gets the loss at the first, every ``log_interval``-th and the last update.
            should_stop: Asked before each update.

        Raises:
            TrainingStoppedError: ``should_stop`` said yes.
            TrainingFailedError: No sample to train on, or a loss that cannot be used.
        """
        loaded = self._load()
        if not len(loaded.train):
            message = f"No sample is left to train on: all {len(loaded.test)} are held out."
            raise TrainingFailedError(message, code=Code.TOO_FEW_SAMPLES)
        if self._standardise is not None and not self._standardise.is_known:
            self._measure(loaded, self._standardise)
            report(TrainingProgress(1, 1, 1, {}))
            return TrainOutcome(len(loaded.train), 0)
        iterations = 0
        with self._reproducible():
            self._start_training()
            with closing(self._read(loaded, self._batches(loaded))) as batches:
                for batch, (data, target) in batches:
                    if should_stop():
                        raise TrainingStoppedError(f"Training was stopped before update {batch.iteration}.")
                    is_logged = self._is_logged(batch)
                    loss = self._update(data, target, wants_loss=is_logged)
                    if is_logged:
                        report(_progress(batch, loss))
                    iterations = batch.iteration
            learning_rates = self._end_training()
        return TrainOutcome(len(loaded.train), iterations, learning_rates, self._is_optimizer_new())

    def test(self) -> TestOutcome | None:
        """Test the parameters that the model has on the held-out samples; None when there are none.

        None also in the round that finds what to standardise by.

        Raises:
            ArgumentInvalidError: Neither ``testing_step`` nor ``test_metric`` says what to measure.
        """
        loaded = self._load()
        if not len(loaded.test) or self._is_unmeasured():
            return None
        metric = self._arguments.test_metric
        if metric is None or self._has_testing_step():
            return self._test_by_step(loaded)
        target, output = self.predict_held_out()
        found = measure(metric, target, output, self._arguments.test_metric_args)
        values = {} if found.value is None else {str(metric): found.value}
        return TestOutcome(len(loaded.test), values, {} if found.counts is None else {str(metric): found.counts})

    def predict_held_out(self) -> tuple[Array, Array]:
        """Targets and the model's raw outputs for the held-out samples. They stay where they are computed."""
        loaded = self._load()
        targets, outputs = [], []
        with self._reproducible(), closing(self._read(loaded, self._test_batches(loaded))) as batches:
            for _, (data, target) in batches:
                true, output = self._predict(data, target)
                targets.append(true)
                outputs.append(np.asarray(self.postprocess(output)))
        return np.concatenate(targets), np.concatenate(outputs)

    # What the kinds of plan fill in

    def _check_arguments(self, arguments: TrainingArguments) -> None:
        """Refuse arguments that this kind of plan does not know."""

    def _initial_model(self, *, are_parameters_to_follow: bool) -> Any:  # noqa: ARG002 - for those who can spare work
        return self.init_model(self.model_args())

    @abstractmethod
    def _model_tensors(self, *, copy: bool = True) -> Arrays:
        """The model's tensors by name: float32, float64 for statistics, or integers as they are."""

    @abstractmethod
    def _fill_model(self, parameters: Mapping[str, Array]) -> None:
        """Give the model these tensors; raises ParametersInvalidError unless names and shapes are its own."""

    @abstractmethod
    def _adopt(self, model: Any, *, use_gpu: bool) -> Any:
        """Check and prepare what ``init_model`` returned."""

    @abstractmethod
    def _read_samples(self, manager: DataManager) -> Samples:
        """The plan's data in the framework's own form."""

    def _start_training(self) -> None:
        """Prepare for the updates of one round."""

    def _is_optimizer_new(self) -> bool | None:
        """See ``TrainOutcome``."""
        return None

    def _end_training(self) -> float | None:
        """Let go of what only the updates needed; returns the sum of the learning rates, where it is wanted."""
        return None

    @abstractmethod
    def _update(self, data: Any, target: Any, *, wants_loss: bool) -> float | None:
        """Make one update; the loss may be anything where it is not wanted, and is None where there is none."""

    @abstractmethod
    def _predict(self, data: Any, target: Any) -> tuple[Array, Array]:
        """Targets and raw outputs of one batch."""

    def _test_step(self, data: Any, target: Any) -> Any:
        return self.testing_step(data, target)

    # Inside

    def _init_standardisation(self) -> Standardise | None:
        made = self.init_standardisation()
        if made is not None and not isinstance(made, Standardise):
            raise PlanInvalidError("init_standardisation must return a Standardise, or None.")
        return made

    def _standardisation_tensors(self) -> Arrays:
        found = {} if self._standardise is None else self._standardise.tensors()
        return {f"{STANDARDISATION}{name}": array for name, array in found.items()}

    def _is_unmeasured(self) -> bool:
        """Whether the model has not seen data yet as it will see them."""
        return self._is_measuring or (self._standardise is not None and not self._standardise.is_known)

    def _measure(self, loaded: Loaded, standardise: Standardise) -> None:
        """See each training sample once, whatever the arguments say."""
        self._is_measuring = True
        size, count = self._arguments.batch_size_or(loaded.manager.batch_size), len(loaded.train)
        total = math.ceil(count / size)
        batches = (Batch(n + 1, total, 1, loaded.train[n * size : (n + 1) * size]) for n in range(total))
        standardise.begin()
        with self._reproducible(), closing(self._read(loaded, batches)) as read:
            for _, (data, _target) in read:
                standardise.add(data)
        standardise.end()

    def _prepared(self, data: Any, target: Any) -> tuple[Any, Any]:
        processed = self.preprocess(data, target)
        if not isinstance(processed, tuple) or len(processed) != 2:
            raise PlanInvalidError("preprocess must return data and target.")
        data, target = processed
        if self._standardise is not None and self._standardise.is_known:
            data = self._standardise.apply(data)
        return data, target

    def _reproducible(self) -> Any:
        return reproducible(self._seed, threads=self._threads)

    def _load(self) -> Loaded:
        if self._loaded is None:
            # Not by the round's seed: a child that keeps its samples must not differ from one that reads them anew.
            with reproducible(self._arguments.split_seed, threads=self._threads):
                manager = self.training_data()
                if not isinstance(manager, DataManager):
                    raise PlanInvalidError("training_data must return a DataManager.")
                samples = self._read_samples(manager)
            self._loaded = Loaded(manager, samples, *self._split_of(manager))
        return self._loaded

    def _split_of(self, manager: DataManager) -> tuple[Indices, Indices]:
        arguments, groups, count = self._arguments, self._groups(manager), len(manager)
        if arguments.folds is None or arguments.fold is None:
            return split_indices(count, arguments.test_ratio, arguments.split_seed, groups=groups)
        return fold_indices(count, arguments.folds, arguments.fold, arguments.split_seed, groups=groups)

    def _groups(self, manager: DataManager) -> Any:
        if manager.groups is not None:
            return manager.groups
        is_row_by_row = self._dataset is not None and len(self._dataset) == len(manager)
        return self._dataset.groups if self._dataset is not None and is_row_by_row else None

    def _batches(self, loaded: Loaded) -> Iterator[Batch]:
        arguments, manager = self._arguments, loaded.manager
        count = len(loaded.train)
        size = min(arguments.batch_size_or(manager.batch_size), count)
        drops_last = arguments.loader_args.drop_last or manager.drop_last
        per_epoch = count // size if drops_last else math.ceil(count / size)
        per_epoch = min(per_epoch, arguments.batch_maxnum or per_epoch)
        total = 1 if arguments.dry_run else arguments.num_updates or (arguments.epochs or 1) * per_epoch
        shuffles = arguments.shuffle_or(manager.shuffle)
        generator = np.random.default_rng(self._seed)
        order = loaded.train
        for iteration in range(total):
            epoch, position = divmod(iteration, per_epoch)
            if position == 0 and shuffles:
                order = generator.permutation(loaded.train)
            yield Batch(iteration + 1, total, epoch + 1, order[position * size : (position + 1) * size])

    def _is_logged(self, batch: Batch) -> bool:
        return batch.iteration in (1, batch.iterations) or batch.iteration % self._arguments.log_interval == 0

    def _test_batches(self, loaded: Loaded) -> Iterator[Batch]:
        size = self._arguments.test_batch_size or max(len(loaded.test), 1)
        total = math.ceil(len(loaded.test) / size)
        for number in range(total):
            yield Batch(number + 1, total, 0, loaded.test[number * size : (number + 1) * size])

    def _read(self, loaded: Loaded, batches: Iterator[Batch]) -> Generator[tuple[Batch, tuple[Any, Any]], None, None]:
        """Each batch with its data and targets, read ahead by other processes if the arguments ask for that."""
        samples = loaded.samples

        def take(batch: Batch) -> tuple[Any, Any]:
            if samples.are_in_memory:
                return samples.take(batch.indices)
            # A dataset may draw, as augmentation does: by the batch's own seed, whichever process reads it.
            with reproducible(derive_seed(self._seed, "batch", batch.epoch << 32 | batch.iteration), threads=1):
                return samples.take(batch.indices)

        workers = 0 if samples.are_in_memory else self._arguments.loader_args.num_workers
        with closing(read_ahead(batches, take, workers)) as taken:
            for batch, (data, target) in taken:
                yield batch, self._prepared(*samples.place(data, target))

    def _has_testing_step(self) -> bool:
        return type(self).testing_step is not TrainingPlan.testing_step

    def _test_by_step(self, loaded: Loaded) -> TestOutcome:
        """Means over the batches, by their sizes; a value that is missing or not finite in one batch is left out."""
        parts: dict[str, float] = {}
        wholes: dict[str, float] = {}
        ratios: set[str] = set()
        with self._reproducible(), closing(self._read(loaded, self._test_batches(loaded))) as batches:
            for batch, (data, target) in batches:
                for name, value in _numbers(self._test_step(data, target)).items():
                    size = len(batch.indices)
                    part, whole = (value.part, value.whole) if isinstance(value, Ratio) else (value * size, size)
                    parts[name], wholes[name] = parts.get(name, 0.0) + part, wholes.get(name, 0.0) + whole
                    ratios |= {name} if isinstance(value, Ratio) else set()
        samples = len(loaded.test)
        values = {
            name: part / (wholes[name] if name in ratios else samples) for name, part in parts.items() if wholes[name]
        }
        counts = {name: ratio(parts[name], wholes[name]) for name in sorted(ratios)}
        return TestOutcome(
            samples,
            {name: value for name, value in values.items() if math.isfinite(value)},
            {name: found for name, found in counts.items() if found is not None},
        )


def _progress(batch: Batch, loss: float | None) -> TrainingProgress:
    if loss is None:
        return TrainingProgress(batch.iteration, batch.iterations, batch.epoch, {})
    if not math.isfinite(loss):
        message = f"The loss is not finite at update {batch.iteration} of {batch.iterations}."
        raise TrainingFailedError(message, code=Code.TRAINING_DIVERGED)
    return TrainingProgress(batch.iteration, batch.iterations, batch.epoch, {"loss": loss})


def _numbers(returned: Any) -> dict[str, float | Ratio]:
    """What a testing step returned, as numbers or ratios by name."""
    by_name = returned if isinstance(returned, Mapping) else {"custom": returned}
    values = {str(name): _number(str(name), value) for name, value in by_name.items()}
    if not all(_METRIC_NAME.fullmatch(name) for name in values):
        raise MetricInvalidError("testing_step named a value with other signs than letters, digits, '_', '.' and '-'.")
    return values


def _split(parameters: Mapping[str, Array], prefix: str) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
    """The tensors whose names begin otherwise, and those whose names begin with ``prefix``, without it."""
    if isinstance(parameters, TensorFile):
        return parameters.split(prefix)
    found = {name.removeprefix(prefix): array for name, array in parameters.items() if name.startswith(prefix)}
    return {name: array for name, array in parameters.items() if not name.startswith(prefix)}, found


def _number(name: str, value: Any) -> float | Ratio:
    try:
        return Ratio(float(value.part), float(value.whole)) if isinstance(value, Ratio) else float(value)
    except (TypeError, ValueError):
        message = f"testing_step returned no number for '{name[:64]}', but a {type(value).__name__}."
        raise MetricInvalidError(message) from None


def require_like(parameters: Mapping[str, Array], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ParametersInvalidError unless names and shapes are the expected ones; a file's header says them."""
    if missing := sorted(set(expected) - set(parameters)):
        raise ParametersInvalidError(f"The parameters lack '{missing[0]}', and {len(missing) - 1} others.")
    if extra := len(set(parameters) - set(expected)):
        raise ParametersInvalidError(f"The parameters hold {extra} tensors that the model does not have.")
    found = parameters.specs if isinstance(parameters, TensorFile) else parameters
    for name, shape in expected.items():
        if found[name].shape != shape:
            raise ParametersInvalidError(f"The tensor '{name}' is {found[name].shape}; the model's is {shape}.")

"""Campaigns: the same experiment many times, with one thing changed at a time, and a table of what came of it.

    campaign = sweep({"optimizer_args.lr": [0.01, 0.1]}, folds=5, folder="rates", metric="AUC",
                     tags=["prostate"], training_plan_class=MyPlan, training_args={"epochs": 1}, round_limit=20)
    campaign.run()
    campaign.results()

Each run is an experiment with a breakpoint of its own in the campaign's folder. Whatever ends the notebook, the same
lines go on where it was: runs that are over are not run again.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import math
import re
import shutil
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.files import replace_file
from appliance.protocol.wording import did_you_mean, shorten
from appliance.training.arguments import TrainingArguments
from appliance.training.source import plan_source
from researcher_kit.early_stopping import LOWER_IS_BETTER
from researcher_kit.errors import BreakpointError, ExperimentArgumentError
from researcher_kit.experiment import Experiment
from researcher_kit.federation import Federation
from researcher_kit.folders import disk_named, locked
from researcher_kit.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_RUNS = 1000
_PARTS = ("aggregator", "strategy", "early_stopping", "schedules", "round_limit", "training_plan_class", "nodes")
_BARE = ("federation", "experimentation_folder", "name", "rehearsal", "data")
# What is the fault of the run's own arguments: the next run may do better.
_ITS_OWN = frozenset(
    {
        Code.TRAINING_FAILED,
        Code.TRAINING_DIVERGED,
        Code.RUNNER_LIMIT,
        Code.UPDATE_REFUSED,
        Code.PARAMETERS_INVALID,
        Code.ARGUMENT_OUT_OF_RANGE,
        Code.TOO_FEW_SAMPLES,
        Code.ROUND_TIMEOUT,
    }
)


class RunResult(BaseModel):
    """What came of one run.

    Attributes:
        metrics: Of the test of its last parameters, or of its best with early stopping; means over the nodes, weighted
            by the records that each tested on.
        nodes: The same by node.
        rounds: How many it had.
        seconds: Of all its rounds together.
        error: Why it came to nothing; then there are no metrics.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    metrics: dict[str, float] = {}
    nodes: dict[str, dict[str, float]] = {}
    rounds: int
    seconds: float
    error: str | None = None


@dataclass(frozen=True)
class Run:
    """One experiment of a campaign.

    Attributes:
        number: From 1.
        point: The values that a sweep changes, in words.
        fold: Which part is held out, from 0; None without cross-validation.
        seed: Its ``random_seed``; None for that of the training arguments.
    """

    number: int
    point: tuple[tuple[str, str], ...]
    fold: int | None
    seed: int | None

    @property
    def folder(self) -> str:
        """Its folder's name."""
        return f"run_{self.number:04d}"


@dataclass(frozen=True)
class Summary:
    """One point of a sweep: a metric over its runs.

    Attributes:
        point: The values, in words.
        mean: Of the runs that are over; None when there is none.
        deviation: The sample standard deviation; None of fewer than two runs.
        runs: How many are over.
        failed: How many came to nothing.
    """

    point: Mapping[str, str]
    mean: float | None
    deviation: float | None
    runs: int
    failed: int

    def __str__(self) -> str:
        return _plus_minus(self.mean, self.deviation)


class Campaign:
    """Runs experiments one after the other; made by ``cross_validate`` and ``sweep``.

    Args:
        grid: Values by name; every combination is a point. A name is one of the training arguments (with dots, as in
            ``"optimizer_args.lr"``), ``"model_args.…"``, or one of an experiment's own: ``aggregator``, ``strategy``,
            ``round_limit``, ….
        folds: Run each point so often, with another part of each dataset held out.
        seeds: Run each point with each of these as ``random_seed``.
        folder: Keeps the campaign: one folder, one campaign.
        metric: What points are compared by; may be left out when the test returns one number.
        mode: ``"max"`` when more is better, ``"min"`` when less is; None: by the metric's name.
        federation: The connection of all runs; one of the campaign's own if None.
        progress: As for an experiment.
        experiment: All other arguments are an experiment's.

    Raises:
        ExperimentArgumentError: A name or a value is wrong, nothing is held out to test on, or the folder holds another
            campaign. Every run's arguments are looked at before the first begins.
        ArgumentInvalidError: A training argument is not known, or its value is not allowed.
        PlanInvalidError: The plan's text does not load, or its model cannot be built.

    Example:
        >>> campaign = Campaign({"optimizer_args.lr": [0.1]}, folder="rates")
        Traceback (most recent call last):
        ...
        researcher_kit.errors.ExperimentArgumentError: Nothing is held out to test on.
    """

    def __init__(
        self,
        grid: Mapping[str, Sequence[Any]] | None = None,
        *,
        folds: int | None = None,
        seeds: Sequence[int] | None = None,
        folder: Path | str,
        metric: str | None = None,
        mode: str | None = None,
        federation: Federation | None = None,
        progress: bool | None = None,
        **experiment: Any,
    ) -> None:
        _require_free(experiment)
        if mode not in (None, "max", "min"):
            raise ExperimentArgumentError(f"mode is {mode!r}; expected 'max' or 'min'.")
        self.metric, self._mode = metric, mode
        self._grid = _require_grid(grid or {})
        self._folds = folds
        self._experiment = experiment
        self._federation, self._progress = federation, progress
        self.folder = Path(folder).expanduser().absolute()
        points = [*itertools.product(*self._grid.values())]
        number_of = itertools.count(1)
        self._values: dict[int, dict[str, Any]] = {}
        self.runs: tuple[Run, ...] = ()
        for values, seed, fold in itertools.product(points, _seeds(seeds), _folds(folds)):
            point = tuple((name, _word(value)) for name, value in zip(self._grid, values, strict=True))
            run = Run(next(number_of), point, fold, seed)
            self._values[run.number] = dict(zip(self._grid, values, strict=True))
            self.runs = (*self.runs, run)
        if len(self.runs) > MAX_RUNS:
            raise ExperimentArgumentError(f"The campaign would have {len(self.runs)} runs; {MAX_RUNS} at most.")
        self._check()

    def __repr__(self) -> str:
        return f"Campaign({str(self.folder)!r}, {len(self._done())} of {len(self.runs)} runs over)"

    # Running

    def run(self, *, again: bool = False) -> Table:
        """Run what is not over yet, each experiment after the other.

        An interruption (Ctrl-C, a hospital that does not answer, a power cut) leaves all there is: call it again. A run
        that fails by its own arguments, such as a learning rate at which it diverges, counts as failed and the next one
        begins.

        Args:
            again: Run those that failed once more.

        Returns:
            The ``results``.

        Raises:
            FedWardError: What ``Experiment.run`` raises, where it is not the run's own fault.
            ExperimentArgumentError: The first run's test returns other metrics than the one that is compared.
            ExperimentBusyError: Another process runs this campaign.
        """
        busy = "the campaign runs already, in another notebook or thread."
        with locked(self.folder, busy, "Wait for it there."):
            self._claim()
            federation, is_ours = self._federation or Federation(), self._federation is None
            try:
                for run in self.runs:
                    result = self._result(run)
                    if result is None or (again and result.error is not None):
                        self._run(run, federation, afresh=result is not None)
                    if self.metric and self._metric_names():
                        self._require_metric(self.metric)  # else it would be missed when all runs are over
            finally:
                if is_ours:
                    federation.close()
        return self.results()

    def experiment(self, run: Run | int, *, federation: Federation | None = None) -> Experiment:
        """A run's experiment as its last breakpoint has it: for its history, its parameters, its export.

        Raises:
            BreakpointError: It has not begun.
        """
        found = run if isinstance(run, Run) else self._numbered(run)
        return self._load(found, federation or self._federation)

    # What came of it

    def results(self) -> Table:
        """A line for each point, with every metric's mean and standard deviation over its folds and seeds."""
        points, names = self._points(), self._metric_names()
        by_name = {name: self.summaries(name) for name in names}
        columns = (*self._grid, "runs", *names)
        rows = []
        for place, point in enumerate(points):
            over = [result for run in self._of(point) if (result := self._result(run))]
            state = f"{sum(not result.error for result in over)} of {len(self._of(point))}"
            rows.append((*(word for _, word in point), state, *(str(by_name[name][place]) for name in names)))
        if len(points) > 1:
            compared = self.metric or (names[0] if len(names) == 1 else "")
            best = self._best_place(by_name[compared], compared) if compared in by_name else None
            columns = (*columns, "")
            rows = [(*row, "best" if place == best else "") for place, row in enumerate(rows)]
        title = f"Campaign in {self.folder.name}: {len(self._done())} of {len(self.runs)} runs are over"
        return Table(title, columns, tuple(rows))

    def table(self) -> Table:
        """A line for each run."""
        names = self._metric_names()
        rows = []
        for run in self.runs:
            result = self._result(run)
            state = "waits" if result is None else (result.error or "over")
            values = result.metrics if result else {}
            cells = [f"{values[name]:.4g}" if name in values else "—" for name in names]
            seconds = f"{result.seconds:.1f}" if result else ""
            place = ["" if number is None else str(number) for number in (run.fold, run.seed)]
            rows.append((str(run.number), *(word for _, word in run.point), *place, *cells, seconds, state))
        columns = ("run", *self._grid, "fold", "seed", *names, "seconds", "state")
        return Table(f"Runs in {self.folder.name}", columns, tuple(rows))

    def summaries(self, metric: str | None = None) -> list[Summary]:
        """Each point's mean and standard deviation of a metric, in the grid's order.

        Raises:
            ExperimentArgumentError: No run is over, or there are several metrics and none was named.
        """
        name = self._require_metric(metric)
        found = []
        for point in self._points():
            results = [result for run in self._of(point) if (result := self._result(run))]
            values = [result.metrics[name] for result in results if name in result.metrics]
            failed = sum(result.error is not None for result in results)
            mean = statistics.fmean(values) if values else None
            deviation = statistics.stdev(values) if len(values) > 1 else None
            found.append(Summary(dict(point), mean, deviation, len(values), failed))
        return found

    def best(self, metric: str | None = None) -> Summary:
        """The point with the best mean.

        Raises:
            ExperimentArgumentError: As for ``summaries``.
        """
        summaries = self.summaries(metric)
        place = self._best_place(summaries, metric)
        assert place is not None
        return summaries[place]

    def result(self, run: Run | int) -> RunResult | None:
        """What came of a run; None when it is not over."""
        return self._result(run if isinstance(run, Run) else self._numbered(run))

    def plot(self, metric: str | None = None) -> Figure:
        """The metric of every run as a dot, and each point's mean with its standard deviation.

        Raises:
            ExperimentArgumentError: As for ``summaries``.
        """
        from researcher_kit.campaign_plot import draw  # noqa: PLC0415 - matplotlib is heavy

        name = self._require_metric(metric)
        runs = [[self._value(run, name) for run in self._of(point)] for point in self._points()]
        values = [[value for value in each if value is not None] for each in runs]
        return draw(name, self.summaries(name), values, {name: [*grid] for name, grid in self._grid.items()})

    # Inside

    def _check(self) -> None:
        checked: set[str] = set()
        for run in self.runs:
            arguments = self._arguments(run)
            held_out = TrainingArguments.parse(arguments.get("training_args", {})).held_out
            if not held_out:
                raise ExperimentArgumentError(
                    "Nothing is held out to test on.", remedy="Pass folds=, or the training argument test_ratio."
                )
            experiment = Experiment(**arguments, progress=False)
            # A fold changes no model: each point is built once.
            if (key := repr(run.point)) not in checked:
                try:
                    experiment.check()
                except Exception as error:
                    error.add_note(f"In run {run.number}: " + ", ".join(f"{name} = {word}" for name, word in run.point))
                    raise
                checked.add(key)

    def _arguments(self, run: Run) -> dict[str, Any]:
        """The experiment's arguments; those with a memory are its own."""
        arguments: dict[str, Any] = {**self._experiment}
        for name in ("training_args", "model_args"):
            arguments[name] = copy.deepcopy(dict(arguments.get(name) or {}))
        for name, value in self._values[run.number].items():
            if name in _PARTS:
                arguments[name] = value
            elif name.startswith("model_args."):
                _put(arguments["model_args"], name.removeprefix("model_args."), value)
            else:
                _put(arguments["training_args"], name, value)
        if run.fold is not None:
            arguments["training_args"] |= {"folds": self._folds, "fold": run.fold}
        if run.seed is not None:
            arguments["training_args"]["random_seed"] = run.seed
        for name in ("aggregator", "strategy"):
            if name in arguments:
                arguments[name] = copy.deepcopy(arguments[name])
        return arguments | {
            "name": f"{self.folder.name} {run.number}"[:128],
            "experimentation_folder": self._place(run),
        }

    def _run(self, run: Run, federation: Federation, *, afresh: bool) -> None:
        if afresh:
            shutil.rmtree(self._place(run))
        arguments = self._arguments(run)
        folder = arguments.pop("experimentation_folder")
        experiment = Experiment.resume(folder, **arguments, federation=federation, progress=self._progress)
        try:
            if experiment.round_current() < (experiment.round_limit() or 0):
                experiment.run()
            test = experiment.evaluate(best=experiment.best_round() is not None)
            result = RunResult(
                metrics=dict(test.mean),
                nodes={node: dict(values) for node, values in test.metrics.items()},
                **_spent(experiment),
            )
        except FedWardError as error:
            if error.code not in _ITS_OWN:
                raise
            said = error.message.splitlines()[0]
            named = said if f"[{error.code}]" in said else f"{said} [{error.code}]"
            result = RunResult(**_spent(experiment), error=named)
        _write(self._place(run) / "result.json", result.model_dump_json(indent=1))

    def _load(self, run: Run, federation: Federation | None) -> Experiment:
        arguments = self._arguments(run)
        return Experiment.load_breakpoint(
            self._place(run),
            federation=federation,
            aggregator=arguments.get("aggregator"),
            strategy=arguments.get("strategy"),
            progress=self._progress,
        )

    def _claim(self) -> None:
        """The folder is this campaign's, or is made so.

        Raises:
            ExperimentArgumentError: It is another's.
        """
        said = {"version": 1, "digest": self._digest(), "runs": len(self.runs)}
        path = self.folder / "campaign.json"
        try:
            held = json.loads(path.read_text())
        except FileNotFoundError:
            _write(path, json.dumps(said, indent=1))
            return
        except ValueError:
            held = None
        if held != said:
            raise ExperimentArgumentError(
                f"{self.folder} holds another campaign: arguments, plan or grid were others.",
                remedy="Give this one a folder of its own, or the earlier arguments.",
            )

    def _digest(self) -> str:
        """Of all that the runs depend on."""
        plan = self._experiment.get("training_plan_class") or self._experiment.get("training_plan_file")
        said: list[Any] = [plan_source(Path(plan) if isinstance(plan, str) else plan).sha256] if plan else []
        shown = {name: _word(value) for name, value in self._experiment.items() if not name.startswith("training_plan")}
        said += [shown, [[run.point, run.fold, run.seed] for run in self.runs], self._folds]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def _place(self, run: Run) -> Path:
        return self.folder / run.folder

    def _numbered(self, number: int) -> Run:
        if not 1 <= number <= len(self.runs):
            raise ExperimentArgumentError(f"There is no run {number}; there are {len(self.runs)}.")
        return self.runs[number - 1]

    def _result(self, run: Run) -> RunResult | None:
        try:
            return RunResult.model_validate_json((self._place(run) / "result.json").read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise BreakpointError(f"{self._place(run) / 'result.json'} is damaged; delete it to run again.") from error

    def _done(self) -> list[RunResult]:
        return [result for run in self.runs if (result := self._result(run))]

    def _points(self) -> list[tuple[tuple[str, str], ...]]:
        return [*dict.fromkeys(run.point for run in self.runs)]

    def _of(self, point: tuple[tuple[str, str], ...]) -> list[Run]:
        return [run for run in self.runs if run.point == point]

    def _value(self, run: Run, metric: str) -> float | None:
        result = self._result(run)
        return None if result is None else result.metrics.get(metric)

    def _metric_names(self) -> list[str]:
        return sorted({name for result in self._done() for name in result.metrics})

    def _require_metric(self, metric: str | None) -> str:
        names, wanted = self._metric_names(), metric or self.metric
        if not names:
            raise ExperimentArgumentError("No run is over.", remedy="run() first.")
        if wanted is None and len(names) > 1:
            raise ExperimentArgumentError(f"The test returns {', '.join(names)}; say which: metric=...")
        if wanted is not None and wanted not in names:
            hint = did_you_mean(wanted, names)
            raise ExperimentArgumentError(
                f"There is no metric '{wanted}'.{hint} There is {', '.join(names)}.",
                remedy="Name one of these; the runs that are over stay.",
            )
        return wanted or names[0]

    def _best_place(self, summaries: Sequence[Summary], metric: str | None = None) -> int | None:
        name = metric or self.metric or (self._metric_names() or [""])[0]
        mode = self._mode or ("min" if name in LOWER_IS_BETTER else "max")
        sign = -1.0 if mode == "min" else 1.0
        known = [(sign * each.mean, -place) for place, each in enumerate(summaries) if each.mean is not None]
        return -max(known)[1] if known else None


def cross_validate(
    folds: int = 5,
    *,
    seeds: Sequence[int] | None = None,
    folder: Path | str,
    metric: str | None = None,
    **experiment: Any,
) -> Campaign:
    """Cross-validation: train ``folds`` times, each time with another part of every dataset held out, and test on it.

    The parts are the same in every round and at every call, and a patient's samples stay together where the loading
    plan names a patient id. Each hospital cuts its own dataset.

    Args:
        folds: How many parts, from 2 to 100.
        seeds: Do it once for each of these ``random_seed``s, which also cuts otherwise.
        folder: See ``Campaign``.
        metric: See ``Campaign``.
        experiment: The arguments of ``Campaign`` and of an experiment.

    Raises:
        FedWardError: See ``Campaign``.

    Example:
        >>> cross_validate(1, folder="cv")
        Traceback (most recent call last):
        ...
        researcher_kit.errors.ExperimentArgumentError: folds is 1; expected a whole number from 2 to 100.
    """
    return Campaign(folds=folds, seeds=seeds, folder=folder, metric=metric, **experiment)


def sweep(
    grid: Mapping[str, Sequence[Any]],
    *,
    folds: int | None = None,
    seeds: Sequence[int] | None = None,
    folder: Path | str,
    metric: str | None = None,
    **experiment: Any,
) -> Campaign:
    """A sweep: every combination of values, each with all folds and seeds.

    Args:
        grid: Values by name; see ``Campaign``.
        folds: Cross-validate each point; None for one run with the ``test_ratio`` of the training arguments.
        seeds: See ``Campaign``.
        folder: See ``Campaign``.
        metric: See ``Campaign``.
        experiment: The arguments of ``Campaign`` and of an experiment.

    Raises:
        FedWardError: See ``Campaign``.

    Example:
        >>> sweep({"learning_rate": []}, folder="rates")
        Traceback (most recent call last):
        ...
        researcher_kit.errors.ExperimentArgumentError: 'learning_rate' has the values []; expected a list of some.
    """
    return Campaign(grid, folds=folds, seeds=seeds, folder=folder, metric=metric, **experiment)


def _require_free(experiment: Mapping[str, Any]) -> None:
    if taken := [name for name in _BARE if name in experiment]:
        raise ExperimentArgumentError(
            f"A campaign gives its runs '{taken[0]}' itself.",
            remedy="To rehearse one, pass federation=LocalFederation(...).",
        )


def _require_grid(grid: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    checked: dict[str, list[Any]] = {}
    for name, values in grid.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            raise ExperimentArgumentError(f"'{name}' has the values {shorten(values)}; expected a list of some.")
        words = [_word(value) for value in values]
        if len(set(words)) < len(words):
            raise ExperimentArgumentError(f"'{name}' has a value twice: {shorten(values)}.")
        checked[name] = [*values]
    return checked


def _folds(folds: int | None) -> Sequence[int | None]:
    if folds is None:
        return [None]
    if type(folds) is not int or not 2 <= folds <= 100:
        raise ExperimentArgumentError(f"folds is {folds!r}; expected a whole number from 2 to 100.")
    return range(folds)


def _seeds(seeds: Sequence[int] | None) -> Sequence[int | None]:
    if seeds is None:
        return [None]
    if not isinstance(seeds, Sequence) or not seeds or len(set(seeds)) < len(seeds):
        raise ExperimentArgumentError(f"seeds is {shorten(seeds)}; expected a list of different whole numbers.")
    return seeds


def _put(arguments: dict[str, Any], name: str, value: Any) -> None:
    """Set a value by its dotted name."""
    first, _, rest = name.partition(".")
    if not rest:
        arguments[first] = value
        return
    inner = arguments.setdefault(first, {})
    if not isinstance(inner, dict):
        raise ExperimentArgumentError(f"'{name}' cannot be set: '{first}' is {shorten(inner)}.")
    _put(inner, rest, value)


def _word(value: Any) -> str:
    """A value as the table shows it, and as two campaigns are told apart."""
    if isinstance(value, type):
        return plan_source(value).sha256[:12] + f" {value.__name__}"
    try:
        return json.dumps(value, sort_keys=True, allow_nan=False) if not isinstance(value, str) else value
    except (TypeError, ValueError):
        return re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _spent(experiment: Experiment) -> dict[str, Any]:
    history = experiment.history
    return {"rounds": len(history), "seconds": math.fsum(record.seconds for record in history)}


def _plus_minus(mean: float | None, deviation: float | None) -> str:
    if mean is None:
        return "—"
    return f"{mean:.4g}" if deviation is None else f"{mean:.4g} ± {deviation:.2g}"


def _write(path: Path, text: str) -> None:
    with disk_named(path):
        replace_file(path, text)

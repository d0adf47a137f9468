"""The experiment: what a researcher writes in a notebook.

    experiment = Experiment(tags=["prostate"], training_plan_class=MyPlan, training_args={"epochs": 1},
                            round_limit=20, strategy=Quorum(fraction=0.8, deadline_s=600))
    experiment.run()

After each round the experiment lies on disk as a breakpoint, and the running round in the store: whatever ends the
notebook, ``Experiment.load_breakpoint(folder).run()`` goes on with the requests that were sent before.
"""

from __future__ import annotations

import secrets
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import structlog

from appliance.protocol.messages import (
    ArgumentRange,
    ModelKept,
    PlanStanding,
    Stop,
    Stopped,
)
from appliance.protocol.rounds import ResearcherStep
from appliance.protocol.tensors import AGGREGATOR_PREFIX, FROZEN_PREFIX, Array, TensorFile, TensorSpec, write_tensors
from appliance.protocol.wording import did_you_mean
from appliance.training.arguments import TrainingArguments
from appliance.training.plan import TrainingPlan
from appliance.training.source import PlanSource, load_plan
from appliance.training.standardise import PREFIX as STANDARDISATION
from researcher_kit import breakpoints
from researcher_kit.aggregators import AGGREGATORS, Aggregator, FedAverage, Setting
from researcher_kit.approval import approval_of, require_approval, standings
from researcher_kit.coming_from import OTHER_NAMES, under_our_names
from researcher_kit.dataset_choice import find_datasets
from researcher_kit.divergence import LossWatch
from researcher_kit.early_stopping import BestRound, EarlyStopping
from researcher_kit.errors import (
    BreakpointError,
    ExperimentArgumentError,
    NoDatasetError,
)
from researcher_kit.evaluation import Evaluation, EveryAnswer
from researcher_kit.export import model_card, write_export
from researcher_kit.federation import ASK_TIMEOUT_S, Federation
from researcher_kit.folders import disk_named, locked
from researcher_kit.history import History, NodeRecord, RoundRecord
from researcher_kit.jobs import UNATTENDED_DAYS, Job, submit
from researcher_kit.live import LiveTable
from researcher_kit.local.federation import Datasets, LocalFederation
from researcher_kit.monitor import (
    Event,
    Interrupted,
    NodeGaveUp,
    NodesFound,
    Observer,
    Paused,
    Progress,
    RoundClosed,
    StepFinished,
    StoppedEarly,
)
from researcher_kit.release import release
from researcher_kit.round import Inbox, Round, StopAsked, Terms
from researcher_kit.schedules import Schedules, scheduled
from researcher_kit.settings import Settings
from researcher_kit.spool import Spool
from researcher_kit.store import RoundBook
from researcher_kit.strategies import STRATEGIES, Strategy
from researcher_kit.tables import NodeTable
from researcher_kit.tensorboard import TensorBoard

STOP_TIMEOUT_S = 15.0
EVALUATION_S = 3600.0
RELEASE_TIMEOUT_S = 120.0
_log = structlog.get_logger(__name__)


class Experiment(Settings):
    """A federated experiment: one model, trained in rounds on data that stays where it is.

    Every argument has a setter (``set_tags``, …) and can be given later; ``info()`` says what is missing.

    Args:
        tags: Words that a node's dataset must all carry.
        nodes: Train on these nodes only; None for all that have data.
        datasets: Which dataset to use at a node that has several: ``{node id: dataset id}``.
        training_plan_class: The plan, as a class of the notebook or of a module.
        training_plan_file: The plan, as a file instead.
        model_args: What the plan's ``init_model`` gets (JSON values).
        training_args: How to train in a round. With a ``random_seed``, two runs end bit-equal.
        round_limit: How many rounds in all.
        aggregator: ``FedAverage()`` if None.
        strategy: ``AllNodes()`` if None.
        schedules: Training arguments that change from round to round; see ``researcher_kit.schedules``.
        early_stopping: When to end before the round limit; the best parameters are kept.
        tensorboard: Write curves for TensorBoard; see ``set_tensorboard`` and ``tensorboard_results_path``.
        name: For people.
        experimentation_folder: Where breakpoints go; a folder in the researcher's own if None.
        save_breakpoints: Keep every round's breakpoint, not the last one's only.
        federation: The connection; if None, one of the experiment's own, by ``FEDWARD_RESEARCHER_HOME``.
        rehearsal: Train on local files instead, before any hospital is asked: the same plan, in the same runner and
            sandbox. What it leaves behind is gone with ``close``.
        data: For a rehearsal: a file, several, or files by node id; see ``LocalFederation``.
        progress: Show a live table: True always, False never, None in a terminal or notebook.

    Raises:
        ExperimentArgumentError: An argument is unknown or wrong; says what is allowed.
        ArgumentInvalidError: A training argument is.
        PlanInvalidError: The plan's text cannot be taken from its class.

    Example:
        >>> experiment = Experiment(tags=["prostate"], round_limit=20)
        >>> experiment.info().missing
        ('training plan: set_training_plan_class(...)',)
    """

    def __init__(
        self,
        *,
        tags: Sequence[str] | None = None,
        nodes: Sequence[str] | None = None,
        datasets: Mapping[str, str] | None = None,
        training_plan_class: type[TrainingPlan] | None = None,
        training_plan_file: Path | str | None = None,
        model_args: Mapping[str, Any] | None = None,
        training_args: Mapping[str, Any] | None = None,
        round_limit: int | None = None,
        aggregator: Aggregator | None = None,
        strategy: Strategy | None = None,
        schedules: Schedules | None = None,
        early_stopping: EarlyStopping | None = None,
        tensorboard: bool | Path | str | None = None,
        name: str | None = None,
        experimentation_folder: Path | str | None = None,
        save_breakpoints: bool = False,
        federation: Federation | None = None,
        rehearsal: bool = False,
        data: Datasets | None = None,
        progress: bool | None = None,
        **unknown: object,
    ) -> None:
        super().__init__()
        given = {key: value for key, value in locals().items() if key in _ARGUMENTS and value is not None}
        unknown = under_our_names(unknown)
        for argument in unknown.keys() & set(OTHER_NAMES.values()) - given.keys():
            given[argument] = unknown.pop(argument)
        if unknown:
            wrong, known = min(unknown), [*_ARGUMENTS, "federation", "rehearsal", "data", "progress"]
            hint = did_you_mean(wrong, known)
            raise ExperimentArgumentError(f"Experiment has no argument '{wrong}'.{hint} It has {', '.join(known)}.")
        if {"training_plan_class", "training_plan_file"} <= given.keys():
            raise ExperimentArgumentError("Give training_plan_class or training_plan_file, not both.")
        _require_one_place(federation, rehearsal=rehearsal, data=data)
        for argument, value in given.items():
            getattr(self, f"set_{argument}")(value)
        self.id = f"exp-{secrets.token_hex(6)}"
        self._seed = secrets.randbelow(2**31)
        self._round = 0
        self._history: tuple[RoundRecord, ...] = ()
        self._parameters: Path | None = None
        self._initial: dict[str, Array] = {}  # see ``start_from``
        self._best: Path | None = None
        self._fingerprints: dict[str, str] = {}  # of the datasets, by node
        self._trained: frozenset[str] | None = None  # see ``aggregators.Setting``
        self._frozen: frozenset[str] = frozenset()  # see ``round.Terms``
        self._superseded: Path | None = None  # an automatic breakpoint that the next one replaces
        self._obsolete: list[Callable[[], None]] = []  # deletes files that nobody needs any more
        self._upload_to_delete: str | None = None
        self._mandate: str | None = None  # of the researcher in whose name a federator runs it
        self._cleared: set[tuple[str, str]] = set()  # plans known to be approved: (node, SHA-256)
        self._federation = federation
        self._owns_federation = False
        self._rehearsed_on = data
        self._progress = progress
        self._observers: list[Observer] = []
        self._losses = LossWatch()
        self._is_pause_asked = threading.Event()
        self._inbox: Inbox | None = None  # while running
        self._last_evaluation: Evaluation | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Experiment({self._name or self.id!r}, round {self._round} of {self._round_limit or '?'})"

    def check(self) -> None:
        """Look at everything that can be looked at before a node is asked; ``run`` does it as well.

        Raises:
            ExperimentArgumentError: Something is missing, or does not go together.
            PlanInvalidError: The plan's text does not load, or its model cannot be built.
            ArgumentInvalidError: An argument that this plan does not take.
        """
        self._require_complete()
        self._build_plan()

    def close(self) -> None:
        """End the connection, if it is the experiment's own."""
        if self._federation and self._owns_federation:
            self._federation.close()
            self._federation = None

    # Where it stands

    @property
    def federation(self) -> Federation:
        """The connection, opened when it is first needed."""
        if self._federation is None:
            data = self._rehearsed_on
            self._federation, self._owns_federation = Federation() if data is None else LocalFederation(data), True
        return self._federation

    @property
    def history(self) -> History:
        """The closed rounds: replies, metrics, overrides, and where the time went."""
        return History(self._history)

    def round_current(self) -> int:
        """How many rounds are closed."""
        return self._round

    def experimentation_path(self) -> Path:
        """The experiment's folder, with its breakpoints."""
        if self._folder is None:
            self._folder = self.federation.home.folder("experiments") / self.id
        return self._folder

    def experimentation_folder(self) -> str:
        """The name of the experiment's folder."""
        return self.experimentation_path().name

    def training_replies(self) -> dict[int, tuple[NodeRecord, ...]]:
        """What each node said in each round, by the round's number."""
        return {record.round: record.replies for record in self._history}

    @property
    def tensorboard_results_path(self) -> Path:
        """Where TensorBoard finds the curves: ``%tensorboard --logdir {experiment.tensorboard_results_path}``."""
        if isinstance(self._tensorboard, Path):
            return self._tensorboard / self.id
        return self.experimentation_path() / "tensorboard"

    def parameters(self) -> dict[str, Array]:
        """The global parameters as arrays by name; before the first round, those that the model starts with."""
        return dict(TensorFile(self._require_parameters()))

    def start_from(self, parameters: Mapping[str, Any] | Path | str) -> None:
        """Begin with these parameters instead of ``init_model``'s: a model that was trained elsewhere, or a part of it.

        Args:
            parameters: A safetensors file, or arrays or tensors by name; a name that is missing begins as it would.

        Raises:
            ExperimentArgumentError: A round is closed already, or a tensor has another name or shape than the model's.
            TensorFileError: Not a tensor file.
        """
        if self._round:
            raise ExperimentArgumentError(
                f"The model was trained for {self._round} rounds already.", remedy="Begin a new Experiment."
            )
        given = TensorFile(parameters) if isinstance(parameters, Path | str) else parameters
        own = self._build_plan().get_parameters(copy=False)
        for name in given:
            shape, hint = np.shape(given[name]), did_you_mean(str(name), own)
            if name not in own:
                raise ExperimentArgumentError(f"The plan's model has no tensor '{name}'.{hint}")
            if shape != own[name].shape:
                raise ExperimentArgumentError(f"The tensor '{name}' is {shape}; the model's is {own[name].shape}.")
        self._initial = {name: np.array(given[name], own[name].dtype) for name in given}
        self._is_plan_new = True

    def best_round(self) -> BestRound | None:
        """After which round the parameters were best; None without early stopping, or when none were tested."""
        return self._early_stopping.best(self.history) if self._early_stopping else None

    def best_parameters(self) -> dict[str, Array]:
        """The best parameters that were tested, as arrays by name.

        Raises:
            ExperimentArgumentError: There are none: early stopping is not set, or nothing was tested yet.
        """
        if self._best is None:
            raise ExperimentArgumentError(
                "No parameters were tested yet.", remedy="Set early_stopping and test_on_global_updates, and run."
            )
        return dict(TensorFile(_require_there(self._best)))

    def training_plan(self) -> TrainingPlan:
        """The training plan, built and with the global parameters set: ``training_plan().model()`` predicts."""
        plan = self._build_plan()
        plan.set_parameters(TensorFile(self._require_parameters()))
        return plan

    def on_event(self, observer: Observer) -> Observer:
        """Let ``observer`` hear what happens (see ``researcher_kit.monitor``); usable as a decorator."""
        self._observers.append(observer)
        return observer

    # Running

    def run(self, rounds: int | None = None, increase: bool = False) -> int:
        """Run rounds, one after another.

        Ctrl-C leaves a breakpoint to resume from and says where it is.

        Args:
            rounds: How many; None for all up to the round limit.
            increase: Raise the round limit if ``rounds`` goes beyond it.

        Returns:
            How many rounds were run: 0 when the limit is reached already, fewer after early stopping or ``pause``.

        Raises:
            ExperimentArgumentError: Something is missing or wrong.
            NoDatasetError: No node has a dataset that fits.
            DatasetChoiceError: A node has several.
            PlanNotApprovedError: Some hospital has not approved the plan.
            NodeFailedError: A node failed and the strategy needs every one.
            QuorumMissedError: Too few nodes answered.
        """
        count = self._count_rounds(rounds, increase)
        if count:
            self._is_pause_asked.clear()
            with self._running() as (inbox, _):
                for done in range(count):
                    if self._is_over() or self._is_paused():
                        return done
                    self._run_round(inbox)
                self._is_over()
        return count

    def _is_over(self) -> bool:
        stopping, best = self._early_stopping, self.best_round()
        if stopping is None or best is None or not stopping.is_over(self.history):
            return False
        self._emit(StoppedEarly(self._round, best))
        return True

    def _is_paused(self) -> bool:
        if not self._is_pause_asked.is_set():
            return False
        assert self._parameters is not None
        self._emit(Paused(self._round, self._parameters.parent))
        return True

    def pause(self) -> None:
        """Let ``run`` return behind the round that is under way; from any thread, or from an observer.

        Nothing is lost: the breakpoint is there, arguments may be set anew, and ``run()`` goes on.
        """
        self._is_pause_asked.set()

    def run_once(self, increase: bool = False, test_after: bool = False) -> int:
        """Run one round; see ``run``.

        Args:
            increase: Raise the round limit if need be.
            test_after: Test the new global parameters at the nodes afterwards, as ``evaluate`` does; the result is
                ``last_evaluation()``.
        """
        count = self.run(1, increase)
        if test_after and count:
            self.evaluate()
        return count

    def last_evaluation(self) -> Evaluation | None:
        """What the last ``evaluate`` of this session found."""
        return self._last_evaluation

    def evaluate(
        self,
        *,
        nodes: Sequence[str] | None = None,
        best: bool = False,
        test_ratio: float | None = None,
        deadline_s: float = EVALUATION_S,
    ) -> Evaluation:
        """Test the global parameters at the nodes, without training.

        Args:
            nodes: Ask these, which may be others than those that train; None for the experiment's own.
            best: Test the best parameters of early stopping, instead of the last.
            test_ratio: The share of each dataset to test on, 1 for all of it at a site that never trained; if None, as
                the training arguments have it.
            deadline_s: Seconds that the nodes have.

        Returns:
            What each node's test said, and the mean. A node that failed is among the ``failures``.

        Raises:
            ExperimentArgumentError: Nothing is held out to test on, or something is missing.
            NodeFailedError: No node gave an answer.
        """
        arguments = self.training_args()
        if test_ratio is not None:
            arguments |= {"test_ratio": test_ratio, "folds": None, "fold": None}
        if not TrainingArguments.parse(arguments).held_out:
            raise ExperimentArgumentError(
                "Nothing is held out to test on.",
                remedy="Set the training argument test_ratio, or folds and fold, or pass test_ratio=.",
            )
        if best:
            self.best_parameters()
        with self._running(nodes) as (inbox, datasets):
            number, chosen = self._round + 1, self.best_round() if best else None
            terms = replace(
                self._terms(number),
                datasets=datasets,
                training_args=arguments,
                aggregator=FedAverage(),
                strategy=EveryAnswer(deadline_s),
                parameters=self._best if best and self._best else self._require_parameters(),
                train=False,
            )
            book, spool = RoundBook(self.federation.store, self.id), self._spool(number)
            if not book.is_clear(number):
                raise ExperimentArgumentError(
                    f"Round {number} was begun and is not over.", remedy="run() it to its end first, or stop() it."
                )
            try:
                record = Round(
                    terms, federation=self.federation, book=book, inbox=inbox, spool=spool, emit=self._emit
                ).run()
            finally:
                self.federation.withdraw(book.abandon(number))
                spool.clear()
            self._last_evaluation = Evaluation.of(record, chosen.round if chosen else self._round)
            return self._last_evaluation

    def stop(self, *, timeout_s: float = STOP_TIMEOUT_S) -> NodeTable[Stopped]:
        """End the experiment's work at every node, and the round that runs here, from any thread.

        Returns:
            When each node saw the last process end; a node that is silent now stops when it hears of it.
        """
        if inbox := self._inbox:
            inbox.events.put(StopAsked())
        else:
            book = RoundBook(self.federation.store, self.id)
            self.federation.withdraw(book.abandon(self._round + 1))
        nodes = sorted(self._datasets)
        answers = self.federation.ask(dict.fromkeys(nodes, Stop(experiment_id=self.id)), timeout_s=timeout_s)
        return self.federation.stopped(answers, nodes)

    # Unattended

    def submit(self, federator: str | None = None, *, days: float = UNATTENDED_DAYS) -> Job:
        """Let a federator run the rounds that are left, and return: this machine may be switched off.

        The federator gets the experiment as a breakpoint, sealed to it, and your signed mandate: for these nodes,
        datasets, arguments and rounds, and no longer than you say. ``researcher_kit.attach`` finds the job again.

        Args:
            federator: Which, by its member id; None for the only one of the consortium.
            days: How long the mandate holds, at most 90.

        Returns:
            The job: ``status()``, ``wait()``, ``experiment()``, ``stop()``.

        Raises:
            ExperimentArgumentError: No round is left, there is no such federator, or something is missing.
            FedWardError: As ``run`` raises before its first round, or what the network host refuses.
        """
        self._require_complete()
        first, last = self._round + 1, self._round_limit or 0
        if first > last:
            raise ExperimentArgumentError(
                f"All {last} rounds are done.", remedy="Raise the round limit with set_round_limit()."
            )
        if not RoundBook(self.federation.store, self.id).is_clear(first):
            raise ExperimentArgumentError(
                f"Round {first} was begun and is not over.", remedy="run() it to its end first, or stop() it."
            )
        with self._running():
            self._aggregator.prepare(self._setting(first))
            later = [self._scheduled(number) for number in range(first, last + 1)]
            terms, saved = self._terms(first), self.breakpoint()
            job_id = submit(terms, later, saved, self.federation, federator, days=days)
        return Job(self.federation, job_id, type(self).load_breakpoint)

    # What it comes to

    def export(self, folder: Path | str, *, best: bool = False) -> Path:
        """Write the model, its training plan and its card into a new folder; see ``researcher_kit.export``.

        Args:
            folder: Where to; it must not be there yet.
            best: The best parameters that were tested, instead of the last.

        Raises:
            ExperimentArgumentError: The folder is there already, or there are no such parameters.
            FedWardError: The disk is full (DISK_FULL).
        """
        is_torch = "state_dict" in dir(self._build_plan().model())
        return self._export(Path(folder).expanduser().absolute(), best=best, is_torch=is_torch)

    def release(
        self,
        name: str | None = None,
        *,
        nodes: Sequence[str] | None = None,
        best: bool = False,
        timeout_s: float = RELEASE_TIMEOUT_S,
    ) -> NodeTable[ModelKept]:
        """Send the model and its card to hospitals, whose staff can then read and download them in their node's GUI.

        Parameters and card go, as ``export`` writes them; no code does. A hospital takes the models of experiments that
        it took part in, unless its policy says otherwise.

        Args:
            name: What the staff read in their list; the experiment's name if None.
            nodes: Send it to these; None for those that trained.
            best: The best parameters that were tested, instead of the last.
            timeout_s: How long to wait for the answers. A node that is silent has a week to fetch the model.

        Returns:
            What each node answered: kept, with the file's SHA-256, or why not.

        Raises:
            ExperimentArgumentError: No node, no name, no such parameters, nothing trained yet, or no real nodes.
            NetworkUnreachableError: There is no line to the network host.

        Example:
            >>> table = experiment.release("Bleeding risk, March")  # doctest: +SKIP
            >>> table.answers["north"].model_sha256  # doctest: +SKIP
            '5f0d…'
        """
        title = name or self._name or self._require_plan().class_name
        if not 0 < len(title) <= 128:
            raise ExperimentArgumentError(f"The name has {len(title)} characters; expected 1 to 128.")
        if not self._round:
            raise ExperimentArgumentError("No round is closed yet: there is no trained model.", remedy="run() first.")
        if isinstance(self.federation, LocalFederation):
            raise ExperimentArgumentError(
                "There are no hospitals in a rehearsal or a simulation.", remedy="export() writes the model's files."
            )
        asked = self.federation.require_nodes(tuple(self._datasets) if nodes is None else nodes)
        if not asked:
            raise ExperimentArgumentError("nodes is empty; expected some node ids, or None for all that trained.")
        with tempfile.TemporaryDirectory(prefix=".release-", dir=self.experimentation_path()) as scratch:
            exported = self._export(Path(scratch) / "model", best=best, is_torch=False)
            return release(
                exported,
                title,
                experiment_id=self.id,
                federation=self.federation,
                nodes=asked,
                timeout_s=timeout_s,
            )

    def _export(self, target: Path, *, best: bool, is_torch: bool) -> Path:
        plan = self._require_plan()
        if best:
            self.best_parameters()
        parameters = self._best if best and self._best else self._require_parameters()
        chosen = self.best_round() if best else None
        card = model_card(
            self.history,
            experiment_id=self.id,
            name=self._name,
            researcher=self.federation.home.member_id,
            training_plan={"class": plan.class_name, "sha256": plan.sha256},
            model_args=self._model_args,
            training_args=self.training_args(),
            schedules={name: schedule.model_dump(mode="json") for name, schedule in self._schedules.items()},
            aggregator=repr(self._aggregator),
            strategy=repr(self._strategy),
            datasets={
                node: {"dataset_id": dataset, "fingerprint": self._fingerprints.get(node)}
                for node, dataset in self._datasets.items()
            },
            parameters_after_round=chosen.round if chosen else self._round,
            chosen_by=chosen.model_dump(mode="json") if chosen else None,
        )
        return write_export(target, parameters, plan.text, card, is_torch=is_torch)

    # Approval

    def request_approval(
        self,
        description: str,
        ranges: Sequence[ArgumentRange | Mapping[str, Any]] = (),
        *,
        nodes: Sequence[str] | None = None,
        timeout_s: float = ASK_TIMEOUT_S,
    ) -> NodeTable[PlanStanding]:
        """Ask the hospitals' staff to review the plan.

        Args:
            description: For the reviewer: what the plan does, and why.
            ranges: What values of training arguments the approval should cover, such as
                ``{"name": "optimizer_args.lr", "minimum": 0.001, "maximum": 0.1}``.
            nodes: Ask these; if None, those with data for this experiment.

        Returns:
            Where the plan stands at each node. A node that is silent has the request when it comes back.
        """
        plan = self._require_plan()
        request = approval_of(plan, description, name=self._name, ranges=ranges)
        return standings(self.federation, plan, self._approvers(nodes), request=request, timeout_s=timeout_s)

    def plan_status(
        self, *, nodes: Sequence[str] | None = None, timeout_s: float = ASK_TIMEOUT_S
    ) -> NodeTable[PlanStanding]:
        """Where the plan stands at each node, with the reviewer's note."""
        return standings(self.federation, self._require_plan(), self._approvers(nodes), timeout_s=timeout_s)

    def training_plan_approve(self, description: str = "") -> NodeTable[PlanStanding]:
        """See ``request_approval``."""
        return self.request_approval(description)

    def check_training_plan_status(self) -> NodeTable[PlanStanding]:
        """See ``plan_status``."""
        return self.plan_status()

    # Breakpoints

    @classmethod
    def resume(cls, folder: Path | str, **arguments: Any) -> Experiment:
        """The experiment of a folder: as its last breakpoint has it, or a new one that keeps its breakpoints there.

        A script with this line and ``run()`` may be ended and started again at any moment. What the breakpoint says
        wins over the arguments; only the connection, ``progress``, and an aggregator or a strategy of your own are
        taken from these.

        Args:
            folder: The experiment's folder.
            arguments: See ``Experiment``.

        Raises:
            BreakpointError: What lies there is not whole, or of another version.
            FedWardError: See ``Experiment``.

        Example:
            >>> experiment = Experiment.resume("/nothing/here/yet", tags=["prostate"], round_limit=20)
            >>> experiment.round_current()
            0
        """
        if not breakpoints.is_begun(Path(folder).expanduser()):
            return cls(experimentation_folder=folder, **arguments)
        names = ("federation", "aggregator", "strategy", "progress")
        return cls.load_breakpoint(folder, **{name: arguments[name] for name in names if name in arguments})

    def breakpoint(self) -> Path:
        """Save a breakpoint that stays, and return its folder. Between rounds there is always one already."""
        folder = self._save(self._require_parameters())
        self._superseded = None
        return folder

    @classmethod
    def load_breakpoint(
        cls,
        folder: Path | str | None = None,
        *,
        federation: Federation | None = None,
        aggregator: Aggregator | None = None,
        strategy: Strategy | None = None,
        mandate: str | None = None,
        progress: bool | None = None,
    ) -> Experiment:
        """The experiment as it was; a round that was under way goes on with the requests sent before.

        Nothing of the plan is executed by loading.

        Args:
            folder: A breakpoint, or an experiment's folder for the one saved last; None for the one that was saved last
                of all in the researcher's own folder.
            aggregator: Needed when the breakpoint names a class of your own.
            strategy: Likewise.
            mandate: The researcher's, when a federator runs it.

        Raises:
            BreakpointError: Not whole, of another version, or it names a class that must be given.
        """
        is_ours = folder is None and federation is None
        federation = Federation() if is_ours else federation
        if folder is None:
            assert federation is not None
            folder = breakpoints.latest(federation.home.folder("experiments"))
        state, found = breakpoints.load(Path(folder).expanduser().absolute())
        experiment = cls(federation=federation, progress=progress)
        experiment._owns_federation = is_ours
        experiment.id, experiment._seed, experiment._round = state.experiment_id, state.seed, state.round
        experiment._mandate = mandate
        experiment._name, experiment._tags, experiment._nodes = state.name, state.tags, state.nodes
        experiment._datasets, experiment._choices = dict(state.datasets), dict(state.datasets)
        experiment._plan = PlanSource(state.plan.class_name, state.plan.text, state.plan.sha256)
        experiment._is_plan_new = False
        experiment._model_args = dict(state.model_args)
        experiment._training_args = TrainingArguments.parse(state.training_args)
        experiment._round_limit, experiment._save_breakpoints = state.round_limit, state.save_breakpoints
        experiment._trained = None if state.trained is None else frozenset(state.trained)
        experiment._frozen = frozenset(state.frozen)
        experiment._aggregator, is_same = _part(state.aggregator, aggregator, AGGREGATORS, "aggregator")
        if is_same:
            kept = found / breakpoints.AGGREGATOR_FILE
            experiment._aggregator.restore(state.aggregator.state, TensorFile(kept) if kept.exists() else {})
        experiment._strategy, is_same = _part(state.strategy, strategy, STRATEGIES, "strategy")
        if is_same:
            experiment._strategy.restore(state.strategy.state)
        experiment._schedules, experiment._fingerprints = dict(state.schedules), dict(state.fingerprints)
        experiment.set_tensorboard(state.tensorboard)
        if state.early_stopping is not None:
            experiment._early_stopping = EarlyStopping(**state.early_stopping)  # type: ignore[arg-type]  # as saved
        experiment._best = None if state.best_sha256 is None else found / breakpoints.BEST_FILE
        experiment._history, experiment._folder = state.history, found.parent
        experiment._parameters = found / breakpoints.PARAMETERS_FILE
        for number in range(1, state.round + 1):  # a round that was saved, and whose end a crash cut short
            experiment._spool(number).clear()
        return experiment

    def _save(self, parameters: Path, best: Path | None = None) -> Path:
        plan = self._require_plan()
        state = breakpoints.Breakpoint(
            experiment_id=self.id,
            saved_at=self.federation.clock(),
            name=self._name,
            tags=self._tags,
            nodes=self._nodes,
            datasets=self._datasets,
            plan=breakpoints.SavedPlan(class_name=plan.class_name, text=plan.text, sha256=plan.sha256),
            model_args=self._model_args,
            training_args=self.training_args(),
            seed=self._seed,
            round=self._round,
            round_limit=self._round_limit,
            aggregator=_saved(self._aggregator),
            strategy=_saved(self._strategy),
            save_breakpoints=self._save_breakpoints,
            history=self._history,
            parameters_sha256=breakpoints.file_sha256(parameters),
            trained=None if self._trained is None else tuple(sorted(self._trained)),
            frozen=tuple(sorted(self._frozen)),
            schedules=self._schedules,
            fingerprints=self._fingerprints,
            tensorboard=self._tensorboard if isinstance(self._tensorboard, bool) else str(self._tensorboard),
            early_stopping=vars(self._early_stopping) if self._early_stopping else None,
        )
        folder = breakpoints.save(
            state,
            parameters,
            self.experimentation_path(),
            aggregator=self._aggregator.state_tensors(),
            best=best or self._best,
        )
        self._best = folder / breakpoints.BEST_FILE if best or self._best else None
        self._parameters = folder / breakpoints.PARAMETERS_FILE
        return folder

    # One round

    @contextmanager
    def _running(self, nodes: Sequence[str] | None = None) -> Iterator[tuple[Inbox, dict[str, str]]]:
        """Hold the experiment, its line and its table; gives the inbox, and the datasets at ``nodes`` or its own."""
        self._require_complete()
        inbox = Inbox(RoundBook(self.federation.store, self.id))
        folder = self.experimentation_path()
        busy = "the experiment runs already, in another notebook or thread."
        with disk_named(folder), ExitStack() as stack:
            stack.enter_context(locked(folder, busy, "Stop it there, or load its breakpoint there."))
            stack.callback(self._clear_away)
            stack.enter_context(self.federation.listening(self.id, inbox))
            stack.enter_context(self._shown())
            self._inbox = inbox
            stack.callback(setattr, self, "_inbox", None)
            try:
                self._find_datasets()
                datasets = self._datasets
                if nodes is not None:
                    datasets, _ = find_datasets(self.federation, self._tags, nodes=nodes, choices=self._choices)
                self._require_approval(datasets)
                self._require_parameters()
                yield inbox, datasets
            except KeyboardInterrupt as interrupt:
                self._say_interrupted(interrupt)
                raise

    def _run_round(self, inbox: Inbox) -> None:
        number = self._round + 1
        spool = self._spool(number)
        self._aggregator.prepare(self._setting(number))
        book = RoundBook(self.federation.store, self.id)
        round_ = Round(
            self._terms(number), federation=self.federation, book=book, inbox=inbox, spool=spool, emit=self._hear
        )
        obsolete, self._upload_to_delete = self._upload_to_delete, None
        before = (self._history, self._round)
        remembered = (self._aggregator.state(), self._aggregator.state_tensors())
        try:
            record = round_.run(obsolete_upload=obsolete, meanwhile=self._clear_away)
            self._history, self._round = (*self._history[: number - 1], record), number
            saved = self._save(spool.aggregated, self._best_of(number))
        except BaseException:  # else the next round would begin with the parameters of the last but one
            self._history, self._round = before
            if round_.is_repeated:
                self._aggregator.restore(*remembered)
            raise
        # A node that is late may still be fetching; what is left behind expires at the network host.
        self._upload_to_delete = None if record.failures else round_.upload_id
        self.federation.withdraw(book.close(number))
        self._emit(StepFinished(number, ResearcherStep.CLOSED))
        self._obsolete.append(spool.clear)
        self._supersede(saved)
        self._emit(RoundClosed(record))

    def _best_of(self, number: int) -> Path | None:
        """The parameters that a round began with, if its tests say that they are the best so far."""
        best = self.best_round()
        return self._parameters if best and best.round == number - 1 else None

    def _spool(self, number: int) -> Spool:
        return Spool(self.experimentation_path() / "spool" / f"round_{number:04d}")

    def _setting(self, number: int) -> Setting:
        arguments = TrainingArguments.parse(self._scheduled(number))
        return Setting(tuple(sorted(self._datasets)), self._trained, arguments)

    def _scheduled(self, number: int) -> dict[str, Any]:
        return scheduled(self.training_args(), self._schedules, number)

    def _terms(self, number: int) -> Terms:
        return Terms(
            experiment_id=self.id,
            round=number,
            round_limit=max(self._round_limit or 0, number),
            datasets=self._datasets,
            plan=self._require_plan(),
            model_args=self._model_args,
            training_args=self._scheduled(number),
            aggregator=FedAverage() if self._is_to_measure() else self._aggregator,
            strategy=self._strategy,
            parameters=self._require_parameters(),
            mandate=self._mandate,
            frozen=self._frozen,
        )

    def _is_to_measure(self) -> bool:
        """Whether the next round finds what the data are standardised by: a mean, whatever the aggregator."""
        known = TensorFile(self._require_parameters()).get(f"{STANDARDISATION}is_known")
        return known is not None and not known.any()

    def _supersede(self, saved: Path) -> None:
        if self._superseded and self._superseded != saved:
            self._obsolete.append(partial(breakpoints.delete, self._superseded))
        self._superseded = None if self._save_breakpoints else saved

    def _clear_away(self) -> None:
        """Delete what the last round left: while the nodes train, or at the end."""
        while self._obsolete:
            self._obsolete.pop()()

    def _count_rounds(self, rounds: int | None, increase: bool) -> int:
        if rounds is not None and (type(rounds) is not int or rounds < 1):
            raise ExperimentArgumentError(f"rounds is {rounds!r}; expected a whole number from 1, or None.")
        limit = self._round_limit
        if rounds is None:
            self._require_complete()
            return max(0, (limit or 0) - self._round)
        asked = self._round + rounds
        if limit is None or (asked > limit and increase):
            self._round_limit = asked
        elif asked > limit:
            raise ExperimentArgumentError(
                f"{rounds} more after round {self._round} is beyond the round limit of {limit}.",
                remedy="Raise it with set_round_limit(), or pass increase=True.",
            )
        return rounds

    def _hear(self, event: Event) -> None:
        """Hand on what happened in a round, and say so when a node's loss has grown in it."""
        if isinstance(event, NodeGaveUp):
            before = self._history
            self._history = tuple(
                record.given_up(event.node_id, event.message) if record.round == event.round else record
                for record in before
            )
            if self._history == before:  # it was not waited for there
                return
        self._emit(event)
        if isinstance(event, Progress) and event.iteration == event.iterations and "loss" in event.values:
            grown = self._losses.hear(event.round, event.node_id, event.values["loss"])
            if grown is not None:
                self._emit(grown)

    def _emit(self, event: Event) -> None:
        for observer in self._observers:
            try:
                observer(event)
            except Exception:  # noqa: BLE001 - a broken plot must not cost a round
                _log.exception("an observer failed; the round goes on", observer=repr(observer))

    @contextmanager
    def _shown(self) -> Iterator[None]:
        board = TensorBoard(self.tensorboard_results_path) if self._tensorboard else None
        with nullcontext() if self._progress is False else LiveTable(always=bool(self._progress)) as table:
            mine = [observer for observer in (table, board) if observer]
            self._observers += mine
            try:
                yield
            finally:
                self._observers = [observer for observer in self._observers if observer not in mine]

    def _say_interrupted(self, interrupt: KeyboardInterrupt) -> None:
        if self._parameters:
            folder = self._parameters.parent
            self._emit(Interrupted(self._round + 1, folder))
            interrupt.add_note(f"Resume with Experiment.load_breakpoint({str(folder)!r}).run(), or run() again here.")

    # What a run needs

    def _require_complete(self) -> None:
        if self._early_stopping and not (
            self._training_args.test_on_global_updates and self._training_args.held_out > 0
        ):
            raise ExperimentArgumentError(
                "Early stopping needs tests of the global parameters.",
                remedy="Set the training arguments test_ratio, above 0, or folds and fold; and test_on_global_updates.",
            )
        self._require_measured()
        if missing := self._missing():
            raise ExperimentArgumentError(
                f"The experiment is not complete: {'; '.join(missing)}.", remedy="Set what is missing; see info()."
            )

    def _require_measured(self) -> None:
        """Early stopping waits for a metric that the tests say."""
        tested, stopping = self._training_args.test_metric, self._early_stopping
        if stopping is None or tested is None or stopping.metric == tested or self._plan is None:
            return
        if "testing_step" not in self._plan.text:
            raise ExperimentArgumentError(
                f"Early stopping waits for '{stopping.metric}', and the tests say {tested}.",
                remedy="Name the same metric in early_stopping and in the training argument test_metric.",
            )

    def _require_plan(self) -> PlanSource:
        if self._plan is None:
            raise ExperimentArgumentError("There is no training plan yet.", remedy="Call set_training_plan_class().")
        return self._plan

    def _build_plan(self) -> TrainingPlan:
        # From its text, as the hospitals will: what works here by a name of the notebook fails here already.
        source = self._require_plan()
        plan = load_plan(source.text, source.class_name)()
        seed = self._training_args.random_seed
        plan.build(self._model_args, self._training_args, seed=self._seed if seed is None else seed)
        _require_own_names(plan.get_parameters(copy=False))
        return plan

    def _require_parameters(self) -> Path:
        if self._parameters is None or (self._is_plan_new and self._round == 0):
            self._start()
        elif self._is_plan_new:
            plan = self._build_plan()
            self._require_same_model(plan.get_parameters(copy=False))
            self._trained, self._frozen = plan.trained_names(), plan.frozen_names()
        self._is_plan_new = False
        assert self._parameters is not None
        return _require_there(self._parameters)

    def _start(self) -> None:
        folder = self.experimentation_path()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        start = folder / ".start.safetensors"
        start.unlink(missing_ok=True)  # after a crash it may be a breakpoint's own file, which never changes
        plan = self._build_plan()
        self._trained, self._frozen = plan.trained_names(), plan.frozen_names()
        write_tensors(plan.get_parameters(copy=False) | self._initial, start)
        saved = self._save(start)
        start.unlink()
        self._superseded = None if self._save_breakpoints else saved

    def _require_same_model(self, tensors: Mapping[str, Array]) -> None:
        assert self._parameters is not None
        specs = {name: TensorSpec(array.shape, array.dtype.name) for name, array in tensors.items()}
        if specs != TensorFile(self._parameters).specs:
            raise ExperimentArgumentError(
                f"The plan's model has other tensors than the one trained for {self._round} rounds.",
                remedy="Begin a new Experiment for another model.",
            )

    def _find_datasets(self) -> None:
        if self._datasets:
            return
        if not self._tags:
            self.federation.require_nodes(tuple(self._choices))
            self._datasets = dict(self._choices)
            return
        self._datasets, found = find_datasets(self.federation, self._tags, nodes=self._nodes, choices=self._choices)
        self._fingerprints = {
            node: info.fingerprint
            for node, datasets in found.answers.items()
            for info in datasets
            if info.dataset_id == self._datasets.get(node)
        }
        self._emit(NodesFound(dict(self._datasets), found.silent))

    def _approvers(self, nodes: Sequence[str] | None) -> tuple[str, ...]:
        if nodes is not None:
            return self.federation.require_nodes(nodes)
        if self._datasets or not self._tags:
            return tuple(sorted(self._datasets)) or self.federation.node_ids()
        found = self.federation.search(self._tags, nodes=self._nodes)
        approvers = tuple(node for node, datasets in found.answers.items() if datasets)
        if not approvers:
            raise NoDatasetError(f"No dataset tagged {', '.join(self._tags)} at any node, so nobody to ask.")
        return approvers

    def _require_approval(self, nodes: Iterable[str]) -> None:
        plan = self._require_plan()
        asked = [node for node in sorted(nodes) if (node, plan.sha256) not in self._cleared]
        if not asked or self._mandate:  # the researcher asked for approval; each node looks for itself
            return
        request = approval_of(plan, f"Sent by experiment {self._name or self.id}.", name=self._name)
        cleared = require_approval(self.federation, plan, self.federation.require_nodes(asked), request)
        self._cleared |= {(node, plan.sha256) for node in cleared}


_ARGUMENTS = (
    "tags",
    "nodes",
    "datasets",
    "training_plan_class",
    "training_plan_file",
    "model_args",
    "training_args",
    "round_limit",
    "aggregator",
    "strategy",
    "schedules",
    "early_stopping",
    "tensorboard",
    "name",
    "experimentation_folder",
    "save_breakpoints",
)


def _require_one_place(federation: Federation | None, *, rehearsal: bool, data: object) -> None:
    if rehearsal and federation is not None:
        raise ExperimentArgumentError("A rehearsal has a federation of its own; leave out federation, or rehearsal.")
    if rehearsal and data is None:
        raise ExperimentArgumentError(
            "A rehearsal needs data.", remedy='Give local files: data="mine.csv", or data={"north": "north.csv"}.'
        )
    if data is not None and not rehearsal:
        raise ExperimentArgumentError(
            "data is for rehearsals: hospitals' own data are found by tags.", remedy="Pass rehearsal=True, or no data."
        )


def _require_own_names(tensors: Iterable[str]) -> None:
    """Raise ExperimentArgumentError where the model names a tensor as the file of parameters names what is not its."""
    for name in tensors:
        for prefix in (AGGREGATOR_PREFIX, FROZEN_PREFIX):
            if name.startswith(prefix):
                raise ExperimentArgumentError(
                    f"The plan's model has a tensor '{name}': names that begin with '{prefix}' are FedWard's own.",
                    remedy="Give that layer, or tensor, another name in init_model.",
                )


def _require_there(parameters: Path) -> Path:
    """The experiment's own file, if it is not deleted; raises ExperimentArgumentError."""
    if not parameters.exists():
        raise ExperimentArgumentError(
            f"The parameters are gone: there is no {parameters} any more. A rehearsal's or a temporary local"
            " federation's folder goes when it is closed.",
            remedy="Take parameters() or export() before close(), or give LocalFederation or simulate a folder.",
        )
    return parameters


def _saved(part: Aggregator | Strategy) -> breakpoints.SavedPart:
    return breakpoints.SavedPart(name=type(part).__name__, state=part.state())


def _part(saved: breakpoints.SavedPart, given: Any, known: tuple[type[Any], ...], what: str) -> tuple[Any, bool]:
    """An aggregator or a strategy as a breakpoint names it, and whether it is the one whose memory was saved."""
    by_name = {kind.__name__: kind for kind in known}
    if given is None and saved.name not in by_name:
        raise BreakpointError(
            f"The breakpoint was saved with the {what} {saved.name}, which is a class of your own.",
            remedy=f"Pass {what}={saved.name}(...) to load_breakpoint().",
        )
    part = by_name[saved.name]() if given is None else given
    return part, type(part).__name__ == saved.name

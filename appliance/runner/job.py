"""The work inside a confined child: one experiment's rounds, or one look at a data file."""

from __future__ import annotations

import contextlib
import errno
import sys
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any

from appliance.data import Dataset, LoadingPlan, Reader, reader_for
from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.local.frames import Channel, Frame, close_all
from appliance.protocol.local.jobs import (
    DatasetSource,
    Inspected,
    InspectJob,
    Progress,
    RoundTiming,
    Trained,
    TrainJob,
    parse_request,
)
from appliance.protocol.messages import Metrics, Reached
from appliance.protocol.tensors import AGGREGATOR_PREFIX, FROZEN_PREFIX, TensorFile
from appliance.runner.sandbox import confine
from appliance.runner.stamp import stamp
from appliance.runner.update import write_kept, write_update
from appliance.runner.wire import Crashed, Start, builtin_name
from appliance.training import (
    TestOutcome,
    TrainingArguments,
    TrainingPlan,
    TrainingProgress,
    derive_seed,
    load_plan,
    plan_line,
)

_PROGRESS_S = 1.0
_OUT_OF_SPACE = frozenset({errno.EFBIG, errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EAGAIN, errno.EMFILE})


def warm_up() -> None:
    """Load everything that a first round would otherwise wait for, in the nursery.

    Raises:
        RuntimeError: A library left a thread behind, which a fork would not copy.
    """
    import sklearn.linear_model  # noqa: F401, PLC0415 - for its side effect, as torch's optimizers' below
    import torch  # noqa: PLC0415 - here and not above: whoever imports this file for its types needs no torch

    from appliance.training.repeated_draws import RepeatedDraws  # noqa: PLC0415 - as torch

    torch.set_num_threads(1)
    with RepeatedDraws():
        model = torch.nn.Linear(2, 1)
    for kind in (torch.optim.SGD, torch.optim.Adam):
        optimizer = kind(model.parameters(), lr=0.1)
        optimizer.zero_grad()
        model(torch.zeros(2, 2)).sum().backward()
        optimizer.step()
    if (threads := len(list(Path("/proc/self/task").iterdir()))) != 1:
        raise RuntimeError(f"{threads} threads run where a fork copies one")


def work(channel: Channel) -> None:
    """Confine this process as its first message says, then do one job after the other until the channel closes."""
    first = channel.receive()
    if first is None:
        return
    start = Start.model_validate_json(first.payload)
    # New streams: the nursery's remember what kind of file theirs were.
    sys.stdout, sys.stderr = (
        open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        for fd in (1, 2)
    )
    confinement: FedWardError | None = None
    try:
        confine(start)
    except FedWardError as error:
        confinement = error
    worker = Worker(channel, threads=start.threads)
    while frame := channel.receive():
        if confinement is not None:
            worker.refuse(frame, confinement)
            return
        worker.handle(frame)


class Worker:
    """Does one experiment's jobs and keeps its dataset and its plan between them."""

    def __init__(self, channel: Channel, *, threads: int) -> None:
        self._channel = channel
        self._threads = threads
        self._dataset: Dataset | None = None
        self._plan: TrainingPlan | None = None

    def handle(self, frame: Frame) -> None:
        """Do a job and answer with its outcome, whatever that is."""
        job = parse_request(frame.payload)
        if not isinstance(job, TrainJob | InspectJob):
            return
        fds: tuple[int, ...] = ()
        reply: Trained | Inspected | Crashed
        try:
            if isinstance(job, TrainJob):
                reply, fds = self._train(job, *frame.fds)
            else:
                reply = self._inspect(job)
        except BaseException as error:  # noqa: BLE001 - a plan may raise SystemExit, or worse
            traceback.print_exc()
            reply = _crashed(job.job_id, error)
        frame.close()
        self._answer(reply, fds)

    def refuse(self, frame: Frame, error: FedWardError) -> None:
        """Answer that this process could not be confined."""
        job = parse_request(frame.payload)
        if isinstance(job, TrainJob | InspectJob):
            self._answer(_crashed(job.job_id, error))

    def _answer(self, reply: Trained | Inspected | Crashed, fds: tuple[int, ...] = ()) -> None:
        with contextlib.suppress(Exception):  # a plan may have put anything in their place
            sys.stdout.flush()
            sys.stderr.flush()
        self._channel.send(reply, fds)
        close_all(fds)

    def _train(self, job: TrainJob, parameters_fd: int, kept_fd: int | None = None) -> tuple[Trained, tuple[int, ...]]:
        began = time.monotonic()
        arguments = TrainingArguments.parse(job.training_args)
        plan = self._prepare(job)
        seed = derive_seed(arguments.random_seed or 0, job.node_id, job.round)
        plan.build(
            job.model_args,
            arguments,
            seed=seed,
            aggregator_args=job.aggregator_args,
            round_=job.round,
            use_gpu=job.use_gpu,
            threads=self._threads,
            are_parameters_to_follow=True,
        )
        model, sent = TensorFile(f"/proc/self/fd/{parameters_fd}").split(AGGREGATOR_PREFIX)
        plan.set_parameters(model.unprefixed(FROZEN_PREFIX))
        received, frozen = model.split(FROZEN_PREFIX)
        plan.set_kept_tensors({} if kept_fd is None else TensorFile(f"/proc/self/fd/{kept_fd}"), sent)
        sample_count, _ = plan.split()
        started = time.monotonic()
        metrics = [_tested("global", plan)] if arguments.test_on_global_updates or not job.train else []
        fds: tuple[int, ...] = ()
        learning_rates = is_optimizer_new = None
        reporter = _Reporter(self._channel, job.job_id)
        if job.train:
            outcome = plan.train(reporter)
            sample_count, learning_rates = outcome.sample_count, outcome.learning_rates
            is_optimizer_new = outcome.is_optimizer_new
            metrics += [_tested("local", plan)] if arguments.test_on_local_updates else []
            trained = plan.get_returned_parameters()
            fds = (write_update({name: trained[name] for name in trained if name not in frozen}, received),)
            if kept := plan.get_kept_tensors():
                fds = (*fds, write_kept(kept))
        answer = Trained(
            job_id=job.job_id,
            sample_count=sample_count,
            metrics=tuple(found for found in metrics if found is not None),
            timing=RoundTiming(start_s=started - began, train_s=time.monotonic() - started),
            reached=reporter.last,
            learning_rates=learning_rates,
            is_optimizer_new=is_optimizer_new,
        )
        return answer, fds

    def _prepare(self, job: TrainJob) -> TrainingPlan:
        """The plan with its data: made at the first round, kept for the others."""
        if self._dataset is None:
            self._dataset = _open(job.dataset)
        if self._plan is None:
            self._plan = load_plan(job.plan_source, job.plan_class)()
            self._plan.attach(self._dataset)
        return self._plan

    def _inspect(self, job: InspectJob) -> Inspected:
        reader, path = reader_for(job.dataset.kind), Path(job.dataset.path)
        plan = LoadingPlan.parse(job.dataset.loading_plan)
        result: dict[str, Any]
        match job.action:
            case "fingerprint":
                result = {"fingerprint": reader.fingerprint(path)}
            case "headers":
                result = {"headers": list(reader.preview(path, 0, plan).header)}
            case "preview":
                result = reader.preview(path, job.rows, plan).model_dump(mode="json")
            case "profile":
                result = reader.profile(path, plan).model_dump(mode="json")
            case "check":
                report = reader.check(path, plan)
                result = {**report.model_dump(mode="json"), "is_usable": report.is_usable}
        return Inspected(job_id=job.job_id, result=result)


class _Reporter:
    """Sends progress at most once a second, and keeps the last, which goes with the result."""

    def __init__(self, channel: Channel, job_id: str) -> None:
        self._channel = channel
        self._job_id = job_id
        self._next = 0.0
        self.last: Reached | None = None

    def __call__(self, progress: TrainingProgress) -> None:
        now, reached = time.monotonic(), asdict(progress)
        if progress.iteration == progress.iterations:
            self.last = Reached(**reached)
        elif now >= self._next:
            self._next = now + _PROGRESS_S
            self._channel.send(Progress(job_id=self._job_id, **reached))


def _open(source: DatasetSource) -> Dataset:
    """Read a dataset, of which no byte may have changed since the hospital registered it, nor while it is read."""
    reader: Reader = reader_for(source.kind)
    before = stamp(source.path)
    if source.fingerprint is not None and reader.fingerprint(source.path) != source.fingerprint:
        raise FedWardError("The dataset's file is not the one registered.", code=Code.DATASET_CHANGED)
    dataset = reader.open_dataset(source.path, LoadingPlan.parse(source.loading_plan))
    if stamp(source.path) != before:
        raise FedWardError("The dataset's file changed while it was read.", code=Code.DATASET_CHANGED)
    return dataset


def _tested(stage: str, plan: TrainingPlan) -> Metrics | None:
    found: TestOutcome | None = plan.test()
    if found is None:
        return None
    return Metrics(stage=stage, samples=found.samples, values=found.values, counts=found.counts)


def _crashed(job_id: str, error: BaseException) -> Crashed:
    own = isinstance(error, FedWardError)
    cause = error.__cause__ if own else error
    return Crashed(
        job_id=job_id,
        code=_code(error, plan_line(error)),
        message=error.message[:2000] if isinstance(error, FedWardError) else "",
        exception=None if cause is None else builtin_name(cause),
        plan_line=plan_line(error),
        detail=error.explain()[:4000] if isinstance(error, FedWardError) else "",
    )


def _code(error: BaseException, line: int | None) -> Code:
    if isinstance(error, FedWardError):
        return error.code
    if isinstance(error, PermissionError) and line is not None:
        return Code.SANDBOX_DENIED
    is_limit = isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _OUT_OF_SPACE)
    # PyTorch says so with a RuntimeError.
    is_limit = is_limit or (isinstance(error, RuntimeError) and "allocate memory" in str(error))
    return Code.RUNNER_LIMIT if is_limit else Code.TRAINING_FAILED

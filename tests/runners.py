"""A real runner process, and small jobs for it."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from appliance.protocol.local.jobs import DatasetSource, InspectJob, Limits, TrainJob
from appliance.protocol.local.runner_client import RunnerClient, RunnerError, TrainedResult
from appliance.protocol.local.sealed import sealed_memfd
from appliance.protocol.tensors import TensorFile, tensor_bytes

PREAMBLE = "from appliance.training import DataManager, SklearnTrainingPlan, TorchTrainingPlan\n"
SECRET = "not-for-plans"
_NUMBERS = count(1)

PLAN = (
    PREAMBLE
    + '''import torch


class Logistic(TorchTrainingPlan):
    """A logistic regression."""

    def init_model(self, model_args):
        return torch.nn.Linear(model_args.get("features", 1), 1)

    def init_optimizer(self, optimizer_args):
        return torch.optim.SGD(self.model().parameters(), lr=optimizer_args.get("lr", 0.1))

    def training_data(self):
        return DataManager(self.dataset.matrix(["x"]), self.dataset.matrix(["y"]), batch_size=10)

    def training_step(self, data, target):
        self.before_step()
        return torch.nn.functional.binary_cross_entropy_with_logits(self.model()(data), target)

    def before_step(self):
        pass
'''
)


def plan_with(body: str, imports: str = "") -> str:
    """The plan with ``body`` (statements) before each training step; ``imports`` stands at the top."""
    lines = "\n".join(f"        {line}" for line in body.strip("\n").splitlines())
    return PLAN.replace("        pass\n", lines + "\n").replace(PREAMBLE, PREAMBLE + imports + "\n")


class Runner:
    """A supervisor in a process of its own, with what a hospital's folder would hold around it."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.process = process
        self.client = RunnerClient(folder / "runner.sock")
        self.table = folder / "data" / "north.csv"

    @property
    def family(self) -> psutil.Process:
        """The supervisor, to ask for its descendants."""
        return psutil.Process(self.process.pid)

    def children(self) -> list[psutil.Process]:
        """Every process below the supervisor but the nursery."""
        everyone = self.family.children(recursive=True)
        return [process for process in everyone if _session(process) != _session(self.family)]

    def dataset(self, path: Path | None = None, **changes: Any) -> DatasetSource:
        """North's table, or another."""
        path = path or self.table
        known = {"dataset_id": "north-1", "kind": "tabular", "path": str(path), "fingerprint": fingerprint(path)}
        return DatasetSource(**known | changes)

    def job(self, plan: str = PLAN, experiment: str | None = None, **changes: Any) -> TrainJob:
        """A small round, of an experiment of its own unless one is named."""
        number = next(_NUMBERS)
        known: dict[str, Any] = {
            "job_id": f"job-{number}",
            "experiment_id": experiment or f"experiment-{number}",
            "node_id": "north",
            "round": 1,
            "dataset": self.dataset(),
            "plan_source": plan,
            "plan_class": "Logistic",
            "training_args": {"num_updates": 2, "log_interval": 1},
            "limits": Limits(seconds=30.0),
        }
        return TrainJob(**known | changes)

    def inspection(self, action: str, path: Path | None = None, **changes: Any) -> InspectJob:
        """A look at a file."""
        return InspectJob(job_id=f"look-{next(_NUMBERS)}", action=action, dataset=self.dataset(path, **changes))

    def train(self, plan: str = PLAN, experiment: str | None = None, **changes: Any) -> TrainedResult:
        """Train one round from zeros."""
        fd = zeros()
        try:
            return self.client.train(self.job(plan, experiment, **changes), fd)
        finally:
            os.close(fd)

    def failure(self, plan: str = PLAN, **changes: Any) -> RunnerError:
        """The error of a round that must fail."""
        try:
            self.train(plan, **changes).close()
        except RunnerError as error:
            return error
        raise AssertionError("the round did not fail")


def zeros(features: int = 1) -> int:
    """The plan's parameters, all zero, as a sealed memory file."""
    tensors = {"weight": np.zeros((1, features), np.float32), "bias": np.zeros(1, np.float32)}
    return sealed_memfd("parameters", tensor_bytes(tensors))


def tensors_of(result: TrainedResult) -> dict[str, np.ndarray]:
    """The update's tensors."""
    with result:
        file = TensorFile(f"/proc/self/fd/{result.update_fd}")
        return {name: file[name] for name in file}


def fingerprint(path: Path) -> str:
    """The SHA-256 that a registration would have recorded."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_table(path: Path, rows: int = 100) -> Path:
    """A table whose label follows from its one column."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x,y\n" + "".join(f"{(row % 17) / 10},{int(row % 17 > 8)}\n" for row in range(rows)))
    return path


@contextmanager
def running(
    folder: Path, *options: str, environment: Mapping[str, str] | None = None, through: Sequence[str] = ()
) -> Iterator[Runner]:
    """A runner that is ready, and at the end is gone; ``through`` is a program that becomes it."""
    write_table(folder / "data" / "north.csv")
    command = [sys.executable, "-m", "appliance.runner", "--socket", "runner.sock", "--scratch", "scratch", *options]
    command[4], command[6] = str(folder / "runner.sock"), str(folder / "scratch")
    root = Path(__file__).resolve().parent.parent
    process = subprocess.Popen(
        [*through, *command], env={**os.environ, "FEDWARD_SECRET": SECRET, **(environment or {})}, cwd=root
    )
    try:
        runner = Runner(folder, process)
        _wait_for(runner)
        yield runner
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(runner: Runner) -> None:
    socket = runner.folder / "runner.sock"
    while not socket.exists():
        try:
            runner.process.wait(0.02)
        except subprocess.TimeoutExpired:
            continue
        raise AssertionError("the runner ended while it started")
    runner.client.hello()


def _session(process: psutil.Process) -> int:
    """A child leads a session of its own; the nursery shares the supervisor's."""
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return -1

"""Batches that other processes read ahead."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from appliance.training import DataManager, TorchTrainingPlan, plan_line
from appliance.training.loader_workers import read_ahead

Built = Callable[..., Any]


def squares(count: int, workers: int) -> list[tuple[int, int]]:
    """Who read each square."""
    with closing(read_ahead(iter(range(count)), lambda n: (n * n, os.getpid()), workers)) as found:
        return [batch for _, batch in found]


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_batches_come_in_order_whoever_reads_them(count: int, workers: int) -> None:
    """Training in another order is another training."""
    assert [value for value, _ in squares(count, workers)] == [n * n for n in range(count)]


def test_batches_are_read_by_other_processes() -> None:
    """Otherwise all of this would be for nothing."""
    readers = {pid for _, pid in squares(8, 2)}

    assert len(readers) == 2
    assert os.getpid() not in readers


@pytest.mark.parametrize(
    "batch",
    [
        torch.arange(6).reshape(2, 3),
        torch.ones(3, 4).T,
        torch.ones(2, dtype=torch.bfloat16),
        torch.ones(0, 3),
        torch.tensor(1.5),
        np.arange(3)[::-1],
        {"image": np.ones(2), "names": ["a", "b"]},
        torch.ones(1 << 20),
        None,
    ],
    ids=["tensor", "transposed", "bfloat16", "empty", "scalar", "array", "mapping", "larger than a pipe", "none"],
)
def test_a_batch_arrives_as_it_was_read(batch: Any) -> None:
    """Type, shape and every bit."""
    with closing(read_ahead(iter([0]), lambda _: batch, 1)) as found:
        ((_, arrived),) = found

    assert type(arrived) is type(batch)
    if isinstance(batch, torch.Tensor):
        assert (arrived.dtype, arrived.shape) == (batch.dtype, batch.shape)
        assert torch.equal(arrived, batch)
    else:
        np.testing.assert_equal(arrived, batch)


def test_a_received_tensor_may_be_changed() -> None:
    """In-place operations are ordinary in training steps."""
    with closing(read_ahead(iter([0]), lambda _: torch.zeros(3), 1)) as found:
        ((_, arrived),) = found

    assert arrived.add_(1).sum() == 3


def children() -> set[int]:
    """Processes of ours that run or were not waited for."""
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_workers_end_with_the_round(taken: int) -> None:
    """Whether it came to its end, or was stopped while they wait to hand over more than a pipe holds."""
    before = children()
    with closing(read_ahead(iter(range(5)), lambda _: torch.ones(1 << 19), 2)) as found:
        for _ in range(taken):
            next(found)
    assert children() == before


@pytest.fixture
def blocked() -> Iterator[Callable[[int], int]]:
    """Reads, in a worker, what never comes but for the first item: of a share that is gone from the network."""
    here, (reader, writer) = os.getpid(), os.pipe()

    def read(number: int) -> int:
        if number > 0 and os.getpid() != here:
            os.read(reader, 1)
        return number

    yield read
    os.write(writer, b"..")  # for a worker that is still there
    os.close(reader)
    os.close(writer)


def ends(found: Generator[Any, None, None]) -> bool:
    """Whether reading ahead comes to its end when it is told to."""
    ending = threading.Thread(target=found.close, daemon=True)
    ending.start()
    ending.join(20)
    return not ending.is_alive()


def test_a_worker_that_is_stuck_in_a_read_ends_with_the_round(blocked: Callable[[int], int]) -> None:
    """A stopped round must not wait for a disk that does not answer."""
    before = children()
    found = read_ahead(iter(range(4)), blocked, 2)
    assert next(found) == (0, 0)

    assert ends(found)
    assert children() == before


def test_a_worker_that_notices_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library may hold the interpreter for ever: the round goes on, and whoever ends this process ends both."""
    monkeypatch.setattr("appliance.training.loader_workers.END_S", 0.2)
    before, here, pause = children(), os.getpid(), ctypes.PyDLL(None).pause  # which keeps the interpreter's lock
    found = read_ahead(iter(range(2)), lambda n: n if n == 0 or os.getpid() == here else pause(), 1)
    assert next(found) == (0, 0)
    has_ended = ends(found)
    for pid in children() - before:
        os.kill(pid, signal.SIGKILL)
    for thread in threading.enumerate():
        if thread.name == "reaper":
            thread.join(20)

    assert has_ended


def test_what_is_printed_comes_once(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy inherits what its parent had not written yet; and what a worker prints is there before its batch is."""
    with os.fdopen(os.dup(1), "w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        print("before")
        with closing(read_ahead(iter(range(3)), lambda n: print("reading", n) or n, 2)) as found:
            assert len(list(found)) == 3

    assert sorted(capfd.readouterr().out.splitlines()) == ["before", "reading 0", "reading 1", "reading 2"]


def test_a_worker_that_dies_is_replaced_by_the_reader() -> None:
    """The memory killer may choose one."""
    here = os.getpid()

    def read(number: int) -> int:
        if number == 2 and os.getpid() != here:
            os._exit(1)
        return number

    with closing(read_ahead(iter(range(6)), read, 2)) as found:
        assert [batch for _, batch in found] == list(range(6))


class _Drawn(torch.utils.data.Dataset[Any]):
    """Forty samples, each with noise from every generator that a plan may use."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = torch.randn(2) + float(np.random.standard_normal())  # noqa: NPY002 - as plans do
        return index / 40 + 0.1 * noise, torch.tensor([float(index % 2)])


class _Drawing(TorchTrainingPlan):
    def init_model(self, model_args: dict[str, Any]) -> Any:
        return torch.nn.Sequential(torch.nn.Linear(2, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))

    def training_data(self) -> DataManager:
        return DataManager(_Drawn(), batch_size=4)

    def training_step(self, data: Any, target: Any) -> Any:
        return torch.nn.functional.binary_cross_entropy_with_logits(self.model()(data), target)

    def _measure(self, data: Any, target: Any) -> Any:
        return {"loss": float(self.training_step(data, target)), "sum": float(data.sum())}

    testing_step = _measure


def outcome(build: Built, workers: int) -> tuple[dict[str, bytes], dict[str, float]]:
    """A trained model's bits, and its test."""
    plan = build(_Drawing, epochs=2, test_ratio=0.2, test_batch_size=3, loader_args={"num_workers": workers})
    plan.train()
    return {name: array.tobytes() for name, array in plan.get_parameters().items()}, plan.test().values


def test_the_number_of_workers_does_not_change_a_bit(build: Built) -> None:
    """Augmentation draws by the batch, whichever process reads it; dropout as if nothing had been drawn."""
    alone = outcome(build, 0)

    assert outcome(build, 1) == alone
    assert outcome(build, 3) == alone


def test_samples_in_memory_need_no_worker(build: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process to copy a row would cost more than the row."""
    made: list[int] = []
    fork = os.fork
    monkeypatch.setattr(os, "fork", lambda: made.append(1) or fork())

    class InMemory(_Drawing):
        def training_data(self) -> DataManager:
            return DataManager(torch.ones(40, 2), torch.ones(40, 1))

    trained = build(InMemory, num_updates=2, loader_args={"num_workers": 2}).train()

    assert (trained.iterations, made) == (2, [])


PLAN = """
class _Raising(_Drawing):
    def training_data(self):
        class Broken(_Drawn):
            def __getitem__(self, index):
                return self.torn(index) if index == 7 else super().__getitem__(index)

            def torn(self, index):
                raise KeyError("patient 17")

        return DataManager(Broken(), batch_size=4)
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_in_a_worker_is_the_plans(build: Built, workers: int) -> None:
    """The same class at the same line of the plan: a researcher has nothing else to go by."""
    scope: dict[str, Any] = dict(globals())
    exec(compile(PLAN, "<training plan>", "exec"), scope)
    plan = build(scope["_Raising"], epochs=1, loader_args={"num_workers": workers})

    with pytest.raises(KeyError) as caught:
        plan.train()

    assert PLAN.splitlines()[(plan_line(caught.value) or 0) - 1].strip() == 'raise KeyError("patient 17")'


def test_reading_begins_where_nobody_began(build: Built) -> None:
    """Processes go through copies of one generator: it must not have yielded before they are made."""

    def numbers() -> Iterator[int]:
        yield from range(4)

    with closing(read_ahead(numbers(), lambda n: n, 2)) as found:
        assert [item for item, _ in found] == [0, 1, 2, 3]

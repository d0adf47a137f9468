"""Reading ahead inside the sandbox: with our own workers, for PyTorch's need what it denies."""

from __future__ import annotations

import numpy as np
import pytest

from appliance.protocol.errors import Code
from appliance.protocol.local.jobs import Limits
from tests.runners import PLAN, Runner, tensors_of

# Reads each sample on its own, as images are read; every fortieth is torn where TORN is true.
PLAN = PLAN.replace(
    "import torch\n",
    """import torch
import torch.utils.data

TORN = False


class Images(torch.utils.data.Dataset):
    def __init__(self, x, y):
        self.x, self.y = torch.from_numpy(x), torch.from_numpy(y)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        if TORN and index % 40 == 0:
            raise KeyError("patient 17")
        return self.x[index] + 0.01 * torch.randn(1), self.y[index]
""",
    1,
).replace(
    'DataManager(self.dataset.matrix(["x"]), self.dataset.matrix(["y"]), batch_size=10)',
    'DataManager(Images(self.dataset.matrix(["x"]), self.dataset.matrix(["y"])), batch_size=10)',
)


def asking(workers: int) -> dict[str, object]:
    """A job whose samples are read ahead."""
    return {
        "training_args": {"epochs": 2, "loader_args": {"num_workers": workers}},
        "limits": Limits(seconds=30.0, processes=workers),
    }


def test_workers_inside_the_sandbox_change_no_bit(runner: Runner) -> None:
    """What an honest plan gets for its processes is time, and nothing else."""
    alone, read_ahead = (tensors_of(runner.train(PLAN, **asking(workers))) for workers in (0, 2))

    assert all(np.array_equal(alone[name], read_ahead[name]) for name in alone)
    assert np.abs(alone["weight"]).sum() > 0


def test_workers_end_with_their_round(runner: Runner) -> None:
    """Between two rounds there is one process, as without workers."""
    before = len(runner.children())
    runner.train(PLAN, experiment="reads-ahead", **asking(2)).close()

    assert len(runner.children()) == before + 1
    runner.client.stop("reads-ahead")


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_in_a_worker_reads_as_the_plans(runner: Runner, workers: int) -> None:
    """Class and line are all that a researcher has to go by."""
    plan = PLAN.replace("TORN = False", "TORN = True")
    error = runner.failure(plan, **asking(workers))

    assert (error.code, error.message) == (Code.TRAINING_FAILED, "The training plan failed with KeyError.")
    assert plan.splitlines()[(error.plan_line or 0) - 1].strip() == 'raise KeyError("patient 17")'


def test_a_plan_without_leave_makes_no_process(runner: Runner) -> None:
    """The node gives leave, by the argument that its policy can bound; a plan's own word is not enough."""
    error = runner.failure(PLAN, training_args={"loader_args": {"num_workers": 2}})

    assert error.code is Code.TRAINING_FAILED
    assert error.record.splitlines()[-1].startswith("PermissionError")


@pytest.mark.parametrize("strategy", ["file_descriptor", "file_system"])
def test_pytorchs_own_workers_are_denied_in_so_many_words(runner: Runner, strategy: str) -> None:
    """They begin with a semaphore in /dev/shm and go on with sockets or shared files: the code says what to do."""
    loads = f"""
        torch.multiprocessing.set_sharing_strategy({strategy!r})
        list(torch.utils.data.DataLoader([1.0, 2.0], num_workers=2))
"""
    plan = PLAN.replace("        pass\n", loads)
    error = runner.failure(plan, limits=Limits(seconds=30.0, processes=8))

    assert error.code is Code.SANDBOX_DENIED
    assert "DataLoader" in plan.splitlines()[(error.plan_line or 0) - 1]

"""Results that no honest training gives, forged inside the child and judged by a real node's warden.

A plan shares its process with our code and can replace any of it: whatever it returns is its own word.
"""

from __future__ import annotations

import numpy as np
import pytest

from appliance.protocol.errors import Code
from tests.adversarial.hostile import Ward, plan

FORGE = "import numpy as np\njob.write_update = lambda t, r: sealed_memfd('u', {})"
TENSORS = "tensor_bytes({'weight': %s, 'bias': np.zeros(1, np.float32)})"
REFUSED, FAILED = Code.UPDATE_REFUSED, Code.TRAINING_FAILED


def weight(expression: str) -> str:
    """An update with this weight."""
    return FORGE.format(TENSORS % expression)


FORGED: dict[str, tuple[str, Code]] = {
    "not a number": (weight("np.full((1, 2), np.nan, np.float32)"), REFUSED),
    "infinite": (weight("np.array([[0, -np.inf]], np.float32)"), REFUSED),
    "too large a value": (weight("np.full((1, 2), 1.1e6, np.float32)"), REFUSED),
    "another shape": (weight("np.zeros((2, 1), np.float32)"), REFUSED),
    "more values": (weight("np.zeros((1, 2000), np.float32)"), REFUSED),
    "another type": (weight("np.zeros((1, 2), np.float64)"), REFUSED),
    "a tensor less": (FORGE.format("tensor_bytes({'bias': t['bias']})"), REFUSED),
    "a tensor more": (FORGE.format("tensor_bytes({**t, 'rows': np.zeros(1, np.float32)})"), REFUSED),
    "thousands of tensors": (FORGE.format("tensor_bytes({str(n): t['bias'] for n in range(5000)})"), REFUSED),
    "too large a file": (FORGE.format("tensor_bytes(t) + bytes(1 << 20)"), REFUSED),
    "a truncated file": (FORGE.format("tensor_bytes(t)[:-1]"), REFUSED),
    "an empty file": (FORGE.format("b''"), REFUSED),
    "an absurd header": (FORGE.format("(1 << 62).to_bytes(8, 'little') + b'{}'"), REFUSED),
    "a pickle": (FORGE.format("__import__('pickle').dumps(t)"), REFUSED),
    "no update": ("job.write_update = lambda *_: None", FAILED),
    "a pipe": ("job.write_update = lambda *_: os.pipe()[0]", FAILED),
    "a file of its own": ("job.write_update = lambda *_: os.open('x', os.O_CREAT | os.O_RDWR)", FAILED),
    "its dataset": ("job.write_update = lambda *_: os.open(TABLE, os.O_RDONLY)", FAILED),
    "an open memory file": ("job.write_update = lambda *_: create_memfd('u')", FAILED),
    "more samples than there are": (
        ("import appliance.training.plan as p\n"
        "p.TrainOutcome.__init__ = lambda s, *_: object.__setattr__(s, 'sample_count', 10**6)"), REFUSED,
    ),
    "a metric of more samples than there are": (
        "job._tested = lambda stage, _: Metrics(stage=stage, samples=10**6, values={'loss': 1.0})", REFUSED,
    ),
    "two tests of one stage": (
        "job._tested = lambda *_: Metrics(stage='local', samples=1, values={'loss': 1.0})", REFUSED,
    ),
    "a metric that is no number": (
        "job._tested = lambda *_: Metrics.model_construct(stage='local', samples=1, values={'loss': float('nan')})",
        FAILED,
    ),
    "fewer samples than the minimum": (
        ("import appliance.training.plan as p\n"
        "p.TrainOutcome.__init__ = lambda s, *_: object.__setattr__(s, 'sample_count', 19)"), Code.TOO_FEW_SAMPLES,
    ),
}  # fmt: skip
ARGUMENTS = {
    "num_updates": 1, "test_ratio": 0.2, "test_metric": "ACCURACY", "test_on_global_updates": True,
    "test_on_local_updates": True,
}  # fmt: skip


@pytest.mark.parametrize("forgery", FORGED)
def test_the_node_refuses(ward: Ward, forgery: str) -> None:
    """And nothing of it leaves: not the file, and no copy of it."""
    attack, code = FORGED[forgery]
    table = str(ward.hospitals.data("north") / "cells.csv")
    # Before the first test of the round already, for some of these are forged tests.
    early = attack.replace("TABLE", repr(table)).replace("\n", "\n    ")
    methods = f"def init_model(self, model_args):\n    {early}\n    return torch.nn.Linear(2, 1)"
    outcome = ward.run(plan(methods=methods), training_args=ARGUMENTS)

    assert outcome.code is code
    assert not outcome.has_update


def test_an_honest_result_passes(ward: Ward) -> None:
    """The same plan without a forgery, or the tests above would prove nothing."""
    outcome = ward.run(plan(), training_args=ARGUMENTS)

    assert outcome.code is None
    assert set(outcome.tensors) == {"weight", "bias"}


def test_what_was_checked_cannot_be_swapped(ward: Ward) -> None:
    """A thread of the plan writes to the memory file as fast as it can, before, during and after the check."""
    attack = """
import mmap, threading
def forge(trained, received):
    text = tensor_bytes({name: array * 0 + 1 for name, array in trained.items()})
    fd = create_memfd("update")
    os.write(fd, text)
    again = os.dup(fd)
    try:
        window = mmap.mmap(fd, 0)
        seal_memfd(fd)
        print("SEALED WITH A WINDOW OPEN")
    except OSError:
        del window
        seal_memfd(fd)
    def scribble():
        while True:
            for change in (lambda: os.pwrite(again, b"\\xff" * 8, len(text) - 8), lambda: os.ftruncate(again, 0)):
                try: change(); print("CHANGED")
                except OSError: pass
    threading.Thread(target=scribble, daemon=True).start()
    return fd
job.write_update = forge
"""
    outcome = ward.run(plan(attack))
    tensors = outcome.tensors

    assert "CHANGED" not in outcome.record
    assert "WINDOW" not in outcome.record
    assert all(np.array_equal(array, np.ones_like(array)) for array in tensors.values())

"""Free-form plans, whose tensors mean what their text says: they return records, or what is no statistic at all.

What a plan of this kind may return is what its researcher asked for: these names, shapes and types, and finite numbers.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from appliance.protocol.errors import Code
from tests.adversarial.hostile import RECORD, SPELT, Ward

PLAN = f"""
import numpy as np
import appliance.runner.job as job
from appliance.protocol.local.sealed import sealed_memfd
from appliance.protocol.tensors import tensor_bytes
from appliance.training import DataManager, TensorTrainingPlan
RECORD = {SPELT}
LETTERS = [float(ord(sign)) for sign in RECORD]
class Plan(TensorTrainingPlan):
    def init_model(self, model_args):
        return {{"weight": np.zeros((1, 2), np.float32), "bias": np.zeros(1, np.float32)}}
    def training_data(self):
        return DataManager(self.dataset.matrix(["f0", "f1"]))
    def compute(self, tensors, data, target):
        self.rows = data
        return COMPUTED
    METHOD
"""
MEANS = "{'weight': data.mean(axis=0, keepdims=True), 'bias': np.ones(1)}"
REFUSED, FAILED, INVALID = Code.UPDATE_REFUSED, Code.TRAINING_FAILED, Code.PLAN_INVALID
LIMIT = Code.RUNNER_LIMIT

# What ``compute`` returns, and the code that the researcher gets.
COMPUTED: dict[str, tuple[str, Code]] = {
    "the records in place of their mean": ("{**tensors, 'weight': data}", FAILED),
    "the records beside the mean": ("{**tensors, 'rows': data}", FAILED),
    "a tensor less": ("{'bias': tensors['bias']}", FAILED),
    "a name that is a record": ("{RECORD: tensors['weight'], 'bias': tensors['bias']}", FAILED),
    "a huge shape": ("{**tensors, 'weight': np.zeros((1 << 14, 1 << 10), np.float32)}", FAILED),
    "a huge shape without memory": ("{**tensors, 'weight': np.broadcast_to(0.0, (1 << 20, 1 << 20))}", LIMIT),
    "no numbers": ("{**tensors, 'weight': np.full((1, 2), np.nan)}", REFUSED),
    "an infinite number": ("{**tensors, 'bias': np.array([np.inf])}", REFUSED),
    "too large a number": ("{**tensors, 'bias': np.array([1.1e6])}", REFUSED),
    "a float that ends as no number": ("{**tensors, 'bias': np.array([1e300])}", REFUSED),
    "objects": ("{**tensors, 'bias': np.array([{'name': RECORD}], object)}", INVALID),
    "text": ("{**tensors, 'bias': np.array([RECORD])}", INVALID),
    "bytes": ("{**tensors, 'bias': np.array([RECORD.encode()])}", INVALID),
    "records with fields": ("{**tensors, 'bias': np.zeros(1, [('name', 'U20'), ('x', 'f8')])}", INVALID),
    "complex numbers": ("{**tensors, 'bias': np.array([1 + 1961j])}", INVALID),
    "an array of its own kind": (
        "{**tensors, 'bias': type('Odd', (), {'__array__': lambda self, *a, **k: np.array([RECORD])})()}", INVALID,
    ),
    "nothing": ("None", FAILED),
}  # fmt: skip
# A method in place of our engine's, so that only the node itself is left to refuse.
PAST: dict[str, str] = {
    "the records beside the mean": "{**super().get_returned_parameters(), 'rows': self.rows.astype(np.float32)}",
    "the records in place of their mean": "{**super().get_returned_parameters(), 'weight': self.rows}",
    "letters": "{**super().get_returned_parameters(), 'bias': np.array(LETTERS, np.float32)}",
    "no numbers": "{**super().get_returned_parameters(), 'weight': np.full((1, 2), np.nan, np.float32)}",
    "whole numbers, which go as they are": "{**super().get_returned_parameters(), 'bias': np.array([19610203])}",
    "a tensor less": "{'bias': super().get_returned_parameters()['bias']}",
    "the records beside the mean, past our file's writer": (
        "setattr(job, 'write_update', lambda t, _: sealed_memfd('u', tensor_bytes({**t, 'rows': self.rows})))"
        " or super().get_returned_parameters()"
    ),
}


def _plan(computed: str = MEANS, method: str = "pass") -> str:
    return PLAN.replace("COMPUTED", computed).replace("METHOD", method)


@pytest.mark.parametrize("attack", COMPUTED)
def test_what_compute_may_not_return_does_not_leave(ward: Ward, attack: str) -> None:
    """Neither as a tensor nor in the words of the refusal."""
    computed, code = COMPUTED[attack]
    outcome = ward.run(_plan(computed), training_args={})

    assert outcome.code is code
    assert not outcome.has_update
    assert RECORD not in json.dumps(outcome.told)


@pytest.mark.parametrize("attack", PAST)
def test_what_goes_past_the_engine_is_refused_by_the_node(ward: Ward, attack: str) -> None:
    """A plan shares its process with the engine, and can replace any of it."""
    method = f"def get_returned_parameters(self):\n        return {PAST[attack]}"
    outcome = ward.run(_plan(method=method), training_args={})

    assert outcome.code in (REFUSED, FAILED, Code.PARAMETERS_INVALID)
    assert not outcome.has_update


def test_what_it_keeps_for_itself_stays(ward: Ward) -> None:
    """It may remember its records: they lie where they lay before."""
    outcome = ward.run(_plan(f"setattr(self, 'local', {{'rows': data}}) or {MEANS}"), training_args={})

    assert outcome.code is None
    assert {name: array.shape for name, array in outcome.tensors.items()} == {"weight": (1, 2), "bias": (1,)}


def test_an_honest_statistic_passes(ward: Ward) -> None:
    """The same plan without an attack, or the tests above would prove nothing."""
    outcome = ward.run(_plan(), training_args={})

    assert outcome.code is None
    assert np.isfinite(outcome.tensors["weight"]).all()
    assert outcome.tensors["weight"].any()

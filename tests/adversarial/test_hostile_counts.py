"""Counts that no honest test gives, forged inside the child and judged by a real node's warden."""

from __future__ import annotations

import json

import pytest

from appliance.protocol.errors import Code
from appliance.protocol.messages import TrainReply
from tests.adversarial.hostile import RECORD, Ward, plan

FORGE = """
from appliance.protocol.counts import Counts, CountsForm
SECRET = [float(ord(sign)) for sign in RECORD]
job._tested = lambda stage, _: Metrics.model_construct(stage=stage, samples=140, values={}, counts={%s})
"""
RAW = "Counts.model_construct(form=CountsForm.%s, rows=%s, cells=tuple(%s))"
FORGED = {
    "letters in a histogram": ("'AUC': " + RAW % ("SCORES", 2, "SECRET + [0.0] * (128 - len(SECRET))")),
    "a longer histogram": ("'AUC': " + RAW % ("SCORES", 2, "[140.0] + [0.0] * 4000 + [140.0]")),
    "histograms under many names": (
        "**{name: " + RAW % ("SCORES", 8, "([0.0] * 63 + [140.0]) * 8") + " for name in ('AUC', 'AVERAGE_PRECISION')}"
    ),
    "more found than there are": ("'F1_SCORE': " + RAW % ("CLASSES", 1, "[1961.0, 2.0, 3.0]")),
    "a histogram of a metric of its own": ("'malign': " + RAW % ("SCORES", 2, "[140.0] + [0.0] * 126 + [0.0]")),
    "a name that is made up": ("RECORD: " + RAW % ("RATIO", 1, "[1.0, 2.0]")),
    "no numbers": ("'R2': " + RAW % ("MOMENTS", 1, "[float('nan')] * 4")),
    "text": ("'R2': " + RAW % ("MOMENTS", 1, "[RECORD] * 4")),
}
ARGUMENTS = {"num_updates": 1, "test_ratio": 0.5, "test_metric": "AUC", "test_on_global_updates": True}


@pytest.mark.parametrize("forgery", FORGED)
def test_the_node_refuses(ward: Ward, forgery: str) -> None:
    """And nothing of it leaves: no update, and not a word of the record."""
    attack = (FORGE % FORGED[forgery]).replace("\n", "\n    ")
    methods = f"def init_model(self, model_args):\n    {attack}\n    return torch.nn.Linear(2, 1)"
    outcome = ward.run(plan(methods=methods), training_args=ARGUMENTS)

    assert outcome.code in (Code.UPDATE_REFUSED, Code.TRAINING_FAILED)
    assert not outcome.has_update
    assert RECORD not in json.dumps(outcome.told)


def test_honest_counts_pass_and_the_record_says_how_many_numbers_left(ward: Ward) -> None:
    """Or the tests above would prove nothing; and staff must see that more left than one value."""
    outcome = ward.run(plan(), training_args=ARGUMENTS)

    assert isinstance(outcome.reply, TrainReply)
    (test,) = outcome.reply.metrics
    numbers = len(test.values) + sum(len(counts.cells) for counts in test.counts.values())
    assert numbers == 129
    assert {line["numbers"] for line in outcome.left if line["kind"] in ("enclosed", "train-reply")} == {numbers}

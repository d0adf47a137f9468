"""Training arguments."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.protocol.errors import Code
from appliance.training import ArgumentInvalidError, TrainingArguments


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"epoch": 3}, "'epoch' is not known.*Did you mean 'epochs'"),
        ({"epochs": 0}, "'epochs' is 0; allowed: a whole number from 1"),
        ({"epochs": True}, "'epochs' is True"),
        ({"num_updates": "20"}, "'num_updates' is '20'"),
        ({"test_ratio": 1.5}, "'test_ratio' is 1.5; allowed: a number from 0 to 1"),
        ({"fedprox_mu": float("nan")}, "'fedprox_mu' is nan"),
        ({"fedprox_mu": -1}, "'fedprox_mu' is -1"),
        ({"test_metric": "F2"}, "'test_metric' is 'F2'; allowed: one of ACCURACY"),
        ({"loader_args": {"batchsize": 3}}, "'loader_args.batchsize' is not known.*Did you mean 'batch_size'"),
        ({"loader_args": {"batch_size": 0}}, "'loader_args.batch_size' is 0; allowed: a whole number from 1"),
        ({"loader_args": 3}, "'loader_args' is 3; allowed: a mapping"),
        ({"batch_size": 8, "loader_args": {"batch_size": 9}}, "'batch_size' is 8, and 9 in loader_args"),
        ({"random_seed": 2**63}, "'random_seed'"),
        ({"folds": 1, "fold": 0}, "'folds' is 1; allowed: a whole number from 2 to 100"),
        ({"folds": 5}, "'folds' and 'fold' go together"),
        ({"folds": 5, "fold": 5}, "'fold' is 5; the last of 5 folds is 4"),
        ({"folds": 5, "fold": 0, "test_ratio": 0.2}, "'test_ratio' does not go with 'folds'"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(arguments: dict[str, Any], reason: str) -> None:
    """A researcher mends it without reading the source."""
    with pytest.raises(ArgumentInvalidError, match=reason) as caught:
        TrainingArguments.parse(arguments)

    assert caught.value.code is Code.ARGUMENT_INVALID


@pytest.mark.parametrize(
    ("name", "metric"), [("MEAN_SQUARE_ERROR", "MSE"), ("roc_auc", "AUC"), ("F1_SCORE", "F1_SCORE")]
)
def test_metrics_answer_to_the_names_that_users_know(name: str, metric: str) -> None:
    """Fed-BioMed's notebooks move with few edits."""
    assert TrainingArguments.parse({"test_metric": name}).test_metric == metric


def test_arguments_survive_the_way_through_json() -> None:
    """They travel in a signed message."""
    arguments = TrainingArguments.parse({"epochs": 2, "test_metric": "AUC", "loader_args": {"batch_size": 4}})

    assert TrainingArguments.parse(json.loads(json.dumps(arguments.as_dict()))) == arguments


def test_the_batch_size_of_the_arguments_wins() -> None:
    """A hospital's override must reach the loop."""
    assert TrainingArguments.parse({"batch_size": 4}).batch_size_or(9) == 4
    assert TrainingArguments.parse({"loader_args": {"batch_size": 5}}).batch_size_or(9) == 5
    assert TrainingArguments.parse({}).batch_size_or(9) == 9


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"treshold": 0.5}, ("F1_SCORE", "'treshold'", "threshold, average")),
        ({"threshold": "high"}, ("test_metric_args.threshold", "a number")),
        ({"bins": 5}, ("F1_SCORE", "'bins'")),
    ],
)
def test_a_metrics_argument_is_judged_where_it_is_typed(given: dict, words: tuple[str, ...]) -> None:
    """Not at the first hospital's first test, an hour later."""
    with pytest.raises(ArgumentInvalidError) as refusal:
        TrainingArguments.parse({"test_metric": "F1_SCORE", "test_metric_args": given})

    assert all(word in str(refusal.value) for word in words)

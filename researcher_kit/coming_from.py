"""Names of Fed-BioMed's that have no equal of the same name here, each with what to do instead.

Names that mean the same here simply work; ``docs/researcher/coming-from-fed-biomed.md`` has them all, each under test.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from researcher_kit.errors import ExperimentArgumentError

# Arguments of Experiment under another name.
OTHER_NAMES = {
    "node_selection_strategy": "strategy",
    "training_plan_path": "training_plan_file",
    "training_data": "datasets",
}
_ANALYTICS = (
    "Write a TensorTrainingPlan, which returns means over samples. Statistics by one call come with a later release."
)
_OPTIMIZER = (
    "Optimize on the researcher's side by the aggregator: FedAdam(), FedYogi(), "
    "FedAdagrad(), or ServerOptimizer(optimizer) with one of declearn's."
)
_PREPROCESS = (
    "Override preprocess(data, target), or init_standardisation() for means and deviations over all hospitals."
)
_SECAGG = "Leave it out: this release has no secure aggregation yet, and updates are sealed to you alone."
_WATCH = "Hear of every step with experiment.on_event(function)."
# Arguments of Experiment: leaving them out, or False or None, is right.
ARGUMENTS = {"agg_optimizer": _OPTIMIZER, "secagg": _SECAGG}
# Attributes of an experiment.
METHODS = {
    "agg_optimizer": _OPTIMIZER,
    "set_agg_optimizer": _OPTIMIZER,
    "secagg": _SECAGG,
    "set_secagg": _SECAGG,
    "use_secagg": _SECAGG,
    "set_preprocessing": _PREPROCESS,
    "analytics": _ANALYTICS,
    "aggregated_params": "Call parameters(); with save_breakpoints=True each round's are in its breakpoint.",
    "filtered_federation_nodes": "Call training_data(): the nodes that train, each with its dataset.",
    "set_retain_full_history": "Leave it out: the history has every round, and save_breakpoints keeps the parameters.",
    "training_plan_class": "Call training_plan() for the plan with the global parameters, or training_plan_text().",
    "training_plan_path": "Call training_plan_text() for the text that the hospitals approve.",
    "training_plan_file": "Call training_plan_text() for the text that the hospitals approve.",
    "job": "There is none: a round is in the history, history[0].",
    "monitor": _WATCH,
    "set_monitor": _WATCH,
}
TRAINING_ARGUMENTS = {
    "dp_args": "Leave it out: this release has no differential privacy yet.",
    "shuffle_testing_dataset": "Leave it out: a test is a mean over all held-out samples, in whatever order.",
}
# What a plan asks of itself.
PLAN = {
    "add_preprocess": _PREPROCESS,
    "tag_parameters": "Name the tensors that stay at each hospital in a method local_parameters(self).",
    "node_id": "Leave it out: a plan does not learn at which hospital it runs.",
}


def under_our_names(arguments: Mapping[str, object]) -> dict[str, Any]:
    """Arguments of an Experiment of Fed-BioMed's as those of ours; those of neither stay.

    Raises:
        ExperimentArgumentError: One asks for what is not here; says what to do instead.
    """
    known = {*OTHER_NAMES, *ARGUMENTS}
    ours = {name: value for name, value in arguments.items() if value is not None or name not in known}
    ours.pop("retain_full_history", None)  # always: the history has every round
    for name, remedy in ARGUMENTS.items():
        if ours.pop(name, None):
            raise ExperimentArgumentError(f"'{name}' is not an argument of Experiment here.", remedy=remedy)
    return {OTHER_NAMES.get(name, name): value for name, value in ours.items()}


def require_training_arguments(arguments: Mapping[str, object]) -> None:
    """Raise ExperimentArgumentError for a training argument of Fed-BioMed's that has no equal."""
    for name, remedy in TRAINING_ARGUMENTS.items():
        if name in arguments:
            raise ExperimentArgumentError(f"'{name}' is not a training argument here.", remedy=remedy)


def require_plan(text: str) -> None:
    """Raise ExperimentArgumentError where a plan asks of itself what is not here, before hospitals read it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self" and node.attr in PLAN:
            if _is_own(text, node.attr):
                continue
            raise ExperimentArgumentError(
                f"Line {node.lineno} of the plan: a plan has no '{node.attr}' here.", remedy=PLAN[node.attr]
            )


def _is_own(text: str, name: str) -> bool:
    """Whether the plan itself defines it, as a method or by an assignment to ``self``."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return True
        if isinstance(node, ast.Attribute) and node.attr == name and isinstance(node.ctx, ast.Store):
            return True
    return False

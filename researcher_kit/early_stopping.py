"""When a model does not get better any more: stop, and keep the best one."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict

from researcher_kit.aggregators.base import require_number
from researcher_kit.errors import ExperimentArgumentError
from researcher_kit.history import History

LOWER_IS_BETTER = frozenset({"loss", "MSE", "RMSE", "MAE", "BRIER", "CALIBRATION_ERROR", "HAUSDORFF"})


class BestRound(BaseModel):
    """The best parameters so far.

    Attributes:
        round: After which round they were the global ones; 0: those that the model started with.
        value: The metric; see ``over``.
        over: What it is over: the held-out records of all nodes together (``pooled``), as far as counts allow; else
            the nodes, each weighted by the records that it was tested on (``mean``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    round: int
    metric: str
    value: float
    over: Literal["pooled", "mean"] = "mean"

    def __str__(self) -> str:
        return f"{self.metric}={self.value:.4g} ({self.over}), after round {self.round}"


class EarlyStopping:
    """Ends an experiment when a test's metric has not become better for some rounds.

    The metric is of the global parameters, so ``test_on_global_updates`` must be set. It is the pooled one, over all
    nodes' held-out records together, where all nodes of the first test told their counts; else the mean over the nodes.
    The one is never compared with the other: a later round in which a node withholds its counts is passed over. These
    parameters are the ones that a round begins with: what round 8 says is of the model after round 7.

    Args:
        metric: Its name, as ``history`` shows it, such as ``"AUC"``.
        patience: How many rounds in a row may pass without a better value, from 1.
        minimum_change: How much better it must be to count, from 0.
        mode: ``"max"`` when more is better, ``"min"`` when less is; None: by the metric's name.

    Raises:
        ExperimentArgumentError: One of them is out of its range.

    Example:
        >>> EarlyStopping("MSE", patience=3)
        EarlyStopping('MSE', patience=3, minimum_change=0, mode='min')
    """

    def __init__(
        self,
        metric: str,
        patience: int = 5,
        minimum_change: float = 0.0,
        mode: Literal["max", "min"] | None = None,
    ) -> None:
        if type(patience) is not int or patience < 1:
            raise ExperimentArgumentError(f"patience is {patience!r}; expected a whole number from 1.")
        if mode not in (None, "max", "min"):
            raise ExperimentArgumentError(f"mode is {mode!r}; expected 'max' or 'min'.")
        self.metric, self.patience = metric, patience
        self.minimum_change = require_number("minimum_change", minimum_change, above=0, or_equal=True)
        self.mode: Literal["max", "min"] = mode or ("min" if metric in LOWER_IS_BETTER else "max")

    def __repr__(self) -> str:
        return (
            f"EarlyStopping({self.metric!r}, patience={self.patience}, minimum_change={self.minimum_change:g}, "
            f"mode={self.mode!r})"
        )

    def best(self, history: History) -> BestRound | None:
        """The best parameters that were tested, or None when none were."""
        over, values = self._tested(history)
        best = None
        for round_, value in values.items():
            if best is None or self._is_better(value, best.value):
                best = BestRound(round=round_, metric=self.metric, value=value, over=over)
        return best

    def is_over(self, history: History) -> bool:
        """Whether the last ``patience`` tests brought nothing better."""
        best = self.best(history)
        if best is None:
            return False
        return sum(round_ > best.round for round_ in self._tested(history)[1]) >= self.patience

    def _tested(self, history: History) -> tuple[Literal["pooled", "mean"], dict[int, float]]:
        """What the metric is over, and its value after each round that a test told of."""
        means: dict[int, float] = {}
        pooled: dict[int, float] = {}
        for record in history:
            told = sum(self.metric in values for values in record.metrics().values())
            whole, mean = record.pooled().get(self.metric), record.mean_metrics().get(self.metric)
            if mean is not None:
                means[record.round - 1] = mean
            if whole is not None and whole.nodes >= told:
                pooled[record.round - 1] = whole.value
        # By the first alone: what is best now must not change by what a later round lacks.
        is_pooled = bool(pooled) and min(pooled) <= min(means, default=min(pooled))
        return ("pooled", pooled) if is_pooled else ("mean", means)

    def _is_better(self, value: float, best: float) -> bool:
        gain = value - best if self.mode == "max" else best - value
        return math.isfinite(value) and gain > self.minimum_change

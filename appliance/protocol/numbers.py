"""What the numbers of a test must be to leave a hospital, by the same rule at a real node and a local one.

A name that is made up while the plan runs could be a patient's, and so could the many digits of a number.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from appliance.protocol.errors import UpdateRefusedError

# What appliance.training calls the values that it computes itself.
ENGINE_NAMES = frozenset(
    {
        "loss", "custom", "ACCURACY", "BALANCED_ACCURACY", "F1_SCORE", "PRECISION", "RECALL", "SPECIFICITY", "AUC",
        "AVERAGE_PRECISION", "BRIER", "CALIBRATION_ERROR", "MSE", "RMSE", "MAE", "R2", "EXPLAINED_VARIANCE", "DICE",
        "IOU", "HAUSDORFF", "C_INDEX",
    }
)  # fmt: skip
MAX_VALUES = 16  # of one test
SIGNIFICANT_DIGITS = 6


def bounded(values: Mapping[str, float], plan: str) -> dict[str, float]:
    """Values as they may leave: few, named by our engine or by a word of the plan's approved text, and rounded.

    Raises:
        UpdateRefusedError: There are too many, or some name is neither; it is not repeated.
    """
    require_names(values, plan)
    return {name: rounded(value) for name, value in values.items()}


def require_names(names: Collection[str], plan: str) -> None:
    """Raise UpdateRefusedError as ``bounded`` does, for names alone."""
    if len(names) > MAX_VALUES:
        raise UpdateRefusedError(f"A test returned {len(names)} numbers; at most {MAX_VALUES} may leave a hospital.")
    if strange_name(names, plan) is not None:
        raise UpdateRefusedError("A metric has a name that is no word of the plan's text.")


def strange_name(names: Collection[str], plan: str) -> str | None:
    """The first name that is neither our engine's nor a word of the plan's text; for those who have the data."""
    return next((name for name in names if name not in ENGINE_NAMES and not _is_word(name, plan)), None)


def rounded(value: float) -> float:
    """A number with as many digits as anybody compares."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def _is_word(name: str, plan: str) -> bool:
    """Whether a name stands in a text by itself: pieces of a text spell anything."""
    return re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])", plan) is not None

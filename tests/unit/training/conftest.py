"""A small dataset, and plans built on it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from appliance.data import ColumnPlan, Dataset
from appliance.training import TrainingArguments


@pytest.fixture
def make_dataset() -> Callable[..., Dataset]:
    """Rows whose label follows from x and z."""

    def make(n: int = 40, groups: np.ndarray | None = None) -> Dataset:
        x, z = np.random.default_rng(7).normal(size=(2, n))
        values = {"x": x, "z": z, "y": (x + 0.3 * z > 0).astype(np.float64)}
        return Dataset({name: ColumnPlan(source=name) for name in values}, values, np.arange(2, n + 2), groups)

    return make


@pytest.fixture
def north(make_dataset: Callable[..., Dataset]) -> Dataset:
    """North's dataset: 40 rows."""
    return make_dataset()


@pytest.fixture
def build(north: Dataset) -> Callable[..., Any]:
    """A plan, built and with north's dataset attached."""

    def make(plan: type, model_args: dict[str, Any] | None = None, *, seed: int = 1, **arguments: Any) -> Any:
        made = plan()
        made.build(model_args or {}, TrainingArguments.parse(arguments), seed=seed)
        made.attach(north)
        return made

    return make

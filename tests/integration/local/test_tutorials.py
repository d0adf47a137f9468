"""The tutorials of the researcher kit, each run from its first cell to its last, as a reader would.

They run on simulated nodes: the real runner, sandbox and engine, in this process's own federation.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from researcher_kit.notebooks import TUTORIALS
from tests.notebooks import run_notebook

mpl.use("Agg")


def last_round_is_better(names: dict[str, Any]) -> bool:
    """The first experiment learns something."""
    metrics = [record.mean_metrics()["AUC"] for record in names["experiment"].history]
    return bool(metrics[-1] > 0.95 > metrics[0] and (names["folder"] / "model.safetensors").exists())


# What each must have come to: a tutorial that runs and shows the opposite of what it says would teach it.
CLAIMS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "01-first-experiment": last_round_is_better,
    "02-your-own-data": lambda names: "no column 'sistolic'" in names["traceback"],
    "03-approval": lambda names: names["experiment"].round_current() == 2,
    "04-scikit-learn": lambda names: bool(np.abs(names["pooled"].coef_ - names["federated"].coef_).max() < 1e-4),
    "05-scaffold-on-skewed-sites": lambda names: (
        names["curves"]["SCAFFOLD"][3] > names["curves"]["FedAverage"][3] + 0.02
    ),
    "06-segmentation": lambda names: names["kept"][-1] > names["shared"][-1],
    "07-breakpoints": lambda names: all(names["is_same"].values()) and names["fork"].round_current() == 4,
    "08-coming-from-fed-biomed": lambda names: names["exp"].round_current() > 3,
}


ON_HOSPITALS = {"09-unattended-run"}  # which tests/integration/test_unattended.py runs
ALL = sorted(TUTORIALS.glob("*.ipynb"))


def test_every_tutorial_is_run_somewhere() -> None:
    """One that nobody runs breaks unseen."""
    assert {tutorial.stem for tutorial in ALL} == CLAIMS.keys() | ON_HOSPITALS


@pytest.mark.parametrize("tutorial", [file for file in ALL if file.stem in CLAIMS], ids=lambda file: file.stem)
def test_a_tutorial_runs_and_shows_what_it_says(
    tutorial: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A researcher's first hour is spent with these."""
    monkeypatch.chdir(tmp_path)
    assert CLAIMS[tutorial.stem](run_notebook(tutorial))


@pytest.mark.parametrize("tutorial", ALL, ids=lambda file: file.stem)
def test_a_tutorial_explains_before_it_does(tutorial: Path) -> None:
    """It begins with a title and words, and was saved without somebody's outputs."""
    cells = json.loads(tutorial.read_text())["cells"]
    assert cells[0]["cell_type"] == "markdown"
    assert cells[0]["source"][0].startswith("# ")
    assert sum(cell["cell_type"] == "markdown" for cell in cells) >= 3
    assert all(cell["cell_type"] == "markdown" or not cell["outputs"] for cell in cells)

"""A notebook for Fed-BioMed, run on real hospitals with nothing changed but its import lines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from appliance.protocol.messages import PlanState
from researcher_kit.federation import HOME_VARIABLE
from tests.hospitals import NODES, Hospitals
from tests.notebooks import cells, run_notebook
from tests.unit.researcher_kit.test_coming_from import OF_IMPORTS

NOTEBOOK = Path(__file__).with_name("a_fed_biomed_notebook.ipynb")
LINES = {row.there: row.code for row in OF_IMPORTS}


def with_our_imports(text: str) -> str:
    """The cell with each import of Fed-BioMed's as the page for those who come from there says."""

    def ours(found: re.Match[str]) -> str:
        return "\n".join(str(LINES[name.strip()]) for name in found[1].split(","))

    return re.sub(r"^from fedbiomed\.\S+ import (.+)$", ours, text, flags=re.MULTILINE)


def test_a_notebook_of_fed_biomeds_runs_after_changing_its_import_lines(
    hospitals: Hospitals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plan, arguments, approval, rounds, setters between them, replies, breakpoint: what its users write."""
    monkeypatch.setenv(HOME_VARIABLE, str(hospitals.home("alice")))

    def staff_approve(_number: int, names: dict[str, Any]) -> None:
        if "exp" in names and not names["exp"].round_current():
            for node in NODES:
                hospitals.staff(node).call("plan.approve", plan=names["exp"].plan_status().answers[node].sha256)

    names = run_notebook(NOTEBOOK, change=with_our_imports, between=staff_approve)

    assert names["exp"].round_current() == 4
    assert names["loaded"].id == names["exp"].id
    assert names["loaded"].round_current() == 5
    assert names["exp"].plan_status().answers["north"].state is PlanState.APPROVED
    accuracy = names["exp"].history[2].mean_metrics("local")["ACCURACY"]
    assert accuracy > 0.85
    for part in ("exp", "loaded", "requests"):
        names[part].close()


def test_only_its_import_lines_were_changed() -> None:
    """Else the promise would be about another notebook."""
    for text in cells(NOTEBOOK):
        pairs = zip(text.splitlines(), with_our_imports(text).splitlines(), strict=True)
        assert all("fedbiomed" in there for there, here in pairs if there != here)

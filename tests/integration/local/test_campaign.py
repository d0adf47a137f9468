"""A campaign on local nodes: every part of it real but the wire."""

from __future__ import annotations

from pathlib import Path

from researcher_kit import LocalDataset, LocalFederation, cross_validate
from tests.runners import PLAN

TESTED = """
    def testing_step(self, data, target):
        return {"tested": float(len(data))}
"""


def test_every_patient_is_tested_once(tmp_path: Path) -> None:
    """Cross-validation as a paper reports it: by patients, in each hospital, and nobody twice."""
    file, plan = tmp_path / "visits.csv", tmp_path / "plan.py"
    rows = [f"p{row // 3},{(row % 17) / 10},{int(row % 17 > 8)}" for row in range(90)]
    file.write_text("patient,x,y\n" + "\n".join(rows) + "\n")
    plan.write_text(PLAN + TESTED)
    data = LocalDataset(file, {"patient_id": "patient", "columns": {"x": {}, "y": {}}})

    with LocalFederation(data) as federation:
        campaign = cross_validate(
            4, folder=tmp_path / "cv", tags=["any"], training_plan_file=plan, round_limit=1, federation=federation,
            training_args={"num_updates": 2, "random_seed": 3}, progress=False,
        )  # fmt: skip
        campaign.run()

    tested = [campaign.result(run).metrics["tested"] for run in campaign.runs]
    assert sum(tested) == 90
    assert all(count % 3 == 0 for count in tested)

"""What the demo trains: the hospitals' files, the plan, and how."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from appliance.data import Dataset, LoadingPlan, open_dataset

FOLDER = Path(__file__).parent
LOADING_PLAN = FOLDER / "loading_plan.toml"
PLAN = FOLDER / "plan.py"
PLAN_CLASS = "BleedingPlan"
# Harlem Hospital, Hennepin County, and the Universities of Kentucky and Mississippi.
HOSPITALS = {
    "harlem": FOLDER / "opt" / "harlem_hospital.csv",
    "hennepin": FOLDER / "opt" / "hennepin_county.csv",
    "kentucky": FOLDER / "opt" / "university_of_kentucky.csv",
    "mississippi": FOLDER / "opt" / "university_of_mississippi.csv",
}

ROUNDS = 20
SEEDS = (0, 1, 2, 3, 4)
TEST_RATIO = 0.25
MODEL_ARGS: dict[str, Any] = {}

# What the researcher changes in the plan's next version, as text before and text after: a stricter outcome, one input
# less, and a line that the reviewers get a hint on.
CHANGES = (
    (" will bleed at half of all sites or more at visit 5,", " will bleed at 60 % of all sites or more at visit 5,"),
    ("BLEEDS_FROM = 50.0", "BLEEDS_FROM = 60.0"),
    ('    "pregnancies": (2.0, 2.0),  # before this one\n', ""),
    (
        " >= BLEEDS_FROM\n",
        ' >= BLEEDS_FROM\n        print(f"{len(bleeds)} women, of whom {int(bleeds.sum())} bleed")\n',
    ),
)


def training_args(seed: int) -> dict[str, Any]:
    """The training arguments of one run; the seed decides which patients are held out as well."""
    return {
        "num_updates": 20,
        "batch_size": 32,
        "optimizer_args": {"lr": 0.05, "weight_decay": 0.01},
        "test_ratio": TEST_RATIO,
        "test_metric": "AUC",
        "test_on_global_updates": True,
        "log_interval": 5,
        "random_seed": seed,
    }


def next_version() -> str:
    """The plan's text as the researcher asks for it next, when nobody of a hospital has read it yet."""
    text = PLAN.read_text("utf-8")
    for before, after in CHANGES:
        text = text.replace(before, after)
    return text


def hospital_datasets() -> dict[str, Dataset]:
    """Every hospital's dataset, as its node would read it."""
    plan = LoadingPlan.read(LOADING_PLAN)
    return {name: open_dataset(path, plan) for name, path in HOSPITALS.items()}

"""A researcher who waits at an event, and runs again what failed: ``full_researcher.py HOME FOLDER EVENT``."""

from __future__ import annotations

import sys
from pathlib import Path

from appliance.protocol.errors import FedWardError
from researcher_kit import Experiment, Federation
from researcher_kit.monitor import Event

PLAN = Path(__file__).parents[1] / "rounds/plan.py"
_met: list[Event] = []


def _wait(event: Event) -> None:
    if type(event).__name__ == sys.argv[3] and not _met:
        _met.append(event)
        print("met", flush=True)
        sys.stdin.readline()


with Federation(sys.argv[1]) as federation:
    experiment = Experiment(
        tags=["cells"],
        training_plan_file=PLAN,
        model_args={"width": 2000},
        training_args={"num_updates": 2, "batch_size": 16, "optimizer_args": {"lr": 0.01}, "random_seed": 1},
        round_limit=2,
        experimentation_folder=Path(sys.argv[2]),
        federation=federation,
        progress=False,
    )
    experiment.on_event(_wait)
    while experiment.round_current() < 2:
        try:
            experiment.run()
        except FedWardError as error:
            print(f"{error.code} {error.explain()}".replace("\n", " "), flush=True)
            sys.stdin.readline()
    print("done", flush=True)

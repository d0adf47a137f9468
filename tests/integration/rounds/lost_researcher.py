"""A researcher who is gone by SIGKILL at the first event of a kind: ``lost_researcher.py HOME FOLDER EVENT``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from researcher_kit import Experiment, Federation
from researcher_kit.monitor import Event


def _die(event: Event) -> None:
    if type(event).__name__ == sys.argv[3]:
        os.kill(os.getpid(), signal.SIGKILL)


experiment = Experiment(
    tags=["cells"],
    training_plan_file=Path(__file__).with_name("plan.py"),
    model_args={"width": 2000, "pause_s": 0.2},
    training_args={"num_updates": 3, "batch_size": 16, "optimizer_args": {"lr": 0.01}, "random_seed": 1},
    round_limit=2,
    experimentation_folder=Path(sys.argv[2]),
    federation=Federation(sys.argv[1]),
    progress=False,
)
experiment.on_event(_die)
experiment.run()

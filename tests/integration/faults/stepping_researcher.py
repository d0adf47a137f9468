"""A researcher that says each finished step: ``stepping_researcher.py HOME FOLDER STAGE SETTINGS [MARK]``.

SETTINGS are the experiment's arguments as JSON, used when FOLDER has no breakpoint. Each line of the standard input is
a round to reach; each line of the output says how that went, as JSON. With a MARK, it is of the next minor version; see
``newer.py``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from appliance.protocol.errors import FedWardError
from researcher_kit import Experiment, Federation
from researcher_kit.monitor import Event, StepFinished
from tests.integration.faults.newer import speak_newer
from tests.integration.faults.stage import announcer

HOME, FOLDER, STAGE, SETTINGS, *MARK = sys.argv[1:]
announce = announcer(STAGE)
if MARK:
    speak_newer(*MARK)


def _on_event(event: Event) -> None:
    announce(event.step if isinstance(event, StepFinished) else type(event).__name__)


def _open(federation: Federation) -> Experiment:
    if [*Path(FOLDER).glob("breakpoint_*/breakpoint.json")]:
        return Experiment.load_breakpoint(FOLDER, federation=federation, progress=False)
    settings = json.loads(SETTINGS)
    return Experiment(**settings, experimentation_folder=FOLDER, federation=federation, progress=False)


def _reach(ours: Experiment, round_: int) -> dict[str, object]:
    try:
        while ours.round_current() < round_:
            ours.run_once()
    except FedWardError as error:
        return {"round": ours.round_current(), "code": error.code, "message": error.message}
    return {"round": ours.round_current()}


answers, sys.stdout = sys.stdout, sys.stderr  # the log goes to the standard output
with Federation(HOME) as connection:
    mine = _open(connection)
    mine.on_event(_on_event)
    for order in sys.stdin:
        print(json.dumps(_reach(mine, int(order))), file=answers, flush=True)

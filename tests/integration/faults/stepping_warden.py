"""A warden that says each finished step of its rounds: ``stepping_warden.py HOME STAGE [MARK]``.

With a MARK, it is of the next minor version; see ``newer.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from appliance.protocol.rounds import RoundStep
from appliance.warden.main import run_warden
from tests.integration.faults.newer import speak_newer
from tests.integration.faults.stage import announcer

home, stage, *mark = sys.argv[1:]
announce = announcer(stage)


def _on_step(_jti: str, step: RoundStep) -> None:
    announce(step)


if mark:
    speak_newer(*mark)
run_warden(Path(home), _on_step)

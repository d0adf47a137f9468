"""A warden that dies by SIGKILL right after a given step of a round: ``pulled_plug.py HOME STEP``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from appliance.protocol.rounds import RoundStep
from appliance.warden.main import run_warden


def _pull(_jti: str, step: RoundStep) -> None:
    if step == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)


run_warden(Path(sys.argv[1]), _pull)

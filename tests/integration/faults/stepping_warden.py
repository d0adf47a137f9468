"""A warden that says each finished step of its rounds: ``stepping_warden.py HOME STAGE``."""

from __future__ import annotations

import sys
from pathlib import Path

from appliance.protocol.rounds import RoundStep
from appliance.warden.main import run_warden
from tests.integration.faults.stage import announcer

announce = announcer(sys.argv[2])


def _on_step(_jti: str, step: RoundStep) -> None:
    announce(step)


run_warden(Path(sys.argv[1]), _on_step)

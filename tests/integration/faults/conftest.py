"""What the tests of this folder may ask for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hospitals import Hospitals
from tests.integration.faults.players import Hospital
from tests.integration.faults.stage import Stage


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    """Where the stepping processes of a module say their steps."""
    stage = Stage()
    yield stage
    stage.close()


@pytest.fixture(scope="module")
def north(hospitals: Hospitals, stage: Stage) -> Iterator[Hospital]:
    """North, with a warden that says each step; at the end it runs as before."""
    hospitals.consortium.kill("north")
    hospital = Hospital(hospitals, "north", stage.address)
    try:
        hospital.start()
        yield hospital
    finally:
        hospital.stop()
        hospitals.consortium.restart("north")

"""One side is a minor version ahead of the other: they work together, or say why not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.protocol.errors import Code
from appliance.protocol.messages import MAJOR, MINOR
from tests.hospitals import Hospitals
from tests.integration.faults.newer import CRITICAL, UNCRITICAL
from tests.integration.faults.players import Hospital, Researcher
from tests.integration.faults.records import require_done_once, require_whole
from tests.integration.faults.stage import NOBODY

NEXT = f"{MAJOR}.{MINOR + 1}"
pytestmark = pytest.mark.timeout(300)  # the first of a module waits until everybody is up


@contextmanager
def _newer_north(people: Hospitals, mark: str) -> Iterator[None]:
    people.consortium.kill("north")
    hospital = Hospital(people, "north", NOBODY, mark)
    try:
        hospital.start()
        yield
    finally:
        hospital.stop()
        people.consortium.restart("north")


def _round(people: Hospitals, folder: Path, *mark: str) -> dict[str, Any]:
    """What the researcher says of a first round."""
    researcher = Researcher(people, folder, NOBODY, *mark)
    researcher.start()
    try:
        researcher.ask_for(1)
        return researcher.answer()
    finally:
        researcher.kill()


def test_a_newer_researcher_works_with_older_nodes(hospitals: Hospitals, tmp_path: Path) -> None:
    """Hospitals upgrade when they can, not when a researcher does."""
    assert _round(hospitals, tmp_path / "experiment", UNCRITICAL) == {"round": 1}
    require_done_once(hospitals, tmp_path / "experiment", 1)


def test_a_newer_node_works_with_an_older_researcher(hospitals: Hospitals, tmp_path: Path) -> None:
    """And a researcher when the study allows."""
    with _newer_north(hospitals, UNCRITICAL):
        assert _round(hospitals, tmp_path / "experiment") == {"round": 1}
        require_done_once(hospitals, tmp_path / "experiment", 1)


def test_a_request_that_an_older_node_cannot_understand_is_refused(hospitals: Hospitals, tmp_path: Path) -> None:
    """To train without what the researcher holds necessary would be another training; silence would last for days."""
    tail = hospitals.since("north")
    answer = _round(hospitals, tmp_path / "experiment", CRITICAL)

    assert (answer["round"], answer["code"]) == (0, Code.MESSAGE_VERSION)
    assert f"The 'train' of protocol {NEXT} cannot be understood without its 'weighting'" in answer["message"]
    refusal = tail.wait_for("round.refused", code=Code.MESSAGE_VERSION)
    assert hospitals.history("north").rounds(refusal["subject"]) == []
    require_whole(hospitals)


def test_a_reply_that_an_older_researcher_cannot_understand_fails_the_round(
    hospitals: Hospitals, tmp_path: Path
) -> None:
    """To aggregate it otherwise than it was meant would spoil the model."""
    with _newer_north(hospitals, CRITICAL):
        answer = _round(hospitals, tmp_path / "experiment")

    assert (answer["round"], answer["code"]) == (0, Code.MESSAGE_VERSION)
    assert f"North (north): The 'train-reply' of protocol {NEXT} cannot be understood" in answer["message"]
    require_whole(hospitals)

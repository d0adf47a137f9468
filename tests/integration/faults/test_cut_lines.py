"""Lines that are cut: in the middle of a transfer, and at random bytes of a whole round, both ways.

    FEDWARD_FAULTS_SEED=7 pytest tests/integration/faults/test_cut_lines.py

repeats the cuts of a seed; without it the seed is 1, and the cuts are the same each time.
"""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.embedded.consortium import NETWORK
from appliance.protocol.rounds import RoundStep
from researcher_kit import Experiment, Federation
from researcher_kit.monitor import Event, NodeReplied
from tests.hospitals import Hospitals, bits
from tests.integration.faults.players import Researcher
from tests.integration.faults.records import require_done_once, rounds_of
from tests.integration.faults.stage import NOBODY
from tests.integration.network.hosts import Line

SEED = os.environ.get("FEDWARD_FAULTS_SEED", "1")
WIDTH = 20_000
SIZE = 4 * (30 * WIDTH + WIDTH + 2 * WIDTH + 2)  # bytes of the plan's tensors
START, MIDDLE, END = 20_000, SIZE // 2, SIZE - 20_000  # behind the handshake and the first headers, at the earliest
CASES = 3
POST_BYTES = 6_000  # at least so many go each way over a member's line to the broker, from its connection to its round

pytestmark = pytest.mark.timeout(300)  # the first of a module waits until everybody is up


@dataclass(frozen=True)
class Lines:
    """A member's only ways to the network host."""

    rest: Line
    broker: Line


@contextmanager
def _through_lines(hospitals: Hospitals, member: str) -> Iterator[Lines]:
    """The member's settings lead through lines that can be cut."""
    settings, endpoint = hospitals.home(member) / "member.toml", hospitals.consortium.endpoint
    before, rest_port = settings.read_text(), endpoint.rest_url.rpartition(":")[2]
    lines = Lines(Line(int(rest_port)), Line(endpoint.broker_port))
    through = before.replace(f":{rest_port}", f":{lines.rest.port}")
    settings.write_text(through.replace(f"broker_port = {endpoint.broker_port}", f"broker_port = {lines.broker.port}"))
    try:
        yield lines
    finally:
        settings.write_text(before)
        lines.rest.close()
        lines.broker.close()


@pytest.fixture(scope="module")
def north(hospitals: Hospitals) -> Iterator[Lines]:
    """North's lines."""
    with _through_lines(hospitals, "north") as lines:
        hospitals.consortium.restart("north")
        yield lines
    hospitals.consortium.restart("north")


@pytest.fixture(scope="module")
def alice(hospitals: Hospitals) -> Iterator[Lines]:
    """Alice's lines; her next connection takes them."""
    with _through_lines(hospitals, "alice") as lines:
        yield lines


def _wide(hospitals: Hospitals, federation: Federation) -> Experiment:
    return hospitals.experiment(federation, model_args={"width": WIDTH}, round_limit=1)


@pytest.mark.parametrize("cut", [START, MIDDLE, END])
def test_a_round_survives_a_line_that_is_cut_in_mid_upload(
    cut: int, north: Lines, hospitals: Hospitals, federation: Federation
) -> None:
    """The update goes on where it stopped, and is there once: nobody may count a hospital twice."""
    experiment = _wide(hospitals, federation)
    north.rest.cut_after(up=(cut,))
    stored: list[dict[str, object]] = []

    def look(event: Event) -> None:  # an update is deleted at the round's end
        if isinstance(event, NodeReplied) and event.reply.node_id == "north":
            stored[:] = hospitals.uploads(experiment.id, "update")

    experiment.on_event(look)
    experiment.run()

    assert north.rest.cuts_left == 0
    assert north.rest.bytes["up"] < 1.2 * SIZE
    (mine,) = [upload for upload in stored if upload["owner_id"] == "north"]
    (left,) = [line for line in hospitals.history("north").egress() if _is_upload(line, experiment.id)]
    assert (mine["is_complete"], mine["sha256"], mine["length"]) == (1, left["sha256"], left["size_bytes"])
    assert hashlib.sha256(_stored(hospitals, mine)).hexdigest() == left["sha256"]
    assert _steps(hospitals, "north", experiment.id) == [RoundStep.REPLIED]


@pytest.mark.parametrize("cut", [START, MIDDLE, END])
def test_a_round_survives_a_line_that_is_cut_in_mid_download(
    cut: int, north: Lines, hospitals: Hospitals, federation: Federation, whole: dict[str, str]
) -> None:
    """Parameters that came in two pieces train the same model as parameters that came in one."""
    experiment = _wide(hospitals, federation)
    north.rest.cut_after(down=(cut,))
    experiment.run()

    assert north.rest.cuts_left == 0
    assert north.rest.bytes["down"] < 1.2 * SIZE
    assert bits(experiment) == whole
    assert _steps(hospitals, "north", experiment.id) == [RoundStep.REPLIED]


@pytest.mark.parametrize("whose", ["north", "alice"])
@pytest.mark.parametrize("case", range(CASES))
def test_a_round_survives_lines_that_are_cut_at_random_bytes(
    case: int,
    whose: str,
    lines: dict[str, Lines],
    notebook: Researcher,
    undisturbed: dict[int, bytes],
    hospitals: Hospitals,
) -> None:
    """In the handshake, a header, a message or a file: no byte of a line is a bad one to lose it at."""
    rng = random.Random(f"{SEED}/{whose}/{case}")
    rest = {way: (rng.randrange(1, SIZE), rng.randrange(1, SIZE // 2)) for way in ("up", "down")}
    broker = {way: (rng.randrange(1, POST_BYTES), rng.randrange(1, POST_BYTES)) for way in ("up", "down")}
    print(f"FEDWARD_FAULTS_SEED={SEED}: REST cut after {rest}, broker after {broker} bytes")
    lines[whose].rest.cut_after(**rest)
    lines[whose].broker.cut_after(**broker)
    number = 1 + max(rounds_of(notebook.folder))
    notebook.ask_for(number)

    assert notebook.answer() == {"round": number}
    for line in (lines[whose].rest, lines[whose].broker):
        assert line.cuts_left <= 2, "a line was not cut in each direction"
        line.cut_after()
    assert rounds_of(notebook.folder)[number] == undisturbed[number]
    require_done_once(hospitals, notebook.folder, number)


@pytest.fixture(scope="module")
def lines(north: Lines, alice: Lines) -> dict[str, Lines]:
    """Both members' lines."""
    return {"north": north, "alice": alice}


@pytest.fixture(scope="module")
def notebook(
    lines: dict[str, Lines], hospitals: Hospitals, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Researcher]:
    """An experiment behind a first round that is left in peace."""
    with _notebook(hospitals, tmp_path_factory.mktemp("cut"), 1) as researcher:
        yield researcher


@pytest.fixture(scope="module")
def undisturbed(hospitals: Hospitals, tmp_path_factory: pytest.TempPathFactory) -> dict[int, bytes]:
    """The global parameters behind each round when no line is cut."""
    with _notebook(hospitals, tmp_path_factory.mktemp("undisturbed"), 1 + 2 * CASES) as researcher:
        return rounds_of(researcher.folder)


@contextmanager
def _notebook(people: Hospitals, folder: Path, rounds: int) -> Iterator[Researcher]:
    researcher = Researcher(people, folder / "experiment", NOBODY, model_args={"width": WIDTH})
    researcher.start()
    try:
        researcher.ask_for(rounds)
        assert researcher.answer() == {"round": rounds}
        yield researcher
    finally:
        researcher.kill()


@pytest.fixture(scope="module")
def whole(hospitals: Hospitals) -> dict[str, str]:
    """The model that comes of it when no line is cut."""
    with hospitals.federation() as federation:
        experiment = _wide(hospitals, federation)
        experiment.run()
        return bits(experiment)


def _steps(hospitals: Hospitals, node: str, experiment_id: str) -> list[str]:
    return [entry["step"] for entry in hospitals.history(node).rounds(experiment_id)]


def _is_upload(line: dict[str, object], experiment_id: str) -> bool:
    return (line["kind"], line["experiment_id"]) == ("upload", experiment_id)


def _stored(hospitals: Hospitals, upload: dict[str, object]) -> bytes:
    """The file itself, as the network host's disk has it."""
    name = str(upload["id"]).replace("-", "")
    (file,) = [path for path in (hospitals.home(NETWORK) / "store").rglob(f"{name}*") if path.is_file()]
    return file.read_bytes()

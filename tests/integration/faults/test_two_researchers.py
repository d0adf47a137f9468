"""Two researchers with a plan each, on the same nodes and the same data at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.protocol.rounds import RoundStep
from researcher_kit import Experiment, Federation
from researcher_kit.monitor import Event
from tests.hospitals import NODES, PLAN, Hospitals, bits, training_args
from tests.integration.faults.players import Hospital
from tests.integration.faults.records import require_whole
from tests.integration.faults.stage import Stage
from tests.integration.network.hosts import wait_until

pytestmark = pytest.mark.timeout(300)  # the first of a module waits until everybody is up

PEOPLE = ("alice", "oscar")
ROUNDS = 4


@pytest.fixture(scope="module")
def plans(hospitals: Hospitals, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    """Alice's plan, and oscar's, which trains another model; both may use the cells."""
    theirs = tmp_path_factory.mktemp("plans") / "plan.py"
    theirs.write_text(PLAN.read_text().replace("torch.nn.ReLU()", "torch.nn.Tanh()"))
    for node in NODES:
        hospitals.staff(node).call("plan.add", name="tanh", source=theirs.read_text())
        hospitals.staff(node).call("dataset.permit", dataset="cells", researcher="oscar")
    yield {"alice": PLAN, "oscar": theirs}
    for node in NODES:
        hospitals.staff(node).call("dataset.forbid", dataset="cells", researcher="oscar")


class Work:
    """A researcher's experiment, and all that the researcher hears meanwhile."""

    def __init__(self, hospitals: Hospitals, person: str, plan: Path) -> None:
        self.federation = Federation(hospitals.home(person))
        self.events: list[Event] = []
        self.experiment = Experiment(
            tags=["cells"],
            training_plan_file=plan,
            model_args={"width": 2000, "pause_s": 0.02},
            training_args=training_args(),
            round_limit=ROUNDS,
            federation=self.federation,
            progress=False,
        )
        self.experiment.on_event(self.events.append)

    def run(self) -> dict[str, str]:
        """To the end; the bits of the model that comes of it."""
        try:
            self.experiment.run()
            return bits(self.experiment)
        finally:
            self.federation.close()


def test_two_researchers_train_at_once_and_neither_notices_the_other(
    hospitals: Hospitals, plans: dict[str, Path], north: Hospital, stage: Stage
) -> None:
    """Each gets the model that it gets alone, to the last bit, and takes its turn."""
    alone = {person: Work(hospitals, person, plans[person]).run() for person in PEOPLE}
    # Alice has two notebooks open, so that two requests wait while a third is worked on.
    works = {name: Work(hospitals, name.split()[0], plans[name.split()[0]]) for name in (*PEOPLE, "alice again")}
    together: dict[str, dict[str, str]] = {}
    threads = [
        threading.Thread(target=lambda name=person: together.update({name: works[name].run()})) for person in works
    ]

    def all_wait() -> bool:
        return all(hospitals.history("north").rounds(work.experiment.id) for work in works.values())

    with stage.acting_at(RoundStep.FETCHED, lambda: wait_until(all_wait, 100)):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(200)

    assert together == alone | {"alice again": alone["alice"]}
    ids = {work.experiment.id: work.federation.member_id for work in works.values()}
    for node in NODES:
        rows = [row for row in hospitals.history(node).rounds() if row["experiment_id"] in ids]
        for experiment_id, person in ids.items():
            own = [row for row in rows if row["experiment_id"] == experiment_id]
            assert [(row["round"], row["step"]) for row in own] == [(n, "replied") for n in range(1, ROUNDS + 1)]
            assert {row["researcher"] for row in own} == {person}
        # One at a time and first come, first served: nobody's second request overtakes another's first.
        assert sorted(rows, key=lambda row: row["ended_at"]) == rows
    require_whole(hospitals)


def test_a_researcher_hears_of_its_own_rounds_only(hospitals: Hospitals, plans: dict[str, Path]) -> None:
    """Not even that another trains: presence says how many rounds run, and no more."""
    works = {person: Work(hospitals, person, plans[person]) for person in PEOPLE}
    threads = [threading.Thread(target=work.run) for work in works.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)

    for person, work in works.items():
        other = next(works[name] for name in PEOPLE if name != person)
        uploads = hospitals.network_audit("upload.completed")
        own = [line for line in uploads if line["details"]["experiment"] == work.experiment.id]
        updates = [line for line in own if line["details"]["purpose"] == "update"]
        assert len(updates) == ROUNDS * len(NODES)
        assert {tuple(line["details"]["recipients"]) for line in updates} == {(person,)}
        store = hospitals.home(person) / "store"
        assert all(other.experiment.id.encode() not in file.read_bytes() for file in store.iterdir() if file.is_file())

"""A hospital in the middle of its work: a study that runs, one that ended, a plan that waits, a file that changed."""

from __future__ import annotations

import threading
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from appliance.demo.settings import HOSPITALS, LOADING_PLAN
from appliance.demo.settings import PLAN as DEMO_PLAN
from appliance.protocol.errors import FedWardError
from appliance.warden.client import GovernanceClient
from appliance.warden.governance import SOCKET_NAME
from node_gui.access import Role
from node_gui.staff import StaffBook
from researcher_kit import Experiment, Federation
from tests.browser.desk import NAMES
from tests.hospitals import Hospitals
from tests.integration.network.hosts import wait_until

NODE, NEWCOMER = "north", "south"
TAG = "trial"
PAUSE_S = 0.1  # of a step, where a training shall take its time
TRAINING = {
    "num_updates": 4,
    "batch_size": 32,
    "optimizer_args": {"lr": 0.05, "weight_decay": 0.01},
    "test_ratio": 0.25,
    "test_metric": "AUC",
    "test_on_global_updates": True,
    "test_on_local_updates": True,
    "random_seed": 1,
}
RANGES = (
    {"name": "num_updates", "minimum": 1, "maximum": 1_000_000},
    {"name": "optimizer_args.lr", "minimum": 0.0001, "maximum": 0.1},
)
DESCRIPTION = (
    "Predicts from the baseline examination whose gums will bleed at visit 5. One weight for each input leaves."
)
_STEP = '        """The loss of one batch."""\n'
# The demo's plan, and a model argument that makes it as slow as a large one.
APPROVED = (
    DEMO_PLAN.read_text()
    .replace("from typing import Any\n", "import time\nfrom typing import Any\n")
    .replace(_STEP, f'{_STEP}        time.sleep(self.model_args().get("pause_s", 0.0))\n')
)
ASKED = (
    APPROVED.replace('    "treated": (0.5, 0.5),  # 1 for the treatment group\n', "")
    .replace('"age": (26.0, 6.0),  # years', '"age": (26.0, 6.0),  # years, at enrolment')
    .replace(_STEP, f"{_STEP}        for record in data:\n            print(record)\n")
)
OTHER = '''"""Which lung nodules grow?"""

import requests
from appliance.training import TorchTrainingPlan


class NodulePlan(TorchTrainingPlan):
    """Asks a service of ours for the newest labels."""

    def training_data(self):
        return requests.get("https://labels.example/nodules")
'''


@dataclass(frozen=True)
class Stage:
    """What the pages lead to.

    Attributes:
        people: The consortium; ``NODE`` is the hospital at work, ``NEWCOMER`` has only just joined.
        dataset: The id of the trial's data; ``changed`` of a dataset whose file has changed.
        approved: The plan in use, by its SHA-256; ``asked`` a new version of it, ``rejected`` another plan.
        finished: An experiment of some rounds, by its id; ``stopped`` one that staff ended, ``running`` one at work.
        model: The finished experiment's model, which its researcher sent, by its id.
    """

    people: Hospitals
    dataset: str
    changed: str
    approved: str
    asked: str
    rejected: str
    finished: str
    stopped: str
    running: str
    model: str


@contextmanager
def stage(people: Hospitals, scratch: Path, *, rounds: int) -> Iterator[Stage]:
    """The hospital at work; at the end nothing runs.

    Args:
        scratch: For the researcher's files.
        rounds: Of the experiment that has finished.
    """
    manager, reviewer = _staff(people, Role.DATA_MANAGER), _staff(people, Role.REVIEWER)
    dataset, changed = _datasets(people, manager)
    with closing(people.federation()) as federation:
        study = _Researcher(people, federation, scratch)
        first = study.experiment(APPROVED, rounds)
        approved = study.ask(first)
        until = time.time() + 10 * 86_400
        reviewer.call("plan.approve", plan=approved, note="Read in full, with the statistician.", until=until)
        first.run()
        model = str(first.release("Bleeding at visit 5, final", timeout_s=60).answers[NODE].model_sha256)
        stopped = study.experiment(APPROVED, 20, pause_s=PAUSE_S)
        stopped.run(1)
        with training(people, stopped):
            reviewer.call("experiment.stop", experiment=stopped.id)
        rejected = study.ask(study.experiment(OTHER, 1, name="Growing lung nodules"))
        reviewer.call("plan.reject", plan=rejected, note="The plan must not speak to other machines.")
        asked = study.ask(study.experiment(ASKED, 1))
        running = study.experiment(APPROVED, 20, pause_s=PAUSE_S)
        running.run(2)
        with training(people, running):
            experiments = (first.id, stopped.id, running.id)
            yield Stage(people, dataset, changed, approved, asked, rejected, *experiments, _kept(people, model))


def _kept(people: Hospitals, sha256: str) -> str:
    return next(str(model["jti"]) for model in people.history(NODE).models() if model["sha256"] == sha256)


def _staff(people: Hospitals, role: Role) -> GovernanceClient:
    return GovernanceClient(people.home(NODE) / SOCKET_NAME, staff=NAMES[role], via="gui")


def _datasets(people: Hospitals, manager: GovernanceClient) -> tuple[str, str]:
    """The trial's data, and a registry whose file is another than was registered; one more file waits to be added."""
    folder = people.data(NODE)
    source, plan = HOSPITALS["hennepin"].read_text(), tomllib.loads(LOADING_PLAN.read_text())
    (folder / "exports").mkdir(exist_ok=True)
    for name in ("periodontal_trial.csv", "registry.csv", "exports/2026-01.csv"):
        (folder / name).write_text(source)
    spec = {"loading_plan": plan, "researchers": ["alice"]}
    about = "Baseline and visit 5 of the periodontal therapy trial, women seen here from 2003 to 2005."
    trial = {"name": "Periodontal therapy trial", "path": "periodontal_trial.csv", "tags": [TAG], "description": about}
    registry = {"name": "Dental registry 2025", "path": "registry.csv", "tags": ["registry", "dental"]}
    dataset, changed = (manager.call("dataset.add", spec=spec | one)["dataset_id"] for one in (trial, registry))
    (folder / "registry.csv").write_text(source.rpartition("\n1")[0] + "\n")
    manager.call("dataset.check", dataset=changed)
    return str(dataset), str(changed)


def add_colleagues(home: Path) -> None:
    """Somebody who has not followed the invitation yet, and somebody who is locked out."""
    staff = StaffBook(home)
    staff.invite("setup", "Ines Moreau", Role.REVIEWER)
    left = staff.join(staff.invite("setup", "Peter Novak", Role.AUDITOR), "a password nobody knows")
    staff.set_locked("setup", left.id, is_locked=True)
    staff.close()


class _Researcher:
    """Alice, who works with the hospital alone."""

    def __init__(self, people: Hospitals, federation: Federation, scratch: Path) -> None:
        self._people = people
        self._federation = federation
        self._scratch = scratch

    def experiment(
        self, plan: str, rounds: int, *, name: str = "Bleeding at visit 5", pause_s: float = 0.0
    ) -> Experiment:
        """An experiment on the trial's data."""
        file = self._scratch / f"{len(list(self._scratch.iterdir()))}.py"
        file.write_text(plan)
        return self._people.experiment(
            self._federation,
            name=name,
            tags=[TAG],
            nodes=[NODE],
            training_plan_file=file,
            model_args={"pause_s": pause_s},
            training_args=TRAINING,
            round_limit=rounds,
        )

    def ask(self, experiment: Experiment) -> str:
        """Ask for approval of its plan; returns the text's SHA-256."""
        table = experiment.request_approval(DESCRIPTION, RANGES, nodes=[NODE])
        return str(table.answers[NODE].sha256)


@contextmanager
def training(people: Hospitals, experiment: Experiment) -> Iterator[None]:
    """Let an experiment whose steps pause train a round that would take hours; at the end it does not run.

    The node trains one round at a time: nothing else of it runs meanwhile.
    """
    experiment.set_training_args(experiment.training_args() | {"num_updates": 100_000})
    warden, history = people.staff(NODE), people.history(NODE)

    def is_at_work() -> bool:
        open_ = [row["experiment_id"] for row in history.open_rounds()]
        return open_[:1] == [experiment.id] and len(warden.call("node.status")["running"]) == 1

    thread = threading.Thread(target=_run, args=(experiment,))
    thread.start()
    try:
        wait_until(is_at_work, timeout_s=60)
        yield
    finally:
        if thread.is_alive():
            experiment.stop()
        thread.join(60)
    assert not thread.is_alive()


def _run(experiment: Experiment) -> None:
    try:
        experiment.run(1)
    except FedWardError:
        return  # staff, or the end of the test, stopped it

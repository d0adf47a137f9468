"""The demo: four real hospitals' data, one model, and the comparison that tells whether it was worth it.

It does what the people of a consortium would do, through the same doors: data managers register datasets, a researcher
asks for approval, reviewers approve, the researcher trains. Where it plays a person's part it says so.
"""

from __future__ import annotations

import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from appliance.data import Dataset, LoadingPlan
from appliance.demo import baselines
from appliance.demo.console import DemoConsole, RoundsView
from appliance.demo.report import write_report
from appliance.demo.results import Egress, Hospital, Results, RoundTime
from appliance.demo.settings import (
    HOSPITALS,
    LOADING_PLAN,
    MODEL_ARGS,
    PLAN,
    ROUNDS,
    SEEDS,
    TEST_RATIO,
    hospital_datasets,
    next_version,
    training_args,
)
from appliance.embedded.consortium import NETWORK, EmbeddedConsortium, Seat, require_unused
from appliance.protocol import chain
from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.messages import PlanState
from appliance.training import split_indices
from appliance.warden.client import GovernanceClient
from appliance.warden.governance import SOCKET_NAME
from appliance.warden.history import History
from researcher_kit import AllNodes, Experiment, FedAverage, Federation
from researcher_kit.history import RoundRecord
from researcher_kit.monitor import Event, RoundClosed

RESEARCHER = "researcher"
MARKER = ".fedward-demo"  # a folder with it is ours to make anew
TAG = "opt"
RANGES = (
    {"name": "num_updates", "minimum": 1, "maximum": 50},
    {"name": "optimizer_args.lr", "minimum": 0.0001, "maximum": 0.1},
)
INSTITUTIONS = {
    "harlem": "Harlem Hospital",
    "hennepin": "Hennepin County",
    "kentucky": "University of Kentucky",
    "mississippi": "University of Mississippi",
}


@dataclass
class _Run:
    """One seed's experiment."""

    seed: int
    auc_by_round: list[float] = field(default_factory=list)
    records: list[RoundRecord] = field(default_factory=list)

    @property
    def auc(self) -> float:
        return self.auc_by_round[-1]


class Demo:
    """The demo in one folder.

    Args:
        folder: Made anew; must be absent, empty, or an earlier demo's.
        console: Tells what happens.
        seeds: One experiment for each.
        rounds: Of each experiment.
    """

    def __init__(
        self, folder: Path, console: DemoConsole, *, seeds: Sequence[int] = SEEDS, rounds: int = ROUNDS
    ) -> None:
        self.folder = _fresh(folder)
        self._console = console
        self._seeds = tuple(seeds)
        self._rounds = rounds
        self._datasets = hospital_datasets()
        seats = [Seat(hospital, INSTITUTIONS[hospital]) for hospital in HOSPITALS]
        self.consortium = EmbeddedConsortium(
            self.folder, nodes=seats, researchers=[Seat(RESEARCHER, "The demo's researcher")], name="FedWard demo"
        )

    def run(self) -> Results:
        """From nothing to the report; the consortium still runs at the end.

        Raises:
            FedWardError: A part died, or a hospital refused.
        """
        console = self._console
        with console.step("Enrolling four hospitals and starting broker, network host and nodes, with TLS"):
            self.consortium.start()
        self._register_data()
        with Federation(self.consortium.home(RESEARCHER)) as federation:
            self._approve(federation)
            with console.rounds(self._seeds, self._rounds) as view:
                runs = [self._train(federation, seed, view) for seed in self._seeds]
        with console.step("Training the same model on pooled data, and at each hospital alone, for comparison"):
            results = self._results(runs)
        with console.step("Verifying five audit logs"):
            self._verify_audit()
        results.write(self.folder / "results.json")
        write_report(results, self.folder / "report.html")
        return results

    def ask_again(self) -> None:
        """The researcher asks for a changed plan, on which the demo decides nothing: it waits for whoever looks on.

        Raises:
            FedWardError: A hospital did not take it up.
        """
        plan = self.folder / "next-plan.py"
        plan.write_text(next_version(), "utf-8")
        with (
            self._console.step("The researcher asks the hospitals to review a changed version of the plan"),
            Federation(self.consortium.home(RESEARCHER)) as federation,
        ):
            self._request(
                self._experiment(federation, self._seeds[0], plan),
                "The same question with a stricter outcome, bleeding from 60 % of sites on, and to see whether the "
                "number of pregnancies is needed.",
            )

    def stop(self) -> None:
        """End every process."""
        self.consortium.stop()

    # What the hospitals' staff do

    def _register_data(self) -> None:
        loading_plan = LoadingPlan.read(LOADING_PLAN).model_dump(mode="json", exclude_defaults=True)
        for hospital, file in HOSPITALS.items():
            data = self.consortium.home(hospital) / "data"
            data.mkdir(exist_ok=True)
            shutil.copy(file, data / "opt.csv")
            spec = {
                "name": "opt",
                "path": "opt.csv",
                "description": "Obstetrics and Periodontal Therapy trial: this hospital's women, baseline and visit 5.",
                "tags": [TAG],
                "loading_plan": loading_plan,
                "researchers": [RESEARCHER],
            }
            report = self._staff(hospital, "data manager").call("dataset.add", spec=spec)
            note = f"registers {report['rows']} women's records and permits the researcher"
            self._console.review(INSTITUTIONS[hospital], note)

    def _approve(self, federation: Federation) -> None:
        experiment = self._experiment(federation, self._seeds[0])
        with self._console.step("The researcher asks the hospitals to review the training plan"):
            sha256 = self._request(experiment, "Predict bleeding at visit 5 from the baseline visit.")
        for hospital in HOSPITALS:
            self._staff(hospital, "reviewer").call(
                "plan.approve", plan=sha256, note="Read line by line: one logistic regression."
            )
            self._console.review(INSTITUTIONS[hospital], f"approves the plan {sha256[:12]}")

    def _request(self, experiment: Experiment, description: str) -> str:
        """Ask every hospital for its approval; returns the hash of the text that waits there now."""
        standings = experiment.request_approval(description, RANGES)
        for hospital in HOSPITALS:
            if (state := standings[hospital].state) is not PlanState.PENDING:
                raise FedWardError(f"The plan is {state} at {hospital}.", code=Code.PLAN_NOT_APPROVED)
        return str(standings[next(iter(HOSPITALS))].sha256)

    def _staff(self, hospital: str, part: str) -> GovernanceClient:
        socket = self.consortium.home(hospital) / SOCKET_NAME
        return GovernanceClient(socket, staff=f"demo {part}", via="cli")

    # What the researcher does

    def _train(self, federation: Federation, seed: int, view: RoundsView) -> _Run:
        view.seed(seed)
        run = _Run(seed)
        with self._experiment(federation, seed) as experiment:

            def note(event: Event) -> None:
                if isinstance(event, RoundClosed):
                    run.records.append(event.record)
                    run.auc_by_round.append(baselines.auc_of(experiment.parameters(), self._datasets, seed))
                    view.round(event.record.round, seconds=event.record.seconds, auc=run.auc)

            experiment.on_event(note)
            experiment.run()
        return run

    def _experiment(self, federation: Federation, seed: int, plan: Path = PLAN) -> Experiment:
        return Experiment(
            tags=[TAG],
            training_plan_file=plan,
            model_args=MODEL_ARGS,
            training_args=training_args(seed),
            round_limit=self._rounds,
            aggregator=FedAverage(),
            strategy=AllNodes(),
            name="bleeding at visit 5",
            federation=federation,
            progress=False,
        )

    # What came of it

    def _results(self, runs: Sequence[_Run]) -> Results:
        pooled = [baselines.pooled_auc(self._datasets, seed) for seed in self._seeds]
        local = [baselines.local_auc(self._datasets, seed) for seed in self._seeds]
        by_hospital = {hospital: [values[hospital] for values in local] for hospital in HOSPITALS}
        federated = [run.auc for run in runs]
        return Results(
            federated_auc=statistics.mean(federated),
            federated_auc_sd=_spread(federated),
            pooled_auc=statistics.mean(pooled),
            pooled_auc_sd=_spread(pooled),
            local_auc={hospital: statistics.mean(values) for hospital, values in by_hospital.items()},
            local_auc_sd={hospital: _spread(values) for hospital, values in by_hospital.items()},
            federated_auc_by_round=[
                statistics.mean(values) for values in zip(*(run.auc_by_round for run in runs), strict=True)
            ],
            rounds=[_round_time(record) for record in runs[0].records],
            egress={hospital: self._egress(hospital) for hospital in HOSPITALS},
            seeds=list(self._seeds),
            versions={
                "fedward": version("fedward"),
                "python": platform.python_version(),
                "torch": version("torch"),
                "mosquitto": self.consortium.broker.version(),
            },
            hospitals={name: self._hospital(name, dataset) for name, dataset in self._datasets.items()},
        )

    def _egress(self, hospital: str) -> Egress:
        self._staff(hospital, "auditor").call("egress.flush")
        history = History(self.consortium.home(hospital))
        uploads = [entry["size_bytes"] for entry in history.egress() if entry["kind"] == "upload"]
        traffic = history.traffic()
        messages = sum(entry["messages"] for entry in traffic)
        return Egress(
            messages=messages + len(uploads), bytes=sum(uploads) + sum(entry["size_bytes"] for entry in traffic)
        )

    def _hospital(self, hospital: str, dataset: Dataset) -> Hospital:
        _, held_out = split_indices(len(dataset), TEST_RATIO, self._seeds[0], groups=dataset.groups)
        return Hospital(
            name=INSTITUTIONS[hospital],
            patients=len(dataset),
            held_out=len(held_out),
            data_bytes=HOSPITALS[hospital].stat().st_size,
        )

    def _verify_audit(self) -> None:
        for hospital in HOSPITALS:
            verdict = chain.verify(History(self.consortium.home(hospital)).audit_lines())
            if not verdict.is_whole:
                raise FedWardError(
                    f"Line {verdict.altered_line} of the audit log of {hospital} is not as it was written.",
                    code=Code.AUDIT_ALTERED,
                )
        command = [sys.executable, "-m", "appliance.cli.main", "network", "audit", "verify"]
        verified = subprocess.run(  # noqa: S603 - our own command, as an operator types it
            [*command, "--home", str(self.consortium.home(NETWORK))], capture_output=True, text=True, check=False
        )
        if verified.returncode:
            raise FedWardError(f"The network host's audit log: {verified.stderr.strip()}", code=Code.AUDIT_ALTERED)


def _fresh(folder: Path) -> Path:
    folder = folder.absolute()
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).exists():
            raise FedWardError(
                f"{folder} is not empty and not an earlier demo's.",
                code=Code.CONFIGURATION_INVALID,
                remedy="Choose another folder with --folder.",
            )
        require_unused(folder)
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / MARKER).touch()
    return folder


def _round_time(record: RoundRecord) -> RoundTime:
    timing = record.timing
    return RoundTime(
        round=record.round,
        seconds=record.seconds,
        waiting=timing.waiting_s,
        transfer=timing.transfer_s,
        training=timing.training_s,
        aggregation=timing.aggregation_s,
    )


def _spread(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0

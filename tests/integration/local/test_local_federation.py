"""Local nodes: the researcher's side, the runner and the sandbox are real, only the wire is not."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import psutil
import pytest

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.rounds import ResearcherStep
from researcher_kit import AllNodes, Experiment, LocalDataset, LocalFederation, Quorum, simulate
from researcher_kit.errors import ExperimentArgumentError, ExperimentBusyError, NodeFailedError, RoundStoppedError
from researcher_kit.monitor import StepFinished
from tests.hospitals import bits
from tests.runners import PLAN, plan_with

DATA = {"x": [(row % 17) / 10 for row in range(120)], "y": [int(row % 17 > 8) for row in range(120)]}


def experiment(federation: LocalFederation | None, folder: Path, plan: str = PLAN, **changes: object) -> Experiment:
    """Two rounds of a small plan."""
    file = folder / "plan.py"
    file.write_text(plan)
    arguments: dict[str, object] = {
        "tags": ["any"],
        "training_plan_file": file,
        "training_args": {"num_updates": 3, "log_interval": 1, "random_seed": 5},
        "round_limit": 2,
        "federation": federation,
        "progress": False,
    }
    return Experiment(**(arguments | changes))  # type: ignore[arg-type]


def test_an_experiment_runs_on_local_files(local: LocalFederation, tmp_path: Path) -> None:
    """The first thing that a researcher tries, without any consortium."""
    run = experiment(local, tmp_path)

    assert run.run() == 2
    assert [[reply.sample_count for reply in record.replies] for record in run.history] == [[100, 60]] * 2
    assert run.training_data() == {"north": "local", "south": "local"}


def test_a_plan_that_fails_shows_its_traceback(local: LocalFederation, tmp_path: Path) -> None:
    """The data are the researcher's own: here the whole error may be seen, which a hospital never sends."""
    run = experiment(local, tmp_path, plan_with("raise KeyError(f'no {list(self.model_args())}')"))

    with pytest.raises(NodeFailedError, match=r"(?s)with KeyError.*Traceback.*KeyError: 'no \[\]'") as caught:
        run.run()
    assert "raise KeyError" in caught.value.failures[0].plan_text


def test_what_a_plan_prints_can_be_read(local: LocalFederation, tmp_path: Path) -> None:
    """The quickest way to understand one's own plan."""
    experiment(local, tmp_path, plan_with("print('update', self.round)"), round_limit=1).run()

    assert local.record("north").count("update 1") == 3


@pytest.mark.parametrize(
    ("tried", "imports"),
    [
        ("socket.create_connection(('127.0.0.1', 9))", "import socket"),
        ("open('/etc/passwd').read()", ""),
        ("subprocess.run(['true'])", "import subprocess"),
    ],
)
def test_what_the_sandbox_denies_is_denied_here(
    local: LocalFederation, tmp_path: Path, tried: str, imports: str
) -> None:
    """A plan that needs what hospitals deny should fail at its author's, and not after weeks of approvals."""
    run = experiment(local, tmp_path, plan_with(tried, imports))

    with pytest.raises(NodeFailedError) as caught:
        run.run()
    assert caught.value.code in (Code.SANDBOX_DENIED, Code.TRAINING_FAILED)
    assert "PermissionError" in str(caught.value)


def test_a_metric_that_no_hospital_would_send_is_refused(local: LocalFederation, tmp_path: Path) -> None:
    """A name made up while the plan runs could be a patient's; better learnt here than after the approvals."""
    test = "\n    def testing_step(self, data, target):\n        return {'patient-' + str(7): 1.0}\n"
    run = experiment(local, tmp_path, PLAN + test, training_args={"test_ratio": 0.2, "test_on_global_updates": True})

    with pytest.raises(NodeFailedError, match="'patient-7' is no word of the plan's text") as caught:
        run.run()
    assert caught.value.code is Code.UPDATE_REFUSED


def test_an_experiment_can_be_stopped(local: LocalFederation, tmp_path: Path) -> None:
    """Whoever sees a mistake does not wait for its end; the federation serves the next experiment."""
    slow = experiment(local, tmp_path, plan_with("time.sleep(60)", "import time"))
    stopping = threading.Thread(target=slow.stop)
    slow.on_event(lambda event: stopping.start() if event == StepFinished(1, ResearcherStep.REQUESTED) else None)

    with pytest.raises(RoundStoppedError):
        slow.run()
    stopping.join()
    assert experiment(local, tmp_path, round_limit=1).run() == 1


def test_a_node_that_is_behind_gives_its_round_up(local: LocalFederation, tmp_path: Path) -> None:
    """As at a hospital: a strategy that is tried out here must meet the same late nodes."""
    slow = "import time; time.sleep(300 if self.round == 1 and self.split()[0] == 60 else 0)"
    run = experiment(local, tmp_path, plan_with(slow), strategy=Quorum(fraction=0.5, deadline_s=200))
    run.run(1)
    run.set_strategy(AllNodes())
    run.run()

    assert [(lost.node_id, lost.code) for lost in run.history[0].failures] == [("south", Code.ROUND_SUPERSEDED)]
    assert [reply.node_id for reply in run.history[1].replies] == ["north", "south"]


def test_large_parameters_travel_as_files(
    local: LocalFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small model is enclosed in its messages; the others must end alike, and leave no file behind per round."""
    enclosed = experiment(local, tmp_path)
    enclosed.run()
    for module in ("researcher_kit.round", "researcher_kit.local.nodes"):
        monkeypatch.setattr(f"{module}.MAX_ENCLOSED_BYTES", 0)
    uploaded = experiment(local, tmp_path, round_limit=4)
    uploaded.run(2)
    same = bits(uploaded) == bits(enclosed)
    uploaded.run()

    assert same
    assert len([*(local.home.root.parent / "files").iterdir()]) <= 4


def test_a_rehearsal_is_an_argument(tables: dict[str, Path], tmp_path: Path) -> None:
    """The experiment that hospitals will be asked to run, with one word more."""
    with experiment(None, tmp_path, rehearsal=True, data=tables) as rehearsed:
        assert rehearsed.run() == 2
        assert rehearsed.plan_status().answers.keys() == {"north", "south"}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rehearsal": True}, "needs data"),
        ({"data": "north.csv"}, "for rehearsals"),
        ({"rehearsal": True, "data": {"North": "x.csv"}}, "'North' is no node id"),
        ({"rehearsal": True, "data": {}}, "no dataset"),
        ({"rehearsal": True, "data": {"local-researcher": "x.csv"}}, "is taken"),
    ],
)
def test_a_rehearsal_that_cannot_be_is_refused(tmp_path: Path, wrong: dict[str, object], said: str) -> None:
    """Before anything is started."""
    with pytest.raises(ExperimentArgumentError, match=said):
        experiment(None, tmp_path, **wrong).run()


def test_a_file_that_cannot_be_a_dataset_is_refused_with_its_place(tmp_path: Path) -> None:
    """As at a hospital, when its staff register it."""
    file = tmp_path / "wrong.csv"
    file.write_text("x,y\n1,2\nthree,4\n")

    with pytest.raises(FedWardError, match=r"wrong.csv cannot be a dataset: row 3, column 'x'") as caught:
        LocalFederation(file)
    assert caught.value.code is Code.DATASET_INVALID


def test_tags_find_what_carries_them(tables: dict[str, Path]) -> None:
    """As in a consortium: a search that finds nothing here would find nothing there."""
    north = LocalDataset(tables["north"], tags=("prostate", "t2w"), institution="North Hospital")

    with LocalFederation({"north": north}) as federation:
        assert federation.search(["t2w"])["north"][0].rows == 100
        assert federation.search(["lung"])["north"] == ()
        assert federation.institution("north") == "North Hospital"


def test_many_nodes_need_few_processes(tmp_path: Path) -> None:
    """A simulation's memory must not grow with the number of nodes; which of them are warm changes no bit."""
    ends = []
    for warm in (2, 12):
        with simulate(12, data=DATA, seed=1, workers=2, warm=warm) as federation:
            run = experiment(federation, tmp_path)
            run.run()
            ends.append((bits(run), len(_training(federation))))

    assert ends[0][0] == ends[1][0]
    assert (ends[0][1], ends[1][1]) == (2, 12)


def test_a_quorum_of_virtual_nodes_is_enough(tmp_path: Path) -> None:
    """Strategies are the same code."""
    plan = plan_with("if len(self.dataset) < 7: raise ValueError")
    with simulate(10, data={name: values[:64] for name, values in DATA.items()}, seed=2) as federation:
        run = experiment(federation, tmp_path, plan, strategy=Quorum(0.4, deadline_s=600.0), round_limit=1)
        run.run()

    (record,) = run.history
    assert (len(record.replies), len(record.failures)) == (4, 6)


def test_a_folder_is_gone_on_with_by_the_next_process(tables: dict[str, Path], tmp_path: Path) -> None:
    """A long simulation whose machine was switched off: keys, parameters and what nodes keep are still there."""
    undisturbed, folder = tmp_path / "one", tmp_path / "two"
    with LocalFederation(tables, folder=undisturbed) as federation:
        whole = experiment(federation, tmp_path, round_limit=3)
        whole.run()
    with LocalFederation(tables, folder=folder) as federation:
        cut = experiment(federation, tmp_path, round_limit=3)
        cut.run(1)
        path = cut.experimentation_path()
    with LocalFederation(tables, folder=folder) as federation:
        resumed = Experiment.load_breakpoint(path, federation=federation, progress=False)
        assert resumed.run() == 2

    assert bits(resumed) == bits(whole)


def test_a_folder_belongs_to_one_federation_at_a_time(tables: dict[str, Path], tmp_path: Path) -> None:
    """Two would answer each other's requests."""
    with LocalFederation(tables, folder=tmp_path), pytest.raises(ExperimentBusyError, match="another local federation"):
        LocalFederation(tables, folder=tmp_path)


def test_nothing_is_left_at_the_end(tables: dict[str, Path], tmp_path: Path) -> None:
    """A notebook opens many; each must end its processes, threads and temporary folder."""
    threads, others = {thread.name for thread in threading.enumerate()}, {*psutil.Process().children(recursive=True)}
    with LocalFederation(tables) as federation:
        experiment(federation, tmp_path, round_limit=1).run()
        folder, processes = federation.home.root.parent, {*psutil.Process().children(recursive=True)} - others

    assert not folder.exists()
    assert not [process for process in processes if process.is_running()]
    assert {thread.name for thread in threading.enumerate()} <= threads | {"fedward-register"}


def _training(federation: LocalFederation) -> list[psutil.Process]:
    """The processes that run plans: each leads a session of its own below the runner."""
    folder = str(federation.home.root.parent)
    everyone = psutil.Process().children(recursive=True)
    ours = [process for process in everyone if folder in " ".join(process.cmdline())]
    (runner,) = (process for process in ours if "appliance.runner" in process.cmdline())
    return [each for each in runner.children() if "appliance.runner.nursery" in each.cmdline() and _leads(each, runner)]


def _leads(process: psutil.Process, runner: psutil.Process) -> bool:
    return os.getsid(process.pid) != os.getsid(runner.pid)

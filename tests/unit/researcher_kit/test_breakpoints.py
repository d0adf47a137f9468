"""Breakpoints: whole or absent, and never code."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from appliance.protocol.errors import Code, FedWardError
from researcher_kit import Experiment, FedAverage, Federation, Quorum
from researcher_kit import breakpoints as breakpoints_module
from researcher_kit.errors import BreakpointError
from researcher_kit.store import RoundBook
from tests.unit.researcher_kit.conftest import same

Make = Callable[..., Experiment]


class Mine(FedAverage):
    """An aggregator that remembers."""

    def __init__(self, rounds: int = 0) -> None:
        self.rounds = rounds

    def aggregate(self, updates, parameters):
        """Count, and do as ever."""
        self.rounds += 1
        return super().aggregate(updates, parameters)

    def state(self):
        """What counts."""
        return {"rounds": self.rounds}

    def restore(self, state, tensors):
        """Take it back."""
        self.rounds = state["rounds"]


def load(folder: Path, federation: Federation, **options: object) -> Experiment:
    """The experiment saved in ``folder``."""
    return Experiment.load_breakpoint(folder, federation=federation, **options)


def test_an_experiment_goes_on_bit_by_bit(make: Make, federation: Federation) -> None:
    """Resumed, it ends where it would have ended."""
    whole, halved = make(), make()
    whole.run()
    halved.run_once()
    resumed = load(halved.breakpoint(), federation)
    resumed.run()

    assert same(resumed.parameters(), whole.parameters())


def test_all_settings_come_back(make: Make, federation: Federation) -> None:
    """What info() said before, it says after."""
    experiment = make(name="trial", strategy=Quorum(0.6, deadline_s=50), nodes=["north", "south"])
    experiment.run_once()
    resumed = load(experiment.breakpoint(), federation)

    assert resumed.info() == experiment.info()
    assert resumed.history == experiment.history
    assert resumed.round_current() == 1


def test_a_resumed_history_shows_the_earlier_rounds(make: Make, federation: Federation) -> None:
    """The learning curve is whole."""
    experiment = make()
    experiment.run_once()
    resumed = load(experiment.breakpoint(), federation)
    resumed.run()

    assert [record.round for record in resumed.history] == [1, 2, 3]


def test_a_breakpoint_is_json_and_safetensors_only(make: Make) -> None:
    """No pickle, for whoever gets a breakpoint from a colleague."""
    experiment = make()
    experiment.run()
    files = {path.name for path in experiment.breakpoint().iterdir()}

    assert files == {"breakpoint.json", "parameters.safetensors"}


def test_only_the_last_breakpoint_is_kept(make: Make) -> None:
    """A large model times forty rounds fills a disk."""
    experiment = make()
    experiment.run()

    assert [path.name for path in experiment.experimentation_path().glob("breakpoint_*")] == ["breakpoint_0003"]


def test_every_breakpoint_is_kept_when_asked(make: Make) -> None:
    """To go back to the round before it went wrong."""
    experiment = make(save_breakpoints=True)
    experiment.run()

    assert len([*experiment.experimentation_path().glob("breakpoint_*")]) == 4


def test_a_breakpoint_that_was_asked_for_stays(make: Make) -> None:
    """It is the researcher's, not the experiment's."""
    experiment = make()
    experiment.run_once()
    saved = experiment.breakpoint()
    experiment.run()

    assert saved.exists()


def test_an_earlier_round_can_be_gone_back_to(make: Make, federation: Federation) -> None:
    """And what is then the newest is what was saved last, not the highest number."""
    experiment = make(save_breakpoints=True)
    experiment.run()
    folder = experiment.experimentation_path()
    back = load(folder / "breakpoint_0001", federation)
    back.run_once()

    assert back.round_current() == 2
    assert load(folder, federation).round_current() == 2


def test_loading_runs_nothing_of_the_plan(make: Make, federation: Federation) -> None:
    """The text of a plan is data until somebody asks for the plan."""
    experiment = make()
    experiment.run_once()
    folder = experiment.breakpoint()
    text = "raise SystemExit('executed')\n"
    _change(folder, lambda state: state["plan"].update(text=text, sha256=_sha256(text)))

    assert load(folder, federation).training_plan_text() == text


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda state: state.update(version=2), "version"),
        (lambda state: state.pop("tags"), "tags"),
        (lambda state: state.update(surprise=1), "surprise"),
        (lambda state: state["plan"].update(text="changed"), "does not match its hash"),
        (lambda state: state.update(parameters_sha256="0" * 64), "altered"),
    ],
    ids=["version", "missing", "unknown", "plan", "parameters"],
)
def test_a_breakpoint_that_is_not_as_saved_is_refused(
    make: Make, federation: Federation, change: Callable[[dict[str, object]], object], reason: str
) -> None:
    """Going on from half a breakpoint gives wrong results without a word."""
    folder = make().breakpoint()
    _change(folder, change)

    with pytest.raises(BreakpointError, match=reason) as caught:
        load(folder, federation)

    assert caught.value.code is Code.BREAKPOINT_INVALID
    assert str(folder) in caught.value.message


@pytest.mark.parametrize("name", ["breakpoint.json", "parameters.safetensors"])
@pytest.mark.parametrize("content", [b"", b"{", b"\xff" * 100])
def test_a_damaged_file_is_named(make: Make, federation: Federation, name: str, content: bytes) -> None:
    """So that the researcher takes the breakpoint before it."""
    folder = make().breakpoint()
    (folder / name).write_bytes(content)

    with pytest.raises(BreakpointError, match=name):
        load(folder, federation)


def test_a_folder_without_breakpoints_is_said_so(federation: Federation, tmp_path: Path) -> None:
    """The wrong folder is the commonest mistake."""
    with pytest.raises(BreakpointError, match="no breakpoint"):
        load(tmp_path, federation)


def test_a_class_of_ones_own_must_be_given_back(make: Make, federation: Federation) -> None:
    """A breakpoint holds no code, so it cannot make one."""
    experiment = make(aggregator=Mine())
    experiment.run_once()
    folder = experiment.breakpoint()

    with pytest.raises(BreakpointError, match="Mine"):
        load(folder, federation)


def test_a_class_of_ones_own_gets_its_memory_back(make: Make, federation: Federation) -> None:
    """Momentum would otherwise start from nought."""
    experiment = make(aggregator=Mine())
    experiment.run_once()
    resumed = load(experiment.breakpoint(), federation, aggregator=Mine())

    assert resumed.aggregator().rounds == 1


def test_a_crash_while_saving_leaves_the_old_breakpoint(
    make: Make, federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole or absent, whatever the moment."""
    experiment = make()
    experiment.run_once()
    with monkeypatch.context() as patch:
        patch.setattr(breakpoints_module, "sync", lambda _path: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            experiment.breakpoint()

    assert load(experiment.experimentation_path(), federation).round_current() == 1


def _change(folder: Path, change: Callable[[dict[str, object]], object]) -> None:
    path = folder / "breakpoint.json"
    state = json.loads(path.read_text())
    change(state)
    path.write_text(json.dumps(state))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


SAVE, WRITE = "researcher_kit.breakpoints.save", "researcher_kit.spool.write_tensors"


def _fails_once(experiment: Experiment, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
    def full(*_: object, **__: object) -> None:
        raise FedWardError("full", code=Code.DISK_FULL)

    experiment.parameters()  # the first breakpoint
    with monkeypatch.context() as patch:
        patch.setattr(at, full)
        with pytest.raises(FedWardError, match="full"):
            experiment.run()


@pytest.mark.parametrize("at", [WRITE, SAVE])
def test_an_aggregator_remembers_a_round_once_when_its_updates_were_transferred(
    make: Make, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    """What was recorded as aggregated is not aggregated again; what was not is, and was forgotten."""
    mine = Mine()
    experiment = make(aggregator=mine)
    _fails_once(experiment, monkeypatch, at)
    experiment.run()

    assert mine.rounds == 3


@pytest.mark.usefixtures("encloses")
def test_an_aggregator_remembers_a_round_once_when_its_updates_came_with_the_replies(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are aggregated again: what was remembered of the first time must be forgotten."""
    mine = Mine()
    calm, troubled = make(), make(aggregator=mine)
    calm.run()
    _fails_once(troubled, monkeypatch, SAVE)
    troubled.run()

    assert mine.rounds == 3
    assert same(troubled.parameters(), calm.parameters())


def _rounds_closed_on_what_the_disk_has(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Those of which the breakpoint's parameters had been synced."""
    synced: set[int] = set()
    found: list[int] = []
    fsync, close = os.fsync, RoundBook.close

    def note(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def check(book: RoundBook, number: int) -> list[str]:
        folder = breakpoints_module.folder_of(experiment.experimentation_path(), number)
        if (folder / breakpoints_module.PARAMETERS_FILE).stat().st_ino in synced:
            found.append(number)
        return close(book, number)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(RoundBook, "close", check)
    experiment.run()
    return found


def test_a_round_closes_when_the_disk_has_its_parameters(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind that, nobody keeps what they were made of."""
    assert _rounds_closed_on_what_the_disk_has(make(), monkeypatch) == [1, 2, 3]


@pytest.mark.usefixtures("encloses")
def test_a_small_round_closes_when_the_disk_has_its_parameters(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though they were not synced before the breakpoint."""
    assert _rounds_closed_on_what_the_disk_has(make(), monkeypatch) == [1, 2, 3]

"""The page for those who come from Fed-BioMed: every row of its tables is carried out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import researcher_kit
from appliance.protocol.errors import FedWardError
from researcher_kit import Experiment, Federation, Metric, coming_from
from tests.simulator import Consortium
from tests.unit.researcher_kit.conftest import SETTINGS, SmallPlan

PAGE = Path(__file__).parents[3] / "docs/researcher/coming-from-fed-biomed.md"
SAME = "the same"
PLAN_FILE = """from torch import nn

from appliance.training import DataManager, TorchTrainingPlan


class Plan(TorchTrainingPlan):
    def init_model(self, model_args):
        return nn.Linear(model_args["inputs"], 1)

    def training_data(self, batch_size=48):
        return DataManager([[0.0]], [0.0])

    def training_step(self, data, target):
        {line}
        return self.model()(data).mean()
"""


@dataclass(frozen=True)
class Row:
    """What is written there, and what the page says of it."""

    section: str
    there: str
    here: str

    @property
    def code(self) -> str | None:
        """The code that the page gives in its place, if it does."""
        found = re.match(r"`([^`]+)`", self.here)
        return found[1] if found else None


def rows() -> Iterator[Row]:
    """The rows of all tables of the page."""
    section = ""
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            section = line[3:]
        if found := re.match(r"\| `(.+?)` \| (.+) \|$", line):
            yield Row(section, found[1], found[2])


ROWS = list(rows())
OF_IMPORTS = [row for row in ROWS if row.section == "Imports"]
OF_PLANS = [row for row in ROWS if row.there.startswith("self.")]
OTHERS = [row for row in ROWS if row not in OF_IMPORTS and row not in OF_PLANS]


class Stage:
    """A consortium that stays for all rows, and an experiment that has run."""

    def __init__(self, folder: Path) -> None:
        self.consortium = Consortium(folder)
        self.federation = self.consortium.federation()
        settings = {**SETTINGS, "training_args": {"epochs": 1, "test_ratio": 0.2}, "federation": self.federation}
        self.experiment = lambda: Experiment(**settings)
        self.trained = self.experiment()
        self.trained.run()

    def close(self) -> None:
        """End it."""
        self.federation.close()
        self.consortium.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Made once: a row changes nothing that another one needs."""
    stage = Stage(tmp_path_factory.mktemp("consortium"))
    yield stage
    stage.close()


@pytest.fixture
def names(stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the rows' code may use."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plan.py").write_text(PLAN_FILE.format(line="pass"))

    class Connected(Experiment):
        """An experiment that opens no line of its own."""

        def __init__(self, **arguments: Any) -> None:
            super().__init__(**{"federation": stage.federation} | arguments)

        @classmethod
        def load_breakpoint(cls, folder: Any = None, **options: Any) -> Experiment:
            return Experiment.load_breakpoint(folder, federation=stage.federation, **options)

    kit = {name: getattr(researcher_kit, name) for name in ("AllNodes", "DataManager", "FedAverage", "Scaffold")}
    return kit | {
        "Experiment": Connected,
        "MetricTypes": Metric,
        "Plan": SmallPlan,
        "plan_file": tmp_path / "plan.py",
        "experiment": stage.experiment(),
        "trained": stage.trained,
        "folder": stage.trained.experimentation_path(),
        "path": tmp_path / "model",
        "requests": stage.federation,
    }


def remedy_of(error: BaseException) -> str:
    """What an error says that one can do."""
    return error.remedy if isinstance(error, FedWardError) else str(error).partition(" here. ")[2]


@pytest.mark.parametrize("row", OF_IMPORTS, ids=lambda row: row.there)
def test_each_name_is_imported_as_the_page_says(row: Row) -> None:
    """These are the lines that a notebook has to change."""
    names: dict[str, Any] = {}
    assert row.code is not None
    exec(row.code, names)
    assert callable(names[row.there])


@pytest.mark.parametrize("row", OTHERS, ids=lambda row: row.there)
def test_each_habit_works_or_says_what_to_do_instead(row: Row, names: dict[str, Any]) -> None:
    """No row of the page is a promise: its code is run here."""
    if row.here.startswith(SAME):
        exec(row.there, names)
        return
    with pytest.raises((FedWardError, AttributeError)) as caught:
        exec(row.there, names)
    if row.code is None:
        assert remedy_of(caught.value) == row.here
    else:
        exec(row.code, names)


@pytest.mark.parametrize("row", OF_PLANS, ids=lambda row: row.there)
def test_what_a_plan_asks_of_itself_is_there_or_is_said_before_hospitals_read_it(
    row: Row, names: dict[str, Any]
) -> None:
    """At a hospital it would fail in the middle of a training, with a line and no word of why."""
    names["plan_file"].write_text(PLAN_FILE.format(line=row.there))
    experiment: Experiment = names["experiment"]
    if row.here.startswith(SAME):
        experiment.set_training_plan_file(names["plan_file"])
        attribute = re.match(r"self\.(\w+)", row.there)
        assert attribute is not None
        assert hasattr(SmallPlan, attribute[1])
        return
    with pytest.raises(FedWardError, match="Line 14 of the plan") as caught:
        experiment.set_training_plan_file(names["plan_file"])
    assert remedy_of(caught.value) == row.here


def test_the_page_has_every_name_that_the_kit_knows_from_there() -> None:
    """What is explained in an error stands on the page, too."""
    text = PAGE.read_text()
    known = [*coming_from.OTHER_NAMES, *coming_from.ARGUMENTS, *coming_from.METHODS]
    known += [*coming_from.TRAINING_ARGUMENTS, *coming_from.PLAN]

    assert [name for name in known if name not in text] == []
    assert len(ROWS) > 110


def test_two_names_of_one_argument_are_one_too_many(tmp_path: Path) -> None:
    """Which of the two counts would be a guess."""
    file = tmp_path / "plan.py"
    file.write_text(PLAN_FILE.format(line="pass"))
    with pytest.raises(FedWardError, match="training_plan_class or training_plan_file"):
        Experiment(training_plan_class=SmallPlan, training_plan_path=file)


def test_the_latest_breakpoint_is_found_without_a_name(stage: Stage) -> None:
    """As the notebook of the next morning has it."""
    found = Experiment.load_breakpoint(federation=stage.federation)
    assert found.id == stage.trained.id


def test_a_plan_that_has_a_method_of_that_name_keeps_it(names: dict[str, Any]) -> None:
    """It is the plan's own business what it calls its parts."""
    text = PLAN_FILE.format(line="self.add_preprocess()") + "\n    def add_preprocess(self):\n        pass\n"
    names["plan_file"].write_text(text)
    names["experiment"].set_training_plan_file(names["plan_file"])

    assert names["experiment"].training_plan_text() == text


def test_an_unknown_attribute_is_still_none() -> None:
    """What is neither ours nor theirs gets Python's own error."""
    with pytest.raises(AttributeError, match="no attribute 'no_such_thing'"):
        _ = Experiment().no_such_thing  # type: ignore[unreachable]


def test_the_table_is_printed_when_asked(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    """For a script, where a returned value is not shown."""
    federation: Federation = stage.federation
    federation.list(verbose=True)
    assert "Datasets that you may use" in capsys.readouterr().out

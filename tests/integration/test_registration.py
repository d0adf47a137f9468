"""What a data manager is told when a file cannot become a dataset, at the command line of a node that runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from appliance.protocol.errors import Code
from researcher_kit import Federation
from researcher_kit.errors import NoDatasetError, NodeFailedError
from tests.hospitals import Hospitals

HEADER = "age,dose\n"
ROWS = "".join(f"{40 + n},{n / 10}\n" for n in range(30))
SECRET = "Mrs-Miller"  # stands for what a record holds
TABLE_LIMIT = 4 << 30


@dataclass(frozen=True)
class Fault:
    """A file that is not as it must be, and what must be said of it."""

    make: Callable[[Path], object]
    says: tuple[str, ...]
    plan: str = ""
    path: str = "trial.csv"
    also: tuple[str, ...] = field(default=("What to do:", "trial.csv"))


def _text(content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "trial.csv").write_text(content)


def _bytes(content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / "trial.csv").write_bytes(content)


def _huge(folder: Path) -> None:
    """A hole, which takes no space."""
    with (folder / "trial.csv").open("w") as file:
        file.write(HEADER + ROWS)
        file.truncate(TABLE_LIMIT + 1)


FAULTS = {
    "a missing column": Fault(
        _text(HEADER + ROWS),
        ("row 1, column weight: the column is missing", "Add the column to the file, or correct 'source'"),
        plan="[columns.weight]\ntype = 'number'\n",
    ),
    "ragged rows": Fault(
        _text(HEADER + ROWS + "41\n42,1.0,3\n"),
        ("row 32: the row has 1 cells; the header has 2", "row 33: the row has 3 cells", "complete the row"),
    ),
    "another encoding": Fault(
        _bytes(HEADER.encode() + ROWS.encode() + "41,M\xfcller\n".encode("latin-1")),
        ("row 32: the text is not utf-8", 'from Windows programs it is often "windows-1252"'),
    ),
    "nothing in it": Fault(_text(""), ("the file is empty", "Add a file with a header and one row a patient.")),
    "a header alone": Fault(_text(HEADER), ("there is a header but no row", "Add a file with rows.")),
    "a column twice": Fault(
        _text("age,age\n1,2\n"), ("row 1, column age: the header names this column more than once", "its own name"),
    ),
    "too much in it": Fault(_huge, ("the file has 4,096 MiB; allowed are 4,096 MiB", "Split the table")),
    "text in a number column": Fault(
        _text(HEADER + ROWS + f"41,{SECRET}\n"), ("row 32, column dose:", SECRET)
    ),
    "an empty cell": Fault(
        _text(HEADER + ROWS + "41,\n"), ("row 32, column dose: a value is missing", "missing = 'drop'"),
    ),
    "too few rows": Fault(
        _text(HEADER + "41,1.0\n"), ("minimum is 20", "minimum_samples = 20"), also=("What to do:",)
    ),
    "an archive inside": Fault(_bytes(b"PK\x03\x04rest"), ("a spreadsheet or ZIP archive", "Export the table as CSV")),
    "a place outside": Fault(
        lambda folder: (folder.parent / "outside.csv").write_text(HEADER + ROWS),
        ("../outside.csv is outside the data folder", "Copy the file into"),
        path="../outside.csv",
        also=("What to do:",),
    ),
    "a link to the outside": Fault(
        lambda folder: (folder / "trial.csv").symlink_to("/etc/passwd"),
        ("trial.csv is outside the data folder", "Copy the file into"),
    ),
    "a folder's name": Fault(
        lambda folder: (folder / "trial.csv").mkdir(), ("this is a folder or a device", "Name the CSV file itself."),
    ),
    "no file behind it": Fault(lambda _: None, ("trial.csv is not in the data folder", "Copy the file into")),
    "an unknown setting": Fault(
        _text(HEADER + ROWS), ("'delimeter' is not a known setting", "delimiter"), plan="delimeter = ';'\n",
        also=("What to do:",),
    ),
    "an unknown setting of a column": Fault(
        _text(HEADER + ROWS), ("'columns.age.unitt' is not a known setting", "unit"),
        plan="[columns.age]\nunitt = 'y'\n", also=("What to do:",),
    ),
    "a loading plan that is no TOML": Fault(
        _text(HEADER + ROWS), ("plan.toml", "line 1"), plan="delimiter = \n", also=("What to do:",)
    ),
}  # fmt: skip


@pytest.fixture
def folder(hospitals: Hospitals) -> Iterator[Path]:
    """North's data folder, as it was before at the end."""
    folder = hospitals.data("north")
    yield folder
    for path in (*folder.glob("trial*"), folder.parent / "outside.csv"):
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


@pytest.mark.parametrize("name", FAULTS)
def test_a_file_is_refused_with(name: str, hospitals: Hospitals, folder: Path, tmp_path: Path) -> None:
    """The data manager reads what is wrong, where, and what to do; nothing is registered and nothing left."""
    fault = FAULTS[name]
    fault.make(folder)
    (tmp_path / "plan.toml").write_text(fault.plan)
    options = ["--loading-plan", tmp_path / "plan.toml"] if fault.plan else []
    home, before = hospitals.home("north"), len(hospitals.audit("north", "dataset.added"))
    said = hospitals.fedward("node", "dataset", "add", fault.path, "--tag", "trial", "--home", home, *options, expect=1)

    for words in (*fault.says, *fault.also):
        assert words in said
    assert [dataset["name"] for dataset in hospitals.history("north").datasets()] == ["cells"]
    assert len(hospitals.audit("north", "dataset.added")) == before


def test_what_a_cell_holds_stays_on_the_data_managers_screen(hospitals: Hospitals, folder: Path) -> None:
    """The message may show the cell; no log may, for logs travel."""
    FAULTS["text in a number column"].make(folder)
    hospitals.fedward("node", "dataset", "add", "trial.csv", "--tag", "t", "--home", hospitals.home("north"), expect=1)
    home = hospitals.home("north")

    written = [*(home / "log").rglob("*"), *(home / "store").rglob("*")]
    assert all(SECRET.encode() not in path.read_bytes() for path in written if path.is_file())


@pytest.fixture
def trial(hospitals: Hospitals, folder: Path) -> Iterator[Path]:
    """A dataset of north's that alice may use."""
    file = folder / "trial.csv"
    cells = (folder / "cells.csv").read_text()
    file.write_text(cells)
    command = ("node", "dataset", "add", "trial.csv", "--tag", "trial", "--researcher", "alice")
    said = hospitals.fedward(*command, "--home", hospitals.home("north"))
    assert "trial: 285 rows, id " in said
    yield file
    hospitals.staff("north").call("dataset.remove", dataset="trial")


def test_a_changed_file_is_not_trained_on_until_it_is_accepted(
    hospitals: Hospitals, federation: Federation, trial: Path
) -> None:
    """What was registered, checked and approved is this file and no other."""
    north = ("--home", hospitals.home("north"))
    experiment = hospitals.experiment(federation, tags=["trial"], round_limit=3)
    experiment.run_once()
    assert "The files are those registered." in hospitals.fedward("node", "dataset", "check", "trial", *north)

    content = trial.read_text()
    trial.write_text(content + content.splitlines()[-1] + "\n")
    with pytest.raises(NodeFailedError, match=r"North \(north\).*files have changed") as failure:
        experiment.run_once()
    assert failure.value.code is Code.DATASET_CHANGED
    with pytest.raises(NoDatasetError):  # and nobody finds it any more
        hospitals.experiment(federation, tags=["trial"]).run()

    said = hospitals.fedward("node", "dataset", "check", "trial", *north, expect=1)
    assert "The files have changed. No round runs on them until you accept them with --accept." in said
    said = hospitals.fedward("node", "dataset", "check", "trial", "--accept", *north)
    assert "accepted with 286 rows" in said
    assert experiment.run_once() == 1


def test_a_file_that_is_as_it_was_again_is_used_again(
    hospitals: Hospitals, federation: Federation, trial: Path
) -> None:
    """A file that was restored from a backup needs no new consent, for it is what was consented to."""
    content, moment = trial.read_bytes(), trial.stat()
    trial.write_text("age\n1\n")
    hospitals.fedward("node", "dataset", "check", "trial", "--home", hospitals.home("north"), expect=1)
    trial.write_bytes(content)
    os.utime(trial, ns=(moment.st_atime_ns, moment.st_mtime_ns))
    hospitals.fedward("node", "dataset", "check", "trial", "--home", hospitals.home("north"))

    assert hospitals.experiment(federation, tags=["trial"], round_limit=1).run() == 1


def test_a_list_of_datasets_can_be_applied_twice(hospitals: Hospitals, folder: Path, tmp_path: Path) -> None:
    """A playbook runs again and again, and must change nothing the second time."""
    for name in ("trial-a", "trial-b"):
        (folder / f"{name}.csv").write_text(HEADER + ROWS)
    (tmp_path / "datasets.toml").write_text(
        "".join(
            f'[[dataset]]\nname = "{name}"\npath = "{name}.csv"\ntags = ["trial"]\nresearchers = ["alice"]\n'
            for name in ("trial-a", "trial-b")
        )
    )
    command = ("node", "dataset", "add", "--file", tmp_path / "datasets.toml", "--home", hospitals.home("north"))
    first = hospitals.fedward(*command)
    before = len(hospitals.audit("north"))
    second = hospitals.fedward(*command)
    after = len(hospitals.audit("north"))
    for name in ("trial-a", "trial-b"):
        hospitals.staff("north").call("dataset.remove", dataset=name)

    assert first.count("30 rows, id ") == 2
    assert second.count("registered already") == 2
    assert after == before


def test_a_fault_in_a_list_of_datasets_is_named(hospitals: Hospitals, tmp_path: Path) -> None:
    """With forty datasets in a file, the number and the setting are what one needs."""
    (tmp_path / "datasets.toml").write_text(
        '[[dataset]]\nname = "a"\npath = "a.csv"\ntags = ["t"]\n[[dataset]]\nname = "b"\npath = "b.csv"\ntag = ["t"]\n'
    )
    command = ("node", "dataset", "add", "--file", tmp_path / "datasets.toml", "--home", hospitals.home("north"))
    said = hospitals.fedward(*command, expect=1)

    assert "datasets.toml: dataset 2: tag" in said
    assert "What to do:" in said

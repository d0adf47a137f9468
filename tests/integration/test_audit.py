"""The logs of a consortium that has trained: whole as they stand, and never again after one byte was changed."""

from __future__ import annotations

import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from appliance.embedded.consortium import NETWORK
from appliance.protocol import chain
from researcher_kit import Federation
from tests.hospitals import Hospitals

SAMPLE = 200
NEWLINE = b"\n"


@pytest.fixture(scope="module", params=["north", NETWORK])
def part(request: pytest.FixtureRequest, hospitals: Hospitals) -> str:
    """A hospital, and the network host, after a training."""
    with hospitals.federation() as federation:
        hospitals.experiment(federation, model_args={"width": 2000}).run()
    return str(request.param)


def _audit(hospitals: Hospitals, part: str, *arguments: object, home: Path | None = None, expect: int = 0) -> str:
    group = "network" if part == NETWORK else "node"
    home = home or hospitals.home(part)
    return hospitals.fedward(group, "audit", *arguments, "--home", home, expect=expect)


@pytest.fixture(scope="module")
def exported(part: str, hospitals: Hospitals, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The log as its own command exports it."""
    path = tmp_path_factory.mktemp("audit") / "audit.log"
    _audit(hospitals, part, "export", "--out", path)
    return path.read_bytes()


def test_the_log_of_a_training_is_whole(part: str, hospitals: Hospitals) -> None:
    """The counterpart of all that is refused below."""
    assert "lines, all as they were written" in _audit(hospitals, part, "verify")


def test_an_exported_log_is_whole(part: str, hospitals: Hospitals, exported: bytes, tmp_path: Path) -> None:
    """An auditor takes a file along, and checks it without the machine that wrote it."""
    path = tmp_path / "audit.log"
    path.write_bytes(exported)

    assert exported.count(b"\n") > 5
    said = _audit(hospitals, part, "verify", "--file", path)
    assert f"{exported.count(NEWLINE)} lines, all as they were written" in said


def _changed(content: bytes, place: int, rng: random.Random) -> bytes:
    """The content with another byte at one place."""
    other = (content[place] + rng.randrange(1, 256)) % 256
    return content[:place] + bytes([other]) + content[place + 1 :]


def _first_altered(content: bytes, path: Path) -> int | None:
    path.write_bytes(content)
    return chain.verify(chain.read_file(path)).altered_line


def test_any_byte_of_a_line_shows_at_that_line(exported: bytes, tmp_path: Path) -> None:
    """Its hash, its text and its end alike; each byte of a line in the middle in turn."""
    rng = random.Random(1)
    lines = exported.splitlines(keepends=True)
    middle = len(lines) // 2
    start = sum(map(len, lines[:middle]))
    for place in range(start, start + len(lines[middle])):
        assert _first_altered(_changed(exported, place, rng), tmp_path / "log") == middle + 1, place


def test_any_byte_of_the_log_shows_at_its_line(exported: bytes, tmp_path: Path) -> None:
    """Anywhere else as well: a sample over the whole file, the last line's end excepted, which says nothing."""
    rng = random.Random(2)
    for place in rng.sample(range(len(exported) - 1), SAMPLE):
        expected = exported[:place].count(NEWLINE) + 1
        assert _first_altered(_changed(exported, place, rng), tmp_path / "log") == expected, place


def test_the_command_names_the_first_altered_line_of_a_file(
    part: str, hospitals: Hospitals, exported: bytes, tmp_path: Path
) -> None:
    """In words, with what to do, and with an exit code that a script sees."""
    (tmp_path / "audit.log").write_bytes(_changed(exported, len(exported) // 2, random.Random(3)))
    line = exported[: len(exported) // 2].count(NEWLINE) + 1
    said = _audit(hospitals, part, "verify", "--file", tmp_path / "audit.log", expect=1)

    assert f"ine {line}" in said
    assert "AUDIT_ALTERED" in said
    assert "What to do: Keep the file as evidence" in said


TABLES = {"north": ("audit", "store/node.db"), NETWORK: ("audit_auditline", "store/network.sqlite3")}


@pytest.fixture
def copied(part: str, hospitals: Hospitals, tmp_path: Path) -> Path:
    """A copy of the home, with the database as it is at this moment."""
    home, (_, database) = hospitals.home(part), TABLES[part]
    copy = tmp_path / "home"
    shutil.copytree(home, copy, ignore=shutil.ignore_patterns("store", "run", "spool", "scratch", "log", "broker"))
    (copy / "store").mkdir()
    with (
        closing(sqlite3.connect(f"file:{home / database}?mode=ro", uri=True)) as source,
        closing(sqlite3.connect(copy / database)) as target,
    ):
        source.backup(target)
    return copy


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE {table} SET text = replace(text, '\"at\":1', '\"at\":2') WHERE n = 4",
        "UPDATE {table} SET hash = '0' || substr(hash, 2) WHERE n = 4 AND substr(hash, 1, 1) <> '0'",
        "DELETE FROM {table} WHERE n = 4",
        "UPDATE {table} SET (text, hash) = (SELECT text, hash FROM {table} WHERE n = 5) WHERE n = 4",
    ],
    ids=["its time", "its hash", "gone", "another line in its place"],
)
def test_a_row_that_was_changed_in_the_database_is_named(
    change: str, part: str, hospitals: Hospitals, copied: Path
) -> None:
    """Whoever has root has the database; the chain still says where it was touched."""
    table, database = TABLES[part]
    assert "all as they were written" in _audit(hospitals, part, "verify", home=copied)
    with closing(sqlite3.connect(copied / database)) as connection, connection:
        was_hash = connection.execute(f"SELECT hash FROM {table} WHERE n = 4").fetchone()[0]
        if was_hash.startswith("0"):
            change = change.replace("'0' ||", "'1' ||").replace("<> '0'", "<> '1'")
        assert connection.execute(change.format(table=table)).rowcount == 1
    said = _audit(hospitals, part, "verify", home=copied, expect=1)

    assert "ine 4" in said
    assert "AUDIT_ALTERED" in said


def test_the_log_tells_the_training(hospitals: Hospitals, federation: Federation) -> None:
    """Who asked for what, on which data, with which plan, and what left: in the order in which it happened."""
    experiment = hospitals.experiment(federation, round_limit=1)
    experiment.run()

    lines = [line for line in hospitals.audit("north") if line["subject"] == experiment.id]
    assert [(line["actor"], line["event"]) for line in lines] == [
        ("alice", "round.accepted"),
        ("node", "round.replied"),
    ]
    assert lines[0]["details"]["dataset"] == "cells"

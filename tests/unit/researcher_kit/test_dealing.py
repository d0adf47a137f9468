"""One table dealt out to many nodes."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from appliance.data import LoadingPlan
from researcher_kit.dealing import Dealing, deal
from researcher_kit.errors import ExperimentArgumentError

TABLE = {
    "x": np.arange(60, dtype=np.float32) / 7,
    "label": np.repeat(["a", "b", "c"], 20),
    "patient": np.arange(60) // 4,
}


def dealt(folder: Path, n_nodes: int | None = None, *, data: object = TABLE, plan: object = None, **how: object):
    """Each node's rows."""
    nodes = deal(data, n_nodes, folder, LoadingPlan.parse(plan or {}), Dealing(**how))
    return {name: [*csv.DictReader(path.read_text().splitlines())] for name, path in nodes}


def test_every_row_goes_to_one_node(tmp_path: Path) -> None:
    """A record at two nodes would count twice, and one at none would be lost."""
    nodes = dealt(tmp_path, 7)

    values = sorted(float(row["x"]) for rows in nodes.values() for row in rows)
    assert values == sorted(map(float, TABLE["x"]))
    assert {len(rows) for rows in nodes.values()} == {8, 9}


def test_numbers_are_dealt_out_to_the_last_bit(tmp_path: Path) -> None:
    """A simulation must give what the same data give elsewhere."""
    (rows,) = dealt(tmp_path, 1).values()

    assert np.array([row["x"] for row in rows], np.float32).tobytes() == TABLE["x"].tobytes()


def test_the_seed_says_how(tmp_path: Path) -> None:
    """Who gives the seed gets the same nodes again, and with another seed others."""
    one, again, other = (dealt(tmp_path, 5, seed=seed) for seed in (3, 3, 4))

    assert one == again != other


def test_a_skewed_split_mixes_the_classes_otherwise_at_each_node(tmp_path: Path) -> None:
    """Heterogeneity is what a simulation is for."""
    skewed = dealt(tmp_path, 4, split="label-skew", column="label", alpha=0.2, seed=1)
    even = dealt(tmp_path, 4, split="label-skew", column="label", alpha=1e6, seed=1)

    shares = [[Counter(row["label"] for row in rows)["a"] / len(rows) for rows in n.values()] for n in (skewed, even)]
    spreads = [max(each) - min(each) for each in shares]
    assert spreads[0] > 0.4
    assert spreads[1] < 0.1
    assert sum(map(len, skewed.values())) == sum(map(len, even.values())) == 60


def test_a_column_says_the_node_and_is_left_out(tmp_path: Path) -> None:
    """It is a text that no node could present as a number."""
    nodes = dealt(tmp_path, split="by column", column="label")

    assert {name: len(rows) for name, rows in nodes.items()} == {"a": 20, "b": 20, "c": 20}
    assert nodes["a"][0].keys() == {"x", "patient"}


def test_a_patient_stays_at_one_node(tmp_path: Path) -> None:
    """One hospital's patient in another hospital's training would make results look better than they are."""
    nodes = dealt(tmp_path, 4, plan={"patient_id": "patient", "columns": {"x": {}}})

    places = [{row["patient"] for row in rows} for rows in nodes.values()]
    assert sum(map(len, places)) == len(set.union(*places)) == 15


def test_a_function_says_each_patients_node(tmp_path: Path) -> None:
    """Whoever has a question that we did not think of."""

    def halves(cells: list[str], n_nodes: int, _random: np.random.Generator) -> list[int]:
        return [int(cell == "a") % n_nodes for cell in cells]

    nodes = dealt(tmp_path, 2, split=halves, column="label")

    assert [len(rows) for rows in nodes.values()] == [40, 20]


def test_a_file_is_dealt_out_cell_by_cell(tmp_path: Path) -> None:
    """A file too large for memory, with cells that Python would write otherwise."""
    file = tmp_path / "all.csv"
    file.write_text('x;note;site\n1,50;"a;b";north\n2,00;c;south\n3,25;d;north\n')

    nodes = deal(file, None, tmp_path, LoadingPlan(delimiter=";"), Dealing("by column", "site"))

    assert {n: p.read_text().splitlines()[1:] for n, p in nodes} == {
        "north": ['1,50;"a;b"', "3,25;d"],
        "south": ["2,00;c"],
    }


def test_a_function_makes_each_nodes_own_data(tmp_path: Path) -> None:
    """A generator of data, or files that lie anywhere."""
    nodes = dealt(tmp_path, 2, data=lambda node: {"x": [node, 10.5]})

    assert [[float(row["x"]) for row in rows] for rows in nodes.values()] == [[0, 10.5], [1, 10.5]]


def test_a_folder_has_a_file_for_each_node(tmp_path: Path) -> None:
    """Data that are split already stay as they are."""
    for name in ("b", "a"):
        (tmp_path / f"{name}.csv").write_text("x\n1\n")

    assert deal(tmp_path, None, tmp_path, LoadingPlan(), Dealing()) == [
        ("a", tmp_path / "a.csv"),
        ("b", tmp_path / "b.csv"),
    ]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"n_nodes": 61}, "has 60 rows; 61 nodes"),
        ({"n_nodes": 0}, "n_nodes is 0"),
        ({}, "how many nodes"),
        ({"n_nodes": 2, "split": "idd"}, "Did you mean 'iid'?"),
        ({"n_nodes": 2, "split": "label-skew"}, "column="),
        ({"n_nodes": 2, "split": "label-skew", "column": "labl"}, "Did you mean 'label'?"),
        ({"n_nodes": 2, "split": "label-skew", "column": "label", "alpha": 0}, "alpha is 0"),
        ({"n_nodes": 50, "split": "label-skew", "column": "label", "alpha": 0.01}, "without a row"),
        ({"n_nodes": 2, "split": "by column", "column": "label"}, "has 3 values"),
        ({"n_nodes": 2, "split": lambda cells, _n, _r: [0] * len(cells)}, "all of them used"),
        ({"n_nodes": 2, "data": {"x": [1], "y": [1, 2]}}, "columns of one length"),
        ({"n_nodes": 2, "data": 7}, "data is 7"),
        ({"data": lambda _node: {"x": [1]}}, "how many nodes"),
    ],
)
def test_what_cannot_be_dealt_out_is_said(tmp_path: Path, wrong: dict[str, object], said: str) -> None:
    """Before anything is started."""
    with pytest.raises(ExperimentArgumentError, match=said.replace("?", r"\?")):
        dealt(tmp_path, **wrong)

"""What of a test's counts may leave: as the node's policy says, and never of a handful of patients."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from appliance.protocol.counts import Counts, CountsForm, score_bins
from appliance.protocol.errors import UpdateRefusedError
from appliance.protocol.messages import Metrics
from appliance.training.metrics import Metric, Part, evaluate, measure, pool
from appliance.warden.egress import numbers_of, released
from tests.unit.warden.conftest import PLAN, Node

GENERATOR = np.random.default_rng(5)
TARGET = (GENERATOR.random(200) < 0.4).astype(int)
SCORES = 2.0 * TARGET - 1 + GENERATOR.normal(size=200)


def _test_of(metric: str, *, samples: int = 200, **changes: Any) -> Metrics:
    """An honest test of one metric."""
    found = measure(Metric(metric), TARGET[:samples], SCORES[:samples])
    known: dict[str, Any] = {"values": {metric: found.value}, "counts": {metric: found.counts}}
    return Metrics(stage="global", samples=samples, **known | changes)


def after(node: Node, test: Metrics, **rules: Any) -> Metrics:
    """What leaves under these rules of the site."""
    node.services.policy.change(rules, lambda _connection: None)
    return released(test, PLAN, node.services.policy)


def test_histograms_leave_unless_somebody_says_otherwise_and_agree_with_the_metric(node: Node) -> None:
    """The release's rule merges small bins, and what the researcher pools is still true within its bound."""
    left = after(node, _test_of("AUC"))
    found = pool("AUC", [Part(200, counts=left.counts["AUC"])])

    assert found is not None
    assert abs(found.value - (evaluate(Metric.AUC, TARGET, SCORES) or 0)) <= found.bound < 0.08


@pytest.mark.parametrize("minimum", [2, 5, 30])
def test_no_bin_of_fewer_records_leaves(node: Node, minimum: int) -> None:
    """One patient alone in a bin is one patient's score."""
    test = _test_of("AUC")
    left = after(node, test, minimum_cell=minimum).counts["AUC"]

    assert all(cell is None or cell == 0 or cell >= minimum for cell in left.cells)
    assert left.fault(200) is None
    before = [sum(cell or 0 for cell in row) for row in test.counts["AUC"].table()]
    assert [sum(cell or 0 for cell in row) for row in left.table()] == before


def test_a_merged_bin_holds_what_lay_in_its_range(node: Node) -> None:
    """Moved beyond it, records would make the pooled value wrong and its bound a lie."""
    test = _test_of("AUC")
    left = after(node, test, minimum_cell=7).counts["AUC"]

    for row, merged in zip(test.counts["AUC"].table(), left.table(), strict=True):
        ends = [-1, *(place for place, cell in enumerate(merged) if cell is not None)]
        held = [sum(cell or 0 for cell in row[start + 1 : end + 1]) for start, end in pairwise(ends)]
        assert held == [cell for cell in merged if cell is not None]


@pytest.mark.parametrize(
    ("rule", "left"),
    [("histograms", {"F1_SCORE", "AUC", "CALIBRATION_ERROR", "R2"}), ("sums", {"F1_SCORE", "R2"}), ("off", set())],
)
def test_the_hospital_decides_what_leaves(node: Node, rule: str, left: set[str]) -> None:
    """A histogram says more than a sum, and a sum more than nothing; the values of the test go in any case."""
    tests = {name: _test_of(name) for name in ("F1_SCORE", "AUC", "CALIBRATION_ERROR", "R2")}
    found = {name: after(node, test, pooled_counts=rule) for name, test in tests.items()}

    assert {name for name, test in found.items() if test.counts} == left
    assert all(test.values for test in found.values())


def test_of_too_few_records_nothing_is_counted(node: Node) -> None:
    """The minimum that holds for training holds here: 19 held-out patients are a handful."""
    assert not after(node, _test_of("F1_SCORE", samples=19)).counts
    assert after(node, _test_of("F1_SCORE", samples=40)).counts


@pytest.mark.parametrize("metric", ["F1_SCORE", "BALANCED_ACCURACY", "AUC"])
def test_of_a_class_with_too_few_patients_nothing_is_counted(node: Node, metric: str) -> None:
    """How many have the disease here is itself a small count."""
    few = np.zeros(60, dtype=int)
    few[:4] = 1
    found = measure(Metric(metric), few, SCORES[:60])
    test = Metrics(stage="global", samples=60, values={}, counts={metric: found.counts})

    assert not after(node, test).counts


def test_a_bin_of_few_probabilities_is_withheld_and_the_bound_says_so(node: Node) -> None:
    """What is not known lies within what is stated."""
    left = after(node, _test_of("CALIBRATION_ERROR")).counts["CALIBRATION_ERROR"]
    found = pool("CALIBRATION_ERROR", [Part(200, counts=left)])

    assert all(size is None or size == 0 or size >= 5 for size, _gap in left.table())
    assert found is not None
    assert abs(found.value - (evaluate(Metric.CALIBRATION_ERROR, TARGET, SCORES) or 0)) <= found.bound + 1e-4


@pytest.mark.parametrize("cells", [(19610203.0, 19610204.0), (0.123456789, 1.0)])
def test_what_is_no_count_leaves_with_six_digits(node: Node, cells: tuple[float, ...]) -> None:
    """Whole numbers too: nothing bounds a ratio's parts, and a date of birth is one."""
    left = after(node, _test_of("R2", counts={"auc": Counts(form=CountsForm.RATIO, rows=1, cells=cells)}))

    assert left.counts["auc"].cells == tuple(float(f"{cell:.6g}") for cell in cells)


@pytest.mark.parametrize(("name", "form"), [("auc", "scores"), ("F1_SCORE", "ratio"), ("R2", "classes")])
def test_counts_of_another_form_than_their_metrics_are_refused(node: Node, name: str, form: str) -> None:
    """A plan's own number is a ratio at most, not a histogram that nobody asked for."""
    counts = (
        _test_of({"scores": "AUC", "ratio": "C_INDEX", "classes": "F1_SCORE"}[form]).counts if form != "ratio" else {}
    )
    given = next(iter(counts.values()), Counts(form=CountsForm.RATIO, rows=1, cells=(1.0, 2.0)))
    with pytest.raises(UpdateRefusedError, match="another form"):
        after(node, _test_of("R2", counts={name: given}))


def test_the_names_of_counts_are_words_of_the_plan_as_those_of_values_are(node: Node) -> None:
    """Else they would be what the names of values must not be."""
    given = {"mrs.example-1961": Counts(form=CountsForm.RATIO, rows=1, cells=(1.0, 2.0))}
    with pytest.raises(UpdateRefusedError) as refusal:
        after(node, _test_of("R2", counts=given))
    assert "example" not in refusal.value.message


def test_values_and_counts_are_numbers_that_left() -> None:
    """For the record: a histogram is more than the one number that stands beside it."""
    test = _test_of("AUC")

    assert numbers_of([test, test]) == 2 * (1 + 2 * score_bins(2))

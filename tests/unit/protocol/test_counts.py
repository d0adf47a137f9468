"""Counts are few, of one form, and agree with the samples: what no test can have found is no message."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from appliance.protocol.counts import Counts, CountsForm, score_bins
from appliance.protocol.messages import Metrics

BINS = score_bins(2)
ZEROS = (0.0,) * (BINS - 1)


def counts(form: str, rows: int, *cells: float | None) -> Counts:
    """Counts of that form."""
    return Counts(form=CountsForm(form), rows=rows, cells=cells)


def _test_of(found: Counts, samples: int = 20) -> Metrics:
    """A test that carries them."""
    return Metrics(stage="global", samples=samples, values={}, counts={"X": found})


@pytest.mark.parametrize(
    "found",
    [
        counts("classes", 1, 8, 10, 12),
        counts("classes", 2, 8, 12, 10, 6, 8, 10),
        counts("scores", 2, *ZEROS, 12, None, *ZEROS[1:], 8),
        counts("calibration", 2, 12, -3.5, None, None),
        counts("moments", 1, 3.0, 0.5, -0.1, 0.2),
        counts("ratio", 1, 30, 40),
    ],
)
def test_what_a_test_can_have_found_is_taken(found: Counts) -> None:
    """One of each form, on 20 samples; a bin that is missing is counted elsewhere."""
    assert Metrics.model_validate_json(_test_of(found).model_dump_json()).counts["X"] == found


@pytest.mark.parametrize(
    "found",
    [
        counts("classes", 1, 11, 10, 12),
        counts("classes", 1, 8, 10, 21),
        counts("classes", 1, 7.5, 10, 12),
        counts("classes", 1, -1, 10, 12),
        counts("classes", 2, 8, 10, 10, 6, 8, 10),
        counts("scores", 2, *ZEROS, 12, *ZEROS, 9),
        counts("scores", 2, *ZEROS, 20, None, *ZEROS[1:], None),
        counts("scores", 2, *ZEROS, 12.25, *ZEROS, 7.75),
        counts("calibration", 2, 12, -12.5, 8, 0.0),
        counts("calibration", 2, 12, -3.5, 7, 0.0),
        counts("calibration", 2, 12, -3.5, None, 0.0),
        counts("moments", 1, 3.0, -0.5, -0.1, 0.2),
    ],
)
def test_what_no_test_can_have_found_is_refused(found: Counts) -> None:
    """Each number that is not bound by the samples would be room for something else."""
    with pytest.raises(ValidationError, match="counts of X"):
        _test_of(found)


@pytest.mark.parametrize(
    ("form", "rows", "cells"),
    [
        ("classes", 1, (1, 2)),
        ("classes", 200, (0,) * 600),
        ("classes", 1, (None, 0, 0)),
        ("scores", 1, (0,) * 64),
        ("scores", 2, (0,) * 127),
        ("ratio", 2, (1, 2, 3, 4)),
        ("ratio", 1, (1, float("nan"))),
        ("votes", 1, (1,)),
    ],
)
def test_counts_have_their_form(form: str, rows: int, cells: tuple[float | None, ...]) -> None:
    """A declared length, and no other."""
    with pytest.raises(ValidationError):
        Counts.model_validate({"form": form, "rows": rows, "cells": cells}, strict=False)


def test_a_test_has_so_many_counts_and_no_more() -> None:
    """Sixteen histograms under sixteen names would carry a small image."""
    histogram = counts("scores", 8, *(0,) * 512)
    one = Metrics(stage="global", samples=0, values={}, counts={"A": histogram})

    with pytest.raises(ValidationError, match="at most 512"):
        Metrics(**one.model_dump(exclude={"counts"}), counts={"A": histogram, "B": histogram})

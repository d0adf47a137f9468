"""The report's plots."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.demo.charts import (
    NARROW,
    WIDE,
    Bars,
    Dot,
    Stack,
    bar_chart,
    dot_chart,
    fitting,
    line_chart,
    stack_chart,
    tick_text,
    ticks,
)


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-3, 1e6))
def test_marks_reach_over_all_values(low, span) -> None:
    """A value outside the scale would be drawn outside the plot."""
    marks = ticks(low, low + span)

    unseen = 1e-6 * (marks[1] - marks[0])  # what no eye tells from the mark
    assert marks[0] <= low + unseen
    assert marks[-1] >= low + span - unseen
    assert len(marks) <= 12


def test_marks_carry_the_decimals_that_they_need() -> None:
    """Marks that read 0.7, 0.7, 0.8 are a lie."""
    marks = ticks(0.7, 0.8, 4)

    assert [tick_text(mark, marks) for mark in marks] == ["0.70", "0.75", "0.80"]


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("kind", ["dot", "line", "stack", "bar"])
def test_a_plot_is_well_formed_whatever_names_it_shows(kind, width) -> None:
    """Hospitals write their own names."""
    name = '<b>"North" & Söhne</b>'
    drawn = {
        "dot": lambda: dot_chart([Dot(name, 0.7, 0.1, "alone")], title=name, width=width),
        "line": lambda: line_chart([0.7], [(name, 0.7, "pooled")], label=name, title=name, width=width),
        "stack": lambda: stack_chart([Stack(name, (("training", 0.0),))], unit="s", title=name, width=width),
        "bar": lambda: bar_chart([Bars(name, (("left", 0.0, name),))], title=name, width=width),
    }[kind]()

    assert ET.fromstring(drawn).get("aria-label") == name


def test_a_first_round_that_starts_everything_does_not_flatten_the_others() -> None:
    """Nineteen rounds as a line at the bottom would show nothing."""
    drawn = ET.fromstring(
        stack_chart(
            [Stack(str(n), (("training", 50.0 if n == 1 else 1.0),)) for n in range(1, 21)],
            unit="s",
            title="t",
            width=WIDE,
        )
    )

    heights = sorted(float(bar.get("height")) for bar in drawn.iter("rect"))
    assert heights[0] > heights[-1] / 2
    assert "50 s" in [text.text for text in drawn.iter("text")]


def test_a_long_name_is_cut() -> None:
    """It would run over the numbers beside it."""
    assert fitting("University of Somewhere Far Away Indeed", 100).endswith("…")

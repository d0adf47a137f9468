"""The list of defences that are taken out one by one still fits the code."""

from __future__ import annotations

import pytest

from tests.defences import ROOT, Defence, read_defences


@pytest.mark.parametrize("defence", read_defences(), ids=lambda defence: defence.name)
def test_a_defence_stands_where_the_list_says(defence: Defence) -> None:
    """Otherwise nothing would be taken out, and its test would pass for a reason of its own."""
    assert (ROOT / defence.file).read_text().count(defence.text) == 1
    assert defence.without != defence.text


@pytest.mark.parametrize("defence", read_defences(), ids=lambda defence: defence.name)
def test_the_test_of_a_defence_exists(defence: Defence) -> None:
    """A renamed test would leave its defence unproven."""
    file, _, test = defence.test.partition("::")

    assert f"def {test.partition('[')[0]}(" in (ROOT / file).read_text() if test else (ROOT / file).is_file()

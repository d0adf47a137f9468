"""The live table, and tables at large."""

from __future__ import annotations

import io

from rich.console import Console

from appliance.protocol.errors import Code
from researcher_kit.errors import NodeFailure
from researcher_kit.monitor import LiveTable, NodeFailed, NodePaused, NodeReceived, Progress, RoundStarted
from researcher_kit.tables import Table


def console() -> Console:
    """A console that is no terminal."""
    return Console(file=io.StringIO(), width=120)


def drawn(table: LiveTable) -> str:
    """What the table shows."""
    paper = console()
    paper.print(table)
    return paper.file.getvalue()


def test_the_live_table_shows_each_nodes_state() -> None:
    """Which hospital are we waiting for?"""
    table = LiveTable()
    table(RoundStarted(2, 20, {"north": "North Hospital", "south": "South Hospital"}, is_resumed=False))
    table(Progress(2, "north", "train", 1, 30, 100, {"loss": 0.25}))
    table(NodeFailed(2, NodeFailure("south", "South Hospital", Code.TOO_FEW_SAMPLES, "30 samples.")))

    shown = drawn(table)
    assert "Round 2 of 20" in shown
    assert "30/100" in shown
    assert "loss=0.25" in shown
    assert "TOO_FEW_SAMPLES" in shown


def test_a_pause_is_one_plain_line() -> None:
    """Whoever waits must not take the hospital's decision for a fault."""
    table = LiveTable()
    table(RoundStarted(2, 20, {"north": "North Hospital"}, is_resumed=False))
    table(NodePaused(2, "north", 1_770_000_000))

    shown = " ".join(drawn(table).split())
    assert "Round 2 waits at North Hospital (north): the hospital paused the experiment on " in shown
    assert "It goes on by itself when the hospital resumes it." in shown
    assert " paused " in shown.split("institution")[1]


def test_an_event_of_an_unknown_node_draws_nothing() -> None:
    """A late node of an earlier round must not break the table."""
    table = LiveTable()
    table(NodeReceived(1, "ghost"))

    assert "ghost" not in drawn(table)


def test_nothing_is_written_where_nobody_looks() -> None:
    """A batch job's log is not a terminal."""
    paper = console()
    with LiveTable(console=paper) as table:
        table(RoundStarted(1, 1, {"north": "North Hospital"}, is_resumed=False))

    assert paper.file.getvalue() == ""


def test_it_is_written_when_asked() -> None:
    """The demo records what it shows."""
    paper = console()
    with LiveTable(console=paper, always=True) as table:
        table(RoundStarted(1, 1, {"north": "North Hospital"}, is_resumed=False))

    assert "North Hospital" in paper.file.getvalue()


def test_a_table_cannot_move_the_terminals_cursor() -> None:
    """Names come from other members."""
    table = Table("Nodes", ("name",), (("\x1b[2Jevil [bold]markup[/bold]",),))

    assert "\x1b" not in str(table)
    assert "[bold]markup" in str(table)


def test_a_table_cannot_run_in_a_notebook() -> None:
    """Likewise for what a notebook shows."""
    table = Table("<b>", ("name",), (("<img src=x onerror=alert(1)>",),))

    assert "<img" not in table._repr_html_()
    assert "<b>" not in table._repr_html_()

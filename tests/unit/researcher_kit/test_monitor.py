"""The live table, and tables at large."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from appliance.protocol.errors import Code
from appliance.protocol.messages import Metrics, Timing
from researcher_kit.curves import BLOCKS, Curves, Panel, sparkline
from researcher_kit.errors import ExperimentArgumentError, NodeFailure
from researcher_kit.history import FailureRecord, History, NodeRecord, RoundRecord, RoundTiming
from researcher_kit.live import LiveTable
from researcher_kit.monitor import NodeFailed, NodePaused, NodeReceived, Progress, RoundClosed, RoundStarted
from researcher_kit.pace import Pace
from researcher_kit.tables import Table


def console() -> Console:
    """A console that is no terminal."""
    return Console(file=io.StringIO(), width=120)


def drawn(table: LiveTable) -> str:
    """What the table shows."""
    paper = console()
    paper.print(table)
    return paper.file.getvalue()


def _reply(node: str, train_s: float) -> NodeRecord:
    return NodeRecord(
        node_id=node,
        institution=f"{node.title()} Hospital",
        dataset_id="d",
        sample_count=100,
        metrics=(Metrics(stage="global", samples=40, values={"AUC": 0.8}),),
        timing=Timing(fetch_s=0.5, train_s=train_s, upload_s=0.5),
        loss=0.25,
        update_bytes=2_000_000,
        download_s=0.5,
    )


@pytest.fixture
def record() -> RoundRecord:
    """A closed round of two nodes; a third was late."""
    return RoundRecord(
        round=4,
        started_at=1_770_000_000.0,
        seconds=10.0,
        timing=RoundTiming(waiting_s=1.5, transfer_s=2.0, training_s=6.0, aggregation_s=0.5),
        replies=(_reply("north", 2.0), _reply("south", 4.0)),
        failures=(
            FailureRecord(
                node_id="west",
                institution="West Hospital",
                code=Code.ROUND_TIMEOUT,
                message="No update before the round closed.",
            ),
        ),
        parameters_bytes=2_000_000,
    )


def test_the_live_table_shows_each_nodes_state() -> None:
    """Which hospital are we waiting for?"""
    table = LiveTable()
    table(RoundStarted(2, 20, {"north": "North Hospital", "south": "South Hospital"}, is_resumed=False))
    table(Progress(2, "north", "train", 1, 30, 100, {"loss": 0.25}))
    table(NodeFailed(2, NodeFailure("south", "South Hospital", Code.TOO_FEW_SAMPLES, "30 samples.")))

    shown = drawn(table)
    assert "Round 2 of 20" in shown
    assert "30/100" in shown
    assert "▄ 0.25" in shown
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


def test_the_table_says_what_the_time_to_come_is_and_whom_it_waits_for() -> None:
    """One hospital is slow: is it minutes or the night?"""
    now = [0.0]
    table = LiveTable(pace=Pace(clock=lambda: now[0]))
    table(RoundStarted(1, 3, {"north": "North Hospital", "south": "South Hospital"}, is_resumed=False))
    for at, (north, south) in enumerate([(0, 0), (50, 10)]):
        now[0] = 30.0 * at
        table(Progress(1, "north", "train", 1, north, 100, {"loss": 0.5}))
        table(Progress(1, "south", "train", 1, south, 100, {"loss": 0.5}))

    shown = " ".join(drawn(table).split())
    assert "this round: about 4 min 30 s to go" in shown
    assert "all rounds: about 14 min to go" in shown  # 270 s, and two more of 300 s
    assert "training, slowest" in shown


def test_a_closed_round_says_where_its_time_went_and_who_was_missing(record: RoundRecord) -> None:
    """What would make it faster: another line, another hospital, or another model?"""
    table = LiveTable()
    table(RoundClosed(record))

    shown = " ".join(drawn(table).split())
    assert "Round 4: 2 nodes, 10.0 s (training 60%, transfer 20%, waiting 15%, aggregation 5%)" in shown
    assert "slowest south 5.5 s" in shown
    assert "up 2 MB, down 4 MB" in shown
    assert "without west (ROUND_TIMEOUT)" in shown
    assert "began anew" not in shown


def test_an_optimizer_that_lost_its_memory_is_told(record: RoundRecord) -> None:
    """In the first round that is nothing new."""
    replies = tuple(reply.model_copy(update={"is_optimizer_new": True}) for reply in record.replies[:1])
    for number, is_told in ((1, False), (4, True)):
        table = LiveTable()
        table(RoundClosed(record.model_copy(update={"replies": replies, "round": number})))

        assert ("the optimizer at north began anew" in " ".join(drawn(table).split())) is is_told


def test_a_notebook_is_shown_a_drawing_that_follows_its_theme(record: RoundRecord) -> None:
    """IPython is handed one object, which draws itself anew; nothing in it has a page's colour but the lines."""
    shown: list[str] = []
    handle = SimpleNamespace(update=lambda table: shown.append(table._repr_html_()))
    with LiveTable(console=console(), display=lambda _table: handle) as table:
        table(RoundStarted(4, 9, {"north": "North <b>Hospital"}, is_resumed=False))
        table(RoundClosed(record))

    assert "North &lt;b&gt;Hospital" in shown[0]
    assert "<svg" in shown[-1]
    assert "currentColor" in shown[-1]
    assert not {"#000001", "#000002", "<script", "#000000"} & set(shown[-1].split('"'))


def test_a_rounds_report_says_what_came_of_each_node(record: RoundRecord) -> None:
    """Also of the one that was late, and of the one that refused."""
    lost = FailureRecord(node_id="east", institution="East", code=Code.TOO_FEW_SAMPLES, message="30 samples.")
    report = record.model_copy(update={"failures": (*record.failures, lost)}).report()

    assert [row[:3] for row in report.rows] == [
        ("north", "North Hospital", "answered"),
        ("south", "South Hospital", "answered"),
        ("west", "West Hospital", "late"),
        ("east", "East", "lost"),
    ]
    assert report.rows[2][-1] == "ROUND_TIMEOUT: No update before the round closed."
    assert report.rows[1][5:7] == ("2 MB (4 MB/s)", "2 MB (2 MB/s)")


def test_curves_are_text_in_a_terminal(record: RoundRecord) -> None:
    """A line for each node, and a drawing of what is known of all together."""
    rounds = [record.model_copy(update={"round": number}) for number in (1, 2, 3)]
    shown = str(History(rounds).plot("loss"))

    assert shown.splitlines()[0] == "loss, at the end of each node's training"
    assert "round" in shown
    assert "north" in shown
    assert "▄▄▄" in shown


def test_a_measure_that_no_round_knows_is_named_with_those_that_there_are(record: RoundRecord) -> None:
    """A typing error in a notebook."""
    with pytest.raises(ExperimentArgumentError, match=r"'AUCC'.* There is loss, AUC\."):
        History([record]).plot("AUCC")


def test_a_drawing_is_the_same_each_time_and_needs_no_clock(record: RoundRecord) -> None:
    """A notebook under version control changes only where a result does."""
    history = History([record, record.model_copy(update={"round": 5})])

    assert history.plot().svg() == history.plot().svg()
    assert len(history.plot("AUC").figure().axes) == 1


def test_a_node_has_one_colour_on_every_drawing() -> None:
    """A node whose test says nothing of one metric must not give its colour to the next."""
    line, names = [(1, 0.5), (2, 0.6)], ("north", "south", "west")
    of_two = Curves((Panel("AUC", [], {"north": line, "west": line}),), names)
    of_all = Curves((Panel("loss", [], dict.fromkeys(names, line)),), names)

    two, three = ([drawn.get_color() for drawn in each.figure().axes[0].lines] for each in (of_two, of_all))

    assert two == [three[0], three[2]]


def test_sparks_leave_out_what_is_no_number_and_average_what_is_too_much() -> None:
    """A loss that diverged for an update must not flatten the rest."""
    assert sparkline([1.0, float("nan"), 2.0]) == "▁█"
    assert sparkline([3.0, 3.0]) == "▄▄"
    assert sparkline([float(n) for n in range(1000)], 8) == BLOCKS
    assert sparkline([]) == ""

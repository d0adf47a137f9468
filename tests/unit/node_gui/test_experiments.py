"""Experiments and what left: what staff see of a round, and the button that ends it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from appliance.protocol.jose import read_jws
from appliance.protocol.messages import Pong
from appliance.warden.store import egress, rounds
from node_gui.access import Role
from node_gui.charts import line_chart
from tests.conftest import Members
from tests.unit.node_gui.conftest import Browser
from tests.unit.node_gui.hospital import Hospital

SCRIPT = "<script>alert(1)</script>"


@pytest.fixture
def hospital(tmp_path: Path, members: Members) -> Iterator[Hospital]:
    """A hospital in which an experiment of alice's has two of its twenty rounds behind it."""
    hospital = Hospital(tmp_path, members)
    for number in (1, 2):
        hospital.node.round(hospital.node.accepted(round=number)).run()
    yield hospital
    hospital.close()


@pytest.fixture
def auditor(hospital: Hospital) -> Browser:
    """Otto, who reads everything."""
    return hospital.signed_in(Role.AUDITOR, "Otto")


def test_an_experiment_is_listed_with_all_that_it_is(auditor: Browser) -> None:
    """Who, which plan and data, how far."""
    page = auditor.get("/experiments/").text
    for words in ("plan", "alice", "trial", "2 of 20", "Between rounds", "80"):
        assert words in page


def test_a_round_that_waits_is_told_from_one_that_trains(hospital: Hospital, auditor: Browser) -> None:
    """The node trains them in order; what it cannot take up now waits its turn."""
    hospital.node.accepted(experiment_id="e-2")
    assert "Waits its turn" in auditor.get("/experiments/live").text


@pytest.mark.parametrize(
    "values", [(-1.7e308, 1.7e308), (0.0, 5e-324), (1.7e308, 1.7e308), (float("inf"), 1.0), (float("nan"), 1.0)]
)
def test_numbers_that_nobody_can_draw_are_told(values: tuple[float, float]) -> None:
    """A plan that returns them must not take away the page with the button that stops it."""
    chart = line_chart("loss", {"global": list(enumerate(values))}, across="Round")

    assert chart.lines[0].points == ""
    assert len(chart.table) == 2


def test_an_experiment_whose_numbers_are_absurd_is_shown_and_stopped(hospital: Hospital, auditor: Browser) -> None:
    """The page and its form always answer."""
    values = {"loss": 1.7e308}, {"loss": -1.7e308}
    for number, value in enumerate(values, 1):
        with hospital.node.store.write() as connection:
            here = rounds.c.round == number
            result = connection.execute(sa.select(rounds.c.result).where(here)).scalar_one()
            reply = json.loads(result["reply"]) | {"metrics": [{"stage": "global", "values": value}]}
            result["reply"] = json.dumps(reply)
            connection.execute(rounds.update().where(here).values(result=result, timing={"train_s": 1e300}))

    page = auditor.get("/experiments/e-1")

    assert page.status_code == 200
    assert "-1.7e+308" in page.text
    assert auditor.get("/experiments/e-1/live").status_code == 200
    assert "/experiments/e-1/stop" in hospital.signed_in(Role.REVIEWER).get("/experiments/e-1").text


def test_curves_have_their_numbers_behind_them(auditor: Browser) -> None:
    """Nobody must be able to see a picture."""
    page = auditor.get("/experiments/e-1").text
    assert page.count("<polyline") == 2
    assert "0.75" in page
    assert "style=" not in page


def test_a_stop_says_when_the_runner_was_seen_dead(hospital: Hospital) -> None:
    """That moment is what a stop is about."""
    manager = hospital.signed_in(Role.DATA_MANAGER, "Dora")
    hospital.node.accepted(round=3)
    reply = manager.post("/experiments/e-1/stop")

    assert reply.status_code == 302
    assert "Stopped. No process of it was running any more." in manager.get("/experiments/e-1").text
    assert [row["stop_reason"] for row in hospital.node.table(rounds)][-1] == "the hospital's staff"


def test_an_unknown_experiment_is_no_page_and_stops_nothing(hospital: Hospital) -> None:
    """An id may be mistyped."""
    manager = hospital.signed_in(Role.DATA_MANAGER, "Dora")
    assert manager.get("/experiments/nothing").status_code == 404
    assert manager.post("/experiments/nothing/stop").status_code == 404
    assert hospital.node.runner.stopped == []


def test_with_the_warden_down_what_waits_says_so(hospital: Hospital, auditor: Browser) -> None:
    """It goes on when the node does."""
    hospital.node.accepted(round=3)
    hospital.stop_warden()
    assert "Waits for the node" in auditor.get("/experiments/").text


def test_a_name_that_a_plan_gave_a_metric_does_not_act(hospital: Hospital, auditor: Browser) -> None:
    """Nor does what it wrote into its error."""
    with hospital.node.store.write() as connection:
        connection.execute(rounds.update().values(error=SCRIPT))
    assert "<script>alert" not in auditor.get("/experiments/e-1").text


def test_a_chart_of_one_value_and_of_equal_ones_can_be_drawn() -> None:
    """A first round has one; a plan may return the same number always."""
    for points in ([(1.0, 5.0)], [(1.0, 0.0), (2.0, 0.0)], [(1.0, -1e300), (2.0, 1e300)], [(3.0, 1e-300)]):
        chart = line_chart("x", {"a": points}, across="Round")
        assert len(chart.lines[0].dots) == len(points)
        assert 2 <= len(chart.ticks_y) <= 12


# What left


def test_every_update_is_listed_with_its_total(auditor: Browser) -> None:
    """When, to whom, how large, of which study."""
    page = auditor.get("/what-left/").text
    assert page.count("Update, inside its answer") == 2
    assert '<p class="figure">2</p>' in page


def test_filters_leave_out_what_is_not_meant(hospital: Hospital, auditor: Browser) -> None:
    """By study, recipient and period."""
    for query in ("experiment=e-9", "recipient=mallory", "until=2001-01-01", "since=2099-01-01"):
        assert "Nothing fits." in auditor.get(f"/what-left/?{query}").text
    assert (
        auditor.get("/what-left/?experiment=e-1&recipient=alice&since=2001-01-01").text.count("inside its answer") == 2
    )


def test_answers_are_listed_when_they_are_asked_for(hospital: Hospital, auditor: Browser) -> None:
    """They carry no update; still they left."""
    hospital.node.services.reply("alice", Pong(sequence=1), in_reply_to="x")
    assert "Sign of life" not in auditor.get("/what-left/").text
    assert "Sign of life" in auditor.get("/what-left/?what=all").text


def test_a_table_for_a_spreadsheet_runs_nothing_in_it(hospital: Hospital, auditor: Browser) -> None:
    """A researcher's id or a kind could begin like a formula."""
    with hospital.node.store.write() as connection:
        connection.execute(egress.update().values(recipient="=cmd|'/C calc'!A0"))
    reply = auditor.get("/what-left/what-left.csv")
    found = list(csv.reader(io.StringIO(reply.text.removeprefix("\ufeff"))))

    assert reply.headers["Content-Disposition"].startswith("attachment")
    assert len(found) == 3
    assert found[1][1] == "'=cmd|'/C calc'!A0"


def test_an_export_is_the_nodes_own_word(hospital: Hospital, auditor: Browser, members: Members) -> None:
    """Its signature covers every line; one that is altered afterwards does not fit."""
    *lines, last = auditor.get("/what-left/what-left.jsonl?experiment=e-1").text.splitlines(keepends=True)
    signed = read_jws(json.loads(last)["signature"])
    claims = json.loads(signed.payload_by(members.keys["north"].public.identity))

    assert signed.header["typ"] == "fedward-egress-export+jws"
    assert (claims["node"], claims["lines"], len(lines)) == ("north", 2, 2)
    assert claims["lines_sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    assert claims["wanted"]["experiment_id"] == "e-1"
    assert "egress.exported" in hospital.node.events()

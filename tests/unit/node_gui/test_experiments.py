"""Experiments and what left: what staff see of a round, and the button that ends it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from appliance.protocol.counts import Counts, CountsForm
from appliance.protocol.jose import read_jws
from appliance.protocol.local.jobs import Progress
from appliance.protocol.messages import Metrics, Pong
from appliance.warden.store import egress, measures, pauses, rounds
from node_gui.access import Role
from node_gui.charts import line_chart
from node_gui.formats import iso
from tests.conftest import Members
from tests.unit.node_gui.conftest import Browser
from tests.unit.node_gui.hospital import Hospital
from tests.unit.warden.conftest import WAIT_S, honest

STAGES = ("global", "local")
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


# Pause and resume


def label(page: str, word: str) -> bool:
    """Whether a state's label on the page says the word."""
    return f'">{word}</span>' in page


def test_a_paused_experiment_says_by_whom_wherever_it_is_listed(hospital: Hospital, auditor: Browser) -> None:
    """Home, the list and its own page; until somebody resumes it."""
    manager = hospital.signed_in(Role.DATA_MANAGER, "Dora")
    hospital.node.accepted(round=3)
    reply = manager.post("/experiments/e-1/pause")
    told = manager.get(reply.location).text

    assert "Paused. No round of it begins here until somebody resumes it." in told
    for path in ("/live", "/experiments/live", "/experiments/e-1/live"):
        page = auditor.get(path).text
        assert label(page, "Paused"), path
        assert "aused by Dora" in page, path
    assert "Round 3 waits." in auditor.get("/experiments/e-1/live").text

    assert "Resumed." in manager.get(manager.post("/experiments/e-1/resume").location).text
    assert "aused by Dora" not in auditor.get("/experiments/e-1/live").text
    actors = {line["event"]: line["actor"] for line in hospital.node.audit()}
    assert (actors["experiment.paused"], actors["experiment.resumed"]) == ("staff:Dora", "staff:Dora")


def test_with_the_warden_down_a_pause_is_still_told(hospital: Hospital, auditor: Browser) -> None:
    """It is why nothing will go on when the node does."""
    hospital.node.accepted(round=3)
    hospital.signed_in(Role.REVIEWER, "Rita").post("/experiments/e-1/pause")
    hospital.stop_warden()

    assert label(auditor.get("/experiments/e-1/live").text, "Paused")


def test_buttons_are_there_for_what_can_be_done(hospital: Hospital, auditor: Browser) -> None:
    """And say what will happen; an auditor has none."""
    manager = hospital.signed_in(Role.DATA_MANAGER, "Dora")
    before = manager.get("/experiments/e-1").text
    manager.post("/experiments/e-1/pause")
    after = manager.get("/experiments/e-1").text

    assert ("Pause after this round" in before, "Stop now" in before, ">Resume<" in before) == (True, True, False)
    assert "goes on to its end, and its update leaves" in before
    assert ("/e-1/pause" in after, "Stop now" in after, ">Resume<" in after) == (False, True, True)
    assert "<form" not in auditor.get("/experiments/e-1").text.split("<main")[1]


def test_a_stale_page_pauses_nothing_and_says_how_it_is_now(hospital: Hospital) -> None:
    """A colleague paused it, or it ended, while the page was open."""
    manager = hospital.signed_in(Role.DATA_MANAGER, "Dora")
    hospital.signed_in(Role.REVIEWER, "Rita").post("/experiments/e-1/pause")
    told = manager.get(manager.post("/experiments/e-1/pause").location).text
    assert "Rita has paused it already. Nothing was changed." in told

    hospital.node.round(hospital.node.accepted(experiment_id="e-2", round_limit=1)).run()
    told = manager.get(manager.post("/experiments/e-2/resume").location).text
    assert "The experiment is not paused. Nothing was changed." in told
    assert [row["experiment_id"] for row in hospital.node.table(pauses)] == ["e-1"]


# Live


@pytest.fixture
def training(hospital: Hospital) -> Iterator[Hospital]:
    """Round 3 of 20 trains and has told of three of its nine updates."""
    runner = hospital.node.runner
    runner.blocks = True
    runner.progress = [
        Progress(job_id="j", iteration=n, iterations=9, epoch=1, values={"loss": 1.0 / n}) for n in (1, 2, 3)
    ]
    hospital.node.accepted(round=3)
    hospital.node.queue.start()
    assert runner.is_training.wait(WAIT_S)
    yield hospital
    runner.stop("e-1")


def test_a_round_that_runs_is_shown_while_it_runs(training: Hospital) -> None:
    """Step k of n, the loss, and how long it has been at it; without a form that a refresh would take away."""
    auditor = training.signed_in(Role.AUDITOR, "Otto")
    page = auditor.get("/experiments/e-1/live").text

    assert label(page, "Running")
    assert "Round 3 is under way" in page
    assert '<progress max="9" value="3"' in page
    for words in (
        "It trains. Update 3 of 9, epoch 1. Loss 0.3333.",
        "At work for",
        "Loss inside the last rounds",
    ):
        assert words in page
    assert "<form" not in page


def test_a_round_that_runs_when_its_experiment_is_paused_is_shown_to_go_on(training: Hospital) -> None:
    """Pausing ends nothing."""
    manager = training.signed_in(Role.DATA_MANAGER, "Dora")
    told = manager.get(manager.post("/experiments/e-1/pause").location).text

    assert "Round 3 goes on to its end; then the experiment pauses here." in told
    assert label(told, "Pauses after this round")
    assert "The round that is under way goes on to its end." in told


def test_a_stop_shows_the_moment_that_the_runner_saw(training: Hospital) -> None:
    """As the audit log has it, long after the page that stopped it is closed."""
    training.signed_in(Role.DATA_MANAGER, "Dora").post("/experiments/e-1/stop")
    (line,) = [line for line in training.node.audit() if line["event"] == "experiment.stopped"]
    page = training.signed_in(Role.AUDITOR, "Otto").get("/experiments/e-1/live").text

    moment = f'datetime="{iso(line["details"]["ended_at"])}"'
    assert "its last process was seen dead" in page
    assert moment in page.split("its last process was seen dead")[1][:200]


def test_a_rounds_memory_and_time_stand_beside_it(auditor: Browser) -> None:
    """What a machine must have for the next one."""
    page = auditor.get("/experiments/e-1/live").text

    assert page.count(">412 MB<") == 2
    assert page.count("under a second") >= 2


def test_the_part_that_refreshes_itself_has_an_end(hospital: Hospital, auditor: Browser) -> None:
    """A study of years must not be sent to a browser anew every five seconds."""
    node = hospital.node
    (last,) = [row for row in node.table(rounds) if row["round"] == 2]
    points = [[n, 1.0 / n] for n in range(1, 301)]
    reply = json.loads(last["result"]["reply"])
    names = [f"m{n}" for n in range(16)]
    with node.store.write() as connection:
        for number in range(3, 2003):
            metrics = [{"stage": stage, "samples": 9, "values": dict.fromkeys(names, 1.0 / number)} for stage in STAGES]
            result = {"reply": json.dumps(reply | {"metrics": metrics})}
            at = last["accepted_at"] + number
            row = last | {"jti": f"j{number}", "round": number, "accepted_at": at, "ended_at": at + 1, "result": result}
            connection.execute(rounds.insert().values(row))
            connection.execute(measures.insert().values(jti=f"j{number}", memory_bytes=1, loss=points))
    page = auditor.get("/experiments/e-1/live").text

    drawn = [points.split() for points in re.findall(r'points="([^"]*)"', page)]
    assert max(map(len, drawn)) <= 301
    assert page.count("<figure") == 9
    assert "10 further values are not drawn." in page
    assert "1952 earlier rounds are not listed." in page
    assert len(page) < 500_000
    assert '<th scope="row" class="number">2002</th>' in page


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


def test_counts_that_left_are_shown_with_what_they_are_and_how_many(hospital: Hospital, auditor: Browser) -> None:
    """A value is one number; what leaves beside it for a metric of all hospitals is more, and staff see it."""
    counts = {"F1_SCORE": Counts(form=CountsForm.CLASSES, rows=1, cells=(9.0, 12.0, 11.0))}
    tests = (Metrics(stage="global", samples=40, values={"F1_SCORE": 0.8}, counts=counts),)
    hospital.node.runner.training = lambda job, parameters: replace(honest(job, parameters), metrics=tests)
    hospital.node.round(hospital.node.accepted(round=3)).run()
    page = " ".join(re.sub(r"<[^>]*>", " ", auditor.get("/experiments/e-1").text).split())
    table = list(csv.DictReader(io.StringIO(auditor.get("/what-left/what-left.csv").text.removeprefix("\ufeff"))))

    assert "F1_SCORE before training here records found, predicted and true in each class 40 3" in page
    assert {row["round"]: row["numbers (tests)"] for row in table} == {"1": "1", "2": "1", "3": "4"}


def test_the_policy_on_counts_is_shown_and_made_stricter(hospital: Hospital) -> None:
    """In words, and without a warning where it protects more."""
    browser = hospital.signed_in(Role.ADMINISTRATOR)
    asked = browser.post("/policy/pooled_counts", value="off", shown="histograms").text
    looser = browser.post("/policy/minimum_cell", value="2", shown="5").text

    assert "off: results of this hospital only" in asked
    assert "less strict" not in asked
    assert "less strict" in looser

"""The record as staff read it, with the warden up or down."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.local.jobs import Progress
from appliance.protocol.messages import PlanApproval, PlanState, Reached, Search
from appliance.warden.history import MOST_POINTS, UPDATES, EgressFilter, History, plan_standing
from appliance.warden.store import (
    FILE_NAME,
    audit,
    datasets,
    egress,
    egress_totals,
    experiments,
    permissions,
    plans,
    rounds,
    settings,
)
from tests.unit.warden.conftest import MEMORY_BYTES, PLAN, PLAN_SHA, Node, Outcome, failed


def test_history_cannot_write(node: Node) -> None:
    """The warden is the only writer."""
    history = History(node.root)
    with history._read() as connection, pytest.raises(sa.exc.OperationalError, match="readonly"):
        connection.execute(settings.insert().values(name="a", value="1"))


def test_history_is_readable_while_the_warden_is_down(node: Node) -> None:
    """What happened must not need the one that it is about."""
    node.add_dataset()
    node.close()
    assert [dataset["name"] for dataset in History(node.root).datasets()] == ["trial"]


def test_a_node_that_never_ran_is_said_to_have_never_run(tmp_path: Path) -> None:
    """Not a traceback about a file."""
    with pytest.raises(FedWardError) as refusal:
        History(tmp_path)
    assert refusal.value.code is Code.NODE_NOT_RUNNING


def test_a_store_that_cannot_be_read_is_called_corrupt(tmp_path: Path) -> None:
    """The remedy is a backup."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / FILE_NAME).write_bytes(b"not a database" * 100)
    with pytest.raises(FedWardError) as refusal:
        History(tmp_path).datasets()
    assert refusal.value.code is Code.STORE_CORRUPT


def test_datasets_come_with_their_permissions(node: Node) -> None:
    """Who may use what is one question."""
    node.add_dataset(researchers=("alice", "mallory"))
    found = History(node.root).dataset("trial")
    assert [permission["researcher"] for permission in found["permissions"]] == ["alice", "mallory"]
    assert History(node.root).dataset(found["id"]) == found


def test_an_unknown_dataset_is_named(node: Node) -> None:
    """It was mistyped."""
    with pytest.raises(FedWardError, match="'trail'"):
        History(node.root).dataset("trail")


@pytest.mark.parametrize("prefix", [PLAN_SHA, PLAN_SHA[:6], "plan"])
def test_a_plan_is_found_by_its_name_or_the_beginning_of_its_hash(node: Node, prefix: str) -> None:
    """Nobody types 64 characters."""
    node.add_plan()
    assert History(node.root).plan(prefix)["sha256"] == PLAN_SHA


def test_a_plan_that_is_named_after_another_ones_hash_hides_none(node: Node) -> None:
    """A researcher chooses the name; else no one could look at the other plan, or revoke it."""
    node.add_plan()
    named = "x = 1\n"
    asked = PlanApproval(name=PLAN_SHA, description="", source=named, sha256=hashlib.sha256(named.encode()).hexdigest())
    with node.store.write() as connection:
        node.services.plans.request(connection, "mallory", asked)
    assert History(node.root).plan(PLAN_SHA)["name"] == "plan"

    with node.store.write() as connection:
        connection.execute(plans.delete().where(plans.c.sha256 == PLAN_SHA))
    with pytest.raises(FedWardError) as refusal:
        History(node.root).plan(PLAN_SHA)
    assert refusal.value.code is Code.PLAN_UNKNOWN


@pytest.mark.parametrize("prefix", ["", "%", "______", "%%%%%%", PLAN_SHA[:5], "nothing"])
def test_what_names_no_plan_finds_none(node: Node, prefix: str) -> None:
    """Approving the wrong plan would be the worst of mistakes."""
    node.add_plan()
    with pytest.raises(FedWardError) as refusal:
        History(node.root).plan(prefix)
    assert refusal.value.code is Code.PLAN_UNKNOWN


def test_a_name_that_two_plans_share_is_not_guessed(node: Node) -> None:
    """The reader is given both hashes to choose from."""
    node.add_plan()
    other = node.add_plan(PLAN + "\n# changed")
    with pytest.raises(FedWardError, match=other[:12]):
        History(node.root).plan("plan")


def test_a_plans_changes_are_shown_against_the_last_approved_of_its_name(node: Node) -> None:
    """A reviewer reads what is new."""
    node.add_plan()
    other = node.add_plan(PLAN + "import socket\n")
    diff = History(node.root).plan_diff(other)
    assert "+import socket" in diff
    assert PLAN_SHA[:12] in diff


def test_a_first_plan_has_nothing_to_be_compared_with(node: Node) -> None:
    """Which is not an error."""
    node.add_plan()
    assert History(node.root).plan_diff("plan") == ""


def test_a_rounds_record_is_shown_to_staff_and_its_request_is_not_dragged_along(node: Node) -> None:
    """The list of all rounds must stay light."""
    node.round(node.accepted()).run()
    history = History(node.root)
    assert history.record("e-1", 1) == "epoch 1 done"
    assert {"request", "record", "result"}.isdisjoint(history.rounds("e-1")[0])
    assert history.rounds("other") == []


# A page at a time


def test_datasets_are_found_by_name_tag_and_state(node: Node) -> None:
    """With two hundred of them nobody scrolls."""
    for name in ("a", "b", "c"):
        node.add_dataset(name)
    history = History(node.root)
    page = history.dataset_page(offset=1, size=1)
    assert ([d["name"] for d in page.rows], page.total) == (["b"], 3)
    assert page.rows[0]["permissions"][0]["researcher"] == "alice"
    assert history.dataset_page(search="OPT").total == 3
    assert history.dataset_page(search="%").total == 0
    assert history.dataset_page(state="suspended").total == 0


def test_plans_are_found_by_where_they_stand_now(node: Node) -> None:
    """An approval that ended by itself is no approval; no text is read for a list."""
    node.add_plan()
    node.add_plan(PLAN + "#")
    with node.store.write() as connection:
        connection.execute(plans.update().where(plans.c.sha256 == PLAN_SHA).values(until=1.0))
    history = History(node.root)
    assert [p["sha256"] for p in history.plan_page(states=[PlanState.EXPIRED]).rows] == [PLAN_SHA]
    assert history.plan_page(states=[PlanState.APPROVED]).total == 1
    assert history.plan_page(search=PLAN_SHA[:8]).total == 1
    assert "source" not in history.plan_page().rows[0]
    assert plan_standing(history.plan(PLAN_SHA)) is PlanState.EXPIRED


def test_decisions_are_read_over_all_texts_of_a_name(node: Node) -> None:
    """Also of the version before."""
    node.add_plan()
    node.add_plan(PLAN + "#")
    assert len(History(node.root).plan_decisions("plan")) == 2


def test_an_experiment_says_what_it_is_and_where_it_stands(node: Node) -> None:
    """By names, not ids."""
    node.round(node.accepted(round=1, round_limit=2)).run()
    history = History(node.root)
    found = history.experiment("e-1")
    told = {name: found[name] for name in ("plan", "dataset", "researcher", "round", "round_limit", "samples")}
    assert told == {
        "plan": "plan",
        "dataset": "trial",
        "researcher": "alice",
        "round": 1,
        "round_limit": 2,
        "samples": 80,
    }
    assert found["state"] == "between"
    jti = node.accepted(round=2, round_limit=2)
    assert history.experiment("e-1")["state"] == "open"
    node.round(jti).run()
    assert history.experiment("e-1")["state"] == "finished"


def test_an_experiment_on_a_dataset_that_was_removed_still_says_its_name(node: Node) -> None:
    """The log remembers it."""
    node.round(node.accepted()).run()
    (dataset,) = node.table(datasets)
    with node.store.write() as connection:
        node.services.datasets.remove(connection, "Dr. Weiss", dataset["id"])
    assert node.table(datasets) == []
    assert History(node.root).experiment("e-1")["dataset"] == "trial"


def test_several_rounds_that_wait_are_counted_and_listed_in_their_order(node: Node) -> None:
    """Which is the order in which the node takes them up."""
    for number in (1, 2):
        node.accepted(experiment_id=f"e-{number}")
    history = History(node.root)
    assert [row["experiment_id"] for row in history.open_rounds()] == ["e-1", "e-2"]
    assert [row["experiment_id"] for row in history.experiment_page(is_open=True).rows] == ["e-2", "e-1"]
    assert [row["open"] for row in history.experiment_page(search="e-2").rows] == [1]


def test_a_rounds_answer_is_kept_for_its_curve(node: Node) -> None:
    """Counts and metrics, not the update."""
    node.round(node.accepted()).run()
    history = History(node.root)
    (row,), (values,) = history.experiment_rounds("e-1"), history.experiment_values("e-1")
    assert (row["samples"], values["round"], values["metrics"][0]["values"]) == (80, 1, {"auc": 0.75})
    assert values["norm"] > 0


def test_a_round_that_left_nothing_has_no_values(node: Node) -> None:
    """What the runner returned was not let out, and is not shown as if it had been."""
    node.runner.training = lambda _job, _parameters: Outcome(b"no tensors")
    node.round(node.accepted()).run()
    history = History(node.root)
    (row,) = history.experiment_rounds("e-1")
    assert (row["step"], row["samples"], history.experiment_values("e-1")) == ("failed", None, [])


def test_a_long_study_is_told_by_some_of_its_rounds(node: Node) -> None:
    """Evenly chosen, the first and the last among them; the rounds themselves by their last ones."""
    jti = node.accepted()
    node.round(jti).run()
    row = node.row(jti)
    with node.store.write() as connection:
        for number in range(2, 1001):
            at = {"accepted_at": row["accepted_at"] + number, "ended_at": row["accepted_at"] + number + 0.5}
            timing = {"train_s": 2.0}
            connection.execute(
                rounds.insert().values(row | {"jti": f"j{number}", "round": number, "timing": timing} | at)
            )
    history = History(node.root)

    told = [values["round"] for values in history.experiment_values("e-1")]
    assert len(told) <= MOST_POINTS + 1
    assert (told[0], told[-1]) == (1, 1000)
    assert {after - before for before, after in pairwise(told[:-1])} == {4}
    assert [found["round"] for found in history.experiment_rounds("e-1", last=3)] == [1000, 999, 998]
    assert history.experiment("e-1")["trained_s"] == pytest.approx(999 * 2.0 + row["timing"]["train_s"])


def test_a_round_that_was_asked_for_twice_is_one_point_of_a_curve(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its later answer; rounds that failed or passed by this hospital leave their place to the one before."""
    monkeypatch.setattr("appliance.warden.history.MOST_POINTS", 3)
    jti = node.accepted()
    node.round(jti).run()
    row = node.row(jti)
    asked = [(2, 0.1), (3, 0.2), (5, 0.3), (9, 0.4), (3, 0.5), (7, None)]
    with node.store.write() as connection:
        for place, (number, loss) in enumerate(asked, 1):
            reply = json.dumps({"metrics": [{"stage": "local", "samples": 9, "values": {"loss": loss}}]})
            told = {"step": "failed"} if loss is None else {"result": {"reply": reply}}
            at = {"accepted_at": row["accepted_at"] + place}
            connection.execute(rounds.insert().values(row | {"jti": f"j{place}", "round": number} | told | at))
    found = History(node.root).experiment_values("e-1")

    assert [values["round"] for values in found] == [1, 3, 5, 9]  # of those asked for: 1, 4, 7 and 9
    assert found[1]["metrics"][0]["values"] == {"loss": 0.5}
    assert [values["norm"] is None for values in found] == [False, True, True, True]


def test_what_a_round_took_is_kept_beside_it(node: Node) -> None:
    """Its memory, and the loss inside it; for staff, whom it cost the machine's time."""
    node.runner.progress = [
        Progress(job_id="j", iteration=n, iterations=9, epoch=1, values={"loss": 1.0 / n}) for n in (1, 2)
    ]
    node.runner.reached = Reached(iteration=9, iterations=9, epoch=1, values={"loss": 0.1})
    node.round(node.accepted()).run()
    history = History(node.root)

    assert history.experiment_rounds("e-1")[0]["memory_bytes"] == MEMORY_BYTES
    assert history.experiment_losses("e-1", last=4) == [{"round": 1, "loss": [[1, 1.0], [2, 0.5], [9, 0.1]]}]
    assert str(MEMORY_BYTES) not in "".join(text for _, text in node.sent)


def test_the_memory_of_a_round_that_failed_is_kept_too(node: Node) -> None:
    """Of one that was ended for its memory most of all."""

    def fail(_job: object, _parameters: object) -> Outcome:
        raise failed(Code.RUNNER_LIMIT, "The training process passed its limit of memory.", memory_bytes=9_000_000_000)

    node.runner.training = fail
    node.round(node.accepted()).run()
    (row,) = History(node.root).experiment_rounds("e-1")

    assert (row["step"], row["memory_bytes"]) == ("failed", 9_000_000_000)


def test_what_left_is_filtered_and_summed(node: Node) -> None:
    """For each study by itself."""
    for number in (1, 2):
        node.round(node.accepted(experiment_id=f"e-{number}")).run()
    history = History(node.root)
    assert len(history.egress_page(EgressFilter()).rows) == 2
    assert len(history.egress_page(EgressFilter(updates_only=False)).rows) > 2
    assert len(history.egress_page(EgressFilter(experiment_id="e-1", recipient="alice")).rows) == 1
    assert history.egress_page(EgressFilter(until=1.0)).rows == []
    assert [row["updates"] for row in history.egress_totals(EgressFilter()).studies] == [1, 1]
    assert history.experiment_names(["e-1", "other"]) == {"e-1": "plan"}


def test_experiments_are_leafed_through_both_ways(node: Node) -> None:
    """The list has no length: each stretch says where those before and behind it begin."""
    for number in range(1, 6):
        node.accepted(experiment_id=f"e-{number}")
    history = History(node.root)

    def ids(before: int | None) -> tuple[list[str], int | None, int | None]:
        found = history.experiment_page(before=before, size=2)
        return [row["experiment_id"] for row in found.rows], found.older, found.newer

    assert ids(None) == (["e-5", "e-4"], 4, None)
    assert ids(4) == (["e-3", "e-2"], 2, 0)
    assert ids(2) == (["e-1"], None, 4)


def test_what_left_is_leafed_through_by_its_time(node: Node) -> None:
    """A clock that was set back mixes up the numbers, and lines of one moment are told apart by theirs."""
    moments = [3.0, 1.0, 2.0, 2.0, 5.0]
    common = {"recipient": "alice", "kind": "upload", "size_bytes": 1, "sha256": "a", "experiment_id": "e-1"}
    with node.store.write() as connection:
        connection.execute(egress.insert(), [common | {"at": moment} for moment in moments])
    history, found, before = History(node.root), [], None
    while before != 0:
        page = history.egress_page(EgressFilter(), before=before, size=2)
        found.append([row["id"] for row in page.rows])
        before = page.older or 0

    assert found == [[5, 1], [4, 3], [2]]
    assert history.egress_page(EgressFilter(), before=3, size=2).newer == 1
    assert history.egress_page(EgressFilter(), before=1, size=2).newer == 0
    assert history.egress_page(EgressFilter(), before=99, size=2).rows[0]["id"] == 5


def counted(node: Node) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What ``experiments`` and ``egress_totals`` hold, counted anew."""
    latest: dict[str, dict[str, Any]] = {}
    for row in sorted(node.table(rounds), key=lambda row: row["accepted_at"]):
        one = latest.setdefault(
            row["experiment_id"], {"requests": 0, "open": 0, "trained_s": 0.0, "answered_jti": None}
        )
        one |= {"experiment_id": row["experiment_id"], "researcher": row["researcher"], "latest_jti": row["jti"]}
        one |= {"requests": one["requests"] + 1, "open": one["open"] + (row["ended_at"] is None)}
        one |= {"began_at": one.get("began_at", row["accepted_at"])}
        one["last_activity_at"] = max(one.get("last_activity_at", 0), row["ended_at"] or row["accepted_at"])
        one["trained_s"] += row["timing"].get("train_s", 0.0)
        if row["step"] == "replied":
            one["answered_jti"] = row["jti"]
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    for line in node.table(egress):
        key = (line["experiment_id"] or "", line["recipient"])
        names = ("updates", "update_bytes", "messages", "size_bytes")
        one = sums.setdefault(key, dict.fromkeys(names, 0) | {"last_update_at": None})
        one |= {"experiment_id": key[0], "recipient": key[1], "last_at": line["at"]}
        one |= {"messages": one["messages"] + 1, "size_bytes": one["size_bytes"] + line["size_bytes"]}
        if line["kind"] in UPDATES:
            one |= {"updates": one["updates"] + 1, "update_bytes": one["update_bytes"] + line["size_bytes"]}
            one["last_update_at"] = line["at"]
    return sorted(latest.values(), key=_experiment), sorted(sums.values(), key=_experiment)


def _experiment(row: dict[str, Any]) -> str:
    return str(row["experiment_id"])


def test_what_is_kept_is_what_counting_gives(node: Node) -> None:
    """Rounds that wait, are answered, fail, are stopped and are asked for again; and all that left of them."""
    node.round(node.accepted(round=1)).run()
    node.round(node.accepted(round=1)).run()  # again: another hospital failed
    node.runner.training = lambda _job, _parameters: Outcome(b"no tensors")
    node.round(node.accepted(experiment_id="e-2")).run()
    stopped, end = node.accepted(experiment_id="e-3"), threading.Event()
    with node.store.write() as connection:
        node.queue.mark_stopped(connection, "e-3", "staff")
    end.set()
    node.round(stopped, stop=end).run()
    node.accepted(experiment_id="e-3", round=2)
    node.deliver("alice", Search(tags=("opt",)))

    by_experiment, by_recipient = counted(node)
    kept = [{k: v for k, v in row.items() if k != "last_request"} for row in node.table(experiments)]
    assert sorted(kept, key=_experiment) == by_experiment
    assert [(row["last_request"], row["requests"], row["open"]) for row in node.table(experiments)] == [
        (2, 2, 0),
        (3, 1, 0),
        (5, 2, 1),
    ]
    assert sorted(node.table(egress_totals), key=_experiment) == by_recipient
    assert len(by_recipient) == 4


def test_totals_are_of_all_times_or_of_a_periods_latest_lines(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """And say so, when the period has more lines than are summed up at once."""
    for number in (1, 2, 3):
        node.round(node.accepted(experiment_id=f"e-{number}")).run()
    node.deliver("alice", Search(tags=("opt",)))
    history = History(node.root)
    all_of_it, period = EgressFilter(updates_only=False), EgressFilter(updates_only=False, since=1.0)

    whole = history.egress_totals(all_of_it)
    assert whole == history.egress_totals(period)
    assert [row["experiment_id"] for row in whole.studies] == [None, "e-3", "e-2", "e-1"]
    assert (whole.count, whole.updates, whole.is_cut) == (4, 3, False)
    assert history.egress_totals(EgressFilter(experiment_id="e-1", recipient="alice")).updates == 1
    assert history.egress_totals(EgressFilter(recipient="mallory")).studies == []
    assert history.egress_recipients() == ["alice"]
    monkeypatch.setattr("appliance.warden.history.SUMMED_AT_MOST", 2)
    assert history.egress_totals(period).is_cut
    assert not history.egress_totals(all_of_it).is_cut


def test_what_home_tells_is_asked_for_and_not_searched(node: Node) -> None:
    """Datasets that somebody may use at this moment, and approvals that end by themselves."""
    for name in ("a", "b", "c"):
        node.add_dataset(name, researchers=() if name == "c" else ("alice",))
    node.add_plan(until=time.time() + 100)
    node.add_plan(PLAN + "#")
    with node.store.write() as connection:
        connection.execute(
            permissions.update().where(permissions.c.dataset_id == node.table(datasets)[0]["id"]).values(until=1.0)
        )
    history = History(node.root)

    assert history.usable_datasets() == 1
    now = time.time()
    assert [plan["sha256"] for plan in history.approvals_ending(now, now + 200, size=9)] == [PLAN_SHA]
    assert history.approvals_ending(now, now + 50, size=9) == []


# The audit log


def log(node: Node, count: int, *, step_s: float = 1.0) -> None:
    """That many lines, a second apart from the other."""
    with node.store.write() as connection:
        for number in range(count):
            node.clock.ahead_s = number * step_s
            node.services.audit.write(connection, "staff:Anna", "thing.done", f"s{number % 3}", word=f"w{number}")


def test_the_newest_lines_come_first_a_page_at_a_time(node: Node) -> None:
    """To the first one."""
    log(node, 5)
    history = History(node.root)
    first = history.audit_page(size=2)
    assert ([line["n"] for line in first.lines], first.older) == ([5, 4], 4)
    rest = history.audit_page(before=first.older, size=10)
    assert ([line["n"] for line in rest.lines], rest.older) == ([3, 2, 1], None)


def test_lines_are_found_by_word_subject_and_period(node: Node) -> None:
    """And by all of it together."""
    began = time.time()
    log(node, 9, step_s=100)
    history = History(node.root)
    assert [line["n"] for line in history.audit_page(search="W7").lines] == [8]
    assert [line["n"] for line in history.audit_page(subject="s1").lines] == [8, 5, 2]
    assert [line["n"] for line in history.audit_page(since=began + 250, until=began + 450).lines] == [5, 4]
    assert [line["n"] for line in history.audit_page(since=began + 250, subject="s1").lines] == [8, 5]
    assert history.audit_page(until=1.0).lines == []


def test_a_search_looks_at_so_many_lines_and_says_how_far_it_came(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million lines must not hold a page up."""
    monkeypatch.setattr("appliance.warden.history.SCANNED_AT_MOST", 10)
    log(node, 25)
    history = History(node.root)
    first = history.audit_page(search='"w2"')
    assert (first.lines, first.searched_to, first.older) == ([], 16, 16)
    second = history.audit_page(search='"w2"', before=first.older)
    assert (second.lines, second.older) == ([], 6)
    assert [line["n"] for line in history.audit_page(search='"w2"', before=second.older).lines] == [3]

    monkeypatch.setattr("appliance.warden.history.SCANNED_AT_MOST", 4)
    assert history.audit_page(subject="s1", search='"w1"').older == 14


@pytest.mark.parametrize("more", [{}, {"event": "dataset.added"}, {"event": "dataset.added", "details": {"name": "x"}}])
def test_an_altered_line_names_no_dataset(node: Node, more: dict[str, Any]) -> None:
    """And the experiment is still shown."""
    node.round(node.accepted()).run()
    with node.store.write() as connection:
        (dataset,) = node.table(datasets)
        node.services.datasets.remove(connection, "Dr. Weiss", dataset["id"])
        text = json.dumps({"subject": dataset["id"]} | more)
        connection.execute(audit.update().where(audit.c.subject == dataset["id"]).values(text=text))
    assert History(node.root).experiment("e-1")["dataset"] is None


@pytest.mark.parametrize("text", ["no json", '{"n":2}', "", "\x00"])
def test_a_line_that_was_altered_is_shown_as_one(node: Node, text: str) -> None:
    """And neither hides the others nor ends the page."""
    log(node, 3)
    with node.store.write() as connection:
        connection.execute(audit.update().where(audit.c.n == 2).values(text=text))
    lines = History(node.root).audit_page().lines
    assert [(line["n"], line["is_altered"]) for line in lines] == [(3, False), (2, True), (1, False)]
    assert len(History(node.root).audit_page(since=1.0).lines) == 3

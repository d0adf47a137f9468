"""``fedward node``: what staff type does what they mean, and what cannot be done ends with a sentence."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.console import visible
from appliance.protocol.messages import PlanApproval
from appliance.warden.datasets import DatasetSpec
from appliance.warden.store import FILE_NAME, audit, datasets, permissions, plans
from tests.unit.cli.conftest import Run
from tests.unit.warden.conftest import PLAN, PLAN_SHA, Node


def failed(result: Any) -> str:
    """What a command that failed as it should says."""
    assert result.exit_code == 1, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    assert "What to do" in result.output or "No such file" in result.output
    return " ".join(result.output.split())


def done(result: Any) -> str:
    """What a command that succeeded says."""
    assert result.exit_code == 0, (result.output, result.exception)
    return str(result.output)


EVERY_COMMAND = [
    ("status",),
    ("policy",),
    ("policy", "--set", "minimum_samples=50"),
    ("egress",),
    ("dataset", "list"),
    ("dataset", "show", "trial"),
    ("dataset", "check", "trial"),
    ("dataset", "suspend", "trial"),
    ("dataset", "resume", "trial"),
    ("dataset", "remove", "trial"),
    ("dataset", "permit", "trial", "alice"),
    ("dataset", "forbid", "trial", "alice"),
    ("dataset", "profile", "trial.csv"),
    ("dataset", "add", "trial.csv", "--tag", "opt"),
    ("plan", "list"),
    ("plan", "show", "plan"),
    ("plan", "diff", "plan"),
    ("plan", "approve", "plan"),
    ("plan", "reject", "plan"),
    ("plan", "revoke", "plan"),
    ("experiment", "list"),
    ("experiment", "stop", "e-1"),
    ("experiment", "record", "e-1", "1"),
    ("audit", "verify"),
    ("audit", "export"),
]


@pytest.mark.parametrize("words", EVERY_COMMAND, ids=" ".join)
def test_a_node_that_never_ran_is_said_so(run: Run, words: tuple[str, ...]) -> None:
    """Each command, and never with a traceback."""
    assert "NODE_NOT_RUNNING" in failed(run(*words))


@pytest.mark.parametrize("words", [("dataset", "list"), ("plan", "list"), ("audit", "verify"), ("egress",)])
def test_a_store_that_is_broken_is_said_so(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    """With the remedy, which is a backup."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / FILE_NAME).write_bytes(b"not a database" * 100)
    assert "STORE_CORRUPT" in failed(run(*words))


@pytest.mark.parametrize(
    "words",
    [(*group.split(), "nothing") for group in ("dataset show", "dataset suspend", "plan show", "plan approve")],
)
def test_what_is_not_there_is_named(node: Node, run: Run, words: tuple[str, ...]) -> None:
    """It was mistyped."""
    assert "'nothing'" in failed(run(*words))


@pytest.mark.parametrize(
    "words", [("status",), ("egress",), ("dataset", "list"), ("plan", "list"), ("experiment", "list"), ("policy",)]
)
def test_the_commands_that_show_work_on_a_new_node(node: Node, run: Run, words: tuple[str, ...]) -> None:
    """Empty tables are answers."""
    assert "Traceback" not in done(run(*words))


# Datasets


def test_a_dataset_is_added_shown_permitted_and_removed(node: Node, run: Run) -> None:
    """The data manager's whole day."""
    (node.root / "data" / "trial.csv").write_text("age,outcome\n")
    assert "100 rows" in done(run("dataset", "add", "trial.csv", "--tag", "opt", "--researcher", "alice"))
    assert "alice" in done(run("dataset", "list"))
    done(run("dataset", "permit", "trial", "mallory", "--until", "2099-12-31"))
    assert "mallory until 2099-12-31" in done(run("dataset", "show", "trial"))
    done(run("dataset", "suspend", "trial"))
    assert "suspended" in done(run("dataset", "list"))
    done(run("dataset", "resume", "trial"))
    done(run("dataset", "forbid", "trial", "mallory"))
    assert [p["researcher"] for p in node.table(permissions)] == ["alice"]
    done(run("dataset", "remove", "trial"))
    assert node.table(datasets) == []


def test_a_permission_lasts_to_the_end_of_its_last_day(node: Node, run: Run) -> None:
    """'Until the 31st' means with the 31st."""
    node.add_dataset()
    done(run("dataset", "permit", "trial", "mallory", "--until", "2099-12-31"))
    until = node.table(permissions)[1]["until"]
    assert until > 4_102_400_000 - 86_400


def test_all_datasets_of_a_file_are_added_once(node: Node, run: Run, tmp_path: Path) -> None:
    """Ansible runs it again and again."""
    for name in ("a", "b"):
        (node.root / "data" / f"{name}.csv").write_text("age,outcome\n")
    file = tmp_path / "datasets.toml"
    file.write_text("".join(f'[[dataset]]\nname = "{n}"\npath = "{n}.csv"\ntags = ["opt"]\n' for n in "ab"))
    done(run("dataset", "add", "--file", str(file)))
    assert "registered already" in done(run("dataset", "add", "--file", str(file)))
    assert len(node.table(datasets)) == 2


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "[[dataset]]"),
        ("dataset = 5", "[[dataset]]"),
        ("[[dataset]]\nname = 'a'\n", "dataset 1: path"),
        ("[[dataset]]\nname = 'a'\npath = 'a.csv'\ntags = ['x']\ncolour = 'red'", "dataset 1: colour"),
        ("[[dataset", "datasets.toml"),
        ("\udcff", "datasets.toml"),
    ],
)
def test_a_faulty_file_of_datasets_is_refused_by_file_and_entry(
    node: Node, run: Run, tmp_path: Path, text: str, named: str
) -> None:
    """As it stands: square brackets are no markup."""
    file = tmp_path / "datasets.toml"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert named in failed(run("dataset", "add", "--file", str(file)))


@pytest.mark.parametrize(
    "words",
    [
        ("dataset", "add"),
        ("dataset", "add", "trial.csv"),
        ("dataset", "add", "--file", "/nowhere/datasets.toml"),
        ("dataset", "add", "trial.csv", "--tag", "opt", "--loading-plan", "/nowhere/plan.toml"),
        ("dataset", "add", "../keys/identity.pem", "--tag", "opt"),
    ],
)
def test_a_dataset_that_cannot_be_added_is_refused_with_a_sentence(
    node: Node, run: Run, words: tuple[str, ...]
) -> None:
    """Never a traceback."""
    failed(run(*words))
    assert node.table(datasets) == []


def test_a_file_with_faults_is_shown_with_row_and_column(node: Node, run: Run) -> None:
    """The data manager mends it there."""
    (node.root / "data" / "trial.csv").write_text("age\n")
    problem = {"row": 3, "column": "age", "what": "'[bold]x' is no number.", "remedy": "Write a number."}
    node.runner.report |= {"is_usable": False, "problems": [problem]}
    assert "row 3, column age: '[bold]x' is no number." in failed(run("dataset", "add", "trial.csv", "--tag", "opt"))


def test_changed_files_end_with_exit_code_1_until_they_are_accepted(node: Node, run: Run) -> None:
    """A script can tell."""
    node.add_dataset()
    assert "those registered" in done(run("dataset", "check", "trial"))
    node.runner.report["fingerprint"] = "b" * 64
    changed = run("dataset", "check", "trial")
    assert (changed.exit_code, "--accept" in changed.output) == (1, True)
    assert "accepted with 100 rows" in done(run("dataset", "check", "trial", "--accept"))


def test_who_decided_is_who_is_signed_in_unless_told_otherwise(node: Node, run: Run) -> None:
    """The log names a person."""
    node.add_dataset()
    done(run("dataset", "suspend", "trial"))
    done(run("dataset", "resume", "trial", "--as", "Prof. Roth"))
    assert [line["actor"] for line in node.audit()[-2:]] == ["staff:Dr. Weiss", "staff:Prof. Roth"]


# Plans


def test_a_plan_is_read_approved_with_ranges_and_revoked(node: Node, run: Run) -> None:
    """The reviewer's whole day."""
    node.add_plan()
    assert PLAN in done(run("plan", "show", PLAN_SHA[:8]))
    words = [
        "--range",
        "epochs=1:5",
        "--range",
        "optimizer_args.lr=:0.1",
        "--range",
        "test_metric=AUC,ACCURACY",
        "--range",
        "model_args.depth=2",
    ]
    done(run("plan", "approve", "plan", "--note", "read", "--until", "2099-01-01", *words))
    assert node.table(plans)[0]["ranges"] == [
        {"name": "epochs", "minimum": 1.0, "maximum": 5.0, "allowed": None},
        {"name": "optimizer_args.lr", "minimum": None, "maximum": 0.1, "allowed": None},
        {"name": "test_metric", "minimum": None, "maximum": None, "allowed": ["AUC", "ACCURACY"]},
        {"name": "model_args.depth", "minimum": None, "maximum": None, "allowed": [2]},
    ]
    done(run("plan", "revoke", "plan", "--note", "no more"))
    assert "revoked" in done(run("plan", "list"))


def test_a_plan_that_somebody_decided_on_since_it_was_read_is_left_as_it_is(node: Node, run: Run) -> None:
    """What was read is named by its hash and revision, and a decision holds for that alone."""
    asked = PlanApproval(name="plan", description="", source=PLAN, sha256=PLAN_SHA)
    with node.store.write() as connection:
        node.services.plans.request(connection, "alice", asked)
    assert f"{PLAN_SHA}  revision 0" in done(run("plan", "show", "plan"))
    done(run("plan", "reject", "plan", "--note", "too many columns", "--shown", "0"))

    refused = failed(run("plan", "approve", "plan", "--shown", "0"))

    assert "DECISION_STALE" in refused
    assert f"{PLAN_SHA} revision 1" in refused  # what it is now
    assert node.table(plans)[0]["state"] == "rejected"
    assert f"approved {PLAN_SHA}" in done(run("plan", "approve", "plan", "--shown", "1"))


@pytest.mark.parametrize(
    "text",
    [
        "epochs",
        "epochs=",
        "epochs=:",
        "epochs=a:b",
        "epochs=1:2:3",
        "epochs=NaN:5",
        "=1:5",
        "epochs=5:1",
        "e pochs=1:2",
        "lr=0.01:0.1",
    ],
)
def test_a_range_that_is_none_is_refused(node: Node, run: Run, text: str) -> None:
    """An approval without the range that was meant would permit everything."""
    node.add_plan()
    failed(run("plan", "approve", "plan", "--range", text))
    assert node.table(plans)[0]["ranges"] == []


def test_a_plan_of_the_hospitals_own_is_added_byte_for_byte(node: Node, run: Run, tmp_path: Path) -> None:
    """Line ends are part of the text."""
    file = tmp_path / "ours.py"
    file.write_bytes(b"x = 1\r\ny = 2\n")
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    assert sha256 in done(run("plan", "add", str(file)))
    assert node.table(plans)[0]["sha256"] == sha256


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b""])
def test_a_plan_that_cannot_be_read_is_refused(node: Node, run: Run, tmp_path: Path, content: bytes | None) -> None:
    """And nothing of it is registered."""
    file = tmp_path / "ours.py"
    if content is not None:
        file.write_bytes(content)
    failed(run("plan", "add", str(file)))
    assert node.table(plans) == []


def test_what_changed_is_shown_against_the_last_approved_plan(node: Node, run: Run) -> None:
    """A reviewer reads what is new."""
    node.add_plan()
    other = node.add_plan(PLAN + "import socket\n")
    assert "+import socket" in done(run("plan", "diff", other[:12]))


def test_a_researchers_words_are_shown_as_they_are(node: Node, run: Run) -> None:
    """Neither markup nor a terminal's own signs act: a name must not paint 'approved' on the screen."""
    source = "# \x1b[2K hidden \u202e\n"
    sha256 = hashlib.sha256(source.encode()).hexdigest()
    asked = PlanApproval(name="[bold]\x1b[31mplan[/]", description="[link=x]d\u202ed", source=source, sha256=sha256)
    with node.store.write() as connection:
        node.services.plans.request(connection, "alice", asked)
    listed, shown = done(run("plan", "list")), done(run("plan", "show", sha256))
    assert "[bold]\\x1b[31mplan[/]" in listed
    assert "[bold]\\x1b[31mplan[/]" in shown
    assert "[link=x]d\\u202ed" in shown
    assert shown.endswith(source)  # in a pipe the text is exact


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("für Ü\n\tx", "für Ü\n\tx"),
        ("a\rb", "a\\rb"),
        ("a\x1b[0mb", "a\\x1b[0mb"),
        ("a\u202eb\u2066c\u200bd", "a\\u202eb\\u2066c\\u200bd"),
        ("a\x7fb\x9bc", "a\\x7fb\\x9bc"),
        ("[red]x[/red]", "[red]x[/red]"),
    ],
)
def test_signs_that_steer_a_terminal_or_turn_the_writing_are_spelt_out(text: str, shown: str) -> None:
    """A plan could hide a line from its reviewer with them."""
    assert visible(text).plain == shown


# Policy


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("minimum_samples=50", "50"),
        ("sandbox=full", "full"),
        ("gpu=never", "never"),
        ("gpu=force", "force"),
        ("plan_approval=off", "off"),
        ('secagg="required"', "required"),
        ('overrides={"epochs": 2}', "overrides.epochs"),
    ],
)
def test_a_rule_is_set_as_a_word_or_as_json_and_shown_with_who_set_it(
    node: Node, run: Run, text: str, shown: str
) -> None:
    """Nobody should have to quote a word."""
    lines = [line for line in done(run("policy", "--set", text)).splitlines() if "site" in line]
    assert any(shown in line for line in lines)


@pytest.mark.parametrize(
    "text", ["minimum_samples", "minimum_samples=", "=5", "minimum_smaples=5", "maximum_value=NaN", "gpu=["]
)
def test_a_rule_that_is_none_is_refused(node: Node, run: Run, text: str) -> None:
    """And nothing is changed."""
    failed(run("policy", "--set", text))
    assert not any("site" in line for line in done(run("policy")).splitlines())


# Experiments, egress, audit


def test_rounds_records_and_egress_are_shown(node: Node, run: Run) -> None:
    """What ran, what it printed, what left."""
    node.round(node.accepted()).run()
    assert "replied" in done(run("experiment", "list"))
    assert "epoch 1 done" in done(run("experiment", "record", "e-1", "1"))
    left = done(run("egress"))
    assert "enclosed" in left
    assert re.search(r"train-reply [^\n]*│ +1 │ +\d+ │ [0-9a-f]{12} │", left)  # one number of its test; size; hash


def test_a_stop_says_whether_anything_ran(node: Node, run: Run) -> None:
    """Staff need to know."""
    assert "Nothing was running." in done(run("experiment", "stop", "e-1"))
    node.accepted()
    assert "Stopped." in done(run("experiment", "stop", "e-1"))


def test_a_log_as_it_was_written_is_accepted(node: Node, run: Run, tmp_path: Path) -> None:
    """From the store and from an export."""
    node.add_dataset()
    assert "2 lines" in done(run("audit", "verify"))
    done(run("audit", "export", "--out", str(tmp_path / "log.txt")))
    assert "2 lines" in done(run("audit", "verify", "--file", str(tmp_path / "log.txt")))
    assert done(run("audit", "export")) == (tmp_path / "log.txt").read_text("utf-8")


def test_the_first_altered_line_is_named(node: Node, run: Run, tmp_path: Path) -> None:
    """In the store, and in an export."""
    node.add_dataset("tr\u00fcb")
    done(run("audit", "export", "--out", str(tmp_path / "log.txt")))
    raw = (tmp_path / "log.txt").read_bytes()
    place = raw.index(b"\n") + 80
    (tmp_path / "log.txt").write_bytes(raw[:place] + bytes([raw[place] ^ 0x80]) + raw[place + 1 :])
    assert "Line 2 of the audit log" in failed(run("audit", "verify", "--file", str(tmp_path / "log.txt")))
    with node.store.write() as connection:
        connection.execute(audit.update().where(audit.c.n == 1).values(text="{}"))
    assert "Line 1 of the audit log" in failed(run("audit", "verify"))


@pytest.mark.parametrize(
    "words", [("audit", "verify", "--file", "/nowhere/log.txt"), ("audit", "export", "--out", "/nowhere/log.txt")]
)
def test_a_file_that_cannot_be_opened_is_named(node: Node, run: Run, words: tuple[str, ...]) -> None:
    """Never a traceback."""
    assert "/nowhere/log.txt" in failed(run(*words))


def test_the_help_of_every_group_teaches(run: Run) -> None:
    """The first thing that anybody types."""
    for words in ((), ("dataset",), ("plan",), ("audit",), ("experiment",)):
        assert "Usage" in run(*words, "--help").output


def test_a_dataset_of_a_file_is_described_as_the_warden_wants_it() -> None:
    """The file's table and the call's parameter are one model."""
    spec = DatasetSpec(name="a", path="a.csv", tags=("opt",))
    assert DatasetSpec.model_validate(spec.model_dump(mode="json")) == spec

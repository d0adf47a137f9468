"""``fedward node``: a hospital's node, for its administrator and its data manager."""

from __future__ import annotations

import getpass
import json
import sys
import tomllib
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.syntax import Syntax

from appliance.cli.console import console, errors, explained, moment, print_table, visible
from appliance.protocol import chain
from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.wording import did_you_mean
from appliance.training.arguments import TrainingArguments
from appliance.warden.client import GovernanceClient
from appliance.warden.datasets import DatasetSpec
from appliance.warden.governance import SOCKET_NAME
from appliance.warden.history import History

Home = Annotated[
    Path, typer.Option("--home", envvar="FEDWARD_NODE_HOME", help="The node's folder.", show_default=False)
]
Person = Annotated[
    str, typer.Option("--as", help="Your name, as the audit log shall show it.", default_factory=getpass.getuser)
]
Note = Annotated[str, typer.Option("--note", help="Why; the researcher reads it.")]
Until = Annotated[
    datetime | None, typer.Option("--until", formats=["%Y-%m-%d"], help="Last day, as 2027-12-31.", show_default=False)
]
_Dataset = Annotated[str, typer.Argument(help="The dataset's name or id.")]
_Plan = Annotated[str, typer.Argument(help="The plan's name, or the first six characters of its hash or more.")]
_Experiment = Annotated[str, typer.Argument(help="The experiment's id.")]
_Shown = Annotated[
    int | None,
    typer.Option(
        "--shown",
        help="The revision that 'show' or 'diff' printed; a plan that somebody decided on since is left as it is.",
        show_default=False,
    ),
]
_Researcher = Annotated[str, typer.Argument(help="The researcher's member id.")]

app = typer.Typer(no_args_is_help=True, help="Run and govern this hospital's node.")
dataset_app = typer.Typer(no_args_is_help=True, help="Which data may be trained on, and by whom.")
plan_app = typer.Typer(no_args_is_help=True, help="Which training plans may run: read, compare, approve, reject.")
audit_app = typer.Typer(no_args_is_help=True, help="The log of all that happened, which nobody can change unseen.")
experiment_app = typer.Typer(no_args_is_help=True, help="What runs and ran here.")
app.add_typer(dataset_app, name="dataset")
app.add_typer(plan_app, name="plan")
app.add_typer(audit_app, name="audit")
app.add_typer(experiment_app, name="experiment")


def _warden(home: Path, person: str) -> GovernanceClient:
    return GovernanceClient(home / SOCKET_NAME, staff=person, via="cli")


# The node itself


@app.command()
@explained
def start(home: Home) -> None:
    """Start the node: the warden, which speaks to the network, and the runner, which trains without one."""
    from appliance.embedded.node import run_node  # noqa: PLC0415 - the other commands need neither of its parts

    run_node(home)


@app.command()
@explained
def status(home: Home, person: Person) -> None:
    """Say what the node does at this moment."""
    state = _warden(home, person).call("node.status")
    running = (f"round {one['round']} of {one['experiment_id']}" for one in state["running"])
    state["running"] = ", ".join(running) or "nothing"
    cells = ((name.replace("_", " "), moment(v) if name.endswith("_at") else v) for name, v in state.items())
    print_table(f"Node {state['member']}", ("", ""), cells)


@app.command()
@explained
def policy(
    home: Home,
    person: Person,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="RULE=VALUE as JSON, for example minimum_samples=50.")
    ] = None,
) -> None:
    """Print the rules in force and who set each; with --set, change the site's own.

    A rule that the consortium has set can only be made stricter.
    """
    warden = _warden(home, person)
    if change:
        rules = warden.call("policy.set", changes=dict(_assignment(text) for text in change))
    else:
        rules = warden.call("policy.show")
    print_table("Rules in force", ("rule", "value", "set by"), ((r["name"], r["value"], r["set_by"]) for r in rules))


@app.command()
@explained
def egress(home: Home) -> None:
    """List every update and every answer that left this hospital."""
    lines = History(home).egress()
    columns = ("when", "to", "what", "experiment", "round", "tensors", "test numbers", "bytes", "sha256")
    cells = (
        (
            moment(e["at"]),
            e["recipient"],
            e["kind"],
            e["experiment_id"],
            e["round"],
            e["tensors"],
            e["numbers"],
            e["size_bytes"],
            (e["sha256"] or "")[:12],
        )
        for e in lines
    )
    print_table("What left this hospital", columns, cells)


# Datasets


@dataset_app.command("add")
@explained
def dataset_add(
    home: Home,
    person: Person,
    path: Annotated[str | None, typer.Argument(help="The file, inside the node's data folder.")] = None,
    name: Annotated[str | None, typer.Option(help="What staff and researchers call it.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A word that it is found by; give several.")] = None,
    description: Annotated[str, typer.Option(help="One or two sentences for researchers.")] = "",
    loading_plan: Annotated[Path | None, typer.Option(help="How its columns are read (TOML).")] = None,
    researcher: Annotated[list[str] | None, typer.Option(help="Who may use it; give several.")] = None,
    file: Annotated[Path | None, typer.Option("--file", help="Add all datasets of a datasets.toml.")] = None,
) -> None:
    """Register a dataset; the whole file is read and checked first, and nothing of it leaves.

    Example: fedward node dataset add trial.csv --name opt --tag opt --loading-plan opt.toml --researcher alice
    """
    if file is not None:
        specs = _specs_from(file)
    elif path and tag:
        plan = {} if loading_plan is None else _toml(loading_plan)
        spec = {"name": name or Path(path).stem, "path": path, "description": description, "loading_plan": plan}
        specs = [_spec(spec | {"tags": tag, "researchers": researcher or []}, str(path))]
    else:
        raise FedWardError("Give a path and at least one --tag, or --file datasets.toml.", code=Code.ARGUMENT_INVALID)
    warden, known = _warden(home, person), {d["name"] for d in History(home).datasets()}
    for spec_ in specs:
        if file is not None and spec_.name in known:
            console.print(f"{spec_.name}: registered already")
            continue
        report = warden.call("dataset.add", spec=spec_.model_dump(mode="json"))
        console.print(f"{spec_.name}: {report['rows']} rows, id {report['dataset_id']}")


@dataset_app.command("list")
@explained
def dataset_list(home: Home) -> None:
    """List the datasets and who may use them."""
    columns = ("name", "id", "state", "rows", "tags", "researchers")
    cells = (
        (d["name"], d["id"], d["state"], d["rows"], ", ".join(d["tags"]), ", ".join(map(_permission, d["permissions"])))
        for d in History(home).datasets()
    )
    print_table("Datasets", columns, cells)


@dataset_app.command("show")
@explained
def dataset_show(home: Home, dataset: _Dataset) -> None:
    """Show one dataset: file, columns, fingerprint, permissions."""
    d = History(home).dataset(dataset)
    facts = {
        "id": d["id"],
        "state": d["state"],
        "file": d["path"],
        "description": d["description"],
        "tags": ", ".join(d["tags"]),
        "rows": d["rows"],
        "fingerprint": d["fingerprint"],
        "added": f"{moment(d['added_at'])} by {d['added_by']}",
        "researchers": ", ".join(map(_permission, d["permissions"])) or "nobody yet",
        "columns": ", ".join(f"{c['name']} ({c['type']})" for c in d["columns"]),
    }
    print_table(d["name"], ("", ""), facts.items())


@dataset_app.command("check")
@explained
def dataset_check(
    home: Home,
    person: Person,
    dataset: _Dataset,
    accept: Annotated[bool, typer.Option("--accept", help="Take the files as they are now.")] = False,
) -> None:
    """Read a dataset's files again and say whether they are those registered."""
    found = _warden(home, person).call("dataset.check", dataset=dataset, accept=accept)
    if not found["changed"]:
        console.print("The files are those registered.")
    elif found["accepted"]:
        console.print(f"The files have changed; accepted with {found['rows']} rows.")
    else:
        console.print("The files have changed. No round runs on them until you accept them with --accept.")
        raise typer.Exit(1)


@dataset_app.command("suspend")
@explained
def dataset_suspend(home: Home, person: Person, dataset: _Dataset) -> None:
    """Let no round use a dataset; what runs on it ends within five seconds."""
    _warden(home, person).call("dataset.suspend", dataset=dataset)
    console.print(f"{dataset} is suspended; nothing runs on it any more.", markup=False, highlight=False)


@dataset_app.command("resume")
@explained
def dataset_resume(home: Home, person: Person, dataset: _Dataset) -> None:
    """Let a suspended dataset be used again."""
    _warden(home, person).call("dataset.resume", dataset=dataset)
    console.print(f"{dataset} may be used again.", markup=False, highlight=False)


@dataset_app.command("remove")
@explained
def dataset_remove(home: Home, person: Person, dataset: _Dataset) -> None:
    """Forget a dataset and its permissions; the file stays where it is."""
    _warden(home, person).call("dataset.remove", dataset=dataset)
    console.print(f"{dataset} is forgotten; its file stays.", markup=False, highlight=False)


@dataset_app.command("permit")
@explained
def dataset_permit(home: Home, person: Person, dataset: _Dataset, researcher: _Researcher, until: Until = None) -> None:
    """Let a researcher see and use a dataset, until a day if one is given."""
    _warden(home, person).call("dataset.permit", dataset=dataset, researcher=researcher, until=_end_of(until))
    console.print(f"{researcher} may use {dataset}.", markup=False, highlight=False)


@dataset_app.command("forbid")
@explained
def dataset_forbid(home: Home, person: Person, dataset: _Dataset, researcher: _Researcher) -> None:
    """End a researcher's permission, and what runs under it."""
    _warden(home, person).call("dataset.forbid", dataset=dataset, researcher=researcher)
    console.print(f"{researcher} may not use {dataset} any more.", markup=False, highlight=False)


@dataset_app.command("profile")
@explained
def dataset_profile(
    home: Home,
    person: Person,
    path: Annotated[str, typer.Argument(help="The file, inside the node's data folder.")],
    loading_plan: Annotated[Path | None, typer.Option(help="How its columns are read (TOML).")] = None,
) -> None:
    """Show types, missing values and ranges of a file; nothing of it leaves."""
    plan = {} if loading_plan is None else _toml(loading_plan)
    console.print_json(data=_warden(home, person).call("dataset.profile", path=path, loading_plan=plan))


# Training plans


@plan_app.command("list")
@explained
def plan_list(home: Home) -> None:
    """List all plans with their state, the newest first."""
    columns = ("plan", "name", "state", "asked by", "asked", "reviewer", "until")
    cells = (
        (
            p["sha256"][:12],
            p["name"],
            p["state"],
            p["requested_by"],
            moment(p["requested_at"]),
            p["reviewer"],
            moment(p["until"]),
        )
        for p in History(home).plans()
    )
    print_table("Training plans", columns, cells)


@plan_app.command("show")
@explained
def plan_show(home: Home, plan: _Plan) -> None:
    """Show a plan's exact text, and what was decided about it."""
    p = History(home).plan(plan)
    lines = [_which(p), f"{p['state']}; asked by {p['requested_by']}"]
    lines += filter(None, (p["description"], p["note"] and f"note: {p['note']}"))
    lines += [f"range: {json.dumps(allowed)}" for allowed in p["ranges"] or p["asked_ranges"]]
    console.print(visible("\n".join(lines)), soft_wrap=True)
    _print_code(p["source"], "python")


@plan_app.command("diff")
@explained
def plan_diff(home: Home, plan: _Plan) -> None:
    """Show what changed against the last approved plan of the same name."""
    history = History(home)
    diff = history.plan_diff(plan)
    errors.print(visible(_which(history.plan(plan))), soft_wrap=True)
    if diff:
        _print_code(diff, "diff")
    else:
        console.print("No plan of this name was approved before.")


@plan_app.command("add")
@explained
def plan_add(
    home: Home,
    person: Person,
    file: Annotated[Path, typer.Argument(help="The plan's text.")],
    name: Annotated[str | None, typer.Option(help="What it is called.")] = None,
    description: Annotated[str, typer.Option(help="What it does.")] = "",
) -> None:
    """Register a plan of the hospital's own, which approves it."""
    try:
        source = file.read_bytes().decode("utf-8")  # line ends as they are: the exact text is what is approved
    except UnicodeDecodeError as error:
        raise FedWardError(f"{file} cannot be read as text.", code=Code.PLAN_INVALID) from error
    answer = _warden(home, person).call("plan.add", name=name or file.stem, source=source, description=description)
    console.print(answer["sha256"])


@plan_app.command("approve")
@explained
def plan_approve(
    home: Home,
    person: Person,
    plan: _Plan,
    note: Note = "",
    until: Until = None,
    shown: _Shown = None,
    range_: Annotated[
        list[str] | None,
        typer.Option("--range", help="NAME=MIN:MAX, for example epochs=1:5 or optimizer_args.lr=:0.1; give several."),
    ] = None,
) -> None:
    """Permit a plan's exact text to run, with its arguments inside ranges if you give any.

    Give --shown with the revision that you read: when somebody decided on the plan since, yours is refused.
    """
    ranges = None if range_ is None else [_range(text) for text in range_]
    meant = _decided_on(home, plan, shown)
    answer = _warden(home, person).call("plan.approve", **meant, note=note, until=_end_of(until), ranges=ranges)
    if answer["is_approved"]:
        console.print(f"approved {answer['sha256']}")
    else:
        console.print(f"noted as the first of two approvals: {answer['sha256']}")


@plan_app.command("reject")
@explained
def plan_reject(home: Home, person: Person, plan: _Plan, note: Note = "", shown: _Shown = None) -> None:
    """Say no to a plan."""
    _warden(home, person).call("plan.reject", **_decided_on(home, plan, shown), note=note)
    console.print(f"{plan} is rejected.", markup=False, highlight=False)


@plan_app.command("revoke")
@explained
def plan_revoke(home: Home, person: Person, plan: _Plan, note: Note = "", shown: _Shown = None) -> None:
    """Take an approval back; what runs under it ends within five seconds."""
    _warden(home, person).call("plan.revoke", **_decided_on(home, plan, shown), note=note)
    console.print(f"{plan} is revoked; nothing of it runs any more.", markup=False, highlight=False)


# Experiments and the audit log


@experiment_app.command("list")
@explained
def experiment_list(home: Home) -> None:
    """List every round of every experiment at this node."""
    columns = ("experiment", "round", "researcher", "state", "accepted", "ended", "error")
    cells = (
        (
            r["experiment_id"],
            r["round"],
            f"{r['researcher']} by {r['federator']}" if r["federator"] else r["researcher"],
            r["step"],
            moment(r["accepted_at"]),
            moment(r["ended_at"]),
            r["error"],
        )
        for r in History(home).rounds()
    )
    print_table("Rounds", columns, cells)
    for pause in History(home).pauses():
        line = f"{pause['experiment_id']} is paused by {pause['staff']} since {moment(pause['since'])}."
        console.print(line, markup=False, highlight=False)


@experiment_app.command("pause")
@explained
def experiment_pause(home: Home, person: Person, experiment: _Experiment) -> None:
    """Let no further round of an experiment begin here until it is resumed; one under way goes on to its end."""
    round_ = _warden(home, person).call("experiment.pause", experiment=experiment)["round"]
    under_way = "No round of it is under way." if round_ is None else f"Round {round_} goes on to its end."
    console.print(f"Paused. {under_way}", markup=False, highlight=False)


@experiment_app.command("resume")
@explained
def experiment_resume(home: Home, person: Person, experiment: _Experiment) -> None:
    """Let a paused experiment's rounds begin again at this node."""
    _warden(home, person).call("experiment.resume", experiment=experiment)
    console.print("Resumed.")


@experiment_app.command("stop")
@explained
def experiment_stop(home: Home, person: Person, experiment: _Experiment) -> None:
    """End an experiment's work at this node, with all its processes, within five seconds."""
    answer = _warden(home, person).call("experiment.stop", experiment=experiment)
    ended = f"; its last process was seen dead at {moment(answer['ended_at'])}" if answer["ended_at"] else ""
    console.print(("Stopped" if answer["was_running"] else "Nothing was running") + ended + ".")


@experiment_app.command("record")
@explained
def experiment_record(
    home: Home,
    experiment: _Experiment,
    round_: Annotated[int, typer.Argument(metavar="ROUND", help="The round's number.")],
) -> None:
    """Show what the plan printed in a round, and its traceback. It stays at this hospital."""
    console.print(visible(History(home).record(experiment, round_)), soft_wrap=True)


@audit_app.command("verify")
@explained
def audit_verify(
    home: Home,
    file: Annotated[Path | None, typer.Option("--file", help="Verify an exported log instead.")] = None,
) -> None:
    """Check the whole chain; names the first line that is not as it was written."""
    report_verdict(chain.verify(History(home).audit_lines() if file is None else chain.read_file(file)))


@audit_app.command("export")
@explained
def audit_export(
    home: Home, out: Annotated[Path | None, typer.Option("--out", help="A file; standard output if not given.")] = None
) -> None:
    """Write the log as text: a line each, its hash first."""
    export_lines(History(home).audit_lines(), out)


def report_verdict(verdict: chain.Verdict) -> None:
    """Print what a verification found; raises FedWardError when a line was altered."""
    if not verdict.is_whole:
        raise FedWardError(
            f"Line {verdict.altered_line} of the audit log is not as it was written: {verdict.reason}.",
            code=Code.AUDIT_ALTERED,
        )
    console.print(f"{verdict.lines} lines, all as they were written; the last has the hash {verdict.head}")


def export_lines(lines: Any, out: Path | None) -> None:
    """Write exported lines to a file or to standard output."""
    if out is None:
        sys.stdout.writelines(chain.export(lines))
    else:
        with out.open("w", encoding="utf-8", newline="") as file:
            file.writelines(chain.export(lines))


def _which(plan: dict[str, Any]) -> str:
    return f"{plan['name']}  {plan['sha256']}  revision {plan['revision']}"


def _decided_on(home: Path, plan: str, shown: int | None) -> dict[str, Any]:
    """The exact text and its revision, said aloud: what is decided on is what stands here, whoever is quicker."""
    found = History(home).plan(plan)
    console.print(visible(_which(found)), soft_wrap=True)
    return {"plan": found["sha256"], "shown": found["revision"] if shown is None else shown}


# Reading what people type


def _specs_from(file: Path) -> list[DatasetSpec]:
    tables = _toml(file).get("dataset")
    if not isinstance(tables, list) or not tables:
        raise FedWardError(f"{file}: has no [[dataset]] table.", code=Code.CONFIGURATION_INVALID)
    return [_spec(table, f"{file}: dataset {number}") for number, table in enumerate(tables, 1)]


def _spec(table: dict[str, Any], where: str) -> DatasetSpec:
    try:
        return DatasetSpec.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        raise FedWardError(
            f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}.", code=Code.ARGUMENT_INVALID
        ) from error


def _toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FedWardError(f"{file}: {error}.", code=Code.CONFIGURATION_INVALID) from error


def _assignment(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    if not name or not value:
        raise FedWardError(f"'{text}' is not RULE=VALUE.", code=Code.ARGUMENT_INVALID)
    return name, _value(value)


def _value(text: str) -> Any:
    """JSON where it is JSON, else a word; NaN and its kin are words."""
    try:
        return json.loads(text, parse_constant=str)
    except ValueError:
        return text


def _range(text: str) -> dict[str, Any]:
    name, _, bounds = text.partition("=")
    argument = name.partition(".")[0]
    if argument not in {*TrainingArguments.model_fields, "model_args"}:
        raise FedWardError(
            f"'{argument}' is no training argument.{did_you_mean(argument, TrainingArguments.model_fields)}",
            code=Code.ARGUMENT_INVALID,
            remedy="Name it as the researcher does, with a dot: optimizer_args.lr=0.001:0.1.",
        )
    low, colon, high = bounds.partition(":")
    if bounds and not colon:
        return {"name": name, "allowed": [_value(part) for part in bounds.split(",")]}
    limits = [_value(limit) if limit else None for limit in (low, high)]
    if not all(limit is None or isinstance(limit, int | float) for limit in limits) or not bounds:
        raise FedWardError(f"'{text}' is not NAME=MIN:MAX.", code=Code.ARGUMENT_INVALID)
    return {"name": name, "minimum": limits[0], "maximum": limits[1]}


def _print_code(text: str, language: str) -> None:
    """Code for a person's eyes, with nothing in it that hides a part; exactly as it is for a file or a pipe."""
    if sys.stdout.isatty():
        console.print(Syntax(visible(text).plain, language, line_numbers=language == "python"))
    else:
        sys.stdout.write(text)


def _end_of(day: datetime | None) -> float | None:
    return None if day is None else day.replace(hour=23, minute=59, second=59).timestamp()


def _permission(permission: dict[str, Any]) -> str:
    until = f" until {moment(permission['until'])[:10]}" if permission["until"] else ""
    return f"{permission['researcher']}{until}"

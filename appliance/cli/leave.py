"""``fedward leave``: a hospital's or researcher's host leaves the consortium."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.console import console, explained, visible
from appliance.doctor.commands import run
from appliance.leaving import found as host
from appliance.leaving import plan
from appliance.leaving.errors import LeavingError
from appliance.leaving.steps import Step, carry_out

_ROOT = Path("/")


@explained
def leave(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    erase: Annotated[
        bool, typer.Option("--erase", help="Keep no archive of the audit log, the ledger and the history.")
    ] = False,
) -> None:
    """End this host's membership: stop and remove what FedWard put here, with its keys, and keep the records.

    Containers, VPN, services, the firewall's table and system users of FedWard go; the data folder, Docker and the
    host's hardening stay. The audit log, the ledger and the history go into an archive, whose path is printed. What was
    cut short is mended by saying it again. It needs root, and asks before it begins.
    """
    if os.geteuid() != 0:
        raise LeavingError("Only root may remove services.", remedy="Say it as root: sudo fedward leave")
    found = host.look(_ROOT, run)
    today = dt.datetime.now().astimezone().date()
    steps = plan.make(found, root=_ROOT, today=today, erase=erase)
    if found.is_nothing:
        console.print("Nothing of FedWard's services is on this host.")
        if not found.program:
            return
    for step in steps:
        _say(f"- {step.says}.")
    for sentence in plan.stays(found):
        _say(f"* {sentence}")
    if dry_run:
        return
    if not yes:
        _ask(found.member)
    _carry_out(steps, farewell=plan.farewell(found, today))


def _ask(member: str | None) -> None:
    word = member or "leave"
    if typer.prompt(f"Type '{word}' to begin") != word:
        raise LeavingError("That was another word: nothing was done.", remedy="Say it again when you mean it.")


def _carry_out(steps: list[Step], *, farewell: str) -> None:
    """The program goes last, so that all is said before: afterwards it may not find its own parts any more."""
    for number, step in enumerate(steps, 1):
        _say(f"[{number}/{len(steps)}] {step.says}")
        if number == len(steps):
            _say(farewell)
        if archive := carry_out(step, run):
            _say(f"The records are in {archive}.")


def _say(text: str) -> None:
    console.print(visible(text), soft_wrap=True)

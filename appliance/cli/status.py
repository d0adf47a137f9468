"""``fedward status``: the operator sees the members as the network host last heard them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from appliance.cli.console import explained, moment, print_table
from appliance.protocol.errors import Code, FedWardError

_ASK = (
    "docker", "exec", "fedward-network",
    "fedward", "network", "status", "--json", "--home", "/var/lib/fedward/network",
)  # fmt: skip
_LIMIT_S = 60
_COLUMNS = ("member", "role", "state", "last seen", "version", "disk free", "certificate ends", "running rounds")


@explained
def status(
    inventory: Annotated[
        Path | None,
        typer.Option("-i", "--inventory", help="At the operator: the site's inventory. Without it this is the hub."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say of each member whether it is active, when it was last heard, and how it said it was.

    The network host knows it: members call it twice a minute, and a node tells it once a minute its version, its disk,
    the end of its certificate and how many rounds run. The operator's machine asks the hub by Ansible, so that it needs
    no VPN of its own; on the hub itself say it without -i, as root.
    """
    found = _read(_run(_ASK) if inventory is None else _run(_by_ansible(inventory)))
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        print_status(found)


def print_status(found: Mapping[str, Any]) -> None:
    """What the network host's ``status_show`` found, as a table."""
    title = f"{found['consortium']}, register version {found['register']}"
    print_table(title, _COLUMNS, (_cells(row, found["at"]) for row in found["members"]))


def _cells(row: Mapping[str, Any], now: float) -> tuple[object, ...]:
    seen = "never" if row["seen_at"] is None else _ago(now - row["seen_at"])
    ends = moment(row["certificate_until"])[:10]
    return (row["id"], row["role"], row["state"], seen, row["version"], _disk(row), ends, row["running_rounds"])


def _ago(seconds: float) -> str:
    if seconds < 90:
        return "now"
    for size, unit in ((86_400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit} ago"
    return "1 minute ago"


def _disk(row: Mapping[str, Any]) -> str:
    free, total = row["disk_free_bytes"], row["disk_total_bytes"]
    return "" if free is None or not total else f"{free / 2**30:.0f} GiB ({free / total:.0%})"


def _by_ansible(inventory: Path) -> tuple[str, ...]:
    beside = Path(sys.executable).with_name("ansible")
    program = str(beside) if beside.exists() else "ansible"
    module = ("--module-name", "ansible.builtin.command", "--args", shlex.join(_ASK))
    return (program, "hub", "--inventory", str(inventory), "--become", *module)


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - words of ours, no shell
            command, capture_output=True, text=True, timeout=_LIMIT_S, check=False, stdin=subprocess.DEVNULL,
            env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"},
        )  # fmt: skip
    except FileNotFoundError as error:
        raise _unheard(
            f"'{command[0]}' is not installed here",
            "Say it at the operator with -i INVENTORY (extra 'operator'), or on the hub.",
        ) from error
    except subprocess.TimeoutExpired as error:
        raise _unheard(f"no answer within {_LIMIT_S} s") from error
    if done.returncode:
        raise _unheard(" ".join((done.stderr.strip() or done.stdout).split())[-500:])
    return done.stdout


def _read(said: str) -> dict[str, Any]:
    """The line of JSON; Ansible puts a line of its own before it."""
    for line in said.splitlines():
        if line.startswith("{"):
            try:
                return dict(json.loads(line))
            except ValueError:
                break
    raise _unheard("the hub's answer is not to be understood; is its FedWard of another version?")


def _unheard(reason: str, remedy: str | None = None) -> FedWardError:
    remedy = remedy or "Say 'fedward doctor' on the hub; its container fedward-network must run."
    return FedWardError(f"The hub did not say how it stands: {reason}.", code=Code.NETWORK_UNREACHABLE, remedy=remedy)

"""``make soak``: hundreds of rounds while every part is killed in turn; ends with a verdict.

    python -m tests.soak [--rounds 500] [--seed N] [--nodes 2] [--folder FOLDER]

The exit code is 0 only if nothing was lost, done twice, corrupted, leaked or left behind. A seed fixes who is killed at
which moment of which round; what a process is doing at that very moment, no seed can fix.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.soak.soak import Soak, SoakError
from tests.soak.verdict import Verdict, judge

_NODES = ("north", "south", "west")


def main() -> int:
    """Soak, judge, and say so; returns the exit status."""
    given = _arguments()
    console = Console(soft_wrap=True)
    root = Path(given.folder or tempfile.mkdtemp(prefix="soak-"))
    began = time.monotonic()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    console.print(f"Seed {given.seed}: {given.rounds} rounds on {given.nodes} nodes in {root}")
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("rounds", total=given.rounds)
        soak = Soak(
            root, seed=given.seed, rounds=given.rounds, nodes=_NODES[: given.nodes],
            tell=lambda text: bar.console.print(f"{time.monotonic() - began:6.1f} s  {text}", markup=False),
            progress=lambda done: bar.update(task, completed=done),
        )  # fmt: skip
        try:
            soak.run()
        except SoakError as error:
            console.print(str(error), markup=False)
            console.print(f"All logs are in {root}.")
            return 1
    verdict = judge(soak)
    _show(console, soak, verdict, time.monotonic() - began)
    if verdict.is_good and not given.folder:
        shutil.rmtree(root)
    else:
        console.print(f"All logs are in {root}.")
    return 0 if verdict.is_good else 1


def _show(console: Console, soak: Soak, verdict: Verdict, seconds: float) -> None:
    table = Table("kind", "processes", "rounds", "memory +MB", "files +", title="Growth of what lived long")
    for growth in verdict.growth:
        row = (growth.kind, growth.lives, growth.rounds, f"{growth.memory / 2**20:.1f}", growth.files)
        table.add_row(*map(str, row), style="red" if growth.is_leak else "")
    console.print(table)
    kills = ", ".join(f"{victim} {count}" for victim, count in sorted(soak.kills.items()))
    console.print(f"Killed {sum(soak.kills.values())}: {kills}. Clear failures, run again: {soak.failures}.")
    for fault in verdict.faults[:20]:
        console.print(fault, style="red", markup=False)
    console.print(
        f"Rounds {soak.rounds}: completed {verdict.completed}, lost {verdict.lost}, doubled {verdict.doubled}; "
        f"requests accepted {verdict.accepted}, failed {verdict.failed}; faults {len(verdict.faults)}; {seconds:.0f} s."
    )
    console.print("The spine holds." if verdict.is_good else "It does NOT hold.", style="bold")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description="Rounds while every part is killed.")
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--nodes", type=int, default=2, choices=[1, 2, 3])
    parser.add_argument("--folder", help="keep everything here; a temporary one, kept if something is wrong, if absent")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())

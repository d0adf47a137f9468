"""What the demo shows in the terminal. Without a terminal, as in a log, the same facts come as plain lines."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.panel import Panel
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from appliance.demo.report import duration, size, summary
from appliance.demo.results import Results

# What a newcomer does with a hospital's GUI.
_FIRST_STEPS = """\
1. Open a plan reviewer's link. It opens once, within a day. The browser warns of a certificate that this machine made \
for itself: look at the certificate, compare its SHA-256 fingerprint with the one above, and go on.
2. Choose a password and sign in. [bold]Home[/] says that a plan waits: the researcher has changed it since it was \
approved. [bold]Read the plan[/], then [bold]See what changed[/].
3. Approve it, or reject it with a note that the researcher reads. The administrator's link makes an account that \
invites others and sets the policy."""


class RoundsView:
    """The rounds of one seed after another, as they happen."""

    def __init__(self, console: Console, progress: Progress, all_rounds: TaskID, rounds: int) -> None:
        self._console = console
        self._progress = progress
        self._all = all_rounds
        self._rounds = rounds
        self._task: TaskID | None = None
        self._seed = 0
        self._started = 0.0

    def seed(self, seed: int) -> None:
        """A new experiment begins."""
        self._seed, self._started = seed, time.monotonic()
        self._task = self._progress.add_task(f"seed {seed}", total=self._rounds, facts="")

    def round(self, number: int, *, seconds: float, auc: float | None = None) -> None:
        """A round was completed, in that time and with that AUC."""
        if self._task is None:
            return
        facts = duration(seconds) + (f"   AUC {auc:.3f}" if auc is not None else "")
        self._progress.update(self._task, completed=number, facts=facts)
        self._progress.advance(self._all)
        if number == self._rounds and not self._console.is_terminal:
            took = duration(time.monotonic() - self._started)
            self._console.print(
                f"seed {self._seed}: {self._rounds} rounds in {took}; the last: {facts}", highlight=False
            )


@dataclass(frozen=True)
class Door:
    """How somebody comes into a hospital's GUI.

    Attributes:
        address: Where it is.
        fingerprint: SHA-256 of the certificate that it made for itself.
        links: One-time links by whom each makes an account for.
    """

    hospital: str
    address: str
    fingerprint: str
    links: Mapping[str, str]


class DemoConsole:
    """The demo's voice.

    Args:
        console: Where to write; the terminal if None.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()

    def heading(self, title: str, text: str) -> None:
        """Say what follows."""
        self.console.print(Panel(escape(text), title=f"[bold]{escape(title)}[/]", title_align="left", padding=(0, 1)))

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Show that ``text`` is being done, and how long it took once it is."""
        started = time.monotonic()
        with self.console.status(escape(text)):
            yield
        self._line("[green]✓[/]", text, duration(time.monotonic() - started))

    def review(self, hospital: str, text: str) -> None:
        """Show something that the demo decides in a hospital's place."""
        self._line("[yellow]☞[/]", f"{hospital}: {text}", "the demo plays the reviewer")

    @contextmanager
    def rounds(self, seeds: Sequence[int], rounds: int) -> Iterator[RoundsView]:
        """Show live progress while the block runs ``rounds`` rounds for each seed."""
        progress = Progress(
            SpinnerColumn(finished_text="[green]✓[/]"),
            TextColumn("{task.description:<8}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[facts]}"),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        with progress:
            task = progress.add_task("all", total=len(seeds) * rounds, facts="")
            yield RoundsView(self.console, progress, task, rounds)

    def results(self, results: Results, files: Mapping[str, Path]) -> None:
        """Show the final table and where the files are, by what they are."""
        self.console.print()
        self.console.print(_table(results))
        self.console.print(escape(summary(results)), highlight=False)
        left = sum(entry.bytes for entry in results.egress.values())
        self.console.print(
            f"{size(left)} left the hospitals in all: signed messages and sealed updates, no record.", highlight=False
        )
        self.console.print()
        for name, path in files.items():
            self.console.print(f"[bold]{escape(name)}[/]  {escape(str(path))}", highlight=False, soft_wrap=True)

    def doors(self, doors: Sequence[Door]) -> None:
        """Show how to come into each hospital's GUI, and what there is to do."""
        self.console.print("\n[bold]Each hospital's side, in a browser[/]\n")
        for door in doors:
            lines = {f"one-time link, {whom}": link for whom, link in door.links.items()}
            lines |= {"address afterwards": door.address, "its certificate, SHA-256": door.fingerprint}
            self.console.print(f"  [bold]{escape(door.hospital)}[/]")
            for name, value in lines.items():
                # As it is: half a link opens nothing, and a fingerprint's ":AB:" is no little picture.
                line = f"    {name:<30} {value}"
                self.console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)
            self.console.print()
        self.console.print(_FIRST_STEPS, highlight=False)

    def _line(self, mark: str, text: str, note: str) -> None:
        self.console.print(f"{mark} {escape(text)}  [dim]{escape(note)}[/]", highlight=False, soft_wrap=True)


def _table(results: Results) -> Table:
    table = Table(
        title="AUC on held-out patients of every hospital",
        title_justify="left",
        caption=f"mean ± standard deviation over {len(results.seeds)} seeds",
        caption_justify="left",
    )
    table.add_column("trained on")
    table.add_column("patients", justify="right")
    table.add_column("AUC", justify="right")
    table.add_column("left the hospital", justify="right")
    for hospital, auc in results.local_auc.items():
        known, left = results.hospitals.get(hospital), results.egress.get(hospital)
        table.add_row(
            escape(results.name(hospital)),
            f"{known.patients:,}" if known else "",
            _spread(auc, results.local_auc_sd.get(hospital, 0.0)),
            f"{size(left.bytes)} in {left.messages:,}" if left else "",
        )
    table.add_section()
    everyone = f"{sum(entry.patients for entry in results.hospitals.values()):,}" if results.hospitals else ""
    table.add_row(
        "[bold cyan]all, federated[/]",
        everyone,
        f"[bold cyan]{_spread(results.federated_auc, results.federated_auc_sd)}[/]",
        "",
    )
    table.add_row(
        "all, pooled in one place", everyone, _spread(results.pooled_auc, results.pooled_auc_sd), "(every record)"
    )
    return table


def _spread(mean: float, deviation: float) -> str:
    return f"{mean:.3f} ± {deviation:.3f}"

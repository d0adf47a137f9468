"""``fedward demo``: a consortium of four real hospitals on this machine."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.console import console, explained


@explained
def demo(
    folder: Annotated[Path, typer.Option(help="Where everything goes; nothing is written elsewhere.")] = Path(
        "demo-run"
    ),
    keep: Annotated[bool, typer.Option("--keep", help="Leave the consortium running until Ctrl-C.")] = False,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="How often to train, each with other held-out women.")] = 5,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Rounds of each training.")] = 20,
) -> None:
    """Train one model on data that stays in four hospitals, all on this machine, and show what it brought.

    Starts a broker, a network host and four hospital nodes as ordinary processes on loopback, with TLS, signatures,
    sealed updates and approvals; needs neither root nor Docker nor a VPN. Ends with a table and a report.
    """
    from appliance.demo.console import DemoConsole  # noqa: PLC0415 - torch takes seconds to load
    from appliance.demo.study import RESEARCHER, Demo  # noqa: PLC0415

    study = Demo(folder, DemoConsole(console), seeds=range(seeds), rounds=rounds)
    for number in (signal.SIGTERM, signal.SIGINT):  # both end it as Ctrl-C does, also where a shell ignores one
        signal.signal(number, signal.default_int_handler)
    try:
        results = study.run()
        study_files = {name: study.folder / name for name in ("report.html", "results.json")}
        DemoConsole(console).results(results, study_files)
        if keep:
            _wait(study.consortium.home(RESEARCHER), study.folder)
    except KeyboardInterrupt:
        console.print("Ending the consortium.")
        raise typer.Exit(0 if keep else 130) from None
    finally:
        study.stop()


def _wait(home: Path, folder: Path) -> None:
    programs = Path(sys.executable).parent
    console.print(
        f"\nThe consortium keeps running until Ctrl-C. In another terminal or a notebook:\n\n"
        f"    export FEDWARD_RESEARCHER_HOME={home}\n"
        f"    {programs}/python -c 'from researcher_kit import Federation; print(Federation().list())'\n\n"
        f"A hospital's side:\n\n"
        f"    {programs}/fedward node plan list --home {folder}/members/harlem\n",
        highlight=False,
        soft_wrap=True,
    )
    threading.Event().wait()

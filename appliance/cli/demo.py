"""``fedward demo``: a consortium of four real hospitals on this machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.console import console, explained

_GUI_START_S = 90.0


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
    from appliance.demo.settings import HOSPITALS  # noqa: PLC0415
    from appliance.demo.study import RESEARCHER, Demo  # noqa: PLC0415

    study = Demo(folder, DemoConsole(console), seeds=range(seeds), rounds=rounds)
    for number in (signal.SIGTERM, signal.SIGINT):  # both end it as Ctrl-C does, also where a shell ignores one
        signal.signal(number, signal.default_int_handler)
    try:
        results = study.run()
        study_files = {name: study.folder / name for name in ("report.html", "results.json")}
        DemoConsole(console).results(results, study_files)
        if keep:
            with _guis([study.consortium.home(hospital) for hospital in HOSPITALS]) as links:
                _wait(study.consortium.home(RESEARCHER), links)
    except KeyboardInterrupt:
        console.print("Ending the consortium.")
        raise typer.Exit(0 if keep else 130) from None
    finally:
        study.stop()


@contextmanager
def _guis(homes: Sequence[Path]) -> Iterator[dict[str, str]]:
    """A browser GUI for each hospital, on a free port; gives each hospital's one-time link."""
    from appliance.embedded.part import Part  # noqa: PLC0415 - as above
    from node_gui.serve import READY_FILE, first_link  # noqa: PLC0415

    command = [sys.executable, "-m", "appliance.cli.main", "gui", "start", "--home"]
    environment = os.environ | {"FEDWARD_GUI__PORT": "0"}
    parts = [
        Part(
            f"{home.name}'s GUI",
            [*command, str(home)],
            log=home / "log/gui.log",
            environment=environment,
            folder=home,
        )
        for home in homes
    ]
    try:
        for home, part in zip(homes, parts, strict=True):
            (home / READY_FILE).unlink(missing_ok=True)
            part.start()
        for home, part in zip(homes, parts, strict=True):
            part.wait_until((home / READY_FILE).exists, timeout_s=_GUI_START_S)
        yield {home.name: first_link(home).address for home in homes}
    finally:
        for part in parts:
            part.order_stop()
        for part in parts:
            part.stop()


def _wait(home: Path, links: dict[str, str]) -> None:
    programs = Path(sys.executable).parent
    hospitals = "".join(f"    {name:<12} {link}\n" for name, link in links.items())
    console.print(
        f"\nThe consortium keeps running until Ctrl-C. In another terminal or a notebook:\n\n"
        f"    export FEDWARD_RESEARCHER_HOME={home}\n"
        f"    {programs}/python -c 'from researcher_kit import Federation; print(Federation().list())'\n\n"
        f"A hospital's side, in a browser; each link makes its administrator's account, once. The browser will ask\n"
        f"about a certificate that this machine made for itself:\n\n"
        f"{hospitals}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    threading.Event().wait()

"""``fedward demo``: a consortium of four real hospitals on this machine."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from appliance.cli.console import console, explained

if TYPE_CHECKING:
    from appliance.demo.console import Door

REVIEWER = "Rita Reviewer"  # the account that waits for a newcomer in each hospital's GUI
_GUI_START_S = 90.0


@explained
def demo(
    folder: Annotated[Path, typer.Option(help="Where everything goes; nothing is written elsewhere.")] = Path(
        "demo-run"
    ),
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the consortium running until Ctrl-C, with a GUI for each hospital.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, max=20, help="How often to train, each with other held-out women.")] = 5,
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="Rounds of each training.")] = 20,
) -> None:
    """Train one model on data that stays in four hospitals, all on this machine, and show what it brought.

    Starts a broker, a network host and four hospital nodes as ordinary processes on loopback, with TLS, signatures,
    sealed updates and approvals; needs neither root nor Docker nor a VPN. Ends with a table and a report.

    With --keep a changed version of the plan waits at each hospital for its approval, and each hospital has its GUI
    ('fedward gui start'): its address, one-time links and its certificate's fingerprint are printed.
    """
    from appliance.demo.console import DemoConsole  # noqa: PLC0415 - torch takes seconds to load
    from appliance.demo.settings import HOSPITALS  # noqa: PLC0415
    from appliance.demo.study import INSTITUTIONS, RESEARCHER, Demo  # noqa: PLC0415

    study = Demo(folder, DemoConsole(console), seeds=range(seeds), rounds=rounds)
    for number in (signal.SIGTERM, signal.SIGINT):  # both end it as Ctrl-C does, also where a shell ignores one
        signal.signal(number, signal.default_int_handler)
    try:
        results = study.run()
        study_files = {name: study.folder / name for name in ("report.html", "results.json")}
        DemoConsole(console).results(results, study_files)
        if keep:
            study.ask_again()
            homes = {INSTITUTIONS[hospital]: study.consortium.home(hospital) for hospital in HOSPITALS}
            with _guis(list(homes.values())):
                DemoConsole(console).doors([_door(name, home) for name, home in homes.items()])
                _wait(study.consortium.home(RESEARCHER))
    except KeyboardInterrupt:
        console.print("Ending the consortium.")
        raise typer.Exit(0 if keep else 130) from None
    finally:
        study.stop()


@contextmanager
def _guis(homes: Sequence[Path]) -> Iterator[None]:
    """A browser GUI for each hospital, on a free port, as ``fedward gui start`` starts it."""
    from appliance.embedded.part import Part  # noqa: PLC0415 - as above
    from node_gui.serve import READY_FILE  # noqa: PLC0415

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
        yield
    finally:
        for part in parts:
            part.order_stop()
        for part in parts:
            part.stop()


def _door(hospital: str, home: Path) -> Door:
    """The ways into a hospital's GUI, for a reviewer and for an administrator."""
    from appliance.demo.console import Door  # noqa: PLC0415 - as above
    from node_gui.access import Role  # noqa: PLC0415
    from node_gui.serve import invite, invite_first  # noqa: PLC0415

    reviewer, administrator = invite(home, REVIEWER, Role.REVIEWER), invite_first(home)
    links = {"plan reviewer": reviewer.link, "administrator": administrator.link}
    return Door(hospital, reviewer.address, str(reviewer.fingerprint), links)


def _wait(home: Path) -> None:
    programs = Path(sys.executable).parent
    console.print(
        f"\nThe consortium keeps running until Ctrl-C. In another terminal or a notebook:\n\n"
        f"    export FEDWARD_RESEARCHER_HOME={home}\n"
        f"    {programs}/python -c 'from researcher_kit import Federation; print(Federation().list())'\n",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    threading.Event().wait()

"""What the demo shows in the terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from appliance.demo.console import DemoConsole, Door


@pytest.fixture
def log() -> Console:
    """A console that is no terminal, as in a log."""
    return Console(file=io.StringIO(), width=100)


def test_the_final_table_has_every_hospital_and_both_joint_models(results, log) -> None:
    """It is the demo's answer for whoever does not open the report."""
    DemoConsole(log).results(results, {"Report": Path("/tmp/report.html")})

    shown = log.file.getvalue()
    for text in ("North Hospital", "South Hospital", "0.831 ± 0.012", "0.836 ± 0.011", "/tmp/report.html"):
        assert text in shown


def test_a_log_gets_a_line_for_each_seed(log) -> None:
    """Bars that redraw themselves make a log unreadable."""
    with DemoConsole(log).rounds([1, 2], 3) as view:
        for seed in (1, 2):
            view.seed(seed)
            for number in (1, 2, 3):
                view.round(number, seconds=0.3, auc=0.8)

    assert [line.split(":")[0] for line in log.file.getvalue().splitlines()] == ["seed 1", "seed 2"]


def test_a_decision_in_a_hospitals_place_is_shown_as_one(log) -> None:
    """Nobody shall think that a hospital approved this."""
    DemoConsole(log).review("North Hospital", "approves the plan [/bold]")

    assert "approves the plan [/bold]  the demo plays the reviewer" in log.file.getvalue()


def test_a_step_that_failed_gets_no_tick(log) -> None:
    """A tick means that it is done."""
    with pytest.raises(RuntimeError), DemoConsole(log).step("Starting"):
        raise RuntimeError

    assert "✓" not in log.file.getvalue()


def test_the_way_into_a_gui_is_never_broken(log) -> None:
    """Half a link opens nothing, and half a fingerprint proves nothing."""
    link, fingerprint = f"https://127.0.0.1:38681/invitation/{'x' * 43}", ":".join(["AB"] * 32)
    door = Door("North Hospital", "https://127.0.0.1:38681", fingerprint, {"plan reviewer": link})
    DemoConsole(log).doors([door])

    shown = log.file.getvalue()
    assert [line.split()[-1] for line in shown.splitlines() if "https" in line] == [link, door.address]
    assert fingerprint in shown

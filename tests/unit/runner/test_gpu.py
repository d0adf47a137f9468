"""Which GPUs a runner finds; the driver and its tool are played by files."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.protocol.local.jobs import Gpu
from appliance.runner.gpu import find_gpus


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with one GPU, its driver, and no tool."""
    gpu = tmp_path / "proc/driver/nvidia/gpus/0000:65:00.0"
    gpu.mkdir(parents=True)
    (gpu / "information").write_text("Model: \t\t NVIDIA T4\nIRQ:   \t\t 43\n")
    (tmp_path / "proc/driver/nvidia/version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path


def write_tool(machine: Path, script: str) -> None:
    """The driver's tool, which says what the script says."""
    tool = machine / "bin/nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)


def test_the_driver_s_tool_is_believed(machine: Path) -> None:
    """A memory that it does not tell is left open."""
    write_tool(machine, "echo 'NVIDIA T4, 15360, 570.86'; echo 'NVIDIA GB10, [N/A], 570.86'")

    assert find_gpus(machine) == (
        Gpu(name="NVIDIA T4", memory_bytes=15_360 << 20, driver="570.86"),
        Gpu(name="NVIDIA GB10", driver="570.86"),
    )


@pytest.mark.parametrize("script", [None, "exit 9"])
def test_without_a_tool_that_answers_the_driver_names_them(machine: Path, script: str | None) -> None:
    """It is there all the same."""
    if script is not None:
        write_tool(machine, script)

    assert find_gpus(machine) == (Gpu(name="NVIDIA T4"),)


@pytest.mark.parametrize("missing", ["dev/nvidia0", "proc/driver/nvidia/version"])
def test_what_no_plan_could_open_is_not_there(machine: Path, missing: str) -> None:
    """As in a container that was not given one."""
    write_tool(machine, "echo 'NVIDIA T4, 15360, 570.86'")
    (machine / missing).unlink()

    assert find_gpus(machine) == ()

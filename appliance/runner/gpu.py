"""Which GPUs a plan may be given here: asked once, when the runner starts, without any learning library."""

from __future__ import annotations

import csv
import subprocess
from pathlib import Path

from appliance.protocol.local.jobs import Gpu

_ASK = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")
_WAIT_S = 20.0


def find_gpus(root: Path = Path("/")) -> tuple[Gpu, ...]:
    """NVIDIA's GPUs whose devices this process sees; what their driver's tool does not tell is left open.

    Args:
        root: Where ``dev`` and ``proc`` are.
    """
    if not (root / "proc/driver/nvidia/version").exists() or not list((root / "dev").glob("nvidia[0-9]*")):
        return ()
    try:
        done = subprocess.run(_ASK, capture_output=True, text=True, timeout=_WAIT_S, check=True)  # noqa: S603
    except (OSError, ValueError, subprocess.SubprocessError):  # a tool that is not itself stops no training
        return tuple(map(_from_driver, sorted((root / "proc/driver/nvidia/gpus").glob("*/information"))))
    lines = [[cell.strip() for cell in line] for line in csv.reader(done.stdout.splitlines())]
    found = (line for line in lines if len(line) == 3)
    return tuple(
        Gpu(name=name[:128], memory_bytes=_mebibytes(memory), driver=driver[:64]) for name, memory, driver in found
    )


def _mebibytes(text: str) -> int | None:
    return int(text) << 20 if text.isascii() and text.isdigit() else None


def _from_driver(information: Path) -> Gpu:
    """A GPU as the driver's own file names it."""
    facts = dict(line.split(":", 1) for line in information.read_text(errors="replace").splitlines() if ":" in line)
    return Gpu(name=facts.get("Model", "").strip()[:128] or "unknown model")

"""Health: whether the node's parts work, and what will need somebody soon."""

from __future__ import annotations

import platform
import shutil
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryptography import x509
from flask import Blueprint, render_template

from appliance.protocol.errors import FedWardError
from node_gui.certificate import tls_files
from node_gui.config import FILE_NAME, GuiConfig
from node_gui.context import governance, node_status, parts
from node_gui.policy import worded

blueprint = Blueprint("health", __name__, url_prefix="/health")
SOON_S = 10 * 86_400.0
DISK_LOW, MEMORY_LOW = 0.1, 0.08  # of the whole


@dataclass(frozen=True)
class Certificate:
    """A certificate in use.

    Attributes:
        ends_at: Seconds since the epoch.
    """

    name: str
    ends_at: float

    @property
    def ends_soon(self) -> bool:
        """Within ten days."""
        return self.ends_at - time.time() < SOON_S


@blueprint.get("/")
def page() -> str:
    """The page."""
    return render_template("health/page.html", **_look())


@blueprint.get("/live")
def live() -> str:
    """The part that refreshes itself."""
    return render_template("health/live.html", **_look())


def certificates(home: Path) -> list[Certificate]:
    """The certificates that the node and the GUI show to others; a file that cannot be read is left out."""
    files = {
        "node": home / "tls/cert.pem",
        "authority": home / "tls/ca.pem",
        "gui": tls_files(home, parts().config).certificate,
    }
    found = []
    for name, path in files.items():
        try:
            ends = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
        except (OSError, ValueError):
            continue
        found.append(Certificate(name, ends.timestamp()))
    return found


def _look() -> dict[str, Any]:
    home = parts().home
    disk = shutil.disk_usage(home)
    memory_total, memory_free = _memory()
    changed = parts().config.model_dump(exclude_defaults=True, mode="json")
    return {
        "status": node_status(),
        "sandbox": _sandbox(),
        "worded": worded,
        "disk": disk,
        "disk_is_low": disk_left(home) < DISK_LOW,
        "memory_total": memory_total,
        "memory_free": memory_free,
        "memory_is_low": memory_free < MEMORY_LOW * memory_total,
        "certificates": certificates(home),
        "now": time.time(),
        "versions": {"FedWard": version("fedward"), "Python": platform.python_version(), "Linux": platform.release()},
        "settings": {name: changed[name] for name in GuiConfig.model_fields if name in changed},
        "settings_file": FILE_NAME,
    }


def disk_left(home: Path) -> float:
    """Which part of the node's disk is free, from 0 to 1."""
    disk = shutil.disk_usage(home)
    return disk.free / disk.total


def _memory() -> tuple[int, int]:
    """Bytes of memory that this machine has, and that are free for a new process (proc(5), meminfo)."""
    lines = (line.split() for line in Path("/proc/meminfo").read_text("ascii").splitlines())
    kibibytes = {words[0]: int(words[1]) for words in lines}
    return kibibytes["MemTotal:"] << 10, kibibytes["MemAvailable:"] << 10


def _sandbox() -> dict[str, Any] | None:
    """What confines plans here; None while warden or runner does not answer."""
    try:
        found: dict[str, Any] = governance().call("node.sandbox")
    except FedWardError:
        return None
    return found

"""Health: whether the node's parts work, and what will need somebody soon."""

from __future__ import annotations

import platform
import shutil
import sqlite3
import ssl
import time
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryptography import x509
from flask import Blueprint, render_template
from flask_babel import lazy_gettext as _

from appliance.protocol.errors import FedWardError
from appliance.protocol.home import ImageSettings
from appliance.protocol.local.process import process_use
from appliance.protocol.settings import read_settings
from node_gui.certificate import tls_files
from node_gui.config import FILE_NAME, GuiConfig
from node_gui.context import governance, history, node_status, parts
from node_gui.policy import worded

blueprint = Blueprint("health", __name__, url_prefix="/health")
SOON_S = 14 * 86_400.0  # before it ends, what is about to end is told of
PARTS = {"warden": _("Warden"), "runner": _("Runner"), "gui": _("This GUI")}
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
        """Within ``SOON_S``."""
        return self.ends_at - time.time() < SOON_S


@blueprint.get("/")
def page() -> str:
    """The page."""
    versions = {"FedWard": version("fedward"), "Python": platform.python_version(), "Linux": platform.release()}
    versions |= {"SQLite": sqlite3.sqlite_version, "OpenSSL": ssl.OPENSSL_VERSION.split()[1]}
    images = read_settings(parts().home / "images.toml", ImageSettings, is_required=False).images
    return render_template("health/page.html", versions=versions, images=images, settings=_settings(), **_look())


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
    home, machine = parts().home, _asked("node.machine")
    disk = shutil.disk_usage(home)
    memory_total, memory_free = _memory()
    return {
        "status": node_status(),
        "sandbox": _asked("node.sandbox"),
        "worded": worded,
        "disk": disk,
        "disk_is_low": disk_left(home) < DISK_LOW,
        "memory_total": memory_total,
        "memory_free": memory_free,
        "memory_is_low": memory_free < MEMORY_LOW * memory_total,
        "certificates": certificates(home),
        "now": time.time(),
        "machine": machine,
        "processes": [*(machine["processes"] if machine else ()), process_use("gui").model_dump()],
        "part_names": PARTS,
        "experiments": _experiments(machine["processes"] if machine else ()),
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


def _asked(method: str) -> Any:
    """What the warden answers; None while it, or the runner behind it, does not."""
    try:
        return governance().call(method)
    except FedWardError:
        return None


def _settings() -> list[dict[str, Any]]:
    """The settings in force, of the warden and of this GUI, each with its file and what the release has."""
    warden = _asked("node.settings") or []
    here, release = parts().config, GuiConfig.model_construct()
    own = [{"name": n, "here": getattr(here, n), "release": getattr(release, n)} for n in GuiConfig.model_fields]
    files = (("node.toml", warden), (FILE_NAME, own))
    return [setting | {"file": file} for file, settings in files for setting in settings]


def _experiments(processes: Iterable[dict[str, Any]]) -> dict[str, str]:
    """The names of what trains, by the processes' parts."""
    try:
        return history().experiment_names([process["part"] for process in processes])
    except FedWardError:
        return {}  # the node has never run

"""When the certificates on this machine end."""

from __future__ import annotations

import datetime as dt
import tomllib
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from appliance.doctor.finding import AS_ROOT, Finding, State
from appliance.doctor.host import Host, is_closed, is_there

NEAR = dt.timedelta(days=7)  # a member's own is renewed before that, when a third of its life is left
_TOPIC = "certificates"


def check(host: Host) -> Iterator[Finding]:
    """The member's own, the authority's, and the GUI's."""
    if host.home is None:
        return
    tls = host.home / "tls"
    yield from _one("own", tls / "cert.pem", "systemctl start fedward-renew.service; its journal says why it failed")
    yield from _one("authority", tls / "ca.pem", "Ask the operator: the consortium's authority ends.")
    given = _given(host.home / "gui.toml")
    remedy = "Give the GUI a new certificate of the hospital's." if given else "Restart the GUI: it makes a new one."
    yield from _one("GUI", host.home / (given or "gui/tls/cert.pem"), remedy)


def _given(path: Path) -> str | None:
    """The hospital's own certificate for the GUI, if it gave one."""
    try:
        return str(tomllib.loads(path.read_text("utf-8"))["certificate"])
    except (OSError, ValueError, KeyError):
        return None


def _one(name: str, path: Path, remedy: str) -> Iterator[Finding]:
    if is_closed(path.parent) or is_closed(path):
        yield Finding(_TOPIC, name, State.UNKNOWN, f"{path} is closed to this user", AS_ROOT)
        return
    if not is_there(path):
        return
    try:
        ends = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except ValueError:
        yield Finding(_TOPIC, name, State.FAILED, f"{path} is no certificate in PEM form", remedy)
        return
    left = ends - dt.datetime.now(dt.UTC)
    day = f"{ends:%Y-%m-%d}"
    if left < dt.timedelta():
        yield Finding(_TOPIC, name, State.FAILED, f"ended on {day}", remedy)
    elif left < NEAR:
        yield Finding(_TOPIC, name, State.WEAKER, f"ends on {day}, in {left.days} days", remedy)
    else:
        yield Finding(_TOPIC, name, State.OK, f"ends on {day}, in {left.days} days")

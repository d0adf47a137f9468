"""Whether this machine's package mirrors can be reached: by a proxy, past an inspecting one, with the company's CA."""

from __future__ import annotations

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator

from appliance.doctor import sources
from appliance.doctor.deadline import Pending
from appliance.doctor.finding import Finding, State
from appliance.doctor.host import Host

LIMIT_S = 5.0
_MOST = 6  # mirrors that are tried
_TOPIC = "ways out"


def check(host: Host) -> Iterator[Finding]:
    """Each mirror, asked as apt asks it; all at once."""
    mirrors = sources.mirrors(host)[:_MOST]
    proxies = sources.apt_proxies(host)
    by = "" if not proxies else f" by {', '.join(sorted({sources.without_password(p) for p in proxies.values()}))}"
    if not mirrors:
        yield Finding(_TOPIC, "", State.OK, "apt has no mirror outside this machine")
    asked = [(mirror, Pending(lambda mirror=mirror: _ask(mirror, proxies))) for mirror in mirrors]  # type: ignore[misc]
    for mirror, pending in asked:
        try:
            pending.result(LIMIT_S)
        except Exception as error:  # noqa: BLE001 - whatever a line or proxy did, it is the finding
            yield _unreached(mirror, by, error)
        else:
            yield Finding(_TOPIC, mirror, State.OK, f"is reached{by}")


def _ask(mirror: str, proxies: dict[str, str]) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))
    request = urllib.request.Request(f"{mirror}/", method="HEAD")  # noqa: S310 - http or https, as sources says
    try:
        opener.open(request, timeout=LIMIT_S - 0.5).close()
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 407:
            raise


def _unreached(mirror: str, by: str, error: Exception) -> Finding:
    reason = getattr(error, "reason", error)
    if isinstance(reason, ssl.SSLCertVerificationError):
        because = f"an unknown authority signs for it: a proxy that inspects TLS? ({reason.verify_message})"
        remedy = "Set fedward_extra_ca_bundle in the inventory to the company's CA and run the playbook again."
        return Finding(_TOPIC, mirror, State.FAILED, because, remedy)
    if isinstance(error, urllib.error.HTTPError):
        because, remedy = f"the proxy{by} asks for a password", "Set fedward_proxy with the user that the proxy knows."
    else:
        shown = f"no answer within {LIMIT_S:g} s" if isinstance(reason, TimeoutError) else reason
        because = f"is not reached{by}: {shown}"
        remedy = (
            "Set fedward_proxy, or ask for the line: 'fedward doctor --letter'. Training does not need it, updates do."
        )
    return Finding(_TOPIC, mirror, State.WEAKER, because, remedy)

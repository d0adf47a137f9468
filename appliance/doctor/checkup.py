"""All checks, side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from appliance.doctor import (
    certificates,
    clock,
    containers,
    disk,
    encryption,
    firewall,
    hardware,
    itself,
    names,
    reach,
    services,
    tunnel,
    units,
)
from appliance.doctor.commands import CommandError
from appliance.doctor.deadline import Pending
from appliance.doctor.finding import AS_ROOT, Finding, State, UnknowableError
from appliance.doctor.host import Host

LIMIT_S = 12.0

Check = Callable[[Host], Iterable[Finding]]

# In the order in which a person reads them: who this is, the way to the hub, the machine, what runs on it.
CHECKS: Mapping[str, Check] = {
    "host": itself.check,
    "names": names.check,
    "clock": clock.check,
    "tunnel": tunnel.check,
    "packet size": tunnel.check_packet_size,
    "services": services.check,
    "certificates": certificates.check,
    "ways out": reach.check,
    "disk": disk.check,
    "encryption at rest": encryption.check,
    "memory": hardware.check_memory,
    "graphics": hardware.check_graphics,
    "docker": containers.check_docker,
    "containers": containers.check_containers,
    "images": containers.check_images,
    "units": units.check,
    "firewall": firewall.check,
}


def examine(host: Host, checks: Mapping[str, Check] = CHECKS, *, limit_s: float = LIMIT_S) -> list[Finding]:
    """What all checks say, in their order; one that hangs or fails says that, and harms no other.

    Args:
        limit_s: How long all of them together may take, in seconds.
    """
    deadline = time.monotonic() + limit_s
    begun = {topic: Pending(lambda check=check: list(check(host))) for topic, check in checks.items()}  # type: ignore[misc]
    return [finding for topic, pending in begun.items() for finding in _ended(topic, pending, deadline, limit_s)]


def _ended(topic: str, pending: Pending[list[Finding]], deadline: float, limit_s: float) -> list[Finding]:
    try:
        return pending.result(deadline - time.monotonic())
    except UnknowableError as error:
        because, remedy = error.because, error.remedy
    except TimeoutError:
        because, remedy = f"no answer within {limit_s:g} s", "Run it again."
    except PermissionError as error:
        because, remedy = f"{error.filename or 'a file'} is closed to this user", AS_ROOT
    except CommandError as error:
        because, remedy = error.text, AS_ROOT if error.is_refused else ""
    except Exception as error:  # noqa: BLE001 - one check's fault must not hide what the others found
        because, remedy = f"the check failed ({type(error).__name__}: {error})", "Send this line to the operator."
    return [Finding(topic, "", State.UNKNOWN, because, remedy)]

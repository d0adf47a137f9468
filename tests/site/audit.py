"""Examines a deployed test host with other people's eyes, and wants a reason for every rule that it fails.

    python -m tests.site.audit [HOST...]

Without names: the site's hub, a hospital and the researcher.
OpenSCAP (ANSSI-BP-028, enhanced), Lynis, `systemd-analyze security` for the units that we ship, and the rules of the
CIS Docker benchmark that concern us. The reasons are in `roles/hardening/EXCEPTIONS.yml`; a failed rule without one
ends it with exit code 1. The tools are installed on the host: give it test hosts, no hospital's.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import yaml
from rich.console import Console
from rich.table import Table

from tests.site import hosts, stage

REASONS = Path(__file__).parents[2] / "roles/hardening/EXCEPTIONS.yml"
PROFILE = "xccdf_org.ssgproject.content_profile_anssi_bp28_enhanced"
# Debian 12's own content does not know Debian 12; Debian 13's does, and does not know Debian 13.
CONTENT = "usr/share/xml/scap/ssg/content/ssg-debian12-ds.xml"
XCCDF = "{http://checklists.nist.gov/xccdf/1.2}"
OURS = ("fedward-", "mosquitto.service", "nginx.service")
EXPOSURE = 2.0


@dataclass(frozen=True)
class Failure:
    """A rule that a host does not keep."""

    tool: str
    rule: str
    text: str


def run(host: str, *command: str, timeout_s: float = 600, is_checked: bool = True) -> str:
    """What a command on the host prints."""
    words = ["docker", "exec", host, *command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False)
    if is_checked and done.returncode != 0:
        raise hosts.TestHostError(f"{host}: {' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def install(host: str, *packages: str) -> None:
    """Install the tools of an examination."""
    run(host, "apt-get", "update", "-qq")
    run(host, "apt-get", "install", "-qq", "--no-install-recommends", *packages)


def openscap(host: str, summary: Callable[[str], None]) -> Iterator[Failure]:
    """ANSSI-BP-028, enhanced."""
    if run(host, "sh", "-c", ". /etc/os-release; echo $VERSION_ID").strip() != "12":
        summary("OpenSCAP: there are no rules for Debian 13 yet; give it a host with Debian 12 as well")
        return
    install(host, "openscap-scanner")
    with tempfile.TemporaryDirectory() as folder:
        content = Path(folder, "content.xml")
        content.write_bytes(_content())
        hosts.docker("cp", str(content), f"{host}:/root/content.xml")
    # Exit code 2: a rule failed. Files in images are not the host's, and there are so many that each rule would take
    # minutes: it sees an empty folder in their place.
    evaluate = f"oscap xccdf eval --profile {PROFILE} --results /root/results.xml /root/content.xml"
    alone = f"mount -t tmpfs none /var/lib/docker && {evaluate}"
    run(host, "unshare", "--mount", "sh", "-c", alone, is_checked=False, timeout_s=1200)
    root = ET.fromstring(run(host, "cat", "/root/results.xml"))
    titles = {rule.get("id"): rule.findtext(f"{XCCDF}title") or "" for rule in root.iter(f"{XCCDF}Rule")}
    found = {one.get("idref"): one.findtext(f"{XCCDF}result") for one in root.iter(f"{XCCDF}rule-result")}
    failed = sorted(str(rule) for rule, result in found.items() if result == "fail")
    counts = {result: list(found.values()).count(result) for result in ("pass", "fail", "notapplicable")}
    score = next((float(one.text or 0) for one in root.iter(f"{XCCDF}score")), 0.0)
    summary(
        f"OpenSCAP ANSSI-BP-028 enhanced: {counts['pass']} passed, {counts['fail']} failed, "
        f"{counts['notapplicable']} do not apply in a container; score {score:.0f}"
    )
    for rule in failed:
        yield Failure("openscap", rule.removeprefix("xccdf_org.ssgproject.content_rule_"), titles.get(rule, ""))


def _content() -> bytes:
    """The rules, from Debian 13's package."""
    hosts.make_image("trixie")
    fetch = (
        "cd /tmp && apt-get update -qq >&2 && apt-get download -qq ssg-debian >&2 && "
        f"dpkg-deb --fsys-tarfile ssg-debian*.deb | tar -xO ./{CONTENT}"
    )
    words = ["docker", "run", "--rm", "fedward-testhost:trixie", "sh", "-c", fetch]
    return subprocess.run(words, check=True, capture_output=True, timeout=300).stdout


def lynis(host: str, summary: Callable[[str], None]) -> Iterator[Failure]:
    """Lynis' warnings and suggestions."""
    install(host, "lynis")
    run(host, "lynis", "audit", "system", "--quick", "--no-colors", "--quiet", is_checked=False)
    report = [line.partition("=") for line in run(host, "cat", "/var/log/lynis-report.dat").splitlines()]
    index = next((value for key, _, value in report if key == "hardening_index"), "?")
    summary(f"Lynis: hardening index {index}")
    for key, _, value in report:
        if key in {"warning[]", "suggestion[]"}:
            rule, text, *_rest = value.split("|")
            yield Failure("lynis", rule, text)


def units(host: str, summary: Callable[[str], None]) -> Iterator[Failure]:
    """How much the units that we ship could do."""
    listed = json.loads(run(host, "systemd-analyze", "security", "--no-pager", "--json=short"))
    known = {one["unit"]: float(one["exposure"]) for one in listed}
    files = run(host, "systemctl", "list-unit-files", "--type=service", "--no-legend", "--plain").split("\n")
    names = sorted(name for name in (line.split(" ")[0] for line in files) if name.startswith(OURS) and "@" not in name)
    for name in names:
        exposure = known.get(name)
        if exposure is None:  # one that is not loaded
            text = run(host, "systemd-analyze", "security", "--no-pager", name, is_checked=False)
            exposure = float(text.rsplit(": ", 1)[-1].split()[0])
        if exposure > EXPOSURE:
            yield Failure("systemd", name, f"exposure {exposure}, more than {EXPOSURE}")
    summary(f"systemd-analyze security: {len(names)} units of ours ({', '.join(names)})")


def containers(host: str, summary: Callable[[str], None]) -> Iterator[Failure]:
    """The rules of the CIS Docker benchmark that concern us, on the running daemon and its containers."""
    info = json.loads(run(host, "docker", "info", "--format", "{{json .}}"))
    settings = json.loads(run(host, "cat", "/etc/docker/daemon.json"))
    daemon = {
        "daemon-userns": any(one.startswith("name=userns") for one in info["SecurityOptions"]),
        "daemon-seccomp": any(one.startswith("name=seccomp") for one in info["SecurityOptions"]),
        "daemon-apparmor": any(one.startswith("name=apparmor") for one in info["SecurityOptions"]),
        "daemon-icc": settings.get("icc") is False,
        "daemon-live-restore": bool(info["LiveRestoreEnabled"]),
        "daemon-log-limits": "max-size" in settings.get("log-opts", {}),
        "daemon-no-new-privileges": settings.get("no-new-privileges") is True,
        "daemon-userland-proxy": settings.get("userland-proxy") is False,
        "daemon-no-tcp": not settings.get("hosts"),
        "daemon-no-members-of-docker": run(host, "getent", "group", "docker").strip().endswith(":"),
    }
    yield from (Failure("docker", rule, "the daemon") for rule, is_kept in daemon.items() if not is_kept)
    names = run(host, "docker", "ps", "--filter=name=fedward-", "--format={{.Names}}").split()
    for name in names:
        one = json.loads(run(host, "docker", "inspect", name))[0]
        yield from (Failure("docker", rule, name) for rule, is_kept in _container(one).items() if not is_kept)
    summary(f"CIS Docker: the daemon and {len(names)} containers ({', '.join(names) or 'none runs'})")


def _container(one: dict[str, Any]) -> dict[str, bool]:
    """What must hold for each of our containers."""
    given, config = one["HostConfig"], one["Config"]
    mounts = {mount.get("Source", "") for mount in one["Mounts"]}
    return {
        "container-read-only": given["ReadonlyRootfs"],
        "container-no-capabilities": not given["CapAdd"] and [cap.upper() for cap in given["CapDrop"] or []] == ["ALL"],
        "container-no-new-privileges": any("no-new-privileges" in option for option in given["SecurityOpt"] or []),
        "container-seccomp": "seccomp=unconfined" not in (given["SecurityOpt"] or []),
        "container-not-privileged": not given["Privileged"],
        "container-own-user-namespace": given["UsernsMode"] != "host",
        "container-own-namespaces": "host" not in {given["NetworkMode"], given["PidMode"], given["IpcMode"]},
        "container-user": config["User"].split(":")[0] not in {"", "0", "root"},
        "container-memory": given["Memory"] > 0,
        "container-pids": (given["PidsLimit"] or 0) > 0,
        "container-cpus": given["NanoCpus"] > 0 or given["CpuQuota"] > 0,
        "container-healthcheck": bool(config.get("Healthcheck")),
        "container-image-by-id": config["Image"].startswith("sha256:"),
        "container-restart": given["RestartPolicy"]["Name"] == "unless-stopped",
        "container-log-limits": "max-size" in given["LogConfig"]["Config"],
        "container-no-docker-socket": not any("docker.sock" in source for source in mounts),
        "container-no-host-system": mounts.isdisjoint({"/", "/etc", "/boot", "/dev", "/proc", "/sys", "/usr", "/var"}),
    }


def reason(failure: Failure, reasons: dict[str, dict[str, str]]) -> str:
    """Why a rule is not kept, or nothing; a key may be a pattern."""
    given = reasons.get(failure.tool) or {}
    return next((text for rule, text in given.items() if fnmatch(failure.rule, rule)), "")


def main(names: list[str]) -> int:
    """Examine hosts; the exit code is 1 if a failed rule has no reason."""
    console = Console()
    reasons = yaml.safe_load(REASONS.read_text())
    unexplained = 0
    for host in names:
        console.rule(host)
        failures = [one for part in (openscap, lynis, units, containers) for one in part(host, console.print)]
        table = Table("tool", "failed rule", "what it wants", "reason", title=f"{host}: rules that are not kept")
        for one in failures:
            text = reason(one, reasons)
            unexplained += not text
            table.add_row(one.tool, one.rule, one.text, text or "NONE")
        console.print(table)
    console.print(f"{unexplained} failed rules without a reason" if unexplained else "every failed rule has its reason")
    return int(bool(unexplained))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or [stage.container(name) for name in (stage.HUB, "harlem", stage.RESEARCHER)]))

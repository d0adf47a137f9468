"""Docker, and what of ours runs in it, from which image."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from appliance.doctor.commands import CommandError
from appliance.doctor.finding import AS_ROOT, Finding, State, UnknowableError
from appliance.doctor.host import Host, Kind

OLDEST = (20, 10)
# Which containers a host of a site runs, each from one of these images.
CONTAINERS: dict[Kind, dict[str, tuple[str, ...]]] = {
    Kind.HUB: {"fedward-network": ("network",)},
    Kind.NODE: {
        "fedward-warden": ("warden",),
        "fedward-runner": ("runner-cpu", "runner-gpu"),
        "fedward-gui": ("node-gui",),
    },
    Kind.RESEARCHER: {"fedward-kit": ("researcher-kit",)},
    Kind.FEDERATOR: {"fedward-federator": ("federator",)},
}
# Ids by name: the release's images, and over them the consortium's own.
_LOCKS = ("etc/fedward/images.lock", "etc/fedward/own-images.lock")
_PLAYBOOK = "Run the playbook: it sets Docker up."


def check_docker(host: Host) -> Iterator[Finding]:
    """Its version, and what keeps containers apart from the host."""
    if host.kind is Kind.OPERATOR:
        return
    try:
        facts = json.loads(host.run("docker", "info", "--format", "{{json .}}"))
    except CommandError as error:
        yield _missing(host, error)
        return
    except ValueError:
        raise UnknowableError("'docker info' printed something unknown") from None
    if facts.get("ServerErrors"):
        yield Finding("docker", "", State.FAILED, str(facts["ServerErrors"][0])[:200], "systemctl start docker")
        return
    yield _version(str(facts.get("ServerVersion", "")))
    is_site = host.is_site
    options = " ".join(map(str, facts.get("SecurityOptions") or ()))
    yield _option("userns-remap", "name=userns" in options, "root in a container is root here", is_site=is_site)
    because = "a restart of Docker ends a training"
    yield _option("live-restore", bool(facts.get("LiveRestoreEnabled")), because, is_site=is_site)
    yield _option("seccomp", "name=seccomp" in options, "containers may make any system call", is_site=is_site)


def check_containers(host: Host) -> Iterator[Finding]:
    """Ours, by their names: each runs, and is healthy."""
    if not host.is_site:
        return
    for name in CONTAINERS.get(host.kind, ()):
        state = _inspect(host, name)
        remedy = f"docker logs --tail 50 {name}; then run the playbook again"
        if state is None:
            yield Finding("containers", name, State.FAILED, "is not there", "Run the playbook.")
        elif state.get("Status") != "running":
            because = f"is {state.get('Status')} (exit code {state.get('ExitCode')})"
            yield Finding("containers", name, State.FAILED, because, remedy)
        elif (health := (state.get("Health") or {}).get("Status")) == "unhealthy":
            yield Finding("containers", name, State.FAILED, "runs and is not healthy", remedy)
        else:
            yield Finding("containers", name, State.OK, f"runs{f', {health}' if health else ''}")


def check_images(host: Host) -> Iterator[Finding]:
    """What runs is what was pinned."""
    if not host.is_site:
        return
    lock: dict[str, str] = {}
    locks = [name for name in _LOCKS if host.path(name).exists()]
    if not locks:
        raise UnknowableError(f"/{_LOCKS[0]} is not there", "Run the playbook.")
    for name in locks:
        try:
            lock |= json.loads(host.path(name).read_text("utf-8"))
        except (ValueError, TypeError):
            yield Finding("images", "", State.FAILED, f"/{name} is no list of images", "Run the playbook again.")
            return
    for name, images in CONTAINERS.get(host.kind, {}).items():
        try:
            found = host.run("docker", "inspect", "--type", "container", "--format", "{{.Image}}", name).strip()
        except CommandError as error:
            if error.is_refused:
                raise
            continue  # told among the containers
        if found in {lock.get(image) for image in images}:
            yield Finding("images", name, State.OK, f"runs the pinned image {found[:19]}")
        else:
            because = f"runs the image {found[:19]}, which is not the pinned one"
            yield Finding("images", name, State.FAILED, because, "Tell the operator; the playbook restores it.")


def _inspect(host: Host, name: str) -> dict[str, Any] | None:
    try:
        said = host.run("docker", "inspect", "--type", "container", "--format", "{{json .State}}", name)
    except CommandError as error:
        if "no such" in error.text.lower():
            return None
        raise
    return dict(json.loads(said))


def _missing(host: Host, error: CommandError) -> Finding:
    if error.is_refused:
        return Finding("docker", "", State.UNKNOWN, "Docker answers root alone", AS_ROOT)
    if host.is_site and host.kind in CONTAINERS:
        remedy = _PLAYBOOK if error.is_missing else "systemctl start docker; journalctl -u docker says why it ended"
        return Finding("docker", "", State.FAILED, error.text, remedy)
    return Finding("docker", "", State.OK, f"{error.text}; the playbook installs it")


def _version(text: str) -> Finding:
    numbers = tuple(int(each) for each in text.split(".")[:2] if each.isdigit())
    if numbers >= OLDEST:
        return Finding("docker", "version", State.OK, text)
    return Finding("docker", "version", State.FAILED, f"{text or 'unknown'}, and 20.10 is needed", "Upgrade Docker.")


def _option(name: str, is_on: bool, without: str, *, is_site: bool) -> Finding:
    if is_on:
        return Finding("docker", name, State.OK, "is on")
    if not is_site:
        return Finding("docker", name, State.OK, "is off; the playbook switches it on")
    return Finding("docker", name, State.WEAKER, f"is off: {without}", _PLAYBOOK)

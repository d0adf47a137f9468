"""The site on test hosts: who stands where, and how to run something on them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from tests import ansible
from tests.site import hosts

ROOT = Path(__file__).parents[2]
RUN = ROOT / "site-run"
ARTIFACTS = ROOT / "artifacts"
SUITE = os.environ.get("SUITE") or "trixie"
HUB = "post"
HOSPITALS = {"harlem": "harlem_hospital", "hennepin": "hennepin_county", "kentucky": "university_of_kentucky"}
RESEARCHER = "alice"
FEDERATOR = "steward"
HOSTS = (HUB, *HOSPITALS, RESEARCHER, FEDERATOR)
OUTSIDER = "outsider"  # on the same Internet, and nobody's
# The last part of each one's outside address.
ADDRESSES = {
    HUB: 10,
    "harlem": 11,
    "hennepin": 12,
    "kentucky": 13,
    "mississippi": 14,
    RESEARCHER: 20,
    FEDERATOR: 21,
    OUTSIDER: 30,
}
MOZILLA = Path("/usr/share/ca-certificates/mozilla")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
_RECAP = re.compile(r"^(\S+)\s+: ok=\d+\s+changed=\d+", re.MULTILINE)
_CHANGED = re.compile(r"^changed: \[(?:\S+ -> )?([\w.-]+)", re.MULTILINE)  # there, not for whom
# The administrator's own account, and root's.
_LET_IN = """
set -e
useradd --create-home --shell /bin/bash --groups sudo admin
echo 'admin ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/admin
install -d -m 700 /root/.ssh
install -d -m 700 -o admin -g admin ~admin/.ssh
tee /root/.ssh/authorized_keys > ~admin/.ssh/authorized_keys
chown admin:admin ~admin/.ssh/authorized_keys
"""


class SiteError(Exception):
    """A part of the run failed; the message ends with what it said."""


def build() -> None:
    """Build the images and wheels of this checkout; what has not changed since the last time is not made again."""
    command = [Path(sys.executable).with_name("fedward"), "images", "build", "--out", ARTIFACTS]
    subprocess.run(command, cwd=ROOT, check=True)


def container(name: str) -> str:
    """The test host's container."""
    return f"{hosts.PREFIX}-site-{name}"


def on(name: str, *command: str, timeout_s: float = 120, stdin: str | None = None) -> str:
    """What a command prints on a test host; raises SiteError when it fails."""
    words = ["docker", "exec", *(["-i"] if stdin is not None else []), container(name), *command]
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False, input=stdin)
    if done.returncode:
        raise SiteError(f"{name}: {' '.join(command)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return done.stdout


def boot(name: str) -> None:
    """Boot a bare machine, as a hospital or a data centre hands it over: it knows its administrator's SSH key."""
    hosts.boot(container(name), suite=SUITE, ip=address(name))
    key, known = RUN / "ssh/id", RUN / "ssh/known_hosts"
    if not key.exists():
        key.parent.mkdir(mode=0o700)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
        known.touch()
    # Its console says which key it has; a machine that had this address before had another one.
    others = [line for line in known.read_text().splitlines() if not line.startswith(f"{address(name)} ")]
    its_own = on(name, "cut", "-d ", "-f1,2", "/etc/ssh/ssh_host_ed25519_key.pub").strip()
    known.write_text("\n".join([*others, f"{address(name)} {its_own}\n"]))
    on(name, "sh", "-c", _LET_IN, stdin=key.with_suffix(".pub").read_text())


def address(name: str) -> str:
    """A test host's address outside of the VPN."""
    return f"{hosts.SUBNET.rpartition('.')[0]}.{ADDRESSES[name]}"


def extra_authorities() -> str:
    """The authorities that this machine's tools believe and Debian does not: where what goes out is inspected.

    Returns:
        A file's path, or nothing where there are none.
    """
    bundle = os.environ.get("SSL_CERT_FILE", "")
    if not Path(bundle).is_file():
        return ""
    usual = {pem for file in MOZILLA.glob("*.crt") for pem in _CERTIFICATE.findall(file.read_text())}
    unusual = [pem for pem in _CERTIFICATE.findall(Path(bundle).read_text()) if pem not in usual]
    path = RUN / "extra-ca.pem"
    path.write_text("\n".join(unusual) + "\n")
    return str(path) if unusual else ""


def environment() -> dict[str, str]:
    """What inventory/local takes from the operator's surroundings."""
    return ansible.environment() | {
        "FEDWARD_SITE_RUN": str(RUN),
        "FEDWARD_ARTIFACTS": str(ARTIFACTS),
        "FEDWARD_SITE_CA": extra_authorities(),
        "ANSIBLE_FORCE_COLOR": "0",
        "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks",
        "PROFILE_TASKS_TASK_OUTPUT_LIMIT": "all",
    }


def playbook(*arguments: str, log: str, inventory: Path = ROOT / "inventory/local") -> dict[str, int]:
    """Run the site's playbook; returns how many things it changed on each host.

    Ansible's own recap counts a change at the hub for the member that it was made for.

    Raises:
        SiteError: It failed at a host.
    """
    path = RUN / f"{log}.log"
    with _started(path, inventory, arguments) as run:
        run.wait()
    said = path.read_text()
    if run.returncode:
        raise SiteError(f"The playbook failed (all of it: {path}).\n{_failures(said)}")
    changed = Counter(_CHANGED.findall(said))
    return {name: changed[name] for name in _RECAP.findall(said)}


def interrupted_playbook(
    *arguments: str, at: str, interrupt: Callable[[], None] | None = None, log: str, inventory: Path
) -> str:
    """Run the site's playbook until the middle of a task, and kill it there, or do ``interrupt`` and let it end.

    Returns:
        What it said.

    Raises:
        SiteError: It ended before.
    """
    path = RUN / f"{log}.log"
    with _started(path, inventory, arguments, in_own_group=True) as run:
        while f"TASK [{at}]" not in path.read_text():
            if run.poll() is not None:
                raise SiteError(f"The playbook ended before it came to {at!r}.\n{_failures(path.read_text())}")
            time.sleep(0.2)
        time.sleep(1)
        if interrupt is None:
            os.killpg(run.pid, signal.SIGKILL)
        else:
            interrupt()
    return path.read_text()


def _failures(said: str) -> str:
    """The tasks that failed, of all that a playbook said."""
    tasks = re.split(r"^(?=(?:TASK|RUNNING HANDLER|PLAY) )", said, flags=re.MULTILINE)
    failed = [task[:4000] for task in tasks if re.search(r"^(?:fatal|failed): ", task, re.MULTILINE)]
    return "\n".join(failed) or said[-4000:]


def _started(
    log: Path, inventory: Path, arguments: Iterable[str], *, in_own_group: bool = False
) -> subprocess.Popen[bytes]:
    command = [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, "appliance/playbooks/site.yml"]
    with log.open("w") as file:
        return subprocess.Popen(
            [*command, *arguments], cwd=ROOT, env=environment(), stdout=file, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=in_own_group,
        )  # fmt: skip

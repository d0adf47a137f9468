"""The site on test hosts: who stands where, and how to run something on them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.site import hosts

ROOT = Path(__file__).parents[2]
RUN = ROOT / "site-run"
HUB = "post"
HOSPITALS = {"harlem": "harlem_hospital", "hennepin": "hennepin_county", "kentucky": "university_of_kentucky"}
RESEARCHER = "alice"
OUTSIDER = "outsider"  # on the same Internet, and nobody's
# The last part of each one's outside address.
ADDRESSES = {HUB: 10, "harlem": 11, "hennepin": 12, "kentucky": 13, "mississippi": 14, RESEARCHER: 20, OUTSIDER: 30}
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
"""


class SiteError(Exception):
    """A part of the run failed; the message ends with what it said."""


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
    hosts.boot(container(name), suite=os.environ.get("SUITE", "bookworm"), ip=address(name))
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
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "FEDWARD_SITE_RUN": str(RUN),
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
    command = [Path(sys.executable).with_name("ansible-playbook"), "-i", inventory, "appliance/playbooks/site.yml"]
    path = RUN / f"{log}.log"
    with path.open("w") as file:
        done = subprocess.run(
            [*command, *arguments], cwd=ROOT, env=environment(), stdout=file, stderr=subprocess.STDOUT, check=False
        )
    said = path.read_text()
    if done.returncode:
        raise SiteError(f"The playbook failed (all of it: {path}).\n{said[-6000:]}")
    changed = Counter(_CHANGED.findall(said))
    return {name: changed[name] for name in _RECAP.findall(said)}

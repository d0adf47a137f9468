"""Every command that the operator's hour and the hospital administrator's page show, typed where they say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.site.stage import ARTIFACTS, RESEARCHER, ROOT, RUN, environment, on

DOCS = ROOT / "docs"
HOSPITAL = "harlem"  # whose administrator is no root
_BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:fedward|--)[^`…]*)`")

# The site's own run typed these, with its own folders.
TYPED_BY_THE_SITE = {
    "python3.11 -m venv ~/fedward-venv",
    "~/fedward-venv/bin/pip install -c constraints.txt -e '.[operator]'",
    "export PATH=~/fedward-venv/bin:$PATH",
    "fedward images build --out ~/fedward-artifacts",
    "ansible-playbook -i inventory/ours appliance/playbooks/site.yml",
}
# tests/site/test_members.py types these at the fourth hospital, test_hosts.py the last.
TYPED_THERE = {
    "fedward member revoke north --home ~/fedward-operator -i inventory/ours",
    "sudo fedward leave --dry-run",
    "sudo fedward leave",
    "fedward status",
    "fedward doctor --letter",  # the operator's page only says that there is one
}
OPERATORS = {
    "fedward images verify ~/fedward-artifacts": "runner-cpu",
    "cp -r inventory/example inventory/ours": "",
    "fedward member list --home ~/fedward-operator": HOSPITAL,
    "--limit north": "failed=0",
    "--check --diff": "failed=0",
}
ADMINISTRATORS = {
    "sudo fedward-gui invite": "https://",
    "sudo fedward-kit invite": "https://",
    "fedward doctor --letter --hub vpn.example.org:51820": "nothing inbound",
    "sudo fedward doctor --letter --out letter.md": "letter.md",
    "sudo fedward doctor": "sandbox",
    "fedward doctor": "sandbox",
    "fedward doctor --hub vpn.example.org:51820": "vpn.example.org",
}


def shown() -> set[str]:
    """The commands of both pages, without their comments."""
    pages = [(DOCS / page).read_text() for page in ("operator/site.md", "administrator/host.md")]
    lines = [line for page in pages for block in _BLOCK.findall(page) for line in block.splitlines()]
    inline = [command for page in pages for command in _INLINE.findall(page) if " " in command]
    return {re.sub(r"\s+#.*", "", line).strip() for line in (*lines, *inline)} - {""}


def test_every_command_of_both_pages_is_typed() -> None:
    """A command that the pages gain is tried, too."""
    assert shown() == TYPED_BY_THE_SITE | TYPED_THERE | set(OPERATORS) | set(ADMINISTRATORS)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The operator's home, and FedWard's repository in it."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "fedward-artifacts").symlink_to(ARTIFACTS)
    (folder / "fedward-operator").symlink_to(RUN / "operator")
    (folder / "fedward/inventory").mkdir(parents=True)
    (folder / "fedward/inventory/example").symlink_to(ROOT / "inventory/example")
    return folder


@pytest.mark.parametrize(("command", "said"), OPERATORS.items())
def test_the_operators_commands(command: str, said: str, home: Path) -> None:
    """Each ends well, and says what it is for."""
    if command.startswith("--"):
        option = command.replace("north", HOSPITAL) if "--limit" in command else f"{command} --limit hub:{HOSPITAL}"
        command = f"cd {ROOT} && ansible-playbook -i inventory/local appliance/playbooks/site.yml {option}"
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=home / "fedward", env=environment() | {"HOME": str(home)}, capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert said in done.stdout
    assert not re.search(r"^[\w.-]+ .*\bchanged=[1-9]", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(("command", "said"), ADMINISTRATORS.items())
def test_the_administrators_commands(command: str, said: str) -> None:
    """Each ends well, for an administrator who is not root; a doctor that finds a fault, as here of names, with 1."""
    name = RESEARCHER if "kit" in command else HOSPITAL

    answer = on(name, "sudo", "-u", "admin", "-i", "bash", "-c", f"{command} 2>&1; echo ended with $?")

    assert said in answer
    assert re.search("ended with [01]$" if "doctor" in command else "ended with 0$", answer.strip())

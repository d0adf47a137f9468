"""The documentation and the code say the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer
from typer.main import get_command

from appliance.cli.main import app
from appliance.protocol.errors import REMEDIES, Code

DOCS = Path(__file__).parents[2] / "docs"
ROWS = re.findall(r"^\| `([A-Z_]+)` \|(.*)\|(.*)\|(.*)\|$", (DOCS / "errors.md").read_text(), re.MULTILINE)


def commands(command: typer.core.TyperGroup, path: str = "fedward") -> list[str]:
    """Every command that a person can type, without its arguments."""
    context = typer.Context(command)
    found = []
    for name in command.list_commands(context):
        whole, inner = f"{path} {name}", command.get_command(context, name)
        found += commands(inner, whole) if hasattr(inner, "commands") else [whole]
    return found


def test_every_code_stands_once_in_the_docs_and_no_other() -> None:
    """Whoever reads a code in a log looks it up here."""
    assert [row[0] for row in ROWS] == [str(code) for code in Code]


@pytest.mark.parametrize("code", list(Code))
def test_the_docs_give_the_remedy_that_the_code_gives(code: Code) -> None:
    """Two remedies for one code would send people two ways."""
    remedy = next(row[3].strip() for row in ROWS if row[0] == code)

    assert remedy == REMEDIES[code]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_code_is_explained(row: tuple[str, ...]) -> None:
    """A code without a meaning helps nobody."""
    assert all(cell.strip().strip("?") for cell in row)


@pytest.mark.parametrize("command", commands(get_command(app)))
def test_every_command_is_in_the_docs(command: str) -> None:
    """A command that is not described might as well not exist."""
    assert any(command in page.read_text() for page in DOCS.glob("*/*.md"))


def test_the_docs_name_no_command_that_does_not_exist() -> None:
    """A reader types what the page says."""
    known = commands(get_command(app))
    groups = {whole.rsplit(" ", n)[0] for whole in known for n in range(1, whole.count(" ") + 1)}
    named = set()
    for page in DOCS.rglob("*.md"):
        named |= set(re.findall(r"`(fedward(?: [a-z]+)*)", page.read_text()))

    assert {name for name in named if name not in groups and not any(_leads(k, name) for k in known)} == set()


def _leads(command: str, text: str) -> bool:
    return text == command or text.startswith(f"{command} ")


def test_every_test_that_holds_a_promise_exists() -> None:
    """A promise that no test holds must not look as if one did."""
    named = re.findall(r"`(tests/[^`]+)`", (DOCS / "threat-model.md").read_text())

    assert [path for path in named if not (DOCS.parent / path).exists()] == []


@pytest.mark.parametrize(
    "suite", sorted((DOCS.parent / "tests/adversarial").glob("test_*.py")), ids=lambda file: file.stem
)
def test_every_adversarial_suite_holds_a_promise(suite: Path) -> None:
    """What is attacked in a test and promised nowhere, nobody relies on; or a promise is missing."""
    assert f"`tests/adversarial/{suite.name}`" in (DOCS / "threat-model.md").read_text()

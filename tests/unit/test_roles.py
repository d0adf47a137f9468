"""What holds for every Ansible role, read from its files; how they behave is tried by `make molecule`."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests import roles_readme
from tests.roles_readme import ROLES, defaults, role_names, specs

# Words in a task's text that mean that a secret passes through its arguments or its result.
SECRETS = re.compile(r"private_key|password|preshared|secret_key|slurp:.*key", re.IGNORECASE)
NEEDED = ("defaults/main.yml", "handlers/main.yml", "meta/main.yml", "meta/argument_specs.yml", "tasks/main.yml")
SCENARIO = ("molecule.yml", "converge.yml", "verify.yml")


def test_every_folder_is_a_whole_role() -> None:
    """Defaults, typed variables, handlers and a scenario: none of them is left for later."""
    folders = [path for path in ROLES.iterdir() if path.is_dir()]
    needed = [*NEEDED, "tasks/preflight.yml", *(f"molecule/default/{name}" for name in SCENARIO)]

    assert [f"{one.name}/{name}" for one in folders for name in needed if not (one / name).is_file()] == []


@pytest.mark.parametrize("role", role_names())
def test_a_readme_says_what_the_specs_say(role: str) -> None:
    """`make roles` writes it."""
    assert (ROLES / role / "README.md").read_text() == roles_readme.readme(role)


def test_the_list_of_roles_is_complete() -> None:
    """`make roles` writes it."""
    assert (ROLES / "README.md").read_text() == roles_readme.index()


def test_the_list_of_an_inventorys_variables_is_complete() -> None:
    """`make roles` writes it."""
    assert (ROLES.parent / "inventory/README.md").read_text() == roles_readme.inventory()


@pytest.mark.parametrize("role", role_names())
def test_every_variable_is_typed_described_and_has_a_default_or_is_required(role: str) -> None:
    """A variable outside the specs takes any value; one without a default fails in the middle of a run."""
    options = specs(role).get("options", {})

    assert {name for name, option in options.items() if not option.get("required")} == set(defaults(role))
    assert [name for name, option in options.items() if "type" not in option or not option.get("description")] == []


@pytest.mark.parametrize("role", role_names())
def test_a_roles_variables_start_with_its_name(role: str) -> None:
    """Whoever reads an inventory sees whose variable it is; two roles never share one by accident."""
    assert [name for name in defaults(role) if not name.startswith(f"{role}_")] == []


@pytest.mark.parametrize("role", role_names())
def test_no_role_flushes_the_ruleset(role: str) -> None:
    """It would cut off Docker's rules, and its DNS."""
    files = [path for path in (ROLES / role).rglob("*") if path.is_file()]

    assert [path.name for path in files if re.search(r"flush\s+ruleset", path.read_text(errors="replace"))] == []


@pytest.mark.parametrize("role", role_names())
def test_tasks_that_touch_secrets_show_nothing(role: str) -> None:
    """A run with --diff -vvv prints what a task takes and gives back."""
    tasks = [
        task for path in (ROLES / role / "tasks").glob("*.yml") for task in _tasks(yaml.safe_load(path.read_text()))
    ]

    assert [task.get("name") for task in tasks if SECRETS.search(_arguments(task)) and not task.get("no_log")] == []


def test_every_rule_that_is_not_kept_has_a_reason() -> None:
    """`make audit` counts an exception without one as a failure; so does whoever reads the list."""
    exceptions = yaml.safe_load((ROLES / "hardening/EXCEPTIONS.yml").read_text())
    reasons = {f"{tool}: {rule}": text for tool, rules in exceptions.items() for rule, text in rules.items()}

    assert reasons
    assert [rule for rule, text in reasons.items() if not str(text).strip()] == []


def _tasks(found: list[dict[str, Any]] | None) -> list[dict[str, Any]]:
    """The tasks of a file, those in blocks as well."""
    inner = [task for one in found or [] for part in ("block", "rescue", "always") for task in _tasks(one.get(part))]
    return [one for one in found or [] if "block" not in one] + inner


def _arguments(task: dict[str, Any]) -> str:
    """What a task's modules are given, without its name and its conditions; an assertion holds words about secrets."""
    given = {key: value for key, value in task.items() if "." in key and key != "ansible.builtin.assert"}
    return yaml.safe_dump(given, width=10_000)

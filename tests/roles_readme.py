"""Writes each role's README.md from its meta/argument_specs.yml, and the list of roles in roles/README.md.

    python -m tests.roles_readme

What a role does and takes is said once, where Ansible checks it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).parents[1] / "roles"
_BEGINS = """# roles

Ansible roles, one job each. `appliance/playbooks/site.yml` calls them in their order; every one runs by itself in its
Molecule scenario (`make molecule`). A role's README is written from its `meta/argument_specs.yml` by `make roles`.

| role | what it does |
|---|---|
"""


def role_names() -> list[str]:
    """The roles, in alphabetical order."""
    return sorted(path.parents[1].name for path in ROLES.glob("*/meta/argument_specs.yml"))


def specs(role: str) -> dict[str, Any]:
    """The main entry point of a role's argument specs."""
    read: dict[str, Any] = yaml.safe_load((ROLES / role / "meta/argument_specs.yml").read_text())
    main: dict[str, Any] = read["argument_specs"]["main"]
    return main


def defaults(role: str) -> dict[str, Any]:
    """A role's defaults."""
    return yaml.safe_load((ROLES / role / "defaults/main.yml").read_text()) or {}


def readme(role: str) -> str:
    """A role's README."""
    spec, given = specs(role), defaults(role)
    lines = [f"# {role}", "", f"{spec['short_description']}.", "", _prose(spec.get("description", "")), ""]
    if spec.get("options"):
        lines += ["## Variables", "", "| variable | type | default | meaning |", "|---|---|---|---|"]
        lines += [_row(name, option, given) for name, option in spec["options"].items()]
        lines.append("")
    return "\n".join(lines)


def _row(name: str, option: dict[str, Any], given: dict[str, Any]) -> str:
    kind = option["type"] + (f" of {option['elements']}" if "elements" in option else "")
    default = "required" if option.get("required") else f"`{_literal(given.get(name))}`"
    text = _prose(option["description"])
    if "choices" in option:
        text += f" One of: {', '.join(f'`{_literal(one)}`' for one in option['choices'])}."
    if "options" in option:
        text += f" Keys: {', '.join(f'`{one}`' for one in option['options'])}."
    return f"| `{name}` | {kind} | {default} | {text} |".replace("\n", " ")


def _literal(value: Any) -> str:
    """A value as one would write it in YAML, on one line, fit for a table's cell; of a site's variable its name."""
    if isinstance(value, str) and (site := re.fullmatch(r"\{\{ (fedward_\w+)( \| default\(.*\))? \}\}", value)):
        return site[1]
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000, allow_unicode=True)
    return text.removesuffix("\n").removesuffix("\n...").replace("|", "\\|")


def _prose(description: str | list[str]) -> str:
    return description if isinstance(description, str) else "\n\n".join(description)


def index() -> str:
    """The list of all roles."""
    rows = (f"| [{role}]({role}/README.md) | {specs(role)['short_description']} |\n" for role in role_names())
    return _BEGINS + "".join(rows)


def main() -> None:
    """Write all of them."""
    (ROLES / "README.md").write_text(index())
    for role in role_names():
        (ROLES / role / "README.md").write_text(readme(role))


if __name__ == "__main__":
    main()

"""How the tests start Ansible."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path


def environment() -> dict[str, str]:
    """This process's environment, in which Ansible is the one beside this interpreter, and Mitogen runs its tasks.

    Mitogen keeps one Python alive on each host instead of starting one for each task: a site's second run takes less
    than half of the time. ANSIBLE_STRATEGY=linear does without, as an operator's own runs do.
    """
    spec = find_spec("ansible_mitogen")
    assert spec is not None and spec.origin is not None
    chosen = {
        "ANSIBLE_STRATEGY": "mitogen_linear",
        "ANSIBLE_STRATEGY_PLUGINS": str(Path(spec.origin).parent / "plugins/strategy"),
        "ANSIBLE_DEPRECATION_WARNINGS": "false",  # of strategies that are not Ansible's own
    }
    return chosen | os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}

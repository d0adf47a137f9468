"""The command ``fedward`` as a whole."""

from __future__ import annotations

import subprocess
import sys

WITHOUT = (
    "import sys; sys.modules.update(dict.fromkeys({names!r})); from appliance.cli.main import app; app(['--help'])"
)


def test_a_host_without_a_groups_libraries_has_the_other_groups() -> None:
    """A hub carries no learning library and no GUI, and needs its VPN commands all the same."""
    names = ["torch", "landlockpy", "numpy", "sqlalchemy", "django", "flask"]

    done = subprocess.run(
        [sys.executable, "-c", WITHOUT.format(names=names)], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "│ vpn " in done.stdout
    assert "│ node " not in done.stdout


def test_a_command_imports_only_what_it_needs() -> None:
    """A timer on every host asks the VPN twice a minute: the learning libraries would cost it a second each time."""
    program = (
        "import sys; from appliance.cli.main import app; app(['vpn', 'addresses', '--help'], standalone_mode=False); "
        "print('heavy:', {'sqlalchemy', 'numpy', 'torch', 'django', 'flask'} & set(sys.modules))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)

    assert "vpn addresses [OPTIONS]" in done.stdout
    assert done.stdout.strip().endswith("heavy: set()")

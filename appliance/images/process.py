"""Other programs, with an error that a person can act on."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from appliance.images.errors import BuildError

_LAST_LINES = 12


def run(
    command: Sequence[str | Path], *, remedy: str, cwd: Path | None = None, env: dict[str, str] | None = None
) -> None:
    """Run a program to its end.

    Raises:
        BuildError: It is not installed or failed; the last lines that it wrote, and ``remedy``.
    """
    try:
        subprocess.run(  # noqa: S603 - our own commands
            [str(part) for part in command], cwd=cwd, env=env, check=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        )  # fmt: skip
    except FileNotFoundError as error:
        raise BuildError(f"{command[0]} is not installed here.", remedy=remedy) from error
    except subprocess.CalledProcessError as error:
        said = "\n".join(str(error.stdout).strip().splitlines()[-_LAST_LINES:])
        raise BuildError(f"{Path(command[0]).name} failed:\n{said}", remedy=remedy) from error

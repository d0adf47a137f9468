"""Containers of the real images, each started with the very line that images/README.md gives for its part."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import docker
from docker.models.containers import Container

from appliance.images.catalogue import Source

ROOT = Path(__file__).parents[2]


def run_line(part: str) -> list[str]:
    """The command that images/README.md gives for a part, in words."""
    blocks = re.findall(r"```sh\n(docker run .*?)```", (ROOT / "images/README.md").read_text(), re.DOTALL)
    (block,) = [block for block in blocks if f"--name fedward-{part} " in block]
    return shlex.split(block.replace("\\\n", " "))


class Containers:
    """Starts parts, and takes them away in the end."""

    def __init__(self) -> None:
        self._docker = docker.from_env()
        self._names: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._names:
            subprocess.run(["docker", "rm", "--force", "--volumes", name], check=False, capture_output=True, timeout=60)

    def start(self, part: str, image: str, changes: Mapping[str, str]) -> Container:
        """Start a part.

        Args:
            changes: What is other here than in the README: folders, and words such as a network's name.
        """
        line = run_line(part)
        for at, word in enumerate(line):
            if line[at - 1] == "--volume":
                there, _, rest = word.partition(":")
                folder = next(folder for folder in changes if there.startswith(folder))
                line[at] = f"{changes[folder]}{there.removeprefix(folder)}:{rest}"
            else:
                line[at] = changes.get(word, word)
        name = f"fedward-test-{part}-{os.getpid()}"
        line[line.index("--name") + 1] = name
        line[-1] = str(self._docker.images.get(f"fedward/{image}:{Source(ROOT).version}").id)
        subprocess.run(line, check=True, capture_output=True, text=True, timeout=120)
        self._names.append(name)
        return self._docker.containers.get(name)


def is_healthy(container: Container) -> bool:
    """What the image's own check says at this moment."""
    check = container.image.attrs["Config"]["Healthcheck"]["Test"][1:]
    return bool(container.exec_run(check).exit_code == 0)


def python(container: Container, code: str) -> str:
    """What a program in the container prints; it must not fail."""
    done = container.exec_run(["python", "-I", "-c", code])
    assert done.exit_code == 0, done.output.decode()
    return str(done.output.decode())

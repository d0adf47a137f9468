"""Small programs to keep."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from appliance.embedded.part import Part


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Part]]:
    """Start a Python program as a part; whatever still runs at the end is killed."""
    started: list[Part] = []

    def starting(text: str, *arguments: str, **options) -> Part:
        part = Part(
            "north",
            [sys.executable, "-I", "-S", "-c", text, *arguments],
            log=tmp_path / "log/north.log",
            environment={"PATH": os.defpath},
            folder=tmp_path,
            **options,
        )
        started.append(part)
        part.start()
        return part

    yield starting
    for part in started:
        part.kill()

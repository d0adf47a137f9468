"""A wrong clock for one part: libfaketime, its offset in a file, so that the clock can jump while the part runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from appliance.embedded import mosquitto

_SITE = Path(__file__).with_name("fake_clock")
_PATTERN = "usr/lib/*/faketime/libfaketimeMT.so.1"


class Clock:
    """A part's clock.

    Args:
        folder: Where the offset is kept.
        library: What ``find_libfaketime`` found.
    """

    def __init__(self, folder: Path, library: Path) -> None:
        self._file = folder / "offset"
        self._library = library
        self.set(0)

    def set(self, offset_s: int) -> None:
        """From now on the clock differs by so many seconds; timers go on as they are."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(f"{offset_s:+d}\n")
        fresh.replace(self._file)

    @property
    def environment(self) -> dict[str, str]:
        """What a part needs to be started with."""
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "PYTHONPATH": os.pathsep.join((str(_SITE), *sys.path)),
        }


def find_libfaketime(cache: Path) -> Path:
    """The library: this machine's, else Debian's package, unpacked below ``cache`` without root."""
    found = [*Path("/").glob(_PATTERN)]
    if not found:
        mosquitto._fetch("libfaketime", cache)
        found = [*(cache / "root").glob(_PATTERN)]
    return found[0]

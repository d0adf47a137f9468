"""For every Python under libfaketime 0.9.10, whose sleep until a moment of the steady clock is broken."""

import select
import time


def _sleep(seconds: float) -> None:
    if seconds < 0:
        raise ValueError("sleep length must be non-negative")
    select.select([], [], [], seconds)


time.sleep = _sleep

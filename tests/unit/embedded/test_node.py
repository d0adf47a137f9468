"""When a node's part that died is started again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from appliance.embedded import node
from appliance.embedded.errors import PartDiedError


def test_what_dies_young_is_started_again_ever_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that cannot start must not heat the machine; one that had worked for a while is missed at once."""
    waits: list[float] = []
    now = [0.0]

    class Deaths:
        """A queue out of which parts come dead after these lives, in seconds."""

        lives: Iterator[float] = iter([0.0, 1.0, 1.0, 100.0, 1.0])

        def get(self) -> PartDiedError | None:
            life = next(self.lives, None)
            now[0] += life or 0.0
            return None if life is None else PartDiedError("It died.")

    monkeypatch.setattr(node.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(node, "_is_told_to_end", lambda _deaths, wait_s: waits.append(wait_s))
    node._watch([], Deaths())  # type: ignore[arg-type]

    assert waits == [1.0, 2.0, 4.0, 1.0, 2.0]

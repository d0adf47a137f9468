"""What a node tells the network host about itself."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import pytest

from appliance.enrolment.authority import Authority, open_transport_key, signing_request
from appliance.transport.rest import UnreachableError
from appliance.warden import presence
from appliance.warden.presence import Presence


class Rest:
    """The line: keeps what was told, and fails as often as it is set to."""

    def __init__(self) -> None:
        self.told: queue.Queue[dict[str, Any]] = queue.Queue()
        self.failures = 0

    def state_tell(self, state: dict[str, Any], *, give_up_s: float) -> None:
        """As the real one."""
        if self.failures:
            self.failures -= 1
            raise UnreachableError("down")
        self.told.put(state)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A node's folder with a certificate."""
    key = open_transport_key(tmp_path / "tls/key.pem")
    pem = Authority.open(tmp_path / "authority", "test").issue(signing_request(key, "north"), "north")
    (tmp_path / "tls/cert.pem").write_text(pem)
    return tmp_path


def test_it_tells_five_values_and_no_more(home: Path) -> None:
    """The administrator's page lists them: another one would leave the hospital unannounced."""
    state = Presence(home, Rest(), lambda: 2).state()  # type: ignore[arg-type]

    assert set(state) == {"version", "disk_free_bytes", "disk_total_bytes", "certificate_until", "running_rounds"}
    assert state["running_rounds"] == 2
    assert 0 < int(state["disk_free_bytes"]) < int(state["disk_total_bytes"])


def test_a_line_that_is_down_is_tried_again(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And so is a certificate that is being renewed."""
    monkeypatch.setattr(presence, "EVERY_S", 0.01)
    rest = Rest()
    rest.failures = 3
    told = Presence(home, rest, lambda: 0)  # type: ignore[arg-type]
    told.start()
    first = rest.told.get(timeout=20)
    told.close()

    assert first["running_rounds"] == 0

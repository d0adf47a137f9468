"""What libraries note in passing, whatever ran in the process before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog

from appliance.cli.main import prepare
from appliance.network.logs import use_structured_logs


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Other tests log as they did."""
    yield
    structlog.reset_defaults()


def test_a_commands_log_does_not_mix_with_the_network_hosts(capsys: pytest.CaptureFixture[str]) -> None:
    """The one's processors ask the other's logger for what it does not have: the thread that logs would die of it."""
    use_structured_logs()
    prepare()

    structlog.get_logger("any").warning("the line broke", reason="cut")

    assert "the line broke" in capsys.readouterr().err

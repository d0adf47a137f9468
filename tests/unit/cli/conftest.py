"""A node with a real store and a real governance socket, as the commands find it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from appliance.cli import node as node_commands
from appliance.warden.governance import SOCKET_NAME, GovernanceServer
from tests.conftest import Members
from tests.unit.warden.conftest import Node

Run = Callable[..., Result]


@pytest.fixture
def node(tmp_path: Path, members: Members) -> Iterator[Node]:
    """A node whose warden answers."""
    node = Node(tmp_path, members)
    server = GovernanceServer(node.governance, node.root / SOCKET_NAME)
    server.start()
    yield node
    server.close()
    node.close()


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``fedward node ...`` on that node as Dr. Weiss."""
    monkeypatch.setenv("FEDWARD_NODE_HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "Dr. Weiss")
    return lambda *words: CliRunner().invoke(node_commands.app, list(words))

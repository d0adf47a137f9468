"""A GUI on a real warden: real store, real governance socket, real readers of tables; only the sandbox is left out."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from appliance.data import LoadingPlan, reader_for
from appliance.protocol.local.jobs import InspectJob
from appliance.protocol.messages import ArgumentRange, PlanApproval
from appliance.warden.client import GovernanceClient
from appliance.warden.governance import SOCKET_NAME, GovernanceServer
from node_gui.access import Role
from node_gui.app import create_app
from node_gui.config import GuiConfig
from node_gui.context import EXTENSION
from tests.conftest import Members
from tests.unit.node_gui.conftest import FAST, Browser, FakeWarden, Gui
from tests.unit.warden.conftest import FakeRunner, Node

RANGES = (ArgumentRange(name="optimizer_args.lr", minimum=0.001, maximum=0.1), ArgumentRange(name="epochs", maximum=5))
TABLE = "age,smoker,outcome\n" + "".join(f"{40 + n % 50},{'yes' if n % 3 else 'no'},{n % 2}\n" for n in range(120))


class ReadingRunner(FakeRunner):
    """The runner, which reads tables as the real one's child does."""

    def inspect(self, job: InspectJob) -> dict[str, Any]:
        """Look at a file."""
        reader, path = reader_for(job.dataset.kind), Path(job.dataset.path)
        plan = LoadingPlan.parse(job.dataset.loading_plan)
        if job.action == "fingerprint":
            return {"fingerprint": reader.fingerprint(path)}
        if job.action == "preview":
            return reader.preview(path, job.rows, plan).model_dump(mode="json")
        if job.action == "profile":
            return reader.profile(path, plan).model_dump(mode="json")
        report = reader.check(path, plan)
        return {**report.model_dump(mode="json"), "is_usable": report.is_usable}


class Hospital:
    """The node, its GUI and its people."""

    def __init__(self, root: Path, members: Members) -> None:
        self.node = Node(root, members)
        self.node.runner.__class__ = ReadingRunner
        self._server = GovernanceServer(self.node.governance, root / SOCKET_NAME)
        self._server.start()
        app = create_app(GuiConfig(), self._client, root, hasher=FAST)
        self.gui = Gui(app, FakeWarden(), root)
        self.data = root / "data"

    def close(self) -> None:
        """End everything."""
        self.gui.app.extensions[EXTENSION].close()
        self._server.close()
        self.node.close()

    def stop_warden(self) -> None:
        """The warden is down; the GUI goes on."""
        self._server.close()

    def signed_in(self, role: Role, name: str | None = None) -> Browser:
        """A browser with somebody of that role."""
        return self.gui.signed_in(role, name)

    def request_plan(self, source: str, *, name: str = "bleeding", researcher: str = "alice", **more: Any) -> str:
        """A researcher asks for approval of a text; returns its hash."""
        sha256 = hashlib.sha256(source.encode()).hexdigest()
        fields = {"name": name, "description": "", "ranges": RANGES} | more
        asked = PlanApproval(source=source, sha256=sha256, **fields)
        with self.node.store.write() as connection:
            self.node.services.plans.request(connection, researcher, asked)
        return sha256

    def write_table(self, name: str = "trial.csv", text: str = TABLE) -> Path:
        """A file in the data folder."""
        path = self.data / name
        path.write_text(text)
        return path

    def _client(self, name: str) -> GovernanceClient:
        return GovernanceClient(self.gui.home / SOCKET_NAME, staff=name, via="gui")

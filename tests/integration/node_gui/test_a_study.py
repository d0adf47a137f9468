"""A study as its hospital governs it in the browser: a dataset, a plan that is asked for, a round, what left."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.protocol.messages import PlanState
from appliance.warden.client import GovernanceClient
from appliance.warden.governance import SOCKET_NAME
from node_gui.access import Role
from node_gui.app import create_app
from node_gui.config import GuiConfig
from node_gui.context import EXTENSION
from researcher_kit import Federation
from tests.hospitals import PLAN, Hospitals
from tests.integration.network.hosts import wait_until
from tests.unit.node_gui.conftest import FAST, FakeWarden, Gui


@pytest.fixture
def gui(hospitals: Hospitals) -> Iterator[Gui]:
    """The GUI of south, on its running node; north's is another test's."""
    home = hospitals.home("south")

    def governance(name: str) -> GovernanceClient:
        return GovernanceClient(home / SOCKET_NAME, staff=name, via="gui")

    app = create_app(GuiConfig(), governance, home, hasher=FAST)
    yield Gui(app, FakeWarden(), home)
    app.extensions[EXTENSION].close()
    shutil.rmtree(home / "gui")  # its accounts: the hospital is everybody's


def test_a_study_is_governed_in_the_browser_from_its_data_to_what_left(
    gui: Gui, hospitals: Hospitals, federation: Federation, tmp_path: Path
) -> None:
    """No command line, and every step in the signed-in person's name."""
    mark = secrets.token_hex(4)
    table = (hospitals.data("south") / "cells.csv").read_text()
    (hospitals.data("south") / f"{mark}.csv").write_text(table)
    manager = gui.signed_in(Role.DATA_MANAGER, f"Dora {mark}")
    reviewer = gui.signed_in(Role.REVIEWER, f"Rita {mark}")

    # A file of the data folder becomes a dataset that alice may use.
    assert f"{mark}.csv" in manager.get("/datasets/browse").text
    assert manager.get(f"/datasets/look?path={mark}.csv").status_code == 200
    assert "284 rows" in manager.post("/datasets/look", path=f"{mark}.csv").text
    added = manager.post("/datasets/add", path=f"{mark}.csv", name=f"study {mark}", tags=mark)
    assert added.status_code == 302, added.text
    dataset = added.location.split("#")[0]
    manager.post(f"{dataset}/permit", researcher="alice")

    # Alice asks for her plan, and a reviewer reads and approves it.
    text = tmp_path / "plan.py"
    text.write_text(f"{PLAN.read_text()}\n# {mark}\n")
    experiment = hospitals.experiment(federation, tags=[mark], training_plan_file=text, round_limit=1)
    experiment.request_approval(f"Study {mark}", nodes=["south"])
    history = hospitals.history("south")

    def asked() -> list[str]:
        page = history.plan_page(states=[PlanState.PENDING])
        return [p["sha256"] for p in page.rows if mark in history.plan(p["sha256"])["source"]]

    wait_until(lambda: bool(asked()))
    (sha256,) = asked()
    assert f"Study {mark}" in reviewer.get(f"/plans/{sha256}").text
    assert reviewer.post(f"/plans/{sha256}/approve", shown="0", note="read").status_code == 302

    # She trains, and the hospital sees what ran and what left.
    experiment.run()
    page = reviewer.get(f"/experiments/{experiment.id}").text
    assert "Finished" in page
    assert f"study {mark}" in page
    left = manager.get(f"/what-left/?experiment={experiment.id}").text
    assert '<p class="figure">1</p>' in left
    actors = {line["event"]: line["actor"] for line in hospitals.audit("south") if line["subject"] in (sha256, dataset)}
    assert actors["plan.approved"] == f"staff:Rita {mark}"

"""How much work a page is: bounded, however long the node has run. Counted in SQLite's own steps, not in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from appliance.warden.history import History
from appliance.warden.store import Store
from node_gui.access import ALLOWED, PUBLIC, Role, may
from node_gui.app import create_app
from node_gui.config import GuiConfig
from node_gui.context import EXTENSION
from tests import years
from tests.benchmarks.pages import OTHERS, of_records
from tests.unit.node_gui.conftest import FAST, FakeWarden, Gui, write_home
from tests.years import Size

YOUNG = Size(datasets=60, plans=120, experiments=120, rounds=1200, lines=4000)
OLD = Size(datasets=60, plans=120, experiments=120, rounds=6000, lines=24_000)
EVERY = 20  # steps between two counts
EXPORTS = {"egress.export_csv", "egress.export_signed", "audit.export_csv", "audit.export_signed"}


class Work:
    """Counts what the GUI's pages make SQLite do."""

    def __init__(self, gui: Gui) -> None:
        self.steps, self.statements = 0, list[tuple[str, Any]]()
        self._gui = gui
        engine = gui.app.extensions[EXTENSION].history()._engine
        sa.event.listen(engine, "connect", self._watch)
        sa.event.listen(engine, "before_cursor_execute", self._hear)

    def _watch(self, connection: Any, _record: object) -> None:
        connection.set_progress_handler(self._count, EVERY)

    def _count(self) -> int:
        self.steps += EVERY
        return 0

    def _hear(self, _connection: Any, _cursor: Any, statement: str, parameters: Any, *_more: Any) -> None:
        self.statements.append((statement, parameters))

    def of(self, endpoint: str, path: str) -> tuple[int, int]:
        """SQLite's steps for a page, and how many statements."""
        browser = self._gui.signed_in(next(role for role in Role if may(role, endpoint)))
        self.steps, self.statements = 0, []
        assert browser.get(path).status_code == 200, path
        return self.steps, len(self.statements)


def test_probe(tmp_path: Path) -> None:
    works = {}
    for name, size in (("young", YOUNG), ("old", OLD)):
        home = tmp_path / name
        home.mkdir()
        store = Store(home / "store")
        years.fill(store, size)
        store.close()
        write_home(home)
        warden = FakeWarden()
        gui = Gui(create_app(GuiConfig(), warden, home, hasher=FAST), warden, home)
        work = Work(gui)
        works[name] = {path: work.of(endpoint, path) for endpoint, paths in of_records(YOUNG).items() for path in paths}
        seen = {}
        for endpoint, paths in of_records(YOUNG).items():
            for path in paths:
                work.of(endpoint, path)
                for s, p in work.statements:
                    seen.setdefault(s, (path, p))
        if name == "old":
            eng = gui.app.extensions[EXTENSION].history()._engine
            with eng.connect() as c:
                for s, (path, p) in seen.items():
                    plan = c.exec_driver_sql("EXPLAIN QUERY PLAN " + s, p).all()
                    print("=", path, " ".join(s.split())[:150])
                    for r in plan: print("     ", r[3])
        gui.app.extensions[EXTENSION].close()
    for path in works["young"]:
        print(path[:70].ljust(72), works["young"][path], works["old"].get(path))
    assert 0

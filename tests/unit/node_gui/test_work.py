"""How much work a page is: bounded, however long the node has run. Counted in SQLite's own steps, never in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from appliance.warden.history import History
from appliance.warden.store import Store
from node_gui.access import PUBLIC, Role, may
from node_gui.app import create_app
from node_gui.config import GuiConfig
from node_gui.context import EXTENSION
from tests import years
from tests.benchmarks.pages import OTHERS, of_records
from tests.unit.node_gui.conftest import FAST, FakeWarden, Gui, write_home
from tests.years import BEGAN, YEARS_S, Size

# As many experiments, plans and datasets in both: what differs is how much each experiment did and the node wrote down.
YOUNG = Size(datasets=60, plans=60, experiments=60, rounds=1000, lines=2000)
OLD = Size(datasets=60, plans=60, experiments=60, rounds=4000, lines=8000)
LOOKED_AT = 200  # lines that a search or a sum looks at here: fewer than the young node has
DRAWN = 12  # rounds, fewer than each of its experiments has
STEPS_APART = 20  # between two counts
SOON_S = 14 * 86_400.0
# What notices and the command line ask for, beside the pages.
BESIDE: dict[str, Callable[[History], object]] = {
    "failed rounds": lambda book: book.failed_rounds(0.0, size=5),
    "approvals": lambda book: book.approvals_ending(BEGAN + YEARS_S - SOON_S, BEGAN + YEARS_S + SOON_S, size=5),
    "permissions": lambda book: book.permissions_ending(BEGAN + 2 * YEARS_S - 1, BEGAN + 2 * YEARS_S + 1, size=5),
    "pauses": lambda book: book.pauses(),
}
EXPORTS = {"models.download", "egress.export_csv", "egress.export_signed", "audit.export_csv", "audit.export_signed"}


class Served:
    """The GUI over a node's records, and what its pages make SQLite do."""

    def __init__(self, home: Path, size: Size) -> None:
        store = Store(home / "store")
        years.fill(store, size)
        store.close()
        write_home(home)
        warden = FakeWarden()
        self.gui = Gui(create_app(GuiConfig(), warden, home, hasher=FAST), warden, home)
        self._steps = 0
        self.statements: dict[str, Any] = {}
        self._parts = self.gui.app.extensions[EXTENSION]
        self.engine = self._parts.history()._engine
        sa.event.listen(self.engine, "connect", self._watch)
        sa.event.listen(self.engine, "before_cursor_execute", self._hear)
        self._browsers = {role: self.gui.signed_in(role) for role in Role}

    def close(self) -> None:
        """Let go of the files."""
        self._parts.close()

    def steps(self, endpoint: str, path: str) -> int:
        """How many of its own steps SQLite takes for a page."""
        self._steps = 0
        reply = self._browsers[next(role for role in Role if may(role, endpoint))].get(path)
        assert reply.status_code == 200, path
        return self._steps

    def steps_beside(self, ask: Callable[[History], object]) -> int:
        """How many it takes for something that is asked for beside the pages; there must be some of it."""
        self._steps = 0
        assert ask(self._parts.history())
        return self._steps

    def _watch(self, connection: Any, _record: object) -> None:
        connection.set_progress_handler(self._count, STEPS_APART)

    def _count(self) -> int:
        self._steps += STEPS_APART
        return 0

    def _hear(self, _connection: Any, _cursor: Any, statement: str, parameters: Any, *_more: Any) -> None:
        self.statements[statement] = parameters


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Served, Served]]:
    """A young node and an old one."""
    served = tuple(Served(tmp_path_factory.mktemp("node"), size) for size in (YOUNG, OLD))
    yield served
    for one in served:
        one.close()


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds that a small store reaches."""
    monkeypatch.setattr("appliance.warden.history.SCANNED_AT_MOST", LOOKED_AT)
    monkeypatch.setattr("appliance.warden.history.SUMMED_AT_MOST", LOOKED_AT)
    monkeypatch.setattr("appliance.warden.history.MOST_POINTS", DRAWN)
    monkeypatch.setattr("node_gui.experiments._ROUNDS_SHOWN", DRAWN)


def test_no_page_takes_more_work_at_an_old_node_than_at_a_young_one(nodes: tuple[Served, Served]) -> None:
    """Four times the rounds, the lines of what left and of the log: a page that counts them would do as much more."""
    young, old = nodes
    found = {
        path: (young.steps(endpoint, path), old.steps(endpoint, path))
        for endpoint, paths in of_records(YOUNG).items()
        for path in paths
    }
    found |= {name: (young.steps_beside(ask), old.steps_beside(ask)) for name, ask in BESIDE.items()}

    # What a search down a tree takes grows by a step or two.
    assert {path: (few, many) for path, (few, many) in found.items() if many > 1.1 * few + 300} == {}


def test_no_page_reads_a_long_table_from_its_beginning(nodes: tuple[Served, Served]) -> None:
    """Whatever the planner knows of the tables' lengths, an index leads to the rows of a page."""
    _, old = nodes
    for endpoint, paths in of_records(OLD).items():
        for path in paths:
            old.steps(endpoint, path)
    for ask in BESIDE.values():
        old.steps_beside(ask)
    with old.engine.connect() as connection:
        plans = {
            statement: [step[3] for step in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            for statement, parameters in list(old.statements.items())
        }

    long_tables = ("SCAN rounds", "SCAN measures", "SCAN egress", "SCAN audit")
    by_index = {  # the latest first, as many as a page has; and the few rounds that wait or run
        "SCAN egress USING INDEX egress_by_time",
        "SCAN egress USING INDEX updates_by_time",
        "SCAN rounds USING INDEX rounds_open",
    }
    scans = {
        step for steps in plans.values() for step in steps if f"{step} ".startswith(tuple(t + " " for t in long_tables))
    }
    assert scans <= by_index
    assert len(plans) > 20


def test_every_page_is_measured(nodes: tuple[Served, Served]) -> None:
    """A page that somebody adds has its address in the benchmark, and is held to the same."""
    rules = nodes[0].gui.app.url_map.iter_rules()
    shown = {rule.endpoint for rule in rules if "GET" in (rule.methods or ())}

    assert shown == {*of_records(YOUNG), *OTHERS} | EXPORTS | (PUBLIC & shown)

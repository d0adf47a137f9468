"""``make pages``: how long the GUI's pages take at a hospital of many years.

    python -m tests.benchmarks.gui [--times N] [--lines N] [PREFIX…]     only pages whose address begins so

Fills a store with 200 datasets, 500 plans, 10 000 rounds of 500 experiments and a million lines of audit log (once:
it is kept in ``.cache``), starts the GUI as ``fedward gui start`` does, and opens every page N times over TLS, signed
in, first and later pages, searches and filters. The warden behind it is real but for its line, files and runner.

Prints for each page the median and the 95th percentile in milliseconds and the processor time that it takes of the
GUI's process, with the machine's load, and writes ``bench-gui-results.json``: a list of ``{page, median_ms, p95_ms,
cpu_ms}``, the whole's under ``all``. Exports are read once; what counts there is memory.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import os
import re
import shutil
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlencode

import psutil
from rich.console import Console
from rich.table import Table

from appliance.warden.governance import SOCKET_NAME, GovernanceServer
from appliance.warden.store import Store
from node_gui.access import Role, may
from node_gui.serve import READY_FILE
from node_gui.staff import StaffBook
from tests import years
from tests.benchmarks.pages import addresses
from tests.conftest import make_members
from tests.integration.network.hosts import wait_until
from tests.memory import HighWater
from tests.unit.node_gui.conftest import FAST, PASSWORD, write_home
from tests.unit.node_gui.hospital import TABLE, ReadingRunner
from tests.unit.warden.conftest import Node
from tests.years import Size

TIMES, ACCOUNTS = 40, 40
CACHE = Path(".cache") / "gui-years"
RESULTS = Path("bench-gui-results.json")
EXPORTS = (
    "/what-left/what-left.csv?what=all",
    "/what-left/what-left.jsonl?what=all",
    "/audit/export.csv?since=2021-01-01",
)


@dataclass(frozen=True)
class Measured:
    """What a page came to."""

    page: str
    median_ms: float
    p95_ms: float
    cpu_ms: float


def main() -> None:
    """Fill a store unless it is there, serve it, and time the pages."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gui")
    parser.add_argument("prefixes", nargs="*", metavar="PREFIX", help="only pages whose address begins so")
    parser.add_argument("--times", type=int, default=TIMES, help="how often each page is opened")
    parser.add_argument("--lines", type=int, default=Size.lines, help="of the audit log")
    options = parser.parse_args()
    size, console = Size(lines=options.lines), Console(width=120)
    home = _filled(size, console)
    wanted = [(e, p) for e, p in addresses(size) if p.startswith(tuple(options.prefixes) or "/")]
    with _served(home) as process:
        people = {role: Person(home, role) for role in Role}
        measured, every = [], []
        for endpoint, path in wanted:
            person = next(people[role] for role in Role if may(role, endpoint))
            one, times = _measure(person, path, process, options.times)
            measured.append(one)
            every += times
        cpu_ms = statistics.mean(one.cpu_ms for one in measured)
        measured.append(Measured("all", _ms(statistics.median(every)), _ms(_p95(every)), round(cpu_ms, 1)))
        console.print(_table(measured))
        console.print(f"The machine's load was {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")
        console.print(f"The GUI's process has {process.memory_info().rss / 1e6:.0f} MB.")
        if not options.prefixes:
            for path in EXPORTS:
                _export(people[Role.ADMINISTRATOR], path, process, console)
            _verify(people[Role.AUDITOR], process, console)
    RESULTS.write_text(json.dumps([asdict(one) for one in measured], indent=1) + "\n")


class Person:
    """Somebody's browser, on one line that is kept open."""

    def __init__(self, home: Path, role: Role) -> None:
        context = ssl.create_default_context(cafile=str(home / "gui/tls/cert.pem"))
        port = int((home / READY_FILE).read_text())
        self._line = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=60)
        form = urlencode({"name": f"{role.value} 0", "password": PASSWORD})
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        self._line.request("POST", "/sign-in", body=form, headers=headers)
        reply = self._line.getresponse()
        reply.read()
        assert reply.status == 302, reply.status
        self._cookie = reply.headers["Set-Cookie"].partition(";")[0]

    def get(self, path: str) -> bytes:
        """Open a page."""
        return self._ask("GET", path).read()

    def send(self, path: str, form: dict[str, str]) -> bytes:
        """Send a form, as a part of a page does by itself."""
        headers = {"Content-Type": "application/x-www-form-urlencoded", "HX-Request": "true"}
        return self._ask("POST", path, urlencode(form), headers).read()

    def size_of(self, path: str) -> int:
        """Read a file that is not kept; how many bytes it has."""
        reply, size = self._ask("GET", path), 0
        while part := reply.read(1 << 16):
            size += len(part)
        return size

    def _ask(
        self, method: str, path: str, body: str | None = None, headers: Mapping[str, str] | None = None
    ) -> http.client.HTTPResponse:
        given = {"Cookie": self._cookie, **(headers or {})}
        try:
            self._line.request(method, path, body=body, headers=given)
            reply = self._line.getresponse()
        except http.client.RemoteDisconnected:  # the server closes a line that stood idle; as browsers do
            self._line.close()
            self._line.request(method, path, body=body, headers=given)
            reply = self._line.getresponse()
        assert reply.status == 200, f"{path}: {reply.status}"
        return reply


def _filled(size: Size, console: Console) -> Path:
    """The folder of a node with such a store; made at the first time, and when what fills it has changed."""
    made_by = hashlib.sha256(Path(years.__file__).read_bytes() + repr(size).encode()).hexdigest()[:12]
    home = CACHE.resolve() / made_by
    if not home.exists():
        shutil.rmtree(CACHE, ignore_errors=True)
        began, fresh = time.monotonic(), home.with_suffix(".new")
        store = Store(fresh / "store")
        years.fill(store, size)
        store.close()
        fresh.rename(home)
        console.print(f"Filled a store within {time.monotonic() - began:.0f} s; it is kept in {CACHE}.")
    for name in ("gui", "tls", "run"):
        shutil.rmtree(home / name, ignore_errors=True)
    write_home(home)
    staff = StaffBook(home, hasher=FAST)
    for role in Role:
        for n in range(ACCOUNTS // len(Role)):
            staff.join(staff.invite("setup", f"{role.value} {n}", role), PASSWORD)
    staff.close()
    return home


@contextmanager
def _served(home: Path) -> Iterator[psutil.Process]:
    """The GUI in a process of its own, the warden's governance in this one; gives the process that answers."""
    node = Node(home, make_members())
    node.runner.__class__ = ReadingRunner
    for n in range(200):
        (home / "data" / f"ward-{n}.csv").write_text(TABLE)
    server = GovernanceServer(node.governance, home / SOCKET_NAME)
    server.start()
    command = [sys.executable, "-m", "appliance.cli.main", "gui", "start", "--home", str(home)]
    with subprocess.Popen(command, env=os.environ | {"FEDWARD_GUI__PORT": "0"}) as arbiter:
        try:
            wait_until(lambda: (home / READY_FILE).exists() or arbiter.poll() is not None, timeout_s=60)
            wait_until(lambda: bool(psutil.Process(arbiter.pid).children()), timeout_s=60)
            yield psutil.Process(arbiter.pid).children()[0]
        finally:
            arbiter.terminate()
            arbiter.wait(30)
            server.close()
            node.close()


def _measure(person: Person, path: str, process: psutil.Process, times: int) -> tuple[Measured, list[float]]:
    person.get(path)
    taken, before = [], sum(process.cpu_times()[:2])
    for _ in range(times):
        began = time.perf_counter()
        person.get(path)
        taken.append(time.perf_counter() - began)
    cpu_ms = 1000 * (sum(process.cpu_times()[:2]) - before) / times
    return Measured(path, _ms(statistics.median(taken)), _ms(_p95(taken)), round(cpu_ms, 1)), taken


def _export(person: Person, path: str, process: psutil.Process, console: Console) -> None:
    water, began = HighWater(process.pid), time.monotonic()
    size = person.size_of(path)
    took = f"{size / 1e6:.0f} MB within {time.monotonic() - began:.1f} s"
    console.print(f"{path}: {took}; the GUI's process rose by {water.rise() / 1e6:.0f} MB.")


def _verify(person: Person, process: psutil.Process, console: Console) -> None:
    """Let the whole log be checked, as its page does, a part with each request."""
    page, taken, before = person.get("/audit/"), [], sum(process.cpu_times()[:2])
    while form := dict(re.findall(r'name="(csrf|lines|head)" value="([^"]*)"', page.decode())):
        began = time.perf_counter()
        page = person.send("/audit/verify", form)
        taken.append(time.perf_counter() - began)
    cpu_ms = 1000 * (sum(process.cpu_times()[:2]) - before) / len(taken)
    median, p95 = statistics.median(taken) * 1000, _p95(taken) * 1000
    parts = f"{len(taken)} parts: median {median:.0f} ms, 95th percentile {p95:.0f} ms, processor {cpu_ms:.0f} ms each"
    console.print(f"The whole log was verified within {sum(taken):.1f} s, in {parts}.")


def _p95(times: list[float]) -> float:
    return statistics.quantiles(times, n=20)[-1]


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 1)


def _table(measured: list[Measured]) -> Table:
    table = Table("page", "median ms", "95th percentile ms", "processor ms", title="The GUI's pages")
    for one in measured:
        path = one.page if len(one.page) < 60 else f"{one.page[:57]}…"
        table.add_row(path, f"{one.median_ms:.0f}", f"{one.p95_ms:.0f}", f"{one.cpu_ms:.1f}")
    return table


if __name__ == "__main__":
    main()

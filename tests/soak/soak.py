"""A consortium that is made to work while its parts are killed, one after another."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer

from appliance.embedded.consortium import BROKER, NETWORK, EmbeddedConsortium
from appliance.protocol.errors import ConfigurationError
from appliance.warden.client import GovernanceClient
from appliance.warden.governance import SOCKET_NAME
from tests.soak.growth import Watch
from tests.soak.schedule import PLAN, Kill, Victim, make_schedule

RESEARCHER = "alice"
STUCK_S = 180.0
EXPERIMENTS = 10
_SAMPLE_EVERY = 5
_CALM_S = 30.0


class SoakError(Exception):
    """The soak came to a standstill; says where."""


class Soak:
    """Runs experiments on a real consortium and kills by schedule.

    Args:
        root: A folder of its own.
        nodes: The hospitals' ids.
        tell: Hears a line for each kill and each failure.
        progress: Hears how many rounds are done.
    """

    def __init__(
        self,
        root: Path,
        *,
        seed: int,
        rounds: int,
        nodes: Sequence[str],
        tell: Callable[[str], None],
        progress: Callable[[int], None] = lambda _done: None,
    ) -> None:
        self.consortium = EmbeddedConsortium(root, nodes=nodes, researchers=[RESEARCHER])
        self.nodes = tuple(nodes)
        self.folder = root / "experiments"
        self.counts = _shares(rounds, min(EXPERIMENTS, max(2, rounds // 6)))
        self.kills: Counter[Victim] = Counter()
        self.failures = 0  # told to the researcher, who ran the round again
        self.watch = Watch(self.consortium, nodes)
        self.rounds = rounds
        self._schedule = make_schedule(seed, rounds, nodes)
        self._tell = tell
        self._progress = progress
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._researcher: subprocess.Popen[str] | None = None

    def run(self) -> None:
        """From the start of the consortium to the end of its last process.

        Raises:
            SoakError: Nothing happened for too long, or the researcher gave up.
        """
        self.consortium.start()
        try:
            self._furnish()
            self._work()
            self._settle()
        finally:
            if self._researcher is not None:
                self._researcher.kill()
                self._researcher.wait()
            self.consortium.stop()

    def _furnish(self) -> None:
        """Each hospital has its share of the cells, has permitted the researcher and approved the plan."""
        cells = load_breast_cancer()
        table = np.column_stack([cells.data / cells.data.std(axis=0), cells.target])
        header = ",".join([f"f{n}" for n in range(30)] + ["malign"])
        for place, node in enumerate(self.nodes):
            home = self.consortium.home(node)
            np.savetxt(
                home / "data/cells.csv", table[place :: len(self.nodes)], "%.5f", ",", header=header, comments=""
            )
            staff = GovernanceClient(home / SOCKET_NAME, staff="nurse", via="cli")
            spec = {"name": "cells", "path": "cells.csv", "tags": ["cells"], "researchers": [RESEARCHER]}
            staff.call("dataset.add", spec=spec)
            staff.call("plan.add", name="soak", source=PLAN.read_text())

    def _work(self) -> None:
        self._start_researcher()
        done = 0
        while True:
            try:
                line = self._lines.get(timeout=STUCK_S)
            except queue.Empty:
                raise SoakError(f"Nothing happened for {STUCK_S:.0f} s after round {done}.") from None
            if line is None:
                if self._is_over():
                    return
                continue
            index, number, event, *text = line.split(" ", 3)
            overall = sum(self.counts[: int(index)]) + int(number)
            if event == "Failed":
                self.failures += 1
                self._tell(f"round {overall} failed and is run again: {text[0]}")
                continue
            kill = self._schedule.get(overall)
            if kill is not None and kill.moment == event:
                self._kill(overall, self._schedule.pop(overall))
            if event == "RoundClosed" and overall > done:
                done = overall
                self._progress(done)
                if done % _SAMPLE_EVERY == 0 and self._researcher is not None:
                    self.watch.sample(done, self._researcher.pid)

    def _is_over(self) -> bool:
        """Whether the researcher ended because all is done; one that was killed is started again."""
        assert self._researcher is not None
        status = self._researcher.wait()
        if status == 0:
            return True
        if status != -signal.SIGKILL:
            raise SoakError(f"The researcher gave up with status {status}: {self._said()}")
        self._start_researcher()
        return False

    def _kill(self, overall: int, kill: Kill) -> None:
        time.sleep(kill.delay_s)
        was_there = True
        match kill.victim:
            case Victim.RESEARCHER:
                assert self._researcher is not None
                self._researcher.kill()
            case Victim.BROKER | Victim.NETWORK | Victim.NODE:
                name = {Victim.BROKER: BROKER, Victim.NETWORK: NETWORK}.get(kill.victim, kill.node)
                self.consortium.kill(name, forget=name == BROKER)
                self.consortium.launch(name)
            case Victim.WARDEN:
                was_there = self._kill_process(kill.node, "appliance.warden")
            case Victim.SUPERVISOR:
                was_there = self._kill_process(kill.node, "appliance.runner")
            case Victim.CHILD:
                was_there = self._kill_child(kill.node)
        self.kills[kill.victim] += was_there
        if was_there:
            self._tell(f"round {overall}: killed {kill}")
        else:  # it ended by itself, or is not yet there again: another round will do
            self._schedule[next(number for number in count(overall + 1) if number not in self._schedule)] = kill

    def _kill_process(self, node: str, program: str) -> bool:
        try:
            self.consortium.kill_process(node, program)
        except (ConfigurationError, ProcessLookupError):
            return False
        return True

    def _kill_child(self, node: str) -> bool:
        """The processes that run plans lead sessions of their own below the runner."""
        runners = [pid for pid, command in self.consortium.processes(node).items() if "appliance.runner" in command]
        with suppress(ProcessLookupError, IndexError):
            children = [pid for pid in runners if os.getsid(pid) != os.getsid(runners[0])]
            os.kill(children[-1], signal.SIGKILL)
            return True
        return False

    def _settle(self) -> None:
        """Wait until no node has anything left to do: what was accepted ends, asked for or not."""
        from tests.soak.verdict import unfinished  # noqa: PLC0415 - it reads what this writes

        deadline = time.monotonic() + _CALM_S
        self.consortium.wait_until_up(BROKER, NETWORK, *self.nodes)
        while any(unfinished(self.consortium.home(node)) for node in self.nodes) and time.monotonic() < deadline:
            time.sleep(0.2)
        collect = [sys.executable, "-m", "appliance.cli.main", "network", "collect"]
        home = str(self.consortium.home(NETWORK))  # what a killed network host leaves, it collects every hour
        subprocess.run([*collect, "--home", home], check=True, capture_output=True)

    def _start_researcher(self) -> None:
        arguments = [self.consortium.home(RESEARCHER), self.folder, ",".join(self.nodes), *self.counts]
        with self._log.open("ab") as log:
            self._researcher = subprocess.Popen(
                [sys.executable, "-m", "tests.soak.researcher", *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        threading.Thread(target=self._read, args=(self._researcher,), daemon=True).start()

    def _read(self, researcher: subprocess.Popen[str]) -> None:
        assert researcher.stdout is not None
        with researcher.stdout as lines:
            for line in lines:
                if line.endswith("\n"):  # else it was killed in mid-word
                    self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    @property
    def _log(self) -> Path:
        return self.consortium.root / "researcher.log"

    def _said(self) -> str:
        return self._log.read_text()[-2000:]


def _shares(rounds: int, experiments: int) -> list[int]:
    return [rounds // experiments + (index < rounds % experiments) for index in range(experiments)]

"""Who plays in a round that is disturbed: a hospital and a researcher, as processes that can be killed one by one."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from appliance.embedded.part import Part
from tests.hospitals import PLAN, Hospitals, training_args

FOLDER = Path(__file__).parent
PATIENCE_S = 120


class Hospital:
    """A node whose warden and runner are started, killed and started again one by one, as their keeper would.

    Args:
        people: The consortium; the node does not run in it meanwhile.
        node: Its id.
        arguments: Those of ``stepping_warden.py`` behind the node's folder.
    """

    def __init__(self, people: Hospitals, node: str, *arguments: str) -> None:
        home = people.home(node)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        self._ready, self._socket = home / "run/ready", home / "run/runner.sock"

        def part(name: str, *command: str) -> Part:
            log = home / "log" / f"{name}.log"
            return Part(name, [sys.executable, *command], log=log, environment=environment, folder=home)

        self.warden = part("warden", str(FOLDER / "stepping_warden.py"), str(home), *arguments)
        scratch = str(home / "scratch")
        self.runner = part("runner", "-m", "appliance.runner", "--socket", str(self._socket), "--scratch", scratch)

    def start(self) -> None:
        """Start what does not run, and wait until both are up."""
        self.runner.start()
        self.warden.start()
        self.runner.wait_until(self._socket.exists, timeout_s=PATIENCE_S)
        self.warden.wait_until(self._is_up, timeout_s=PATIENCE_S)

    def stop(self) -> None:
        """End both in order."""
        self.warden.stop()
        self.runner.stop()

    def children(self) -> list[psutil.Process]:
        """The processes that run plans: each leads a session of its own."""
        supervisor = next(
            process
            for process in map(psutil.Process, self.runner.processes())
            if "appliance.runner" in process.cmdline()
        )
        session = os.getsid(supervisor.pid)
        return [child for child in supervisor.children(recursive=True) if os.getsid(child.pid) != session]

    def _is_up(self) -> bool:
        try:
            return int(self._ready.read_text()) in self.warden.processes()
        except (OSError, ValueError):
            return False


class Researcher:
    """Alice's notebook, as a process that runs one experiment and says each step.

    Args:
        people: The consortium.
        folder: The experiment's.
        stage: Where it says its steps.
        arguments: Further ones of ``stepping_researcher.py``.
        changes: Other arguments of the experiment.
    """

    def __init__(self, people: Hospitals, folder: Path, stage: str, *arguments: str, **changes: Any) -> None:
        settings: Mapping[str, object] = {
            "tags": ["cells"],
            "training_plan_file": str(PLAN),
            "model_args": {"width": 2000},
            "training_args": training_args(),
            "round_limit": 1000,
            "save_breakpoints": True,
        } | changes
        self.folder = folder
        self._command = [sys.executable, str(FOLDER / "stepping_researcher.py"), str(people.home("alice"))]
        self._command += [str(folder), stage, json.dumps(settings), *arguments]
        self._log = folder.with_suffix(".log")
        self._process: subprocess.Popen[str] | None = None
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._asked = 0

    def start(self) -> None:
        """Start it; what was asked for before is asked for again."""
        self.kill()
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )
        self._reader = threading.Thread(target=self._read, args=(self._process,), daemon=True)
        self._reader.start()
        if self._asked:
            self.ask_for(self._asked)

    def ask_for(self, round_: int) -> None:
        """Let it run until this round is closed."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._asked = round_
        self._process.stdin.write(f"{round_}\n")
        self._process.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """How that went: the round that is closed, and the error's code and message if there was one."""
        try:
            line = self._said.get(timeout=PATIENCE_S)
        except queue.Empty:
            line = ""
        assert line, f"the researcher said nothing; its log: {self._log.read_text()[-3000:]}"
        self._asked = 0
        return dict(json.loads(line))

    def kill(self) -> None:
        """As a power cut would; returns when it is gone."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._said.put(line)

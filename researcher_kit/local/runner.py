"""The runner of a local federation: the node's own supervisor, in a process of ours that ends with us."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import appliance
from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.local.frames import connect
from appliance.protocol.local.runner_client import RunnerClient

_START_S, _END_S, _LOOK_S = 60.0, 15.0, 0.02
_TAIL = 2000  # characters of the log in an error


class LocalRunner:
    """A supervisor that is started when it is first needed, and again when it died.

    Args:
        folder: Holds its socket, its children's scratch folders and its log.
        max_children: How many training processes are kept at once, the working ones included.
        threads: For each one's arithmetic libraries.
    """

    def __init__(self, folder: Path, *, max_children: int, threads: int = 1) -> None:
        self._socket, self._log = folder / "runner.sock", folder / "runner.log"
        self._command = [sys.executable, "-P", "-m", "appliance.runner", "--socket", str(self._socket)]
        self._command += ["--scratch", str(folder / "scratch"), "--parent-pid", str(os.getpid())]
        self._command += ["--max-children", str(max_children), "--threads", str(threads)]
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._is_closed = False

    def client(self) -> RunnerClient:
        """A client of a supervisor that listens.

        Raises:
            FedWardError: It does not start (RUNNER_UNAVAILABLE); says what its log says.
        """
        with self._lock:
            if self._is_closed:
                raise FedWardError("The local federation is closed.", code=Code.RUNNER_UNAVAILABLE)
            if self._process is None or self._process.poll() is not None:
                self._process = self._start()
                self._wait_for(self._process)
        return RunnerClient(self._socket)

    def close(self) -> None:
        """End it, with all that it started."""
        with self._lock:
            self._is_closed = True
            if self._process is None:
                return
            self._process.terminate()
            try:
                self._process.wait(_END_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _start(self) -> subprocess.Popen[bytes]:
        # As at a node, it gets no setting but its own.
        bare = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        with self._log.open("ab") as output:
            return subprocess.Popen(  # noqa: S603 - our own module
                self._command,
                env=bare | {"PYTHONPATH": str(Path(appliance.__file__).parents[1])},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd="/",
                start_new_session=True,  # Ctrl-C in a terminal is for the experiment, not for its runner
            )

    def _wait_for(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                connect(self._socket).close()
            except FedWardError as error:
                if process.poll() is not None or time.monotonic() > deadline:
                    said = self._log.read_text(errors="replace")[-_TAIL:].strip()
                    message = f"The local runner does not start. {said}"
                    raise FedWardError(message, code=Code.RUNNER_UNAVAILABLE) from error
                time.sleep(_LOOK_S)
            else:
                return

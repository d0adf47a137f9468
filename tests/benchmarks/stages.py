"""Where a round's time goes, stage by stage, with the least that this machine needs for it beside each."""

from __future__ import annotations

import hashlib
import os
import socket
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from rich.table import Table

from appliance.embedded.consortium import NETWORK, EmbeddedConsortium
from appliance.network.config import tls_files
from appliance.network.serve import server_context
from appliance.protocol.home import MemberHome
from appliance.protocol.messages import Timing
from appliance.transport.tls import client_context
from researcher_kit.monitor import ParametersUploaded, RoundClosed

_CHUNK = 1 << 20
_REPEATS = 5
# Stages, and what each cannot do without: a cipher pass, a hash, a line, a copy into new memory, a file on the disk.
_FLOORS = {
    "parameters sealed and uploaded": ("cipher", "hash", "line", "hash", "disk"),
    "fetched by the nodes": ("line", "hash", "cipher", "copy"),
    "child: built and filled": ("copy",),
    "trained": (),
    "checked and sealed": ("cipher", "hash", "copy"),
    "uploaded by the nodes": ("line", "hash", "disk"),
    "downloaded": ("line", "hash", "cipher", "copy"),
    "aggregated and written": ("disk",),
}
_AT_ONCE = (
    "fetched by the nodes",
    "child: built and filled",
    "checked and sealed",
    "uploaded by the nodes",
    "downloaded",
)


class Stages:
    """Collects each warm round's stages; where nodes do the same at once, the slowest counts."""

    def __init__(self, nodes: int) -> None:
        self._nodes = nodes
        self._upload_s = 0.0
        self._seconds: dict[str, list[float]] = defaultdict(list)

    def hear(self, event: object) -> None:
        """An observer of an experiment."""
        if isinstance(event, ParametersUploaded):
            self._upload_s = event.seconds
        if not isinstance(event, RoundClosed) or event.record.round == 1:
            return
        record = event.record

        def slowest(seconds: Callable[[Timing], float]) -> float:
            return max(seconds(reply.timing) for reply in record.replies)

        found = {
            "parameters sealed and uploaded": self._upload_s,
            "fetched by the nodes": slowest(lambda timing: timing.fetch_s),
            "child: built and filled": slowest(lambda timing: timing.start_s),
            "trained": slowest(lambda timing: timing.train_s),
            "checked and sealed": slowest(lambda timing: timing.check_s),
            "uploaded by the nodes": slowest(lambda timing: timing.upload_s),
            "downloaded": max(reply.download_s for reply in record.replies),
            "aggregated and written": record.timing.aggregation_s,
            "the round": record.seconds,
        }
        for stage, seconds in found.items():
            self._seconds[stage].append(seconds)

    def table(self, name: str, model_bytes: int, consortium: EmbeddedConsortium, bare_ms: float) -> Table:
        """Medians over all rounds heard of, in milliseconds."""
        floors = _floors(model_bytes, consortium)
        table = Table(title=f"Where a round of {name} goes", title_justify="left")
        for column in ("stage", "ms", "floor (ms)"):
            table.add_column(column, justify="left" if column == "stage" else "right")
        share = max(1.0, self._nodes / (os.cpu_count() or 1))
        for stage, seconds in self._seconds.items():
            floor = sum(floors[need] for need in _FLOORS.get(stage, ())) * (share if stage in _AT_ONCE else 1)
            table.add_row(stage, f"{1000 * statistics.median(seconds):.0f}", f"{floor:.0f}" if floor else "")
        table.add_row("the bare loop's round", f"{bare_ms:.0f}", "")
        table.caption = f"{model_bytes / 1e6:.0f} MB: " + ", ".join(
            f"{need} {ms:.0f} ms" for need, ms in floors.items()
        )
        return table


def _floors(size: int, consortium: EmbeddedConsortium) -> dict[str, float]:
    """Milliseconds that one pass over ``size`` bytes takes here, the best of five."""
    data = np.frombuffer(os.urandom(_CHUNK) * (size // _CHUNK), np.uint8)
    chunks = [data.data[start : start + _CHUNK] for start in range(0, len(data), _CHUNK)]
    cipher, out = AESGCM(os.urandom(32)), bytearray(_CHUNK + 16)
    with tempfile.TemporaryFile() as file:
        works: dict[str, Callable[[], object]] = {
            "line": lambda: _over_tls(chunks, consortium),
            "hash": lambda: hashlib.sha256(data).digest(),
            "cipher": lambda: [cipher.encrypt_into(os.urandom(12), chunk, None, out) for chunk in chunks],
            "copy": lambda: np.copy(data),
            "disk": lambda: _to_disk(chunks, file.fileno()),
        }
        return {name: min(_milliseconds(work) for _ in range(_REPEATS)) for name, work in works.items()}


def _milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def _to_disk(chunks: list[memoryview], fd: int) -> None:
    os.ftruncate(fd, 0)
    for place, chunk in enumerate(chunks):
        os.pwrite(fd, chunk, place * _CHUNK)
    os.fsync(fd)


def _over_tls(chunks: list[memoryview], consortium: EmbeddedConsortium) -> None:
    home = MemberHome(consortium.home("alice"))
    ours, theirs = client_context(home.tls), server_context(tls_files(Path(consortium.home(NETWORK))), 30)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def receive() -> None:
            with theirs.wrap_socket(server.accept()[0], server_side=True) as line:
                buffer = bytearray(_CHUNK)
                while line.recv_into(buffer):
                    pass

        thread = threading.Thread(target=receive, daemon=True)
        thread.start()
        ours.check_hostname = False
        with ours.wrap_socket(socket.create_connection(server.getsockname())) as line:
            for chunk in chunks:
                line.sendall(chunk)
        thread.join()

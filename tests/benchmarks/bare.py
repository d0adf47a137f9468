"""The bare loop that FedWard is measured against: the same training over raw TCP, with nothing around it.

A server sends the parameters to each node and averages what comes back: no TLS, no signatures, no store, no
governance, no sandbox. It is the floor that no federated system gets below on this machine.
"""

from __future__ import annotations

import itertools
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

_LENGTH = struct.Struct(">Q")


def run_bare(data: list[Path], *, rounds: int, layers: list[int], batch: int, steps: int) -> list[float]:
    """Seconds of each round.

    Args:
        data: One ``.npz`` a node, with ``x`` of shape (n, features) and ``y`` of shape (n,).
        layers: Widths of the fully connected layers, input first.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        shape = ",".join(map(str, layers))
        command = [sys.executable, str(Path(__file__)), str(port), shape, str(batch), str(steps)]
        nodes = [subprocess.Popen([*command, str(path)]) for path in data]
        lines = [server.accept()[0] for _ in nodes]
        for line in lines:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        parameters = np.zeros(sum(a * b + b for a, b in itertools.pairwise(layers)), np.float32)
        seconds = []
        for _ in range(rounds):
            began = time.perf_counter()
            for line in lines:
                _send(line, memoryview(parameters).cast("B"))
            updates = [np.frombuffer(_receive(line), np.float32) for line in lines]
            parameters = np.mean(updates, axis=0, dtype=np.float64).astype(np.float32)
            seconds.append(time.perf_counter() - began)
        for line in lines:
            line.close()
    for node in nodes:
        node.wait(timeout=30)
    return seconds


def _node(port: int, layers: list[int], batch: int, steps: int, data: Path) -> None:
    import torch  # noqa: PLC0415 - the server's side needs none

    torch.set_num_threads(1)
    with np.load(data) as arrays:
        x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
    modules: list[torch.nn.Module] = []
    for before, after in itertools.pairwise(layers):
        modules += [torch.nn.Linear(before, after), torch.nn.ReLU()]
    model = torch.nn.Sequential(*modules[:-1])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while received := _receive(line):
            vector = torch.frombuffer(received, dtype=torch.float32)
            torch.nn.utils.vector_to_parameters(vector, model.parameters())
            for step in range(steps):
                part = slice(step * batch % len(x), step * batch % len(x) + batch)
                optimizer.zero_grad()
                torch.nn.functional.cross_entropy(model(x[part]), y[part]).backward()
                optimizer.step()
            flat = torch.nn.utils.parameters_to_vector(model.parameters()).detach().numpy()
            _send(line, memoryview(flat).cast("B"))


def _send(line: socket.socket, data: memoryview) -> None:
    line.sendall(_LENGTH.pack(len(data)))
    line.sendall(data)


def _receive(line: socket.socket) -> bytearray:
    head = line.recv(_LENGTH.size, socket.MSG_WAITALL)
    if not head:
        return bytearray()
    data = bytearray(_LENGTH.unpack(head)[0])
    view = memoryview(data)
    while view:
        view = view[line.recv_into(view) :]
    return data


if __name__ == "__main__":
    _node(int(sys.argv[1]), [int(n) for n in sys.argv[2].split(",")], *map(int, sys.argv[3:5]), Path(sys.argv[5]))

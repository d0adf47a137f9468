"""Writes what a round leaves into sealed memory files: the update, and what the node keeps for itself.

An update is the difference between trained and received tensors.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np

from appliance.protocol.local.sealed import create_memfd, seal_memfd
from appliance.protocol.tensors import Array, TensorFile, TensorSpec, tensor_header, tensor_pieces


def write_update(trained: Mapping[str, Array], received: TensorFile) -> int:
    """Write an update as a tensor file, part by part; returns the sealed file's descriptor.

    Float tensors become differences: float32, or float64 where the parameters are. Integers go as they are: a counter's
    difference means nothing.

    Args:
        trained: The model's tensors after training.
        received: The tensors before, with the same names and shapes.
    """
    specs = {
        name: TensorSpec(array.shape, _dtype(array, received.specs.get(name)).name) for name, array in trained.items()
    }
    header, order = tensor_header(specs)
    fd = create_memfd("update")
    try:
        with os.fdopen(os.dup(fd), "wb") as out:
            out.write(header)
            for name in order:
                flat = trained[name].reshape(-1)
                # Written and not mapped: a new page costs half as much, and none is counted as this process's own.
                for first, last in specs[name].parts():
                    part = flat[first:last]
                    if part.dtype.kind == "f":
                        part = np.subtract(
                            part, received.part(name, first, last), dtype=specs[name].dtype, casting="same_kind"
                        )
                    out.write(part.data)
        return seal_memfd(fd)
    except BaseException:
        os.close(fd)
        raise


def write_kept(tensors: Mapping[str, Array]) -> int:
    """Write what a node keeps for itself as a tensor file; returns the sealed file's descriptor."""
    fd = create_memfd("kept")
    try:
        with os.fdopen(os.dup(fd), "wb") as out:
            out.writelines(tensor_pieces(tensors))
        return seal_memfd(fd)
    except BaseException:
        os.close(fd)
        raise


def _dtype(array: Array, received: TensorSpec | None) -> np.dtype[np.generic]:
    if array.dtype.kind != "f":
        return array.dtype
    return np.dtype(np.float64 if received is not None and received.dtype == "float64" else np.float32)

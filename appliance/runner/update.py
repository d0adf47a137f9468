"""Writes an update: the difference between trained and received tensors, straight into a sealed memory file."""

from __future__ import annotations

import json
import mmap
import os
import struct
from collections.abc import Mapping

import numpy as np

from appliance.protocol.local.sealed import create_memfd, seal_memfd
from appliance.protocol.tensors import Array, TensorFile

_NAMES = {"float32": "F32", "float64": "F64", "int64": "I64", "int32": "I32", "uint8": "U8", "bool": "BOOL"}
_LENGTH = struct.Struct("<Q")


def write_update(trained: Mapping[str, Array], received: TensorFile) -> int:
    """Write an update as safetensors, without a copy in between; returns the sealed file's descriptor.

    Float tensors become float32 differences; integers go as they are: a counter's difference means nothing.

    Args:
        trained: The model's tensors after training.
        received: The tensors before, with the same names and shapes.
    """
    header, places = _layout(trained)
    fd = create_memfd("update", len(header) + sum(size for _, size in places.values()))
    try:
        os.pwrite(fd, header, 0)
        _fill(fd, len(header), places, trained, received)
        return seal_memfd(fd)
    except BaseException:
        os.close(fd)
        raise


def _layout(tensors: Mapping[str, Array]) -> tuple[bytes, dict[str, tuple[int, int]]]:
    entries: dict[str, object] = {}
    places: dict[str, tuple[int, int]] = {}
    offset = 0
    # Large items first, as safetensors has it: each tensor then begins at a multiple of its item's size.
    for name, array in sorted(tensors.items(), key=lambda item: (-_dtype(item[1]).itemsize, item[0])):
        size = array.size * _dtype(array).itemsize
        places[name] = (offset, size)
        entries[name] = {
            "dtype": _NAMES[_dtype(array).name],
            "shape": array.shape,
            "data_offsets": (offset, offset + size),
        }
        offset += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return _LENGTH.pack(len(text)) + text, places


def _dtype(array: Array) -> np.dtype[np.generic]:
    return np.dtype(np.float32) if array.dtype.kind == "f" else array.dtype


def _fill(
    fd: int, start: int, places: Mapping[str, tuple[int, int]], trained: Mapping[str, Array], received: TensorFile
) -> None:
    if not any(size for _, size in places.values()):
        return  # nothing to map
    with mmap.mmap(fd, 0) as memory:
        for name, (offset, _) in places.items():
            array = trained[name]
            out = np.ndarray(array.shape, _dtype(array), buffer=memory, offset=start + offset)
            if array.dtype.kind == "f":
                np.subtract(array, received[name], out=out, casting="same_kind")
            else:
                out[...] = array
            del out  # a view keeps the mapping, and a writable mapping keeps the file from being sealed

"""Tensor files: named arrays as safetensors, the only form in which parameters cross a trust boundary.

A safetensors file has room for more than tensors: free metadata, fields that readers ignore, blanks. Text could
leave a hospital that way, past every check of the tensors. So a file is taken only if its header is, byte for byte,
the shortest one that describes its tensors.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save, save_file

from appliance.protocol.errors import TensorFileError

Array = NDArray[Any]

DTYPES = frozenset({"float32", "float64", "int64", "int32", "uint8", "bool"})
MAX_TENSORS = 100_000
MAX_NAME = 512
MAX_HEADER_BYTES = 32 << 20


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's shape and type."""

    shape: tuple[int, ...]
    dtype: str


class TensorFile:
    """A tensor file, mapped: a tensor is read when it is asked for.

    Args:
        path: The file.
        max_header_bytes: More than this is not even parsed.

    Raises:
        TensorFileError: Not a safetensors file, one that says more than its tensors, or a name or type that we do
            not take.
    """

    def __init__(self, path: Path | str, *, max_header_bytes: int = MAX_HEADER_BYTES) -> None:
        try:
            _require_plain_header(Path(path), min(max_header_bytes, MAX_HEADER_BYTES))
            self._file = safe_open(str(path), framework="np")
        except (SafetensorError, OSError) as error:
            raise TensorFileError("The tensor file is malformed or cut short.") from error
        names = sorted(self._file.keys())
        if len(names) > MAX_TENSORS or any(len(name) > MAX_NAME for name in names):
            raise TensorFileError(f"The tensor file has {len(names)} tensors or an over-long name.")
        self.specs = {name: self._spec(name) for name in names}

    def _spec(self, name: str) -> TensorSpec:
        part = self._file.get_slice(name)
        dtype = _NAMES.get(part.get_dtype())
        if dtype is None:
            allowed = ", ".join(sorted(DTYPES))
            raise TensorFileError(f"The tensor file holds a tensor of type {part.get_dtype()}; allowed: {allowed}.")
        return TensorSpec(tuple(part.get_shape()), dtype)

    def __getitem__(self, name: str) -> Array:
        array: Array = self._file.get_tensor(name)
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def require(self, expected: Mapping[str, TensorSpec]) -> None:
        """Raise TensorFileError unless names, shapes and types are exactly ``expected``.

        Nothing from the file is repeated in the error: a name, or a shape, could carry a record.
        """
        missing = sorted(set(expected) - set(self.specs))
        if missing:
            raise TensorFileError(f"The tensor '{missing[0]}' is missing, with {len(missing) - 1} others.")
        extra = len(set(self.specs) - set(expected))
        if extra:
            raise TensorFileError(f"There are {extra} tensors that the model does not have.")
        for name, spec in expected.items():
            if self.specs[name] != spec:
                raise TensorFileError(f"The tensor '{name}' is not {spec.dtype} of shape {spec.shape}.")


_ENTRY = frozenset({"dtype", "shape", "data_offsets"})
_NAMES = {
    "F32": "float32", "F64": "float64", "I64": "int64", "I32": "int32", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip


def write_tensors(tensors: Mapping[str, Array], path: Path) -> None:
    """Write a tensor file; tensors are made contiguous where they are not."""
    save_file(_contiguous(tensors), str(path))


def tensor_bytes(tensors: Mapping[str, Array]) -> bytes:
    """A tensor file's bytes, for small models and tests."""
    return save(_contiguous(tensors))


def require_finite(file: TensorFile, *, maximum: float) -> None:
    """Raise TensorFileError when a value is not finite or larger than ``maximum`` in size."""
    for name in file:
        array = file[name]
        if array.dtype.kind != "f" or array.size == 0:
            continue
        # The two ends tell of NaN and infinity as well, and need no array of flags.
        low, high = float(array.min()), float(array.max())
        if not (np.isfinite(low) and np.isfinite(high)):
            raise TensorFileError(f"The tensor '{name}' holds a value that is not finite.")
        if max(-low, high) > maximum:
            raise TensorFileError(f"The tensor '{name}' holds a value beyond {maximum:g}.")


def _contiguous(tensors: Mapping[str, Array]) -> dict[str, Array]:
    for name, array in tensors.items():
        if array.dtype.name not in DTYPES:
            raise TensorFileError(f"The tensor '{name}' is {array.dtype.name}; allowed: {sorted(DTYPES)}.")
    # Not ascontiguousarray, which makes a scalar (batch norm's counter) an array of one.
    return {name: np.require(array, requirements="C") for name, array in tensors.items()}


def _require_plain_header(path: Path, max_bytes: int) -> None:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > max_bytes:
            raise TensorFileError(f"The tensor file's header has more than {max_bytes} bytes.")
        header = file.read(size)
    try:
        entries = json.loads(header, object_pairs_hook=_unique)
        is_plain = all(entry.keys() == _ENTRY for entry in entries.values())
        text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    except (ValueError, AttributeError, RecursionError) as error:
        raise TensorFileError("The tensor file is malformed or cut short.") from error
    if not is_plain or header != text + b" " * (-len(text) % 8):
        raise TensorFileError("The tensor file's header says more than its tensors' names, types and shapes.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name comes twice")
    return dict(pairs)

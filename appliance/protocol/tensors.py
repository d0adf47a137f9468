"""Tensor files: named arrays as safetensors, the only form in which parameters cross a trust boundary.

A safetensors file has room for more than tensors: free metadata, fields that readers ignore, blanks. Text could
leave a hospital that way, past every check of the tensors. So a file is taken only if its header is, byte for byte,
the shortest one that describes its tensors.
"""

from __future__ import annotations

import copy
import json
import math
import os
import weakref
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from appliance.protocol.errors import TensorFileError

Array = NDArray[Any]

_NAMES = {
    "F32": "float32", "F64": "float64", "I64": "int64", "I32": "int32", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
_CODES = {name: code for code, name in _NAMES.items()}
DTYPES = frozenset(_CODES)
MAX_TENSORS = 100_000
MAX_NAME = 512
MAX_HEADER_BYTES = 32 << 20
AGGREGATOR_PREFIX = "aggregator/"  # of tensors that travel with the parameters for an aggregator's sake
FROZEN_PREFIX = "frozen/"  # of tensors of the model that no round trains: nodes get them, and do not return them
PART_BYTES = 1 << 20  # of a tensor that is read in parts: few calls, and it stays in the processor's cache


@dataclass(frozen=True)
class TensorSpec:
    """A tensor's shape and type."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    def parts(self) -> Iterator[tuple[int, int]]:
        """The tensor laid out flat, in pieces of at most ``PART_BYTES``: where each begins and ends."""
        step = PART_BYTES // np.dtype(self.dtype).itemsize
        return ((first, min(first + step, self.size)) for first in range(0, self.size, step))


class TensorFile(Mapping[str, Array]):
    """A tensor file: a tensor, or a part of one, is read when it is asked for.

    Nothing is mapped: a file that somebody cuts short under us is an error, and no signal that ends the process.

    Args:
        path: The file.
        max_header_bytes: More than this is not even parsed.

    Raises:
        TensorFileError: Not a safetensors file, one that says more than its tensors, or a name or type that we do
            not take.
    """

    _whole: TensorFile  # of a view: what holds the file open

    def __init__(self, path: Path | str, *, max_header_bytes: int = MAX_HEADER_BYTES) -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._fd)
            entries, start = _read_plain_header(self._fd, min(max_header_bytes, MAX_HEADER_BYTES))
            with safe_open(str(path), framework="np"):
                pass  # the format's own rules, by its own library
        except (SafetensorError, OSError) as error:
            raise TensorFileError("The tensor file is malformed or cut short.") from error
        if len(entries) > MAX_TENSORS or any(len(name) > MAX_NAME for name in entries):
            raise TensorFileError(f"The tensor file has {len(entries)} tensors or an over-long name.")
        try:
            self.specs = {name: _spec(entries[name]) for name in sorted(entries)}
            self._starts = {name: start + int(entry["data_offsets"][0]) for name, entry in entries.items()}
        except (ValueError, TypeError, LookupError) as error:
            raise TensorFileError("The tensor file is malformed or cut short.") from error

    def __getitem__(self, name: str) -> Array:
        return self.part(name, 0, self.specs[name].size).reshape(self.specs[name].shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self.specs)

    def __len__(self) -> int:
        return len(self.specs)

    def split(self, prefix: str) -> tuple[TensorFile, TensorFile]:
        """The tensors whose names begin otherwise, and those whose names begin with ``prefix``, without it."""
        rest = self._view({name: name for name in self.specs if not name.startswith(prefix)})
        return rest, self._view({name.removeprefix(prefix): name for name in self.specs if name.startswith(prefix)})

    def only(self, names: Collection[str]) -> TensorFile:
        """Those of these tensors that there are."""
        return self._view({name: name for name in self.specs if name in names})

    def without(self, names: Collection[str]) -> TensorFile:
        """All tensors but these."""
        return self._view({name: name for name in self.specs if name not in names})

    def unprefixed(self, prefix: str) -> TensorFile:
        """All tensors, with ``prefix`` taken off the names that begin with it.

        Raises:
            TensorFileError: Two tensors would have one name.
        """
        names = {name.removeprefix(prefix): name for name in self.specs}
        if len(names) < len(self.specs):
            raise TensorFileError("The tensor file holds a tensor twice.")
        return self._view(names)

    def _view(self, names: Mapping[str, str]) -> TensorFile:
        """Some tensors under other names: by the new name, the one here."""
        view = copy.copy(self)
        view._whole = self  # noqa: SLF001
        view.specs = {new: self.specs[old] for new, old in names.items()}
        view._starts = {new: self._starts[old] for new, old in names.items()}  # noqa: SLF001
        return view

    def part(self, name: str, first: int, last: int) -> Array:
        """The elements from ``first`` up to ``last`` of a tensor laid out flat, as an array of their own."""
        dtype = np.dtype(self.specs[name].dtype)
        array = np.empty(last - first, dtype)
        left, place = array.view(np.uint8).data, self._starts[name] + first * dtype.itemsize
        while left:
            if not (count := os.preadv(self._fd, [left], place)):
                raise TensorFileError("The tensor file was cut short.")
            left, place = left[count:], place + count
        return array

    def parts(self, name: str) -> Iterator[Array]:
        """A tensor laid out flat, one part after the other."""
        return (self.part(name, first, last) for first, last in self.specs[name].parts())

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


def write_tensors(tensors: Mapping[str, Array], path: Path) -> None:
    """Write a tensor file, with no copy of a tensor that lies in one piece."""
    with path.open("wb") as file:
        for piece in tensor_pieces(tensors):
            file.write(piece)


def tensor_bytes(tensors: Mapping[str, Array]) -> bytes:
    """A tensor file's bytes, for small models and tests."""
    return b"".join(tensor_pieces(tensors))


def tensor_header(specs: Mapping[str, TensorSpec]) -> tuple[bytes, list[str]]:
    """A tensor file's beginning, and the order in which the tensors' bytes follow it, with nothing in between.

    Raises:
        TensorFileError: A type that we do not take.
    """
    entries: dict[str, object] = {}
    offset = 0
    for name, spec in specs.items():
        if spec.dtype not in DTYPES:
            raise TensorFileError(f"The tensor '{name}' is {spec.dtype}; allowed: {sorted(DTYPES)}.")
    # Large items first, as safetensors has it: each tensor then begins at a multiple of its item's size.
    for name in sorted(specs, key=lambda name: (-np.dtype(specs[name].dtype).itemsize, name)):
        spec, start = specs[name], offset
        offset += spec.size * np.dtype(spec.dtype).itemsize
        entries[name] = {"dtype": _CODES[spec.dtype], "shape": spec.shape, "data_offsets": (start, offset)}
    text = _compact(entries)
    return len(text).to_bytes(8, "little") + text, [*entries]


def data_bytes(specs: Mapping[str, TensorSpec]) -> int:
    """The size of the tensors themselves."""
    return sum(spec.size * np.dtype(spec.dtype).itemsize for spec in specs.values())


def most_header_bytes(specs: Mapping[str, TensorSpec]) -> int:
    """The most that a header can need.

    It says each name, shape and offset once; whatever is longer hides something, or shall exhaust whoever parses it.
    """
    return 1024 + sum(len(name.encode()) * 6 + 160 + 24 * len(spec.shape) for name, spec in specs.items())


def tensor_pieces(tensors: Mapping[str, Array]) -> Iterator[bytes | memoryview]:
    """A tensor file's bytes, piece by piece."""
    specs = {name: TensorSpec(array.shape, array.dtype.name) for name, array in tensors.items()}
    header, order = tensor_header(specs)
    yield header
    for name in order:
        array = np.require(tensors[name], specs[name].dtype, "C")
        yield array.reshape(-1).view(np.uint8).data


def gathered_pieces(tensors: Mapping[str, tuple[TensorFile, str]]) -> Iterator[bytes | memoryview]:
    """The bytes of a tensor file whose tensors lie in others, read part by part.

    Args:
        tensors: By its name in the new file, each tensor's file and its name there.
    """
    header, order = tensor_header({name: file.specs[there] for name, (file, there) in tensors.items()})
    yield header
    for name in order:
        file, there = tensors[name]
        for part in file.parts(there):
            yield part.view(np.uint8).data


def require_finite(file: TensorFile, *, maximum: float) -> float:
    """The L2 norm over all floating-point tensors, read once in parts.

    Raises:
        TensorFileError: A value is not finite or larger than ``maximum`` in size.
    """
    total = 0.0
    for name, spec in file.specs.items():
        if not spec.dtype.startswith("float"):
            continue
        for part in file.parts(name):
            # The two ends tell of NaN and infinity as well, and need no array of flags.
            low, high = float(part.min()), float(part.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                raise TensorFileError(f"The tensor '{name}' holds a value that is not finite.")
            if max(-low, high) > maximum:
                raise TensorFileError(f"The tensor '{name}' holds a value beyond {maximum:g}.")
            total += float(np.dot(part, part))
    return math.sqrt(total)


def _read_plain_header(fd: int, max_bytes: int) -> tuple[dict[str, Any], int]:
    """The header's entries by name, and where the tensors' bytes begin."""
    size = int.from_bytes(os.pread(fd, 8, 0), "little")
    if size > max_bytes:
        raise TensorFileError(f"The tensor file's header has more than {max_bytes} bytes.")
    header = os.pread(fd, size, 8)
    try:
        entries = json.loads(header, object_pairs_hook=_unique)
        is_plain = "__metadata__" not in entries and all(map(_is_plain, entries.values()))
        text = _compact(entries)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise TensorFileError("The tensor file is malformed or cut short.") from error
    if not is_plain or header != text:
        raise TensorFileError("The tensor file's header says more than its tensors' names, types and shapes.")
    return entries, 8 + size


def _is_plain(entry: Mapping[str, object]) -> bool:
    types = {name: type(value) for name, value in entry.items()}
    return types == {"dtype": str, "shape": list, "data_offsets": list}


def _compact(entries: Mapping[str, object]) -> bytes:
    """The shortest text of a header, and blanks up to a multiple of eight bytes."""
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    return text + b" " * (-len(text) % 8)


def _spec(entry: Mapping[str, Any]) -> TensorSpec:
    dtype = _NAMES.get(entry["dtype"])
    if dtype is None:
        allowed = ", ".join(sorted(DTYPES))
        # Not the type itself: it is the file's own text.
        raise TensorFileError(f"The tensor file holds a tensor of another type than are allowed: {allowed}.")
    return TensorSpec(tuple(entry["shape"]), dtype)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name comes twice")
    return dict(pairs)

"""The update: what leaves a child."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from appliance.protocol.local.sealed import require_sealed, sealed_memfd
from appliance.protocol.tensors import Array, TensorFile, tensor_bytes
from appliance.runner.update import write_update

Written = Callable[[dict[str, Array], dict[str, Array]], TensorFile]


@pytest.fixture
def written() -> Iterator[Written]:
    """An update, read back by the library that everybody else reads it with."""
    fds: list[int] = []

    def write(trained: dict[str, Array], received: dict[str, Array]) -> TensorFile:
        fds.append(sealed_memfd("parameters", tensor_bytes(received)))
        fds.append(write_update(trained, TensorFile(f"/proc/self/fd/{fds[-1]}")))
        require_sealed(fds[-1])
        return TensorFile(f"/proc/self/fd/{fds[-1]}")

    yield write
    for fd in fds:
        os.close(fd)


def test_floats_become_differences(written: Written) -> None:
    """A difference is what is clipped, noised and summed."""
    before, after = np.arange(6, dtype=np.float32).reshape(2, 3), np.full((2, 3), 10, np.float32)

    assert np.array_equal(written({"w": after}, {"w": before})["w"], after - before)


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "bool"])
def test_integers_stay_values(written: Written, dtype: str) -> None:
    """A counter's difference means nothing."""
    after = np.array([1, 0, 1], dtype)

    found = written({"n": after}, {"n": np.zeros(3, dtype)})["n"]

    assert found.dtype == dtype
    assert np.array_equal(found, after)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_update_has_the_precision_of_the_parameters(written: Written, dtype: str) -> None:
    """A network's differences need no more digits; a sum of squares, from which a mean is taken off, needs them all."""
    update = written({"w": np.array([0.25])}, {"w": np.array([0.0], dtype)})

    assert update.specs["w"].dtype == dtype


def test_scalars_and_empty_tensors_keep_their_shapes(written: Written) -> None:
    """Batch normalisation counts in one, and a model may hold the other."""
    tensors = {"n": np.array(3, np.int64), "e": np.zeros((0, 4), np.float32), "w": np.ones(3, np.float32)}
    update = written(tensors, tensors)

    assert {name: spec.shape for name, spec in update.specs.items()} == {"n": (), "e": (0, 4), "w": (3,)}


def test_a_model_without_tensors_is_a_file_without_tensors(written: Written) -> None:
    """Nothing to map is no reason to fall over."""
    assert list(written({}, {})) == []


def test_tensors_begin_where_their_type_may_begin(written: Written) -> None:
    """Readers map the file; a float at an odd address is slow or wrong."""
    tensors = {"a": np.ones(3, np.uint8), "b": np.ones(3, np.int64), "c": np.ones(1, np.float32)}
    update = written(tensors, {name: np.zeros_like(array) for name, array in tensors.items()})

    assert all(np.array_equal(update[name], array) for name, array in tensors.items())


def test_a_name_in_any_language_is_taken(written: Written) -> None:
    """Whoever reads the file demands one spelling of a name; ours must be that one."""
    assert list(written({"Größe": np.ones(1, np.float32)}, {"Größe": np.zeros(1, np.float32)})) == ["Größe"]

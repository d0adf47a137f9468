"""Federated averaging, as arithmetic."""

from __future__ import annotations

import os
import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocol.tensors import TensorFile, TensorSpec, tensor_header, write_tensors
from researcher_kit import FedAverage
from researcher_kit.aggregators import Update
from researcher_kit.errors import AggregationError
from tests.memory import HighWater

values = st.floats(-1e6, 1e6, width=32)
weighted = st.lists(st.tuples(values, st.integers(1, 10_000)), min_size=1, max_size=8)


def average(base: np.ndarray, pairs: list[tuple[object, int]]) -> np.ndarray:
    """The average of single tensors."""
    updates = [Update(f"node-{i}", n, {"w": np.asarray(v, base.dtype)}) for i, (v, n) in enumerate(pairs)]
    return FedAverage().aggregate(updates, {"w": base})["w"]


@given(values, weighted)
def test_the_average_is_the_nearest_float_to_the_exact_one(base: float, pairs: list[tuple[float, int]]) -> None:
    """Accumulated in float64, thirty nodes cost no more accuracy than one."""
    exact = Fraction(base) + sum(Fraction(v) * n for v, n in pairs) / sum(n for _, n in pairs)
    found = average(np.float32([base]), pairs)[0]

    scale = max([abs(base), abs(float(found)), *(abs(v) for v, _ in pairs)])
    assert abs(Fraction(float(found)) - exact) <= Fraction(float(np.spacing(np.float32(scale))) + 1e-30)


@given(values, st.integers(1, 1000))
def test_one_node_alone_gets_its_own_parameters(delta: float, samples: int) -> None:
    """Whatever its weight."""
    base = np.float32([1.5])

    assert average(base, [([delta], samples)])[0] == np.float32(np.float64(delta) * samples / samples + 1.5)


def test_weights_are_sample_counts() -> None:
    """A hospital with three times the patients moves the mean three times as far."""
    assert average(np.float32([10]), [([4], 1), ([0], 3)])[0] == 11


def test_integer_tensors_are_rounded_means_of_values() -> None:
    """A counter of batches has no difference to add, and stays an integer."""
    found = average(np.int64([100]), [([10], 1), ([13], 2)])

    assert found.dtype == np.int64
    assert found[0] == 12


def test_scalars_keep_their_shape() -> None:
    """Batch norm's counter is an array of no dimension."""
    assert average(np.int64(0), [(4, 1), (6, 1)]).shape == ()


def test_no_sample_at_all_has_no_mean() -> None:
    """A division by nought must not become a model of NaN."""
    with pytest.raises(AggregationError, match="no sample"):
        average(np.float32([1]), [([1], 0)])


def test_memory_does_not_grow_with_the_number_of_nodes(tmp_path: Path) -> None:
    """Thirty hospitals' updates of a large model do not fit into a notebook's memory."""
    rng = np.random.default_rng(0)
    model = {f"layer{i}": rng.standard_normal((250, 1000)).astype(np.float32) for i in range(4)}
    write_tensors(model, tmp_path / "0.safetensors")
    for number in range(1, 30):
        os.link(tmp_path / "0.safetensors", tmp_path / f"{number}.safetensors")

    assert _peak_bytes(tmp_path, 30) < 1.02 * _peak_bytes(tmp_path, 3)


def test_memory_does_not_grow_with_the_size_of_a_tensor(tmp_path: Path) -> None:
    """Most of a model is often one tensor: two models' room must do for it, the sum's doubles included."""
    size = 16 << 20
    header, _ = tensor_header({"a": TensorSpec((size,), "float32")})
    for number in range(4):
        with (tmp_path / f"{number}").open("wb") as file:
            file.write(header)
            file.truncate(len(header) + 4 * size)
    updates = [Update(f"node-{number}", 1, TensorFile(tmp_path / f"{number}")) for number in range(1, 4)]
    high = HighWater()

    FedAverage().aggregate(updates, TensorFile(tmp_path / "0"))

    assert high.rise() < 2.5 * 4 * size


def _peak_bytes(folder: Path, nodes: int) -> int:
    updates = [Update(f"node-{i}", 1, TensorFile(folder / f"{i}.safetensors")) for i in range(nodes)]
    tracemalloc.start()
    FedAverage().aggregate(updates, TensorFile(folder / "0.safetensors"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak

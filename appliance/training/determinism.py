"""The same seed, parameters and data give the same bits."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

_drawing = threading.RLock()  # the generators are the process's: two threads would take each other's numbers


@contextmanager
def reproducible(seed: int, *, threads: int = 1) -> Iterator[None]:
    """Seed every generator that plan code may draw from, and let PyTorch compute in one fixed order.

    What a notebook had set (generators' states, number of threads) is put back afterwards. PyTorch takes part when
    it has been imported. One thread of a process at a time: another one waits.

    Args:
        seed: From 0 below 2^63.
        threads: PyTorch's threads; a sum's last bit depends on their number.
    """
    with _drawing:
        python_state, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002 - plans draw from it
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002 - as above
        try:
            with _torch_reproducible(seed, threads):
                yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)  # noqa: NPY002 - as above


@contextmanager
def _torch_reproducible(seed: int, threads: int) -> Iterator[None]:
    if "torch" not in sys.modules:
        yield
        return
    import torch  # noqa: PLC0415 - only where it is loaded already

    has_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    if has_gpu:
        # Without it cuBLAS has no fixed order of summation.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    state, threads_before = torch.get_rng_state(), torch.get_num_threads()
    gpu_states = torch.cuda.get_rng_state_all() if has_gpu else []  # manual_seed seeds these as well
    mode, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    # Where only the CPU draws, its generator alone is seeded: asking for every device's costs as much as a small model.
    if torch.backends.cuda.is_built():  # type: ignore[no-untyped-call]
        torch.manual_seed(seed)
    else:
        torch.default_generator.manual_seed(seed)
    torch.set_num_threads(threads)
    # Some operations have no deterministic form on a GPU: there the record gets a warning, elsewhere an error.
    torch.use_deterministic_algorithms(True, warn_only=has_gpu)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode, warn_only=warns)
        torch.set_num_threads(threads_before)
        torch.set_rng_state(state)
        if gpu_states:
            torch.cuda.set_rng_state_all(gpu_states)

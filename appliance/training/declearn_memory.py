"""What one of declearn's optimizers remembers, as JSON and tensors: neither a pickle nor code.

Source: declearn, https://gitlab.inria.fr/magnet/declearn, ``declearn.optimizer.Optimizer.get_state``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from appliance.protocol.tensors import Array

_MARK = "tensors"  # of a vector


def flattened(state: Any, tensors: dict[str, Array], place: str = "") -> Any:
    """A state as JSON; its vectors go to ``tensors``, under their place in it."""
    if hasattr(state, "coefs"):
        for name, value in state.coefs.items():
            tensors[f"{place}/{name}"] = _array(value)
        return {_MARK: place, "names": [*state.coefs]}
    if isinstance(state, Mapping):
        return {str(key): flattened(one, tensors, f"{place}.{key}") for key, one in state.items()}
    if isinstance(state, list | tuple):
        return [flattened(one, tensors, f"{place}.{number}") for number, one in enumerate(state)]
    return state


def restored(flat: Any, tensors: Mapping[str, Array], vector: Callable[[dict[str, Array]], Any]) -> Any:
    """The state that ``flattened`` was given.

    Args:
        flat: What it returned.
        tensors: What it added to.
        vector: Makes a vector of arrays by name.
    """
    if isinstance(flat, Mapping) and _MARK in flat:
        return vector({name: tensors[f"{flat[_MARK]}/{name}"] for name in flat["names"]})
    if isinstance(flat, Mapping):
        return {key: restored(one, tensors, vector) for key, one in flat.items()}
    return [restored(one, tensors, vector) for one in flat] if isinstance(flat, list) else flat


def _array(value: Any) -> Array:
    if not hasattr(value, "detach"):
        return np.asarray(value)
    value = value.detach().cpu()  # PyTorch's
    array: Array = (value.float() if value.is_floating_point() and value.itemsize < 4 else value).numpy()
    return array

"""A model whose frozen layers came apart from the tensors that are trained, put together for the runner."""

from __future__ import annotations

import os

from appliance.protocol.errors import TensorFileError
from appliance.protocol.local.sealed import create_memfd, seal_memfd
from appliance.protocol.tensors import AGGREGATOR_PREFIX, FROZEN_PREFIX, TensorFile, gathered_pieces


def united(parameters: int, frozen: int) -> int:
    """One sealed memory file of two: the parameters as they came, and the frozen layers under ``FROZEN_PREFIX``.

    Args:
        parameters: A memory file with a round's tensors.
        frozen: One with the frozen layers, by the names that they have in the model.

    Raises:
        TensorFileError: One of them is not a tensor file, or a frozen layer has the name of another tensor.
    """
    given, layers = (TensorFile(f"/proc/self/fd/{fd}") for fd in (parameters, frozen))
    # Else it would be the file's order that says which of two counts, or whether an update returns it.
    taken = {name.removeprefix(FROZEN_PREFIX) for name in given}
    if any(name in taken or name.startswith((AGGREGATOR_PREFIX, FROZEN_PREFIX)) for name in layers):
        raise TensorFileError("A frozen layer has the name of a tensor that travels with the parameters.")
    tensors = {name: (given, name) for name in given}
    tensors |= {f"{FROZEN_PREFIX}{name}": (layers, name) for name in layers}
    memory = create_memfd("parameters")
    try:
        with os.fdopen(os.dup(memory), "wb") as out:
            for piece in gathered_pieces(tensors):
                out.write(piece)
        return seal_memfd(memory)
    except BaseException:
        os.close(memory)
        raise

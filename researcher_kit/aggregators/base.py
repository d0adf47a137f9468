"""The seam for aggregators: a list of updates in, the next global parameters out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pydantic import JsonValue

from appliance.protocol.tensors import Array, TensorFile, TensorSpec


class Tensors(Protocol):
    """Named arrays that are read when they are asked for; a dict is one, a ``TensorFile`` too."""

    def __getitem__(self, name: str, /) -> Array: ...

    def __iter__(self) -> Iterator[str]: ...


@dataclass(frozen=True)
class Update:
    """What one node returned: for each tensor of the model, by name, what training added to it.

    Floating-point tensors hold differences to the global parameters, integer ones (counters) the values themselves.
    They lie on disk: ``update["layer.weight"]`` reads one. Read one part of all updates at a time with ``read_part``,
    as ``FedAverage`` does, and memory grows neither with the number of nodes nor with their tensors.

    Attributes:
        weight: The node's number of training samples.
        tensors: The update itself.
    """

    node_id: str
    weight: int
    tensors: Tensors

    def __getitem__(self, name: str) -> Array:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)


def read_part(tensors: Tensors, name: str, first: int, last: int) -> Array:
    """The elements from ``first`` up to ``last`` of a tensor laid out flat; no more is read, where it lies on disk."""
    if isinstance(tensors, Update):
        tensors = tensors.tensors
    return tensors.part(name, first, last) if isinstance(tensors, TensorFile) else tensors[name].reshape(-1)[first:last]


class Aggregator(ABC):
    """Makes the next global parameters of a round's updates.

    An aggregator of your own needs ``aggregate``. One that remembers something between rounds returns it from
    ``state`` and takes it back in ``restore``, so that a breakpoint holds it.
    """

    @abstractmethod
    def aggregate(self, updates: Sequence[Update], parameters: Tensors) -> Mapping[str, Array]:
        """The next global parameters.

        Args:
            updates: In the order of the member ids, whatever the order of arrival was.
            parameters: The global parameters that the nodes started from.

        Returns:
            An array for each tensor of ``parameters``, of its shape and type.
        """

    def node_args(self) -> dict[str, JsonValue]:
        """What the nodes must know of this aggregator; travels with each request."""
        return {}

    def state(self) -> dict[str, JsonValue]:
        """What a breakpoint must keep."""
        return {}

    def restore(self, state: Mapping[str, JsonValue]) -> None:
        """Take back what ``state`` returned."""


def require_like(tensors: Mapping[str, Array], specs: Mapping[str, TensorSpec]) -> str | None:
    """What is wrong with aggregated ``tensors`` beside the model's ``specs``, or None."""
    if set(tensors) != set(specs):
        odd = min(set(tensors) ^ set(specs))
        return f"the tensor '{odd}' is {'missing' if odd in specs else 'not in the model'}"
    for name, spec in specs.items():
        array = tensors[name]
        if TensorSpec(array.shape, array.dtype.name) != spec:
            return f"'{name}' is {array.dtype.name} {array.shape}; expected {spec.dtype} {spec.shape}"
    return None

"""The seam for aggregators: a list of updates in, the next global parameters out."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from appliance.protocol.tensors import PART_BYTES, Array, TensorFile, TensorSpec
from appliance.training.arguments import TrainingArguments
from researcher_kit.errors import AggregationError, ExperimentArgumentError


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
        learning_rates: The sum of the learning rates of all its updates of the model, where they had one in common.
    """

    node_id: str
    weight: int
    tensors: Tensors
    learning_rates: float | None = None

    def __getitem__(self, name: str) -> Array:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)


@dataclass(frozen=True)
class Setting:
    """What an aggregator may want to know of the experiment.

    Attributes:
        nodes: All nodes that may take part, by id; a round's updates may come from fewer.
        trained: The tensors that the optimizer changes; the others are buffers, such as batch norm's statistics.
            None: all that hold floating-point numbers.
        training_args: How the nodes train.
    """

    nodes: tuple[str, ...] = ()
    trained: frozenset[str] | None = None
    training_args: TrainingArguments = field(default_factory=TrainingArguments)

    def is_trained(self, name: str, spec: TensorSpec) -> bool:
        """Whether a tensor of the model is one that the optimizer changes."""
        return is_float(spec) and (self.trained is None or name in self.trained)


def read_part(tensors: Tensors, name: str, first: int, last: int) -> Array:
    """The elements from ``first`` up to ``last`` of a tensor laid out flat; no more is read, where it lies on disk."""
    if isinstance(tensors, Update):
        tensors = tensors.tensors
    return tensors.part(name, first, last) if isinstance(tensors, TensorFile) else tensors[name].reshape(-1)[first:last]


def spec_of(tensors: Tensors, name: str) -> TensorSpec:
    """A tensor's shape and type; where it lies on disk, it is not read."""
    return tensors.specs[name] if isinstance(tensors, TensorFile) else _spec(tensors[name])


def is_float(spec: TensorSpec) -> bool:
    """Whether a tensor holds floating-point numbers, of which updates are differences."""
    return spec.dtype.startswith("float")


class Aggregator(ABC):
    """Makes the next global parameters of a round's updates.

    An aggregator of your own needs ``aggregate``. One that remembers something between rounds returns it from
    ``state`` and ``state_tensors`` and takes it back in ``restore``, so that a breakpoint holds it.

    Example:
        >>> class FirstNode(Aggregator):
        ...     def aggregate(self, updates, parameters):
        ...         return {name: parameters[name] + updates[0][name] for name in parameters}
        >>> import numpy as np
        >>> FirstNode().aggregate([Update("north", 1, {"w": np.float32([4.0])})], {"w": np.float32([10.0])})
        {'w': array([14.], dtype=float32)}
    """

    setting = Setting()

    def prepare(self, setting: Setting) -> None:
        """Hear of the experiment, before each round.

        Raises:
            ExperimentArgumentError: It is set in a way that this aggregator cannot work with.
        """
        self.setting = setting

    @abstractmethod
    def aggregate(self, updates: Sequence[Update], parameters: Tensors) -> Mapping[str, Array]:
        """The next global parameters.

        Args:
            updates: In the order of the member ids, whatever the order of arrival was.
            parameters: The global parameters that the nodes started from.

        Returns:
            An array for each tensor of ``parameters``, of its shape and type.
        """

    def create_aggregator_args(self) -> dict[str, JsonValue]:
        """What the nodes must know of this aggregator; travels with each request."""
        return {}

    def node_tensors(self) -> Mapping[str, Array]:
        """Tensors that the nodes need beside the parameters; they travel in the same file."""
        return {}

    def state(self) -> dict[str, JsonValue]:
        """What a breakpoint must keep."""
        return {}

    def state_tensors(self) -> Mapping[str, Array]:
        """Which tensors a breakpoint must keep. They are not changed afterwards: the next round makes others."""
        return {}

    def restore(self, state: Mapping[str, JsonValue], tensors: Mapping[str, Array]) -> None:
        """Take back what ``state`` and ``state_tensors`` returned."""


def parts(spec: TensorSpec, at_once: int = 1) -> Iterator[tuple[int, int]]:
    """A tensor laid out flat, in pieces: where each begins and ends.

    Args:
        spec: Its shape and type.
        at_once: So many of its kind are held at a time; their pieces fit into the processor's cache together.
    """
    step = max(1024, PART_BYTES // np.dtype(spec.dtype).itemsize // at_once)
    return ((first, min(first + step, spec.size)) for first in range(0, spec.size, step))


def weighted_mean(
    updates: Sequence[Update], weights: Sequence[float], name: str, first: int, last: int
) -> NDArray[np.float64]:
    """The weighted mean of one part of a tensor: summed in float64, in the order of the updates."""
    mean, term = np.zeros(last - first), np.empty(last - first)
    for update, weight in zip(updates, weights, strict=True):
        # Copied, then multiplied in place: to do both at once takes longer, and an array for each update longer still.
        term[...] = read_part(update, name, first, last)
        term *= weight
        mean += term
    mean /= sum(weights)
    return mean


def moved(updates: Sequence[Update], weights: Sequence[float], name: str, parameters: Tensors) -> Array:
    """A tensor moved by the weighted mean of its updates; of integers, the mean itself, rounded (ties to even)."""
    spec = spec_of(parameters, name)
    merged = np.empty(spec.shape, spec.dtype)
    flat = merged.reshape(-1)
    # In parts that stay in the processor's cache: a whole tensor of doubles would pass through memory for each update.
    for first, last in parts(spec):
        mean = weighted_mean(updates, weights, name, first, last)
        if is_float(spec):
            mean += read_part(parameters, name, first, last)
        else:
            np.rint(mean, out=mean)
        flat[first:last] = mean
    return merged


def move_buffers(
    setting: Setting, updates: Sequence[Update], weights: Sequence[float], parameters: Tensors
) -> tuple[dict[str, Array], dict[str, TensorSpec]]:
    """The tensors that no optimizer changes, ``moved``; and the others' specs, left to an optimizer of the server's."""
    specs = {name: spec_of(parameters, name) for name in parameters}
    trained = {name: spec for name, spec in specs.items() if setting.is_trained(name, spec)}
    return {name: moved(updates, weights, name, parameters) for name in specs if name not in trained}, trained


def sample_weights(updates: Sequence[Update]) -> list[int]:
    """The nodes' numbers of samples; raises AggregationError when there is none at all."""
    weights = [update.weight for update in updates]
    if sum(weights) <= 0:
        raise AggregationError("The nodes trained on no sample, so there is no mean of their updates.")
    return weights


def require_number(name: str, value: float, *, above: float, below: float = math.inf, or_equal: bool = False) -> float:
    """An aggregator's argument; raises ExperimentArgumentError unless it lies between two numbers.

    Args:
        or_equal: The lower bound itself is allowed.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not (above < value < below or (or_equal and value == above)):
        least = f"from {above:g}" if or_equal else f"above {above:g}"
        most = "" if below == math.inf else f" and below {below:g}"
        raise ExperimentArgumentError(f"{name} is {value!r}; expected a number {least}{most}.")
    return float(value)


def require_like(tensors: Mapping[str, Array], specs: Mapping[str, TensorSpec]) -> str | None:
    """What is wrong with aggregated ``tensors`` beside the model's ``specs``, or None."""
    if set(tensors) != set(specs):
        odd = min(set(tensors) ^ set(specs))
        return f"the tensor '{odd}' is {'missing' if odd in specs else 'not in the model'}"
    for name, spec in specs.items():
        if (found := _spec(tensors[name])) != spec:
            return f"'{name}' is {found.dtype} {found.shape}; expected {spec.dtype} {spec.shape}"
    return None


def _spec(array: Array) -> TensorSpec:
    return TensorSpec(array.shape, array.dtype.name)

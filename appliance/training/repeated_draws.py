"""Fills a model that is about to be given its parameters, without a draw for each of their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

BLOCK = 1 << 16  # numbers: they stay in the processor's cache while they are repeated
_DRAWS = frozenset({torch.ops.aten.uniform_.default, torch.ops.aten.normal_.default})


class RepeatedDraws(TorchDispatchMode):  # type: ignore[no-untyped-call] # the library's own hook
    """While it is entered, the first ``BLOCK`` numbers of a parameter are drawn, and the others repeat them.

    Ten million draws take as long as an update's arithmetic, and at a node each is overwritten before it is used. What
    comes out depends on the seed alone, so that a round is the same in a warm process as in a fresh one.

    Attributes:
        repeated: The parameters whose numbers are not all drawn: good for nothing unless they are set next.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No plan is compiled here, and to be skipped by it would load the compiler: a second, and 800 modules."""
        return False

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # not in the stubs
        self.repeated: list[torch.Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Draw, or do whatever else it is that the model asks for."""
        kwargs = kwargs or {}
        if func not in _DRAWS or not isinstance(args[0], torch.nn.Parameter) or not args[0].is_contiguous():
            return func(*args, **kwargs)
        numbers = args[0].detach().view(-1)
        drawn = numbers[:BLOCK]
        func(drawn, *args[1:], **kwargs)
        if len(numbers) > BLOCK:
            self.repeated.append(args[0])
        for first in range(BLOCK, len(numbers), BLOCK):
            numbers[first : first + BLOCK].copy_(drawn[: len(numbers) - first])
        return args[0]

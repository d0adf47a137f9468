"""Training arguments that change from round to round.

    experiment.set_schedules({"optimizer_args.lr": Exponential(0.1, factor=0.95)})

A schedule is data, so a breakpoint holds it. Hospitals check each round's value as they check any argument.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from researcher_kit.errors import ExperimentArgumentError

Finite = Annotated[float, Field(allow_inf_nan=False)]
Rounds = Annotated[int, Field(ge=1)]


class _Schedule(BaseModel, ABC):
    model_config = ConfigDict(extra="forbid", frozen=True)

    def __init__(self, *positional: Any, **named: Any) -> None:
        names = [name for name in type(self).model_fields if name != "kind"]
        try:
            super().__init__(**dict(zip(names, positional, strict=False)), **named)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ExperimentArgumentError(f"{type(self).__name__}: {where}: {first['msg']}.") from None

    @abstractmethod
    def value(self, round_: int) -> JsonValue:
        """The argument's value in a round, counted from 1."""


class Steps(_Schedule):
    """One value from one round on, another from a later one.

    Args:
        values: The value from each of these rounds on; round 1 must be among them.

    Raises:
        ExperimentArgumentError: Round 1 is missing, or a round is below 1.

    Example:
        >>> Steps({1: 0.1, 11: 0.01}).value(10), Steps({1: 0.1, 11: 0.01}).value(11)
        (0.1, 0.01)
    """

    kind: Literal["steps"] = "steps"
    values: dict[Rounds, JsonValue]

    def __init__(self, *positional: Any, **named: Any) -> None:
        super().__init__(*positional, **named)
        if 1 not in self.values:
            raise ExperimentArgumentError("Steps: there is no value for round 1.")

    def value(self, round_: int) -> JsonValue:
        """See ``_Schedule``."""
        return self.values[max(first for first in self.values if first <= round_)]


class Exponential(_Schedule):
    """``start * factor ** (round - 1)``, and never below ``least``.

    Args:
        start: The value in round 1.
        factor: What each round multiplies by, above 0.
        least: Where it ends.

    Raises:
        ExperimentArgumentError: A number is out of its range.

    Example:
        >>> Exponential(0.1, factor=0.5).value(3)
        0.025
    """

    kind: Literal["exponential"] = "exponential"
    start: Finite
    factor: Annotated[Finite, Field(gt=0)]
    least: Finite = 0.0

    def value(self, round_: int) -> JsonValue:
        """See ``_Schedule``."""
        return max(self.least, self.start * self.factor ** (round_ - 1))


class Cosine(_Schedule):
    """From ``start`` to ``end`` along half a cosine, over ``rounds`` rounds.

    Args:
        start: The value in round 1.
        rounds: How long it takes, in rounds; afterwards it stays at ``end``.
        end: The last value.

    Raises:
        ExperimentArgumentError: A number is out of its range.

    Source: Loshchilov and Hutter, SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017, equation 5.

    Example:
        >>> Cosine(1.0, rounds=5).value(3)
        0.5
    """

    kind: Literal["cosine"] = "cosine"
    start: Finite
    rounds: Annotated[int, Field(ge=2)]
    end: Finite = 0.0

    def value(self, round_: int) -> JsonValue:
        """See ``_Schedule``."""
        way = min(1.0, (round_ - 1) / (self.rounds - 1))
        return round(self.end + (self.start - self.end) * (1 + math.cos(math.pi * way)) / 2, 15)


Schedule = Annotated[Steps | Exponential | Cosine, Field(discriminator="kind")]
_SCHEDULE: TypeAdapter[Steps | Exponential | Cosine] = TypeAdapter(Schedule)
Schedules = Mapping[str, Steps | Exponential | Cosine]


def scheduled(arguments: Mapping[str, Any], schedules: Schedules, round_: int) -> dict[str, Any]:
    """Training arguments as they are in a round.

    Args:
        arguments: Those that were set.
        schedules: By the name of an argument, or ``optimizer_args.lr`` for one inside of another.

    Example:
        >>> scheduled({"optimizer_args": {"lr": 1.0}}, {"optimizer_args.lr": Steps({1: 0.1})}, round_=1)
        {'optimizer_args': {'lr': 0.1}}
    """
    result = dict(arguments)
    for path, schedule in schedules.items():
        outer, _, inner = path.partition(".")
        value = schedule.value(round_)
        result[outer] = {**(result.get(outer) or {}), inner: value} if inner else value
    return result

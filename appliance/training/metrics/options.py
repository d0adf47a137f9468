"""What ``test_metric_args`` may say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from appliance.protocol.wording import did_you_mean, shorten
from appliance.training.errors import ArgumentInvalidError

Finite = Annotated[float, Field(allow_inf_nan=False)]


class Options(BaseModel):
    """All arguments of all metrics. Each description says what is allowed, and stands in the error when it is not."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    threshold: Finite = Field(default=0.0, description="a number")
    average: Literal["binary", "macro"] | None = Field(default=None, description="'binary' or 'macro'")
    outputs: Literal["logits", "probabilities"] = Field(default="logits", description="'logits' or 'probabilities'")
    bins: Annotated[int, Field(ge=2, le=1000)] = Field(default=10, description="a whole number from 2 to 1000")
    percentile: Annotated[Finite, Field(gt=0, le=100)] = Field(default=100.0, description="a number to 100, above 0")
    spacing: list[Annotated[Finite, Field(gt=0)]] | None = Field(
        default=None, description="a list of the sides of a voxel, such as [0.5, 0.5, 3.0] in mm"
    )


def parse_options(metric: str, known: Iterable[str], arguments: Mapping[str, Any]) -> Options:
    """Read a metric's arguments.

    Args:
        metric: Its name.
        known: The arguments that it takes.
        arguments: What was given.

    Raises:
        ArgumentInvalidError: Names the argument and what is allowed.
    """
    names = tuple(known)
    for name in arguments:
        if name not in names:
            hint = did_you_mean(name, names)
            takes = f" It takes {', '.join(names)}." if names else " It takes none."
            raise ArgumentInvalidError(f"{metric} takes no argument '{name}' in test_metric_args.{hint}{takes}")
    try:
        return Options.model_validate(dict(arguments))
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        allowed = Options.model_fields[name].description
        raise ArgumentInvalidError(
            f"test_metric_args.{name} is {shorten(arguments[name])}; allowed: {allowed}."
        ) from None

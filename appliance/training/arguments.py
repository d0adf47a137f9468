"""The training arguments: how a node trains in one round, under the names that Fed-BioMed's users know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError, field_validator, model_validator

from appliance.protocol.wording import did_you_mean, shorten
from appliance.training.errors import ArgumentInvalidError
from appliance.training.metrics import Metric, require_metric_arguments

Positive = Annotated[int, Field(ge=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]

DEFAULT_BATCH_SIZE = 32


class LoaderArguments(BaseModel):
    """Fed-BioMed's ``loader_args``: how samples are put into batches."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    batch_size: Positive | None = Field(default=None, description="a whole number from 1")
    shuffle: bool | None = Field(default=None, description="true or false")
    drop_last: bool = Field(default=False, description="true or false")
    num_workers: Annotated[int, Field(ge=0, le=16)] = Field(
        default=0, description="a whole number from 0 to 16 (processes that read a dataset's samples ahead)"
    )


class TrainingArguments(BaseModel):
    """How one round is trained. Each description says what is allowed, and stands in the error when it is not.

    ``num_updates`` wins over ``epochs``; with neither, a node trains one epoch. A batch size given here wins over
    the one in the plan's DataManager.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    epochs: Positive | None = Field(default=None, description="a whole number from 1")
    num_updates: Positive | None = Field(default=None, description="a whole number from 1")
    batch_size: Positive | None = Field(default=None, description="a whole number from 1")
    loader_args: LoaderArguments = Field(
        default=LoaderArguments(), description="a mapping with batch_size, shuffle, drop_last, num_workers"
    )
    shuffle: bool | None = Field(default=None, description="true or false")
    micro_batch_size: Positive | None = Field(
        default=None,
        description="a whole number from 1 (samples whose gradients are computed at a time)",
    )
    mixed_precision: bool = Field(default=False, description="true or false")
    optimizer_args: dict[str, JsonValue] = Field(default={}, description="a mapping of JSON values")
    dry_run: bool = Field(default=False, description="true (one update only) or false")
    batch_maxnum: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="a whole number from 0 (batches an epoch at most; 0 for all)"
    )
    fedprox_mu: Annotated[Finite, Field(ge=0)] | None = Field(default=None, description="a number from 0")
    log_interval: Positive = Field(default=10, description="a whole number from 1")
    test_ratio: Annotated[Finite, Field(ge=0, le=1)] = Field(default=0.0, description="a number from 0 to 1")
    folds: Annotated[int, Field(ge=2, le=100)] | None = Field(
        default=None, description="a whole number from 2 to 100 (parts of each dataset for cross-validation)"
    )
    fold: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="a whole number from 0 below folds (the part that is held out)"
    )
    test_batch_size: Positive | None = Field(
        default=None, description="a whole number from 1, or null for all held-out samples at once"
    )
    test_on_local_updates: bool = Field(default=False, description="true or false")
    test_on_global_updates: bool = Field(default=False, description="true or false")
    test_metric: Metric | None = Field(default=None, description=f"one of {', '.join(Metric)}")
    test_metric_args: dict[str, JsonValue] = Field(default={}, description="a mapping of JSON values")
    use_gpu: bool = Field(default=False, description="true or false")
    random_seed: Annotated[int, Field(ge=0, lt=2**63)] | None = Field(
        default=None, description="a whole number from 0 below 2^63"
    )
    share_persistent_buffers: bool = Field(default=True, description="true or false")

    @field_validator("test_metric", mode="before")
    @classmethod
    def _metric_by_any_name(cls, value: object) -> object:
        return Metric.named(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _says_one_thing(self) -> TrainingArguments:
        for name in ("batch_size", "shuffle"):
            direct, in_loader = getattr(self, name), getattr(self.loader_args, name)
            if direct is not None and in_loader is not None and direct != in_loader:
                raise ValueError(f"'{name}' is {direct}, and {in_loader} in loader_args; give it once")
        if (self.folds is None) != (self.fold is None):
            raise ValueError("'folds' and 'fold' go together: how many parts, and which one is held out")
        if self.folds is not None and self.fold is not None:
            if self.fold >= self.folds:
                raise ValueError(f"'fold' is {self.fold}; the last of {self.folds} folds is {self.folds - 1}")
            if self.test_ratio:
                raise ValueError("'test_ratio' does not go with 'folds': the fold is what is held out")
        return self

    @classmethod
    def parse(cls, arguments: Mapping[str, Any]) -> TrainingArguments:
        """Read training arguments as they came in a message or from a notebook.

        Raises:
            ArgumentInvalidError: Names the argument, its value, and what is allowed.
        """
        try:
            parsed = cls.model_validate(dict(arguments))
        except ValidationError as error:
            raise ArgumentInvalidError(_explain(error)) from None
        if parsed.test_metric is not None:
            require_metric_arguments(parsed.test_metric, parsed.test_metric_args)
        return parsed

    def batch_size_or(self, default: int | None) -> int:
        """The batch size: of the arguments, else of the plan's DataManager, else 32."""
        return self.batch_size or self.loader_args.batch_size or default or DEFAULT_BATCH_SIZE

    def shuffle_or(self, default: bool | None) -> bool:
        """Whether to shuffle: by the arguments, else by the plan's DataManager, else yes."""
        said = (self.shuffle, self.loader_args.shuffle, default)
        return next((choice for choice in said if choice is not None), True)

    @property
    def held_out(self) -> float:
        """The share of each dataset that is held out for tests, from 0 to 1."""
        return 1 / self.folds if self.folds else self.test_ratio

    @property
    def split_seed(self) -> int:
        """What decides which samples are held out; the same in every round and at every node."""
        return self.random_seed or 0

    def as_dict(self) -> dict[str, Any]:
        """What was given, as JSON values; ``parse`` reads it back."""
        return self.model_dump(mode="json", exclude_unset=True)


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    path = [step for step in first["loc"] if isinstance(step, str)]
    if not path:
        return f"Training arguments: {first['msg'].removeprefix('Value error, ')}."
    fields = (
        LoaderArguments.model_fields if path[0] == "loader_args" and len(path) > 1 else TrainingArguments.model_fields
    )
    name = ".".join(path[:2] if fields is LoaderArguments.model_fields else path[:1])
    if first["type"] == "extra_forbidden":
        return f"Training argument '{name}' is not known.{did_you_mean(path[-1], fields)} Known: {', '.join(fields)}."
    allowed = fields[name.rpartition(".")[2]].description
    return f"Training argument '{name}' is {shorten(first['input'])}; allowed: {allowed}."

"""The data loading plan: how one hospital's columns are read, so that all hospitals present the same ones.

A plan is TOML or JSON. A column is named as researchers see it; ``source`` is its name in the hospital's file::

    delimiter = ";"
    decimal = ","
    patient_id = "PID"

    [columns.age]
    source = "Alter"
    type = "integer"
    unit = "years"
    minimum = 0
    maximum = 120

    [columns.smoker]
    source = "Raucher"
    type = "boolean"
    coding = { ja = 1, nein = 0 }
    missing = "drop"

Without ``columns`` every column of the file is presented under its own name, as a number.
"""

from __future__ import annotations

import codecs
import json
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from appliance.data.errors import LoadingPlanInvalidError
from appliance.protocol.wording import did_you_mean, shorten

Finite = Annotated[float, Field(allow_inf_nan=False)]
ColumnName = Annotated[str, Field(min_length=1, max_length=128)]

DEFAULT_NA_VALUES = ("", "NA", "N/A", "#N/A", "NaN", "nan", "NULL", "null", "None", ".")


class ColumnType(StrEnum):
    """What a column's values are."""

    NUMBER = "number"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    CATEGORY = "category"


class MissingRule(StrEnum):
    """What to do with a missing value; a number in its place is filled in as it is."""

    REFUSE = "refuse"
    DROP = "drop"
    MEAN = "mean"
    MEDIAN = "median"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ColumnPlan(_Part):
    """How one column is read.

    Attributes:
        source: The column's name in the file.
        type: What its values are.
        coding: What a text in the file stands for: a number, or for a category one of ``levels``. It is looked up
            before ``na_values``, so that an empty cell can have a meaning.
        levels: A category's values, in the order in which they are one-hot encoded.
        missing: What to do with a missing value. A filled-in mean or median is this file's own, over the rows kept,
            and rounded where the type is not ``number``. For a category a number is a level's position.
        unit: For people; nothing is converted.
        minimum: The smallest plausible value.
        maximum: The largest plausible value.
    """

    source: str
    type: ColumnType = ColumnType.NUMBER
    coding: dict[str, Finite | str] = {}
    levels: tuple[ColumnName, ...] = ()
    missing: MissingRule | Finite = MissingRule.REFUSE
    unit: str = Field(default="", max_length=32)
    minimum: Finite | None = None
    maximum: Finite | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> ColumnPlan:
        if self.type is ColumnType.CATEGORY:
            self._check_category()
        elif self.levels:
            raise ValueError(f"levels are for categories; the type is {self.type}")
        elif texts := [text for text, value in self.coding.items() if isinstance(value, str)]:
            raise ValueError(f"the coding of {shorten(texts[0])} must be a number; the type is {self.type}")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError(f"the minimum {self.minimum:g} is above the maximum {self.maximum:g}")
        if isinstance(self.missing, float) and not self.takes(self.missing):
            raise ValueError(f"the value {self.missing:g} for missing cells is not one that the column may have")
        return self

    def _check_category(self) -> None:
        if len(self.levels) < 2 or len(set(self.levels)) < len(self.levels):
            raise ValueError("a category needs levels: two or more, each named once")
        if unknown := [value for value in self.coding.values() if value not in self.levels]:
            raise ValueError(f"the coding leads to {shorten(unknown[0])}, which is not among the levels")
        if self.missing in (MissingRule.MEAN, MissingRule.MEDIAN):
            raise ValueError("a category has no mean or median; use refuse, drop, or a level's position")
        if self.minimum is not None or self.maximum is not None:
            raise ValueError("minimum and maximum are for numbers; the type is category")

    def takes(self, value: float) -> bool:
        """True when the column may have this value."""
        if self.type is ColumnType.CATEGORY:
            return value in range(len(self.levels))
        if self.type is ColumnType.BOOLEAN and value not in (0, 1):
            return False
        if self.type is ColumnType.INTEGER and not value.is_integer():
            return False
        low, high = self.minimum, self.maximum
        return (low is None or value >= low) and (high is None or value <= high)


class LoadingPlan(_Part):
    """How a table is read.

    Attributes:
        columns: The columns as presented, in order; none means all, as numbers.
        delimiter: What stands between two cells; found out from the header when absent.
        decimal: The decimal mark.
        encoding: The text's encoding; a UTF-8 byte order mark is tolerated.
        patient_id: The column that tells one patient's rows from another's. It is used to keep a patient's rows on
            one side of a split and is never presented.
        na_values: Texts that stand for a missing value.
    """

    columns: dict[ColumnName, ColumnPlan] = {}
    delimiter: Literal[",", ";", "\t", "|"] | None = None
    decimal: Literal[".", ","] = "."
    encoding: str = "utf-8"
    patient_id: str | None = None
    na_values: tuple[str, ...] = DEFAULT_NA_VALUES

    @field_validator("columns", mode="before")
    @classmethod
    def _source_defaults_to_name(cls, columns: object) -> object:
        if not isinstance(columns, Mapping):
            return columns
        return {
            name: {"source": name, **column} if isinstance(column, Mapping) else column
            for name, column in columns.items()
        }

    @field_validator("encoding")
    @classmethod
    def _encoding_is_known(cls, encoding: str) -> str:
        try:
            known = codecs.lookup(encoding)
        except LookupError:
            raise ValueError("unknown encoding; usual are utf-8, windows-1252 and iso-8859-1") from None
        if not getattr(known, "_is_text_encoding", True):
            raise ValueError("not an encoding of text; usual are utf-8, windows-1252 and iso-8859-1")
        return known.name

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> LoadingPlan:
        """Read a plan from a mapping.

        Raises:
            LoadingPlanInvalidError: Names the setting, its value, and what is allowed.
        """
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise LoadingPlanInvalidError(_explain(error)) from None

    @classmethod
    def read(cls, path: Path | str) -> LoadingPlan:
        """Read a plan from a TOML or JSON file.

        Raises:
            LoadingPlanInvalidError: The file cannot be read, or the plan is not as it must be.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
            data = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise LoadingPlanInvalidError(f"The loading plan {path.name} cannot be read: {reason}.") from None
        except ValueError as error:
            raise LoadingPlanInvalidError(f"The loading plan {path.name} is malformed: {error}.") from None
        if not isinstance(data, dict):
            raise LoadingPlanInvalidError(f"The loading plan {path.name} must be a table of settings.")
        return cls.parse(data)


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    location = [str(step) for step in first["loc"]]
    where = ".".join(location)
    if first["type"] == "extra_forbidden":
        model = ColumnPlan if location[0] == "columns" else LoadingPlan
        return f"Loading plan: '{where}' is not a known setting.{did_you_mean(location[-1], model.model_fields)}"
    reason = first["msg"].removeprefix("Value error, ")
    value = first["input"]
    shown = f" (found {shorten(value)})" if isinstance(value, str | int | float | bool) else ""
    return f"Loading plan: {where or 'the whole'}: {reason}{shown}."

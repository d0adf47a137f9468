"""From a column's texts to numbers, as its plan says; missing values become NaN."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from appliance.data.errors import DatasetInvalidError
from appliance.data.loading_plan import ColumnPlan, ColumnType, LoadingPlan, MissingRule
from appliance.protocol.wording import shorten

Float64 = NDArray[np.float64]
Report = Callable[[DatasetInvalidError], None]

# No cell can hold infinity, so it marks a cell that was reported: it is not reported again as missing.
WRONG = math.inf

_BOOLEANS = {
    "yes": 1.0, "y": 1.0, "true": 1.0, "t": 1.0, "1": 1.0, "no": 0.0, "n": 0.0, "false": 0.0, "f": 0.0, "0": 0.0,
}  # fmt: skip


class ColumnReader:
    """Reads one column, block by block.

    Args:
        column: How it is read.
        plan: Says which texts are missing values, and the decimal mark.
        file: The file's name, for errors.
        report: Takes what is wrong with a cell; may raise.
    """

    def __init__(self, column: ColumnPlan, plan: LoadingPlan, *, file: str, report: Report) -> None:
        self._column = column
        self._decimal = plan.decimal
        self._file = file
        self._report = report
        # What is looked up last wins: a coding may give a meaning to an empty cell.
        self._known = dict.fromkeys(plan.na_values, np.nan) | self._levels() | self._coding()
        self._is_plain = column.type in (ColumnType.NUMBER, ColumnType.INTEGER) and not column.coding

    def _levels(self) -> dict[str, float]:
        return {level: float(position) for position, level in enumerate(self._column.levels)}

    def _coding(self) -> dict[str, float]:
        levels = self._column.levels
        return {
            text: float(levels.index(value)) if isinstance(value, str) else value
            for text, value in self._column.coding.items()
        }

    def read(self, texts: list[str], lines: list[int]) -> Float64:
        """The column's values, of shape (n_rows,): NaN where missing, WRONG where an error was reported."""
        values = self._plain(texts) if self._is_plain else None
        if values is None:
            values = self._looked_up(texts, lines)
        self._check(values, texts, lines)
        return values

    def _plain(self, texts: list[str]) -> Float64 | None:
        """The quick way, for a block that holds nothing but numbers; None when it holds anything else."""
        if self._decimal != "." or "_" in "".join(texts):  # Python reads 1_000 as a number
            return None
        try:
            values = np.fromiter(map(float, texts), np.float64, len(texts))
        except ValueError:
            return None
        return values if bool(np.isfinite(values).all()) else None

    def _looked_up(self, texts: list[str], lines: list[int]) -> Float64:
        table = {text: self._value(text.strip()) for text in set(texts)}
        self._report_unknown({text for text, value in table.items() if value == WRONG}, texts, lines)
        return np.fromiter(map(table.__getitem__, texts), np.float64, len(texts))

    def _value(self, text: str) -> float:
        """A cell's value, NaN when missing, WRONG when it has no meaning."""
        if text in self._known:
            return self._known[text]
        if self._column.type is ColumnType.CATEGORY:
            return WRONG
        if self._column.type is ColumnType.BOOLEAN:
            return WRONG if self._column.coding else _BOOLEANS.get(text.casefold(), WRONG)
        return _number(text, self._decimal)

    def _report_unknown(self, unknown: set[str], texts: list[str], lines: list[int]) -> None:
        for position, text in enumerate(texts if unknown else ()):
            if text in unknown:
                unknown.remove(text)
                self._wrong(f"the text {shorten(text)} {self._meaning()}", lines[position], self._remedy(text))

    def _meaning(self) -> str:
        if self._column.type is ColumnType.CATEGORY:
            return f"is none of the levels {', '.join(self._column.levels)}"
        if self._column.coding:
            return f"has no coding; known are {', '.join(shorten(text) for text in self._column.coding)}"
        return "is not yes or no" if self._column.type is ColumnType.BOOLEAN else "is not a number"

    def _remedy(self, text: str) -> str:
        other = "," if self._decimal == "." else "."
        if self._column.type in (ColumnType.NUMBER, ColumnType.INTEGER) and _number(text.strip(), other) != WRONG:
            return f'Set decimal = "{other}" in the loading plan if that is the file\'s decimal mark.'
        return (
            "In the loading plan give the text a coding, count it among na_values, or leave the column out; "
            "or correct the cell."
        )

    def _check(self, values: Float64, texts: list[str], lines: list[int]) -> None:
        """Report values that the column may not have, and mark them."""
        column = self._column
        odd = np.zeros(len(values), np.bool_)
        with np.errstate(invalid="ignore"):
            if column.type is ColumnType.INTEGER:
                odd |= values != np.rint(values)
            if column.type is ColumnType.BOOLEAN:
                odd |= (values != 0) & (values != 1)
            if column.minimum is not None:
                odd |= values < column.minimum
            if column.maximum is not None:
                odd |= values > column.maximum
        odd &= np.isfinite(values)
        if odd.any():
            first = int(np.argmax(odd))
            self._wrong(f"the value {shorten(texts[first])} {self._allowed()}", lines[first], None)
            values[odd] = WRONG

    def _allowed(self) -> str:
        column = self._column
        if column.type is ColumnType.BOOLEAN:
            return "is neither 0 nor 1"
        low = "" if column.minimum is None else f" from {column.minimum:g}"
        high = "" if column.maximum is None else f" up to {column.maximum:g}"
        unit = f" {column.unit}" if column.unit else ""
        kind = "integer" if column.type is ColumnType.INTEGER else "number"
        return f"is not a plausible {kind}{low}{high}{unit}"

    def _wrong(self, what: str, line: int, remedy: str | None) -> None:
        self._report(
            DatasetInvalidError(
                what,
                file=self._file,
                row=line,
                column=self._column.source,
                remedy=remedy or "Correct the cell, or the column's type, minimum or maximum in the loading plan.",
            )
        )


def _number(text: str, decimal: str) -> float:
    """A finite number, or WRONG."""
    if "_" in text or (decimal == "," and "." in text):
        return WRONG
    try:
        value = float(text.replace(decimal, "."))
    except ValueError:
        return WRONG
    return value if math.isfinite(value) else WRONG


def fill_value(column: ColumnPlan, values: Float64) -> float:
    """What takes the place of a missing value, by the column's rule and its values that are there.

    Raises:
        ValueError: The rule needs a value, and there is none.
    """
    if not isinstance(column.missing, MissingRule):
        return column.missing
    present = values[~np.isnan(values)]
    if present.size == 0:
        raise ValueError("no value to take a mean or median of")
    value = float(present.mean() if column.missing is MissingRule.MEAN else np.median(present))
    return value if column.type is ColumnType.NUMBER else float(np.rint(value))

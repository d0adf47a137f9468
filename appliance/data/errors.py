"""What can be wrong with a hospital's files and with the plan by which they are read.

    FedWardError
    ├── DatasetInvalidError       a file that cannot be read as its loading plan says
    └── LoadingPlanInvalidError   a loading plan that contradicts itself

Their messages are for the hospital's own staff and may show a cell. Only the code leaves a node.
"""

from __future__ import annotations

from appliance.protocol.errors import Code, FedWardError


class DatasetInvalidError(FedWardError):
    """A file cannot be read as its data loading plan says.

    Args:
        what: What is wrong, without a full stop.
        file: The file's name, without its folder.
        row: The line of the file where the row begins; the header is line 1.
        column: The column's name in the file.
        remedy: What the hospital's staff can do.
    """

    code = Code.DATASET_INVALID

    def __init__(
        self,
        what: str,
        *,
        file: str | None = None,
        row: int | None = None,
        column: str | None = None,
        remedy: str | None = None,
    ) -> None:
        where = [file, f"row {row}" if row else None, f"column '{column}'" if column is not None else None]
        place = ", ".join(part for part in where if part)
        super().__init__(f"{place}: {what}." if place else f"{what}.", remedy=remedy)
        self.what = what
        self.file = file
        self.row = row
        self.column = column


class LoadingPlanInvalidError(FedWardError):
    """A data loading plan cannot be used: an unknown setting, or two that contradict each other."""

    code = Code.LOADING_PLAN_INVALID

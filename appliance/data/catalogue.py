"""The kinds of dataset that a node can hold, and who reads each. A further reader is one file and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from appliance.data import tabular
from appliance.data.dataset import Dataset
from appliance.data.errors import DatasetInvalidError
from appliance.data.loading_plan import LoadingPlan
from appliance.data.tabular import Preview, Profile, Report
from appliance.protocol.wording import did_you_mean


class Reader(Protocol):
    """What a reader can do with a dataset's path; a module with these functions is one."""

    def open_dataset(self, path: Path | str, loading_plan: LoadingPlan | None = None) -> Dataset:
        """Read it as its loading plan says."""
        ...

    def check(self, path: Path | str, loading_plan: LoadingPlan | None = None) -> Report:
        """Collect what is wrong with it."""
        ...

    def preview(self, path: Path | str, rows: int = 10, loading_plan: LoadingPlan | None = None) -> Preview:
        """Show its first rows."""
        ...

    def profile(self, path: Path | str, loading_plan: LoadingPlan | None = None) -> Profile:
        """Describe its distributions."""
        ...

    def fingerprint(self, path: Path | str) -> str:
        """Its SHA-256, which changes with any byte of it."""
        ...


READERS: Mapping[str, Reader] = {
    "tabular": tabular,
}


def reader_for(kind: str) -> Reader:
    """The reader of a kind of dataset.

    Raises:
        DatasetInvalidError: Nobody reads this kind.
    """
    if kind not in READERS:
        remedy = f"Use one of the kinds {', '.join(READERS)}.{did_you_mean(kind, READERS)}"
        raise DatasetInvalidError(f"there is no dataset of the kind '{kind}'", remedy=remedy)
    return READERS[kind]

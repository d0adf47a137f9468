"""The node's datasets and who may use them. Files are read by the runner; here are only their descriptions."""

from __future__ import annotations

import os
import secrets
import stat
import time
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from appliance.protocol.envelope import Clock
from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.local.jobs import DatasetSource
from appliance.protocol.messages import Column, DatasetInfo, Tag
from appliance.protocol.wording import spelt_out
from appliance.transport.sqlite import Statement
from appliance.warden.approval import DecisionStaleError
from appliance.warden.audit import AuditLog
from appliance.warden.store import datasets, permissions, rows

ACTIVE, SUSPENDED, CHANGED = "active", "suspended", "changed"
LISTED_AT_MOST = 1000  # names of one folder
_BY_ID = Statement(sa.select(datasets).where(datasets.c.id == sa.bindparam("dataset_id")))
_BY_NAME = Statement(sa.select(datasets).where(datasets.c.name == sa.bindparam("name")))
_PERMITTED = Statement(
    sa.select(datasets, permissions.c.until)
    .join(permissions, permissions.c.dataset_id == datasets.c.id)
    .where(datasets.c.id == sa.bindparam("dataset_id"), permissions.c.researcher == sa.bindparam("researcher"))
)


class DatasetSpec(BaseModel):
    """What a data manager says of a new dataset; one table of ``datasets.toml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=128)
    path: str = Field(min_length=1, max_length=4096)
    kind: str = "tabular"
    description: str = Field(default="", max_length=2000)
    tags: tuple[Tag, ...] = Field(min_length=1, max_length=16)
    loading_plan: dict[str, JsonValue] = {}
    researchers: tuple[str, ...] = ()


class DatasetUnknownError(FedWardError):
    """No such dataset here, or none that the asker may know of: the two read alike."""

    code = Code.DATASET_UNKNOWN


class DatasetBook:
    """All datasets of this node."""

    def __init__(self, data_folder: Path, audit: AuditLog, clock: Clock = time.time) -> None:
        self._data_folder = data_folder
        self._audit = audit
        self._clock = clock

    def locate(self, path: str) -> Path:
        """The real path of a file inside the data folder; links are followed before the check.

        Raises:
            FedWardError: DATASET_INVALID when it lies elsewhere or is not there.
        """
        try:
            real = (self._data_folder / path).resolve()
            is_there = real.exists()
        except (OSError, ValueError, RuntimeError) as error:  # too long, no name at all, or links in a ring
            raise self._elsewhere(f"{spelt_out(path[:100])} names no file.") from error
        if not real.is_relative_to(self._data_folder):
            raise self._elsewhere(f"{path} is outside the data folder {self._data_folder}.")
        if not is_there:
            raise self._elsewhere(f"{path} is not in the data folder {self._data_folder}.")
        return real

    def browse(self, folder: str) -> dict[str, Any]:
        """The names in a folder of the data folder; no file is opened.

        Hidden names are left out, and so is what is neither file nor folder. A link counts as what it leads to, if that
        lies inside the data folder.

        Returns:
            ``folder``: its path below the data folder; ``entries``: each with ``name`` as it may be shown, ``path``
            below the data folder (None when the name is not UTF-8), ``is_folder``, ``size_bytes``, ``modified_at``;
            folders first. ``left_out``: how many more there are, links out among them.

        Raises:
            FedWardError: DATASET_INVALID when the folder lies elsewhere, is not there or cannot be listed.
        """
        real = self.locate(folder)
        try:
            names = sorted(name for name in os.listdir(real) if not name.startswith("."))  # noqa: PTH208 - names, not paths
        except OSError as error:
            raise FedWardError(
                f"{folder or 'The data folder'}: {error.strerror}.", code=Code.DATASET_INVALID
            ) from error
        found = [entry for name in names[:LISTED_AT_MOST] if (entry := self._entry(real / name)) is not None]
        found.sort(key=lambda entry: (not entry["is_folder"], entry["name"].casefold()))
        below = real.relative_to(self._data_folder)
        return {
            "folder": "" if below == Path() else str(below),
            "entries": found,
            "left_out": len(names) - len(found),
        }

    def add(self, connection: sa.Connection, staff: str, spec: DatasetSpec, report: dict[str, Any]) -> str:
        """Register a dataset that the runner has checked; returns its id.

        Args:
            report: What the runner found: ``rows``, ``columns`` and ``fingerprint``.
        """
        if connection.scalar(sa.select(datasets.c.id).where(datasets.c.name == spec.name)) is not None:
            raise FedWardError(f"There is a dataset named '{spec.name}' already.", code=Code.ARGUMENT_INVALID)
        dataset_id = secrets.token_hex(8)
        connection.execute(
            datasets.insert().values(
                id=dataset_id,
                name=spec.name,
                kind=spec.kind,
                path=str(self.locate(spec.path)),
                description=spec.description,
                tags=sorted(set(spec.tags)),
                loading_plan=spec.loading_plan,
                columns=_columns(report),
                rows=report["rows"],
                fingerprint=report["fingerprint"],
                state=ACTIVE,
                added_by=staff,
                added_at=self._clock(),
            )
        )
        self._note(connection, staff, "dataset.added", dataset_id, name=spec.name, fingerprint=report["fingerprint"])
        for researcher in spec.researchers:
            self.permit(connection, staff, dataset_id, researcher, until=None)
        return dataset_id

    def accept_files(self, connection: sa.Connection, staff: str, dataset_id: str, report: dict[str, Any]) -> None:
        """Take changed files as the dataset's new content; a suspended dataset stays suspended."""
        before = self._take(connection, dataset_id, report)["fingerprint"]
        files = {"before": before, "fingerprint": report["fingerprint"]}
        self._note(connection, staff, "dataset.accepted", dataset_id, **files)

    def renew(
        self, connection: sa.Connection, staff: str, dataset_id: str, source: DatasetSource, report: dict[str, Any]
    ) -> None:
        """A new version of the dataset: another file or another loading plan; its name and permissions stay.

        Args:
            source: The file and the loading plan that the runner checked.
            report: What it found, as for ``add``.
        """
        plan = {"path": source.path, "loading_plan": source.loading_plan}
        row = self._take(connection, dataset_id, report, **plan)
        facts = {name: [row[name], now] for name, now in plan.items() if row[name] != now}
        facts |= {"before": row["fingerprint"], "fingerprint": report["fingerprint"], "rows": report["rows"]}
        self._note(connection, staff, "dataset.renewed", dataset_id, **facts)

    def describe(
        self, connection: sa.Connection, staff: str, dataset_id: str, *, description: str, tags: tuple[str, ...]
    ) -> None:
        """Say something else of a dataset to researchers, and let other words find it."""
        values = {"description": description, "tags": sorted(set(tags))}
        self._update(connection, dataset_id, **values)
        self._note(connection, staff, "dataset.described", dataset_id, **values)

    def confirm_files(self, connection: sa.Connection, staff: str, dataset_id: str) -> None:
        """The files are those registered, perhaps again: a dataset that was marked changed may be used."""
        self._from_to(connection, dataset_id, CHANGED, ACTIVE)
        self._note(connection, staff, "dataset.checked", dataset_id)

    def set_state(self, connection: sa.Connection, staff: str, dataset_id: str, state: str) -> None:
        """Suspend a dataset, or let it be used again."""
        self._update(connection, dataset_id, state=state)
        self._note(connection, staff, f"dataset.{state}", dataset_id)

    def mark_changed(self, connection: sa.Connection, dataset_id: str) -> None:
        """The runner found other files than those registered: no round runs on them until staff accept them."""
        self._from_to(connection, dataset_id, ACTIVE, CHANGED)
        self._audit.write(connection, "node", "dataset.changed", dataset_id)

    def remove(self, connection: sa.Connection, staff: str, dataset_id: str) -> None:
        """Forget a dataset and its permissions; the files stay."""
        self.require(connection, dataset_id)
        connection.execute(datasets.delete().where(datasets.c.id == dataset_id))
        self._note(connection, staff, "dataset.removed", dataset_id)

    def permit(
        self, connection: sa.Connection, staff: str, dataset_id: str, researcher: str, *, until: float | None
    ) -> None:
        """Let a researcher see and use a dataset, until a date if one is given."""
        self.require(connection, dataset_id)
        if until is not None and until <= self._clock():
            raise FedWardError("The permission would end in the past.", code=Code.ARGUMENT_INVALID)
        self._drop_permission(connection, dataset_id, researcher)
        connection.execute(
            permissions.insert().values(
                dataset_id=dataset_id,
                researcher=researcher,
                until=until,
                granted_by=staff,
                granted_at=self._clock(),
            )
        )
        self._note(connection, staff, "permission.granted", dataset_id, researcher=researcher, until=until)

    def forbid(self, connection: sa.Connection, staff: str, dataset_id: str, researcher: str) -> None:
        """End a researcher's permission."""
        self.require(connection, dataset_id)
        self._drop_permission(connection, dataset_id, researcher)
        self._note(connection, staff, "permission.ended", dataset_id, researcher=researcher)

    def visible_to(self, connection: sa.Connection, researcher: str) -> list[DatasetInfo]:
        """What a researcher sees: active datasets whose permissions name him."""
        query = (
            sa.select(datasets, permissions.c.until)
            .join(permissions, permissions.c.dataset_id == datasets.c.id)
            .where(permissions.c.researcher == researcher, datasets.c.state == ACTIVE)
            .where(sa.or_(permissions.c.until.is_(None), permissions.c.until > self._clock()))
            .order_by(datasets.c.name)
        )
        return [_info(row) for row in rows(connection, query)]

    def require_usable(self, connection: sa.Connection, dataset_id: str, researcher: str) -> dict[str, Any]:
        """The dataset's row, if the researcher may train on it now; ``until`` is when the permission ends.

        Raises:
            DatasetUnknownError: Not there, or not permitted, which reads alike.
            FedWardError: DATASET_SUSPENDED or DATASET_CHANGED.
        """
        row = _PERMITTED.first(connection, dataset_id=dataset_id, researcher=researcher)
        if row is None:
            raise DatasetUnknownError(f"There is no dataset '{dataset_id}' that '{researcher}' may use.")
        if row["until"] is not None and row["until"] <= self._clock():
            raise FedWardError("The permission on this dataset has ended.", code=Code.PERMISSION_DENIED)
        if row["state"] == SUSPENDED:
            raise FedWardError("The dataset is suspended.", code=Code.DATASET_SUSPENDED)
        if row["state"] == CHANGED:
            raise FedWardError(
                "The dataset's files have changed since they were registered.", code=Code.DATASET_CHANGED
            )
        return row

    def require_shown(self, connection: sa.Connection, dataset_id: str, shown: int | None) -> dict[str, Any]:
        """The dataset's row, as ``require`` gives it, if it still is in the revision that was shown.

        Raises:
            DatasetUnknownError: Not there.
            DecisionStaleError: Somebody changed it since; None asks for no revision.
        """
        row = self.require(connection, dataset_id)
        if shown is not None and row["revision"] != shown:
            raise DecisionStaleError(f"'{row['name']}' was changed since it was shown to you; nothing was done.")
        return row

    def require(self, connection: sa.Connection, dataset_id: str) -> dict[str, Any]:
        """The dataset's row, by its id or, for staff, by its name; raises DatasetUnknownError."""
        found = _BY_ID.first(connection, dataset_id=dataset_id)
        row = found or _BY_NAME.first(connection, name=dataset_id)
        if row is None:
            raise DatasetUnknownError(f"There is no dataset '{dataset_id}' here.")
        return row

    def _elsewhere(self, what: str) -> FedWardError:
        remedy = f"Copy the file into {self._data_folder} and name it as it is called there."
        return FedWardError(what, code=Code.DATASET_INVALID, remedy=remedy)

    def _from_to(self, connection: sa.Connection, dataset_id: str, before: str, after: str) -> None:
        is_so = sa.and_(datasets.c.id == dataset_id, datasets.c.state == before)
        connection.execute(datasets.update().where(is_so).values(state=after, revision=datasets.c.revision + 1))

    def _take(self, connection: sa.Connection, dataset_id: str, report: dict[str, Any], **plan: Any) -> dict[str, Any]:
        """Put the file that the runner read into the dataset's place; returns the row as it was."""
        row = self.require(connection, dataset_id)
        values = {"rows": report["rows"], "columns": _columns(report), "fingerprint": report["fingerprint"]}
        self._update(connection, dataset_id, **values, **plan)
        self._from_to(connection, dataset_id, CHANGED, ACTIVE)
        return row

    def _entry(self, path: Path) -> dict[str, Any] | None:
        try:
            real = path.resolve(strict=True)
            facts = real.stat()
        except (OSError, RuntimeError):  # a link to nowhere, or in a ring
            return None
        is_folder = stat.S_ISDIR(facts.st_mode)
        if not real.is_relative_to(self._data_folder) or not (is_folder or stat.S_ISREG(facts.st_mode)):
            return None
        below = str(path.relative_to(self._data_folder))
        return {
            "name": spelt_out(path.name),
            "path": below if _is_utf8(below) else None,
            "is_folder": is_folder,
            "size_bytes": None if is_folder else facts.st_size,
            "modified_at": facts.st_mtime,
        }

    def _update(self, connection: sa.Connection, dataset_id: str, **values: Any) -> None:
        row = self.require(connection, dataset_id)
        changed = datasets.update().where(datasets.c.id == row["id"])
        connection.execute(changed.values(revision=datasets.c.revision + 1, **values))

    def _drop_permission(self, connection: sa.Connection, dataset_id: str, researcher: str) -> None:
        connection.execute(
            permissions.delete().where(permissions.c.dataset_id == dataset_id, permissions.c.researcher == researcher)
        )

    def _note(self, connection: sa.Connection, staff: str, event: str, dataset_id: str, **details: Any) -> None:
        self._audit.write(connection, f"staff:{staff}", event, dataset_id, **details)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def source_of(row: dict[str, Any]) -> DatasetSource:
    """What the runner needs to know to open the dataset."""
    return DatasetSource(
        dataset_id=row["id"],
        kind=row["kind"],
        path=row["path"],
        loading_plan=row["loading_plan"],
        fingerprint=row["fingerprint"],
    )


def _columns(report: dict[str, Any]) -> list[dict[str, str]]:
    """The columns as researchers are told of them: what no message can carry is found now, not at each search."""
    try:
        return [Column.model_validate(column).model_dump() for column in report["columns"]]
    except ValidationError as error:
        fault = error.errors()[0]
        raise FedWardError(
            f"The column {str(fault['input'])[:200]!r} cannot be presented: {fault['msg']}.", code=Code.DATASET_INVALID
        ) from error


def _info(row: dict[str, Any]) -> DatasetInfo:
    return DatasetInfo(
        dataset_id=row["id"],
        name=row["name"],
        kind=row["kind"],
        description=row["description"],
        tags=tuple(row["tags"]),
        rows=row["rows"],
        columns=tuple(Column(**column) for column in row["columns"]),
        fingerprint=row["fingerprint"],
        until=None if row["until"] is None else int(row["until"]),
    )

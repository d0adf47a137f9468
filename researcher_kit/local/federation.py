"""A federation in the researcher's own process, whose nodes train on local files.

Everything but the wire is the real thing: the researcher's side whole, with keys, signed messages and sealed files;
and at each node the supervisor, the sandbox and the training of a hospital. What a hospital adds by its policy, its
staff's approval among it, is not here.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import uuid
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.data import LoadingPlan
from appliance.protocol.envelope import Signer
from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.files import replace_file
from appliance.protocol.keys import MemberKeys, write_secret
from appliance.protocol.local.jobs import DatasetSource, InspectJob
from appliance.protocol.local.kept import KeptTensors
from appliance.protocol.local.runner_client import RunnerError
from appliance.protocol.messages import Column, DatasetInfo
from appliance.protocol.register import Member, Register, Role, open_register, sign_register
from researcher_kit.errors import ExperimentArgumentError
from researcher_kit.federation import Federation
from researcher_kit.folders import locked
from researcher_kit.local.nodes import LocalNode, LocalNodes
from researcher_kit.local.runner import LocalRunner
from researcher_kit.local.wire import LocalFiles, LocalLink, LocalWire

RESEARCHER = "local-researcher"
WARM = 32
_PROBLEMS = 3  # of a file, in an error


@dataclass(frozen=True)
class LocalDataset:
    """A local file, as a hospital would register it.

    Args:
        path: The file.
        loading_plan: How it is read: a mapping, or a TOML or JSON file; see ``appliance.data.loading_plan``.
        tags: The words that find it; without any, all do.
        kind: Which reader reads it.
        institution: How its node is called.
        dataset_id: Its id, for an experiment that chooses datasets by ``set_datasets``.

    Example:
        >>> LocalDataset("cells.csv", tags=("cells",)).kind
        'tabular'
    """

    path: Path | str
    loading_plan: Mapping[str, Any] | Path | str | None = None
    tags: tuple[str, ...] = ()
    kind: str = "tabular"
    institution: str = "Local"
    dataset_id: str = "local"

    def source(self) -> DatasetSource:
        """What the runner is told of it.

        Raises:
            LoadingPlanInvalidError: The loading plan is not one.
        """
        plan = self.loading_plan
        if isinstance(plan, Path | str):
            plan = LoadingPlan.read(plan).model_dump(mode="json")
        LoadingPlan.parse(plan or {})
        path = str(Path(self.path).expanduser().resolve())
        return DatasetSource(dataset_id=self.dataset_id, kind=self.kind, path=path, loading_plan=dict(plan or {}))


Given = LocalDataset | Path | str
Datasets = Given | Sequence[Given] | Mapping[str, Given]


class LocalFederation(Federation):
    """A federation of nodes in this process, which train on local files in the runner and sandbox of a hospital.

    It is used as any other: ``Experiment(federation=...)``. Of a plan that fails the error shows the traceback, and
    ``record`` what the plan printed; hospitals keep both.

    Args:
        datasets: A file, several, or files by node id; or a function that makes them in the folder that it is given,
            which lies inside ``folder``.
        folder: Keeps everything, so that a later process can go on from a breakpoint; if None, a temporary folder,
            which ``close`` deletes.
        workers: How many nodes train at once; as many as there are cores if None.
        warm: How many nodes' processes are kept between rounds, at least ``workers``: what they hold in memory is
            the price for not reading their data anew in each round. With more nodes than that, memory stays the same.
        threads: For each process's arithmetic libraries; a hospital's runner has 1, unless it is told otherwise.

    Raises:
        ExperimentArgumentError: No dataset, or a node id that is none.
        FedWardError: A file cannot be a dataset (DATASET_INVALID).
        ExperimentBusyError: Another process uses the folder.

    Example:
        >>> with LocalFederation({"north": "north.csv", "south": "south.csv"}) as federation:  # doctest: +SKIP
        ...     Experiment(..., federation=federation).run()
    """

    def __init__(
        self,
        datasets: Datasets | Callable[[Path], Datasets],
        *,
        folder: Path | str | None = None,
        workers: int | None = None,
        warm: int = WARM,
        threads: int = 1,
    ) -> None:
        workers = _require_count("workers", workers or len(os.sched_getaffinity(0)))
        warm, threads = _require_count("warm", warm), _require_count("threads", threads)
        with ExitStack() as stack:
            root = _open_root(folder, self, stack)
            named = _named(datasets(_made(root / "data")) if callable(datasets) else datasets)
            runner = LocalRunner(_made(root / "runner"), max_children=max(workers, warm), threads=threads)
            stack.callback(runner.close)
            infos = _inspected(named, runner, workers)
            keys = _Members(root, {node_id: dataset.institution for node_id, dataset in named.items()})
            nodes = {
                node_id: LocalNode(Signer(node_id, keys.of(node_id)), source, info)
                for node_id, (source, info) in infos.items()
            }
            files = LocalFiles(_made(root / "files"))
            link = LocalLink()
            kept = KeptTensors(_made(root / "kept"))
            kept.tidy()
            self._nodes = LocalNodes(
                nodes,
                keys.register,
                runner=runner,
                files=files,
                plans=_made(root / "plans"),
                kept=kept,
                arrive=link.put,
                workers=min(workers, len(nodes)),
            )
            stack.callback(self._nodes.close)
            link.deliver = self._nodes.deliver
            super().__init__(root / RESEARCHER, wire=LocalWire(link, files))
            self._local_parts = stack.pop_all()

    def record(self, node_id: str) -> str:
        """What the plan printed in the node's last round, and the traceback if it failed."""
        return self._nodes.record(node_id)

    def close(self) -> None:
        """End the nodes and all that they started."""
        super().close()
        self._local_parts.close()


class _Members:
    """Keys and register of a folder: made at first, and the same ever after, for requests are sealed to them."""

    def __init__(self, root: Path, institutions: Mapping[str, str]) -> None:
        self._keys_folder = root / "keys"
        operator = self.of("operator")
        roles = dict.fromkeys(institutions, Role.NODE) | {RESEARCHER: Role.RESEARCHER}
        members = tuple(self._member(id_, role, institutions.get(id_, "You")) for id_, role in roles.items())
        home = root / RESEARCHER
        self.register = self._registered(home / "register.jws", members, operator)
        self._make_home(home, operator)

    def of(self, member_id: str) -> MemberKeys:
        """A member's keys."""
        folder = self._keys_folder / member_id
        if not (folder / "sealing.pem").exists():
            shutil.rmtree(folder, ignore_errors=True)  # half of it, by a process that was killed
            MemberKeys.generate().save(folder)
        return MemberKeys.load(folder)

    def _member(self, member_id: str, role: Role, institution: str) -> Member:
        public = self.of(member_id).public
        return Member(
            id=member_id,
            role=role,
            institution=institution,
            contact="local",
            identity=public.identity,
            sealing=public.sealing,
        )

    def _registered(self, path: Path, members: tuple[Member, ...], operator: MemberKeys) -> Register:
        version = 1
        if path.exists():
            held = open_register(path.read_text(), operator.public.identity)
            if held.members == members:
                return held
            version = held.version + 1
        register = Register(consortium="Local", version=version, issued_at=int(time.time()), members=members)
        replace_file(path, sign_register(register, operator))
        return register

    def _make_home(self, home: Path, operator: MemberKeys) -> None:
        if not (home / "keys").exists():
            (home / "keys").symlink_to(self._keys_folder / RESEARCHER)
        if not (home / "tls/key.pem").exists():
            _made(home / "tls")
            write_secret(home / "tls/key.pem", b"no line is opened")
        replace_file(
            home / "member.toml",
            f'id = "{RESEARCHER}"\noperator = "{operator.public.identity}"\n'
            '[[endpoints]]\nbroker_host = "local"\nbroker_port = 1\nrest_url = "https://local"\n',
        )


def _named(datasets: Datasets) -> dict[str, LocalDataset]:
    if isinstance(datasets, Mapping):
        given = dict(datasets)
    else:
        listed = [datasets] if isinstance(datasets, LocalDataset | Path | str) else [*datasets]
        given = {"local": listed[0]} if len(listed) == 1 else {f"local-{n}": each for n, each in enumerate(listed, 1)}
    if not given:
        raise ExperimentArgumentError("There is no dataset: give a file, or files by node id.")
    for node_id in given:
        try:
            # Any key will do: it is the id that is looked at.
            Member(id=node_id, role=Role.NODE, institution="-", contact="-", identity="A" * 43, sealing="A" * 43)
        except ValueError:
            expected = "small letters, digits and hyphens, such as 'north-1'"
            raise ExperimentArgumentError(f"{node_id!r} is no node id; expected {expected}.") from None
        if node_id in (RESEARCHER, "operator", "consortium"):
            raise ExperimentArgumentError(f"The id '{node_id}' is taken; give the node another.")
    return {
        node_id: each if isinstance(each, LocalDataset) else LocalDataset(each, institution=node_id)
        for node_id, each in sorted(given.items())
    }


def _require_count(name: str, value: int) -> int:
    if type(value) is not int or value < 1:
        raise ExperimentArgumentError(f"{name} is {value!r}; expected a whole number from 1.")
    return value


def _made(folder: Path) -> Path:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _open_root(folder: Path | str | None, owner: LocalFederation, stack: ExitStack) -> Path:
    """The federation's folder, ours alone until the stack is closed."""
    if folder is None:
        root = Path(tempfile.mkdtemp(prefix="fedward-local-"))
        # Also at the end of an interpreter in which nobody called ``close``.
        stack.callback(weakref.finalize(owner, shutil.rmtree, root, ignore_errors=True))
        return root
    root = Path(folder).expanduser().absolute()
    busy = "another local federation uses this folder."
    stack.enter_context(locked(root, busy, "Close it, or give another folder."))
    return root


def _inspected(
    datasets: Mapping[str, LocalDataset], runner: LocalRunner, workers: int
) -> dict[str, tuple[DatasetSource, DatasetInfo]]:
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda dataset: _inspect(dataset, runner), datasets.values())
        return dict(zip(datasets, found, strict=True))


def _inspect(dataset: LocalDataset, runner: LocalRunner) -> tuple[DatasetSource, DatasetInfo]:
    """Look at a file as a hospital does when it registers one, in the sandbox.

    Raises:
        FedWardError: It cannot become a dataset; says what is wrong and where.
    """
    source = dataset.source()
    name = Path(source.path).name
    report = _looked_at(source, "check", runner)
    if not report["is_usable"]:
        problems = [_words(problem) for problem in report["problems"]]
        more = f"; and {len(problems) - _PROBLEMS} more" if len(problems) > _PROBLEMS else ""
        raise FedWardError(
            f"{name} cannot be a dataset: {'; '.join(problems[:_PROBLEMS])}{more}.",
            code=Code.DATASET_INVALID,
            remedy=report["problems"][0]["remedy"],
        )
    source = source.model_copy(update=_looked_at(source, "fingerprint", runner))
    assert source.fingerprint is not None
    info = DatasetInfo(
        dataset_id=dataset.dataset_id,
        name=name[:128],
        kind=dataset.kind,
        description="",
        tags=dataset.tags,
        rows=report["rows"],
        columns=tuple(Column(name=column, type=kind) for column, kind in report["columns"].items()),
        fingerprint=source.fingerprint,
    )
    return source, info


def _looked_at(source: DatasetSource, action: Any, runner: LocalRunner) -> dict[str, Any]:
    try:
        return runner.client().inspect(InspectJob(job_id=uuid.uuid4().hex, action=action, dataset=source))
    except RunnerError as error:
        what, _, remedy = error.detail.partition("\nWhat to do: ")
        raise FedWardError(
            what or error.message, code=error.code, remedy=remedy.removesuffix(f" ({error.code})") or None
        ) from error


def _words(problem: Mapping[str, Any]) -> str:
    place = [f"row {problem['row']}" if problem["row"] else "", f"column '{problem['column']}'"]
    where = ", ".join(part for part in (place[0], place[1] if problem["column"] is not None else "") if part)
    return f"{where}: {problem['what']}" if where else str(problem["what"])

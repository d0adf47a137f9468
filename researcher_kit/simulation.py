"""Simulations: one table dealt out to many virtual nodes, each of which trains as a hospital would.

with simulate(25, data="digits.csv", split="label-skew", column="digit", alpha=0.3, seed=7) as federation:
    Experiment(..., federation=federation).run()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from appliance.data import LoadingPlan
from researcher_kit.dealing import Data, Dealing, Split, deal
from researcher_kit.local.federation import WARM, LocalDataset, LocalFederation


def simulate(
    n_nodes: int | None = None,
    *,
    data: Data,
    split: str | Split = "iid",
    column: str | None = None,
    alpha: float = 0.5,
    seed: int = 0,
    loading_plan: Mapping[str, Any] | Path | str | None = None,
    kind: str = "tabular",
    tags: Sequence[str] = (),
    folder: Path | str | None = None,
    workers: int | None = None,
    warm: int = WARM,
    threads: int = 1,
) -> LocalFederation:
    """A federation of many virtual nodes on this machine, for ``Experiment(federation=...)``.

    Each node trains in a process of its own, by the code of a hospital's node and in its sandbox; as many train at
    once as there are cores, and no more than ``warm`` processes are kept, so that memory does not grow with the
    number of nodes. Results are those of the same nodes anywhere: equal to the last bit.

    Args:
        n_nodes: How many nodes, ``node-001`` and so on. It may be left out where the data say it.
        data: One of

            - a table (CSV or TSV) to be dealt out; or its columns by name, as arrays, also a pandas ``DataFrame``;
            - a folder: each of its files is a node's own;
            - a function that is called with each node's number, from 0, and returns that node's file or columns.
        split: How one table is dealt out: ``"iid"`` (at random, evenly), ``"label-skew"`` (each node has its own
            mixture of the classes in ``column``, drawn from a Dirichlet distribution; Hsu et al. 2019,
            arXiv:1909.06335, section 3), ``"by column"`` (a node for each value of ``column``, which is then left out
            of the data unless the loading plan names its columns), or a function of each row's cell in ``column``
            (without one: its position), the number of nodes and a generator, which returns each row's node. Where the
            loading plan names a ``patient_id``, patients are dealt out and not rows.
        column: The column that the split goes by.
        alpha: Of the Dirichlet distribution: small is skewed, large is even.
        seed: Another one deals out otherwise.
        loading_plan: How each node reads its file; see ``LocalDataset``.
        kind: Which reader reads the files.
        tags: The words that find the data; without any, all do.
        folder: See ``LocalFederation``.
        workers: See ``LocalFederation``.
        warm: See ``LocalFederation``.
        threads: See ``LocalFederation``.

    Raises:
        ExperimentArgumentError: Too few rows or values for so many nodes, or an argument that does not fit.
        DatasetInvalidError: The table cannot be read.

    Example:
        >>> table = {"age": [71, 64, 58, 80], "site": ["a", "a", "b", "b"]}
        >>> with simulate(data=table, split="by column", column="site") as federation:
        ...     federation.node_ids()
        ('node-001', 'node-002')
    """
    if isinstance(loading_plan, Path | str):
        plan = LoadingPlan.read(loading_plan)
    else:
        plan = LoadingPlan.parse(loading_plan or {})
    dealing = Dealing(split, column, alpha, seed)

    def datasets(files: Path) -> dict[str, LocalDataset]:
        return {
            f"node-{number:03d}": LocalDataset(path, plan.model_dump(mode="json"), tuple(tags), kind, institution)
            for number, (institution, path) in enumerate(deal(data, n_nodes, files, plan, dealing), start=1)
        }

    return LocalFederation(datasets, folder=folder, workers=workers, warm=warm, threads=threads)

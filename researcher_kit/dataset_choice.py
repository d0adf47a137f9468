"""Which dataset an experiment uses at each node."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from appliance.protocol.messages import DatasetInfo
from researcher_kit.errors import DatasetChoiceError, NoDatasetError
from researcher_kit.federation import Federation
from researcher_kit.tables import NodeTable


def find_datasets(
    federation: Federation, tags: Sequence[str], *, nodes: Sequence[str] | None, choices: Mapping[str, str]
) -> tuple[dict[str, str], NodeTable[tuple[DatasetInfo, ...]]]:
    """The dataset of each of these nodes, or of all that have one, and what the nodes answered.

    Args:
        federation: Asks the nodes.
        tags: What a dataset must all carry.
        nodes: Every one of these must have a dataset; None for all that have.
        choices: Which to use at a node that has several: ``{node id: dataset id}``.

    Raises:
        NoDatasetError: A node has none, or no node has.
        DatasetChoiceError: A node has several and none was chosen.
    """
    found = federation.search(tags, nodes=nodes)
    chosen = {node: _choose(federation, tags, node, infos, choices.get(node)) for node, infos in found.answers.items()}
    datasets = {node: dataset for node, dataset in chosen.items() if dataset}
    lacking = [node for node in nodes or () if node not in datasets]
    if lacking or not datasets:
        raise NoDatasetError(
            f"No dataset tagged {', '.join(tags)} at {', '.join(lacking) or 'any node'}"
            + (f"; no answer from {federation.named(found.silent)}." if found.silent else ".")
        )
    return datasets, found


def _choose(
    federation: Federation, tags: Sequence[str], node: str, infos: Sequence[DatasetInfo], wanted: str | None
) -> str | None:
    ids = [info.dataset_id for info in infos]
    names = ", ".join(f"'{info.dataset_id}' ({info.name})" for info in infos) or "none"
    if wanted and wanted not in ids:
        raise NoDatasetError(f"{node} has no dataset '{wanted}' tagged {', '.join(tags)}; it has {names}.")
    if len(ids) > 1 and not wanted:
        raise DatasetChoiceError(
            f"{federation.institution(node)} ({node}) has {len(ids)} datasets that fit: {names}.",
            remedy=f'Choose one: set_datasets({{"{node}": "{ids[0]}"}}), or search by more tags.',
        )
    return wanted or (ids[0] if ids else None)

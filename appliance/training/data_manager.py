"""The data manager: what a plan's ``training_data`` returns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from appliance.training.errors import PlanInvalidError


class DataManager:
    """A plan's samples, and how they are put into batches.

    Args:
        dataset: A PyTorch map-style dataset of (data, target) pairs, or the data itself: an array, a tensor or a
            pandas table with one row a sample. A dataset's samples can be read ahead by other processes
            (``loader_args.num_workers``); PyTorch's own workers need sockets, which a node's sandbox denies.
        target: The targets, one for each sample, when ``dataset`` is the data itself.
        batch_size: Samples in a batch; the training arguments' batch size wins.
        shuffle: Whether each epoch has its own order; the training arguments win.
        drop_last: Leave out an epoch's last batch when it is not full.
        groups: Each sample's patient, so that a patient's samples stay on one side of the split. When absent, the
            dataset's own patient id is used if there is one sample for each row.

    Example:
        ``DataManager(self.dataset.matrix(["age", "bmi"]), self.dataset.column("label"), batch_size=16)``

    Raises:
        PlanInvalidError: No samples, or not one target for each.
    """

    def __init__(
        self,
        dataset: Any,
        target: Any = None,
        *,
        batch_size: int | None = None,
        shuffle: bool | None = None,
        drop_last: bool = False,
        groups: Sequence[int] | None = None,
    ) -> None:
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise PlanInvalidError("DataManager needs samples with a length: an array, a tensor, a map-style dataset.")
        for name, values in (("targets", target), ("groups", groups)):
            if values is not None and len(values) != len(dataset):
                raise PlanInvalidError(f"DataManager was given {len(dataset)} samples and {len(values)} {name}.")
        self.dataset = dataset
        self.target = target
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.groups = groups

    def __len__(self) -> int:
        return len(self.dataset)

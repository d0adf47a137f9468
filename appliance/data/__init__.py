"""Dataset readers and data loading plans: from a hospital's files to named columns of numbers."""

from appliance.data.catalogue import READERS, Reader, reader_for
from appliance.data.dataset import Dataset, concatenate
from appliance.data.delimited import ReadLimits
from appliance.data.errors import DatasetInvalidError, LoadingPlanInvalidError
from appliance.data.loading_plan import ColumnPlan, ColumnType, LoadingPlan, MissingRule
from appliance.data.tabular import (
    ColumnProfile,
    Preview,
    Problem,
    Profile,
    Report,
    check,
    fingerprint,
    open_dataset,
    preview,
    profile,
)

__all__ = [
    "READERS",
    "ColumnPlan",
    "ColumnProfile",
    "ColumnType",
    "Dataset",
    "DatasetInvalidError",
    "LoadingPlan",
    "LoadingPlanInvalidError",
    "MissingRule",
    "Preview",
    "Problem",
    "Profile",
    "ReadLimits",
    "Reader",
    "Report",
    "check",
    "concatenate",
    "fingerprint",
    "open_dataset",
    "preview",
    "profile",
    "reader_for",
]

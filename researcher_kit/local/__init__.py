"""A consortium inside the researcher's own process: nodes that train on local files, for rehearsals and simulations."""

from researcher_kit.local.federation import LocalDataset, LocalFederation

__all__ = ["LocalDataset", "LocalFederation"]

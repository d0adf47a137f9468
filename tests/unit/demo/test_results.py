"""results.json."""

from __future__ import annotations

import json

import pytest

from appliance.demo.results import Results
from appliance.protocol.errors import ConfigurationError


def test_results_are_read_as_they_were_written(results, tmp_path) -> None:
    """The report can be made again from the file."""
    results.write(tmp_path / "results.json")

    assert Results.read(tmp_path / "results.json") == results


def test_the_file_has_the_names_that_others_read(results, tmp_path) -> None:
    """Scripts read these names."""
    results.write(tmp_path / "results.json")

    names = set(json.loads((tmp_path / "results.json").read_text()))
    means = {"federated_auc", "pooled_auc", "local_auc"}
    assert means | {f"{name}_sd" for name in means} | {"rounds", "egress", "versions"} <= names


@pytest.mark.parametrize("wrong", ["{}", "not json", '{"federated_auc": NaN}'])
def test_a_file_that_is_none_is_named(tmp_path, wrong) -> None:
    """A report of half a file would be a wrong report."""
    (tmp_path / "results.json").write_text(wrong)

    with pytest.raises(ConfigurationError, match=r"results\.json"):
        Results.read(tmp_path / "results.json")

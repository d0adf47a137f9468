"""A demo's results, with made-up numbers."""

from __future__ import annotations

import pytest

from appliance.demo.results import Results


@pytest.fixture
def results() -> Results:
    """Two hospitals, three rounds, two seeds."""
    return Results.model_validate(
        {
            "federated_auc": 0.831,
            "federated_auc_sd": 0.012,
            "pooled_auc": 0.836,
            "pooled_auc_sd": 0.011,
            "local_auc": {"north": 0.742, "south": 0.779},
            "local_auc_sd": {"north": 0.021, "south": 0.018},
            "federated_auc_by_round": [0.7, 0.8, 0.831],
            "rounds": [
                {
                    "round": number,
                    "seconds": seconds,
                    "waiting": seconds / 4,
                    "transfer": seconds / 4,
                    "training": seconds / 4,
                    "aggregation": seconds / 4,
                }
                for number, seconds in ((1, 2.5), (2, 0.3), (3, 0.2))
            ],
            "egress": {"north": {"messages": 12, "bytes": 34_567}, "south": {"messages": 11, "bytes": 30_000}},
            "seeds": [1, 2],
            "versions": {"python": "3.11.7", "torch": "2.13.0"},
            "hospitals": {
                "north": {"name": "North Hospital", "patients": 131, "held_out": 33, "data_bytes": 24_900},
                "south": {"name": "South Hospital", "patients": 203, "held_out": 51, "data_bytes": 38_600},
            },
        }
    )

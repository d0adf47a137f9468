"""What the site's researcher does, inside the kit's container: asks for approval, and trains the demo's model.

    python researcher.py ask
    python researcher.py train ROUNDS
    python researcher.py submit ROUNDS      to the federator, and go
    python researcher.py attach JOB         wait for its end

Prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from researcher_kit import AllNodes, Experiment, FedAverage, attach

TRAINING_ARGS = {
    "num_updates": 20, "batch_size": 32, "optimizer_args": {"lr": 0.05, "weight_decay": 0.01}, "test_ratio": 0.25,
    "test_metric": "AUC", "test_on_global_updates": True, "random_seed": 0,
}  # fmt: skip


def main(command: str, what: str = "1") -> dict[str, object]:
    """Do as told; returns what to print."""
    if command == "attach":
        job = attach(what)
        return {"state": job.wait(on_round=lambda _: None).state, **outcome(job.experiment(progress=False))}
    experiment = Experiment(
        tags=["opt"],
        training_plan_file=Path(__file__).with_name("plan.py"),
        model_args={},
        training_args=TRAINING_ARGS,
        round_limit=int(what),
        aggregator=FedAverage(),
        strategy=AllNodes(),
        name="bleeding at visit 5",
        progress=False,
    )
    with experiment:
        if command == "ask":
            standings = experiment.request_approval("Predict bleeding at visit 5 from the baseline visit.")
            return {node: str(standing.state) for node, standing in standings.answers.items()}
        if command == "submit":
            return {"job": experiment.submit().id}
        experiment.run()
        return outcome(experiment)


def outcome(experiment: Experiment) -> dict[str, object]:
    """What its rounds came to."""
    records = experiment.history
    return {
        "nodes": sorted(reply.node_id for reply in records[-1].replies),
        "rounds": len(records),
        "samples": records[-1].samples,
        "auc": round(records[-1].mean_metrics()["AUC"], 4),
        "seconds": round(sum(record.seconds for record in records), 2),
    }


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))

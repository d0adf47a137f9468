"""The soak's researcher: runs its experiments one after another, wherever an earlier process of it was killed.

    python -m tests.soak.researcher HOME FOLDER NODES ROUNDS...     an experiment of so many rounds each

Says on standard output what happens, a line each: ``EXPERIMENT ROUND EVENT TEXT``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import structlog

from appliance.protocol.errors import FedWardError
from researcher_kit import Experiment, Federation
from researcher_kit.errors import BreakpointError
from researcher_kit.monitor import Event, NodeReceived, NodeReplied, ParametersUploaded, RoundClosed, RoundStarted
from tests.soak.schedule import PLAN

SMALL, WIDE = 8, 1000  # the first travels inside messages, the second by the network host
FAILURES = 8  # of one round, before the researcher gives up
_TOLD = (RoundStarted, ParametersUploaded, NodeReceived, NodeReplied, RoundClosed)


def run(federation: Federation, folder: Path, nodes: list[str], index: int, rounds: int) -> None:
    """Bring one experiment to its last round; a round that failed clearly is run again."""

    def tell(event: Event) -> None:
        if isinstance(event, _TOLD):
            number = event.record.round if isinstance(event, RoundClosed) else event.round
            print(index, number, type(event).__name__, flush=True)

    experiment = _experiment(federation, folder / str(index), nodes, index, rounds)
    experiment.on_event(tell)
    experiment.training_plan()  # loads now what an experiment behind this one would load: it is no leak
    failures = 0
    while (done := experiment.round_current()) < rounds:
        try:
            experiment.run()
        except FedWardError as error:
            failures = 1 if experiment.round_current() > done else failures + 1
            reason = error.message.replace("\n", " ")
            print(index, experiment.round_current() + 1, "Failed", f"{error.code} {reason}", flush=True)
            if failures == FAILURES:
                raise


def _experiment(federation: Federation, folder: Path, nodes: list[str], index: int, rounds: int) -> Experiment:
    try:
        return Experiment.load_breakpoint(folder, federation=federation, progress=False)
    except BreakpointError:  # killed before there was one, or never begun
        return Experiment(
            tags=["cells"],
            nodes=nodes,  # else one that is down at the beginning would be passed over
            training_plan_file=PLAN,
            model_args={"width": WIDE if index % 2 else SMALL},
            training_args={"num_updates": 10, "batch_size": 16, "optimizer_args": {"lr": 0.01}, "random_seed": index},
            round_limit=rounds,
            experimentation_folder=folder,
            federation=federation,
            progress=False,
        )


def main() -> None:
    """All experiments, in their order."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    home, folder, nodes, *rounds = sys.argv[1:]
    with Federation(home) as federation:
        for index, count in enumerate(map(int, rounds)):
            run(federation, Path(folder), nodes.split(","), index, count)


if __name__ == "__main__":
    main()

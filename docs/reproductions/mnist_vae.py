"""Twenty-five nodes train a variational autoencoder of handwritten digits.

    python -m docs.reproductions.mnist_vae [--size short|small|whole]

MNIST is dealt evenly to 25 nodes. A variational autoencoder with three layers each way and a plane in the middle is
trained by federated averaging, 30 rounds of 10 local epochs with Adam at a learning rate of 1e-3. Shown are the norms
of the nodes' and the federated model's weights over the rounds, the plane, and the time that each node took in each
round.

Source: Silva, Altmann, Gutman and Lorenzi, Fed-BioMed: A General Open-Source Frontend Framework for Federated
Learning in Healthcare, DCL at MICCAI 2020, section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console

from appliance.protocol.tensors import Array
from docs.reproductions import figures
from docs.reproductions.public_data import Images, mnist, small_digits
from docs.reproductions.studies import PLANS, TAG, Report, arguments, federation, pictures_table
from researcher_kit import Experiment
from researcher_kit.aggregators import FedAverage, Tensors, Update


@dataclass(frozen=True)
class Size:
    """How much is run; ``wide`` and ``narrow`` are the autoencoder's layers."""

    nodes: int
    pictures: int
    rounds: int
    epochs: int
    wide: int = 256
    narrow: int = 64
    shown: int = 2000
    is_stand_in: bool = False


SIZES = {
    "short": Size(3, 150, 2, 2, 32, 16, shown=200, is_stand_in=True),
    "small": Size(25, 3000, 30, 10),
    "whole": Size(25, 60_000, 30, 10, shown=5000),
}


class WatchedAverage(FedAverage):
    """Federated averaging that notes how long the nodes' and the federated weight vectors are.

    Attributes:
        nodes: The norm of each node's model after its training, by round.
        federated: The norm of the federated model, by round.
    """

    def __init__(self) -> None:
        self.nodes: list[dict[str, float]] = []
        self.federated: list[float] = []

    def aggregate(self, updates: Sequence[Update], parameters: Tensors) -> dict[str, Array]:
        """See ``Aggregator``."""
        result = super().aggregate(updates, parameters)
        before = {name: parameters[name] for name in parameters}
        self.nodes.append({u.node_id: _norm({name: before[name] + u[name] for name in before}) for u in updates})
        self.federated.append(_norm(result))
        return result


@dataclass(frozen=True)
class Results:
    """What came of it.

    Attributes:
        norms: Of the nodes' weights, of shape (rounds, nodes).
        federated: Of the federated model's weights, by round.
        seconds: Training at each node, of shape (rounds, nodes).
        rounds_s: Of each round, from the choice of nodes to the next parameters.
        bound: The negative evidence lower bound of test pictures in nats, before the first and after the last round.
    """

    norms: np.ndarray
    federated: np.ndarray
    seconds: np.ndarray
    rounds_s: np.ndarray
    bound: tuple[float, float]


def run(size: Size, report: Report, *, workers: int = 2) -> Results:
    """Train, and report."""
    train, test = small_digits() if size.is_stand_in else mnist()
    tables = {
        f"node-{node:02}": pictures_table(
            train.pixels[node : size.pictures : size.nodes], train.labels[node : size.pictures : size.nodes]
        )
        for node in range(size.nodes)
    }
    test = Images(test.pixels[: size.shown], test.labels[: size.shown])
    pictures = torch.from_numpy(test.pixels.reshape(len(test.pixels), -1).astype(np.float32) / 255)
    watched = WatchedAverage()
    with federation(tables, workers=workers) as nodes:
        experiment = Experiment(
            tags=[TAG],
            training_plan_file=PLANS / "digit_vae.py",
            model_args={"pixels": pictures.shape[1], "wide": size.wide, "narrow": size.narrow, "latent": 2},
            training_args={
                "epochs": size.epochs,
                "batch_size": 32,
                "optimizer_args": {"lr": 1e-3},
                "random_seed": 0,
                "log_interval": 1000,
            },
            round_limit=size.rounds,
            aggregator=watched,
            federation=nodes,
            progress=False,
        )
        for number in range(1, size.rounds + 1):
            experiment.run_once()
            if number == 1:
                first = _bound(experiment, pictures)
            report.say(f"round {number} of {size.rounds}: {experiment.history[-1].seconds:.1f} s")
        results = Results(
            norms=np.array([[by_node[node] for node in sorted(by_node)] for by_node in watched.nodes]),
            federated=np.array(watched.federated),
            seconds=np.array([[reply.timing.train_s for reply in record.replies] for record in experiment.history]),
            rounds_s=np.array([record.seconds for record in experiment.history]),
            bound=(first, _bound(experiment, pictures)),
        )
        _report(results, report)
        report.figure("plane", _plane(experiment, pictures, test))
    return results


def _bound(experiment: Experiment, pictures: torch.Tensor) -> float:
    torch.manual_seed(0)
    plan = experiment.training_plan()
    with torch.no_grad():
        return float(plan.training_step(pictures, pictures))


def _report(results: Results, report: Report) -> None:
    last = len(results.norms)
    rows: list[Sequence[object]] = []
    for number in sorted({1, *range(5, last + 1, 5), last}):
        norms, seconds = results.norms[number - 1], results.seconds[number - 1]
        spread = f"{norms.min():.2f} to {norms.max():.2f}"
        rows.append(
            (
                number,
                f"{norms.mean():.2f}",
                spread,
                f"{results.federated[number - 1]:.2f}",
                f"{np.median(seconds):.2f}",
                f"{seconds.max():.2f}",
                f"{results.rounds_s[number - 1]:.2f}",
            )
        )
    columns = (
        "round",
        "nodes' norm, mean",
        "least to most",
        "federated norm",
        "training (s), median node",
        "slowest",
        "round (s)",
    )
    report.table("rounds", columns, rows)
    report.table(
        "bound",
        ("model", "negative evidence lower bound, nats a picture"),
        [("after round 1", results.bound[0]), (f"after round {last}", results.bound[1])],
    )
    drawn, ((norms_axes, time_axes),) = figures.figure(1, 2, width=9.2, height=3.6)
    rounds = range(1, last + 1)
    norms_axes.plot(rounds, results.norms, color=figures.SKY, linewidth=0.7, alpha=0.6)
    norms_axes.plot([], [], color=figures.SKY, label=f"{results.norms.shape[1]} nodes, after their training")
    norms_axes.plot(rounds, results.federated, color=figures.RED, linewidth=2.2, label="federated model")
    norms_axes.set(xlabel="round", ylabel="norm of all weights", title="Weights")
    norms_axes.legend(loc="lower right")
    parts = time_axes.boxplot(
        list(results.seconds), positions=[*rounds], widths=0.6, showfliers=False, patch_artist=True, manage_ticks=False
    )
    for box in parts["boxes"]:
        box.set(facecolor=figures.SKY, edgecolor=figures.BLUE, linewidth=0.6)
    for line in (*parts["medians"], *parts["whiskers"], *parts["caps"]):
        line.set(color=figures.BLUE, linewidth=0.9)
    time_axes.set(xlabel="round", ylabel="seconds of training", title="Time of each node", ylim=(0, None))
    report.figure("rounds", drawn)


def _plane(experiment: Experiment, pictures: torch.Tensor, test: Images) -> figures.Figure:
    model = experiment.training_plan().model()
    with torch.no_grad():
        places = model.encode(pictures)[0].numpy()
        count, side = 16, test.pixels.shape[1]
        steps = torch.linspace(-2.2, 2.2, count)
        grid = torch.cartesian_prod(-steps, steps).flip(1)
        drawn_again = model.decode(grid).numpy().reshape(count, count, side, side)
    drawn, ((left, right),) = figures.figure(1, 2, width=9.2, height=4.5)
    colours = [figures.mpl.colormaps["tab10"](digit) for digit in range(10)]
    near = np.abs(places).max(axis=1) < 4.5
    for digit in range(10):
        chosen = places[(test.labels == digit) & near]
        left.scatter(*chosen.T, s=7, color=colours[digit], alpha=0.55, linewidths=0)
        middle = np.median(chosen, axis=0) if len(chosen) else (0, 0)
        box = {"boxstyle": "circle,pad=0.25", "facecolor": "white", "edgecolor": colours[digit], "linewidth": 1.4}
        left.annotate(str(digit), middle, ha="center", va="center", fontweight="bold", color=colours[digit], bbox=box)
    left.set(title="Test pictures on the plane", xlabel="first number", ylabel="second number", aspect="equal")
    right.imshow(drawn_again.swapaxes(1, 2).reshape(count * side, -1), cmap="gray_r", extent=(-2.2, 2.2, -2.2, 2.2))
    right.set(title="What the federated model draws there", xlabel="first number")
    right.grid(visible=False)
    return drawn


def _norm(tensors: Mapping[str, Array]) -> float:
    return float(np.sqrt(sum(float(np.square(array, dtype=np.float64).sum()) for array in tensors.values())))


def main() -> None:
    """Run it as the command line says."""
    name, folder, workers = arguments(__doc__ or "", [*SIZES])
    run(SIZES[name], Report("mnist-vae", folder, Console()), workers=workers)


if __name__ == "__main__":
    main()

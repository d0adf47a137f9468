"""FedAvg, FedProx, SCAFFOLD and FedOpt where every node sees other classes than its neighbours.

    python -m docs.reproductions.label_skew [--size short|small|whole]

MNIST, dealt to nodes so that each has two of the ten digits; the same again dealt evenly, to tell what the skew costs.
Every algorithm starts from the same parameters, gets the same data, makes the same number of updates, and is tested on
MNIST's own test pictures, which no node has.

Sources: Karimireddy et al., SCAFFOLD, ICML 2020 (label-skewed splits, Table 3); Li et al., Federated Optimization in
Heterogeneous Networks, MLSys 2020 (FedProx); Reddi et al., Adaptive Federated Optimization, ICLR 2021.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.console import Console

from docs.reproductions import figures
from docs.reproductions.public_data import Images, mnist, small_digits
from docs.reproductions.studies import PLANS, TAG, Report, arguments, federation, pictures_table
from researcher_kit import Experiment, Federation
from researcher_kit.aggregators import Aggregator, FedAdagrad, FedAdam, FedAverage, FedYogi, Scaffold

PER_NODE = 2  # classes


@dataclass(frozen=True)
class Size:
    """How much is run.

    Attributes:
        pictures: To train on, of all nodes together.
        updates: Of each node in a round.
        target: The accuracy whose first round is looked for.
    """

    nodes: int
    pictures: int
    rounds: int
    updates: int
    seeds: int
    hidden: int
    target: float
    tests: int = 10_000
    is_stand_in: bool = False


SIZES = {
    "short": Size(3, 300, 2, 4, 1, 16, 0.5, tests=300, is_stand_in=True),
    "small": Size(5, 3000, 30, 20, 2, 64, 0.8),
    "whole": Size(10, 60_000, 100, 50, 5, 100, 0.85),
}


@dataclass(frozen=True)
class Algorithm:
    """An aggregator, and the training arguments that belong to it."""

    make: Callable[[], Aggregator]
    training_args: Mapping[str, Any]


def algorithms(lr: float) -> dict[str, Algorithm]:
    """By name; each with the one setting that it is shown with."""
    return {
        "FedAvg": Algorithm(FedAverage, {"optimizer_args": {"lr": lr}}),
        "FedProx": Algorithm(FedAverage, {"optimizer_args": {"lr": lr}, "fedprox_mu": 0.1}),
        "SCAFFOLD": Algorithm(Scaffold, {"optimizer_args": {"lr": lr}}),
        "FedAdam": Algorithm(lambda: FedAdam(server_lr=0.03), {"optimizer_args": {"lr": lr}}),
        "FedYogi": Algorithm(lambda: FedYogi(server_lr=0.03), {"optimizer_args": {"lr": lr}}),
        "FedAdagrad": Algorithm(lambda: FedAdagrad(server_lr=0.03), {"optimizer_args": {"lr": lr}}),
    }


@dataclass(frozen=True)
class Curves:
    """Accuracy on the test pictures after each round, of shape (seeds, rounds), by algorithm."""

    skewed: dict[str, np.ndarray]
    even: np.ndarray  # of FedAvg


def run(size: Size, report: Report, *, workers: int = 2, lr: float = 0.1) -> Curves:
    """Train everything, and report."""
    train, test = small_digits() if size.is_stand_in else mnist()
    train = Images(train.pixels[: size.pictures], train.labels[: size.pictures])
    test = Images(test.pixels[: size.tests], test.labels[: size.tests])
    skewed: dict[str, np.ndarray] = {}
    tables = _tables("skewed", train, skewed_parts(train.labels, size.nodes))
    tables |= _tables("even", train, even_parts(len(train.labels), size.nodes))
    seeds = range(size.seeds)
    with federation(tables, workers=workers) as nodes:
        for name, algorithm in algorithms(lr).items():
            skewed[name] = np.array([_accuracies(nodes, "skewed", algorithm, test, size, seed) for seed in seeds])
            report.say(f"{name}: {skewed[name][:, -1].mean():.3f} after {size.rounds} rounds")
        plain = algorithms(lr)["FedAvg"]
        even = np.array([_accuracies(nodes, "even", plain, test, size, seed) for seed in seeds])
    curves = Curves(skewed, even)
    _report(curves, size, report)
    return curves


def skewed_parts(labels: np.ndarray, nodes: int) -> list[np.ndarray]:
    """Positions by node: sorted by class, and two slices of that for each node, so that it sees two classes."""
    order = np.argsort(labels, kind="stable")
    slices = np.array_split(order, PER_NODE * nodes)
    return [np.concatenate(slices[node::nodes]) for node in range(nodes)]


def even_parts(count: int, nodes: int) -> list[np.ndarray]:
    """Positions by node: every so many-th."""
    return [np.arange(node, count, nodes) for node in range(nodes)]


def _tables(split: str, images: Images, parts: Sequence[np.ndarray]) -> dict[str, tuple[list[str], np.ndarray]]:
    return {
        f"{split}-{number}": pictures_table(images.pixels[part], images.labels[part])
        for number, part in enumerate(parts)
    }


def _accuracies(
    nodes: Federation, split: str, algorithm: Algorithm, test: Images, size: Size, seed: int
) -> list[float]:
    pixels = torch.from_numpy(test.pixels.reshape(len(test.pixels), -1).astype(np.float32) / 255)
    experiment = Experiment(
        tags=[TAG],
        nodes=[f"{split}-{number}" for number in range(size.nodes)],
        training_plan_file=PLANS / "digit_classifier.py",
        model_args={"pixels": pixels.shape[1], "hidden": size.hidden},
        training_args={
            "num_updates": size.updates,
            "batch_size": 32,
            "log_interval": size.updates,
            "random_seed": seed,
            **algorithm.training_args,
        },
        round_limit=size.rounds,
        aggregator=algorithm.make(),
        federation=nodes,
        progress=False,
    )
    found = []
    for _ in range(size.rounds):
        experiment.run_once()
        with torch.no_grad():
            guesses = experiment.training_plan().model()(pixels).argmax(dim=1).numpy()
        found.append(float((guesses == test.labels).mean()))
    return found


def _report(curves: Curves, size: Size, report: Report) -> None:
    rows = [_row(name, accuracies, size.target) for name, accuracies in curves.skewed.items()]
    rows.append(_row("FedAvg, dealt evenly", curves.even, size.target))
    last = f"accuracy after {size.rounds} rounds"
    first = f"first round at {size.target:.0%}"
    report.table("accuracy", ("algorithm", last, "best to worst seed", "mean over all rounds", first), rows)
    drawn, axes = figures.figure(1, 2, width=9.2, height=3.7)
    means = {name: accuracies.mean(axis=0) for name, accuracies in curves.skewed.items()}
    even = {"dealt evenly": curves.even.mean(axis=0)}
    groups = (
        ("Corrected at the nodes", ("FedAvg", "FedProx", "SCAFFOLD")),
        ("Adaptive at the researcher", ("FedAvg", "FedAdam", "FedYogi", "FedAdagrad")),
    )
    for place, (title, names) in zip(axes[0], groups, strict=True):
        colours = {"FedAvg": figures.INK, "dealt evenly": figures.QUIET}
        colours |= dict(zip(names[1:], (figures.SERIES[1:3] if len(names) == 3 else figures.SERIES[3:6]), strict=True))
        lowest = min(float(accuracies.min()) for accuracies in curves.skewed.values())
        place.set(title=title, ylabel="accuracy on the test pictures", ylim=(lowest - 0.03, 0.97))
        for name in names:
            low, high = curves.skewed[name].min(axis=0), curves.skewed[name].max(axis=0)
            place.fill_between(range(1, len(low) + 1), low, high, color=colours[name], alpha=0.12, linewidth=0)
        figures.curves(place, even | {name: means[name] for name in names}, colours=colours)
    report.figure("accuracy", drawn)


def _row(name: str, accuracies: np.ndarray, target: float) -> list[object]:
    mean, last = accuracies.mean(axis=0), accuracies[:, -1]
    reached = np.flatnonzero(mean >= target)
    first = int(reached[0]) + 1 if len(reached) else "—"
    return [name, float(last.mean()), f"{last.max():.3f} to {last.min():.3f}", float(mean.mean()), first]


def main() -> None:
    """Run it as the command line says."""
    name, folder, workers = arguments(__doc__ or "", [*SIZES])
    run(SIZES[name], Report("label-skew", folder, Console()), workers=workers)


if __name__ == "__main__":
    main()

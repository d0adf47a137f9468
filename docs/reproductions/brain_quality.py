"""Four heterogeneous centres train a linear variational autoencoder, and come and go as they like.

    python -m docs.reproductions.brain_quality [--size short|small|whole]

The four largest sites of ABIDE I (NYU, UM, USM, UCLA), each a node with its own scanner and habits, hold MRIQC's
measures of their T1-weighted scans: the quality of images, not the thickness of cortices as in the paper. The columns
are standardised by the means and variances of all centres, found in two federated rounds. Then a linear variational
autoencoder with five latent numbers is trained, 30 rounds of 15 local epochs at a learning rate of 1e-3, while each
centre is away in a quarter of the rounds, at random. Each centre holds out a fifth of its scans.

Source: Silva, Altmann, Gutman and Lorenzi, Fed-BioMed: A General Open-Source Frontend Framework for Federated
Learning in Healthcare, DCL at MICCAI 2020, section 3.2.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console

from docs.reproductions import figures
from docs.reproductions.plans.centre_statistics import LEAST_UNIT
from docs.reproductions.public_data import abide_quality
from docs.reproductions.studies import PLANS, TAG, Report, arguments, federation
from researcher_kit import AllNodes, Experiment, Federation
from researcher_kit.aggregators import Aggregator, FedAverage, Scaffold

CENTRES = ("NYU", "UM", "USM", "UCLA")
LATENT = 5
BATCH = 16
TEST_RATIO = 0.2


@dataclass(frozen=True)
class Size:
    """How much is run; ``away`` is the chance that a centre misses a round."""

    rounds: int
    epochs: int
    seeds: int
    away: float = 0.25
    is_stand_in: bool = False


SIZES = {
    "short": Size(1, 1, 1, is_stand_in=True),
    "small": Size(30, 15, 1),
    "whole": Size(30, 15, 10),
}


class ComingAndGoing(AllNodes):
    """Every centre takes part in a round, or is away, at random; at least one is there.

    Args:
        away: The chance that a centre misses a round.
        seed: Of the draws.
    """

    def __init__(self, away: float, seed: int) -> None:
        super().__init__()
        self._away, self._seed = away, seed

    def choose(self, nodes: Sequence[str], round_: int) -> Sequence[str]:
        """See ``Strategy``."""
        chance = random.Random(f"{self._seed}/{round_}")  # noqa: S311 - no secret
        here = [node for node in sorted(nodes) if chance.random() >= self._away]
        return here or [chance.choice(sorted(nodes))]


@dataclass(frozen=True)
class Algorithm:
    """An aggregator, and the training arguments that belong to it."""

    make: Callable[[], Aggregator]
    training_args: Mapping[str, Any]
    away: float  # the chance that a centre misses a round


@dataclass(frozen=True)
class Results:
    """What came of it.

    Attributes:
        errors: The held-out scans' reconstruction error by algorithm and centre, of shape (seeds, rounds + 1).
        alone: The same, of a model that was trained at that centre only, after the last round.
        pooled_difference: How far the federated means and variances are from the pooled table's, relative, at most.
    """

    errors: dict[str, dict[str, np.ndarray]]
    alone: dict[str, np.ndarray]
    pooled_difference: float


def run(size: Size, report: Report, *, workers: int = 2) -> Results:
    """Standardise, train with every algorithm, and report."""
    tables = _stand_in() if size.is_stand_in else _centres()
    with federation(tables, workers=workers) as nodes:
        mean, variance, difference = _statistics(nodes, tables)
        report.say(f"federated means and variances: {difference:.1e} off the pooled ones")
        model_args = {"latent": LATENT, "mean": mean.tolist(), "spread": np.sqrt(variance).clip(1e-6).tolist()}
        errors: dict[str, dict[str, np.ndarray]] = {}
        for name, algorithm in _algorithms(size, tables).items():
            found = [_train(nodes, algorithm, model_args, size, seed) for seed in range(size.seeds)]
            errors[name] = {centre: np.array([one[centre] for one in found]) for centre in sorted(tables)}
            report.say(f"{name}: " + ", ".join(f"{c} {e[:, -1].mean():.3f}" for c, e in errors[name].items()))
        alone = {centre: _alone(nodes, centre, model_args, size) for centre in sorted(tables)}
    results = Results(errors, alone, difference)
    _report(results, {centre: len(numbers) for centre, (_, numbers) in tables.items()}, report)
    return results


def _algorithms(size: Size, tables: Mapping[str, tuple[Sequence[str], np.ndarray]]) -> dict[str, Algorithm]:
    rows = np.mean([len(numbers) for _, numbers in tables.values()]) * (1 - TEST_RATIO)
    updates = size.epochs * int(np.ceil(rows / BATCH))  # as many as a centre of mean size makes in its epochs
    return {
        "FedAvg": Algorithm(FedAverage, {"epochs": size.epochs}, size.away),
        "FedProx": Algorithm(FedAverage, {"epochs": size.epochs, "fedprox_mu": 0.1}, size.away),
        "SCAFFOLD": Algorithm(Scaffold, {"num_updates": updates}, size.away),
        "SCAFFOLD, nobody away": Algorithm(Scaffold, {"num_updates": updates}, 0.0),
    }


def _statistics(
    nodes: Federation, tables: Mapping[str, tuple[Sequence[str], np.ndarray]]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Means and variances of all centres by two federated rounds, and how far they are from the pooled table's."""
    pooled = np.concatenate([numbers for _, numbers in tables.values()])
    experiment = Experiment(
        tags=[TAG],
        training_plan_file=PLANS / "centre_statistics.py",
        model_args={"columns": pooled.shape[1]},
        training_args={"num_updates": 1, "batch_size": 100_000},
        round_limit=2,
        federation=nodes,
        progress=False,
    )
    experiment.run()
    found = experiment.parameters()
    mean, relative = (found[name].astype(np.float64) for name in ("mean", "variance"))
    variance = relative * np.abs(mean).clip(LEAST_UNIT) ** 2
    off = np.abs(mean - pooled.mean(axis=0)) / pooled.std(axis=0).clip(1e-9)
    off_variance = np.abs(variance - pooled.var(axis=0)) / pooled.var(axis=0).clip(1e-9)
    return mean, variance, float(max(off.max(), off_variance.max()))


def _train(
    nodes: Federation, algorithm: Algorithm, model_args: Mapping[str, Any], size: Size, seed: int
) -> dict[str, list[float]]:
    """The error at every centre before the first and after each round."""
    experiment = _experiment(nodes, algorithm, model_args, size, seed)
    experiment.set_strategy(ComingAndGoing(algorithm.away, seed))
    errors: dict[str, list[float]] = {}
    for round_ in range(size.rounds + 1):
        if round_:
            experiment.run_once()
        # Every centre is asked, also one that was away: the model is for all of them.
        for centre, values in experiment.evaluate().metrics.items():
            errors.setdefault(centre, []).append(values["reconstruction_error"])
    return errors


def _alone(nodes: Federation, centre: str, model_args: Mapping[str, Any], size: Size) -> np.ndarray:
    errors = []
    for seed in range(size.seeds):
        experiment = _experiment(nodes, Algorithm(FedAverage, {"epochs": size.epochs}, 0.0), model_args, size, seed)
        experiment.set_nodes([centre])
        experiment.run()
        errors.append(experiment.evaluate().metrics[centre]["reconstruction_error"])
    return np.array(errors)


def _experiment(
    nodes: Federation, algorithm: Algorithm, model_args: Mapping[str, Any], size: Size, seed: int
) -> Experiment:
    return Experiment(
        tags=[TAG],
        training_plan_file=PLANS / "linear_vae.py",
        model_args=model_args,
        training_args={
            "batch_size": BATCH,
            "optimizer_args": {"lr": 1e-3},
            "test_ratio": TEST_RATIO,
            "random_seed": seed,
            "log_interval": 10_000,
            **algorithm.training_args,
        },
        round_limit=size.rounds,
        aggregator=algorithm.make(),
        federation=nodes,
        progress=False,
    )


def _report(results: Results, scans: Mapping[str, int], report: Report) -> None:
    centres = sorted(scans, key=lambda centre: -scans[centre])
    rows: list[list[object]] = [["scans", *(str(scans[centre]) for centre in centres), str(sum(scans.values()))]]
    for name, errors in results.errors.items():
        last = [float(errors[centre][:, -1].mean()) for centre in centres]
        rows.append([name, *last, float(np.mean(last))])
    alone = [float(results.alone[centre].mean()) for centre in centres]
    rows.append(["each centre alone", *alone, float(np.mean(alone))])
    report.table("errors", ("reconstruction error", *(centre.upper() for centre in centres), "mean"), rows)
    drawn, axes = figures.figure(1, len(centres), width=9.6, height=3.4)
    colours = dict(zip(results.errors, (figures.BLUE, figures.ORANGE, figures.GREEN, figures.PURPLE), strict=True))
    top = max(float(e[c].mean(axis=0)[1:].max()) for e in results.errors.values() for c in centres)
    for place, centre in zip(axes[0], centres, strict=True):
        for name, errors in results.errors.items():
            means = errors[centre].mean(axis=0)
            place.plot(range(1, len(means)), means[1:], color=colours[name], label=name)
        place.axhline(float(results.alone[centre].mean()), color=figures.QUIET, linestyle=(0, (4, 3)), linewidth=1.2)
        place.set(title=f"{centre.upper()}, {scans[centre]} scans", xlabel="round", ylim=(0, top * 1.08))
    axes[0][0].set_ylabel("reconstruction error, held-out scans")
    axes[0][0].plot([], [], color=figures.QUIET, linestyle=(0, (4, 3)), label="this centre alone")
    axes[0][-1].legend(*axes[0][0].get_legend_handles_labels(), loc="upper right", fontsize=8.5)
    report.figure("errors", drawn)


def _centres() -> dict[str, tuple[list[str], np.ndarray]]:
    """Each centre's measures; without raters, and without columns of one value."""
    scans = abide_quality()
    scans = scans[scans["site"].isin(CENTRES)]
    measures = scans.drop(columns=["subject_id", "site", "rater_1", "rater_2", "rater_3"]).dropna(axis=1)
    measures = measures.loc[:, measures.nunique() > 1]
    return {
        centre.lower(): ([*measures.columns], measures[scans["site"] == centre].to_numpy(np.float64))
        for centre in CENTRES
    }


def _stand_in() -> dict[str, tuple[list[str], np.ndarray]]:
    """Made-up measures of four centres of unlike scanners, where nothing may be fetched."""
    draw = np.random.default_rng(0)
    mixing = draw.normal(size=(3, 12))
    found = {}
    for number, centre in enumerate(CENTRES):
        hidden = draw.normal(size=(60 - 10 * number, 3)) * (1 + number)
        numbers = hidden @ mixing + 0.1 * draw.normal(size=(len(hidden), 12)) + 10 * number
        found[centre.lower()] = ([f"measure_{n}" for n in range(12)], numbers)
    return found


def main() -> None:
    """Run it as the command line says."""
    name, folder, workers = arguments(__doc__ or "", [*SIZES])
    run(SIZES[name], Report("brain-quality", folder, Console()), workers=workers)


if __name__ == "__main__":
    main()

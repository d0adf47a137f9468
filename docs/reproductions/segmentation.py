"""A 3-D U-Net over three hospitals of very different size, federated, pooled and alone.

    python -m docs.reproductions.segmentation [--size overhead|short|small|whole]

The prostate study of the paper in shape: a residual 3-D U-Net of 7.2 million parameters, three sites with 147, 21 and
25 patients to train on (scaled down), SGD at 0.1 with momentum 0.9, batches of 8, 25 updates a round, scored by Dice.
The data are semi-synthetic head scans (``head_scans``), and what is to be found are the deep grey nuclei. The same
network is trained on the pooled data and at each hospital alone, with as many updates as a node makes in the
federation.

``--size overhead`` trains nothing to the end. It measures which share of a round's wall time is not the training of
the slowest node, with the real network, broker, TLS and governance of an embedded consortium: the paper's 25 updates
of 8 scans. Nothing else should run on the machine.

Source: Cremonesi et al., Fed-BioMed: Open, Transparent and Trusted Federated Learning for Real-world Healthcare
Applications, 2023 (arXiv:2304.12012), section 5.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from appliance.embedded.consortium import EmbeddedConsortium
from appliance.warden.client import GovernanceClient
from appliance.warden.governance import SOCKET_NAME
from docs.reproductions import figures
from docs.reproductions.head_scans import SCANNERS, Head, ball, patient, slices_table, template
from docs.reproductions.studies import PLANS, TAG, Report, arguments, federation, write_table
from researcher_kit import Experiment, Federation
from researcher_kit.aggregators import FedAverage
from researcher_kit.history import RoundRecord

BATCH = 8
DROPOUT = 0.3
PATIENTS = 24  # of each site where only time is measured; a node wants at least 20


@dataclass(frozen=True)
class Size:
    """How much is run.

    Attributes:
        train: Patients to train on, by site in the order of ``SCANNERS``.
        test: Patients to test on, of each site.
        side: Voxels of a scan, each way.
        updates: Of each node in a round.
    """

    train: tuple[int, int, int]
    test: tuple[int, int, int]
    side: int
    rounds: int
    updates: int
    channels: tuple[int, ...] = (16, 32, 64, 128, 256)
    lr: float = 0.1
    is_stand_in: bool = False


SIZES = {
    "short": Size((8, 8, 8), (2, 2, 2), 16, 1, 1, channels=(2, 4, 8), is_stand_in=True),
    "small": Size((147, 21, 25), (37, 6, 7), 32, 16, 25),
    "whole": Size((147, 21, 25), (37, 6, 7), 48, 40, 25),
}


@dataclass(frozen=True)
class Site:
    """A hospital's patients: scans and nuclei of shape (n, side, side, side)."""

    scans: np.ndarray
    nuclei: np.ndarray


@dataclass(frozen=True)
class Results:
    """What came of it.

    Attributes:
        dice: On each site's test patients, by model: federated, pooled, and each site's own.
        by_round: Of the federated model on each site's test patients, after each round.
    """

    dice: dict[str, dict[str, float]]
    by_round: dict[str, list[float]]


def run(size: Size, report: Report, *, workers: int = 2) -> Results:
    """Train the federated, the pooled and the single models, and report."""
    head = ball(size.side) if size.is_stand_in else template(size.side)
    train = {name: _site(head, name, count, 0) for name, count in zip(SCANNERS, size.train, strict=True)}
    test = {name: _site(head, name, count, 1) for name, count in zip(SCANNERS, size.test, strict=True)}
    pooled = Site(*(np.concatenate([getattr(site, part) for site in train.values()]) for part in ("scans", "nuclei")))
    tables = {name: slices_table(site.scans, site.nuclei) for name, site in {**train, "pooled": pooled}.items()}
    dice: dict[str, dict[str, float]] = {}
    with federation(tables, workers=workers) as nodes:
        federated = _experiment(nodes, [*SCANNERS], size)
        by_round: dict[str, list[float]] = {name: [] for name in SCANNERS}
        for number in range(1, size.rounds + 1):
            federated.run_once()
            dice["federated"] = _scores(federated, test)
            for name, score in dice["federated"].items():
                by_round[name].append(score)
            report.say(f"round {number} of {size.rounds}: {federated.history[-1].seconds:.0f} s")
        for name in ("pooled", *SCANNERS):
            alone = _experiment(nodes, [name], size)
            alone.run()
            dice[name] = _scores(alone, test)
            report.say(f"{name}: {dice[name]}")
    results = Results(dice, by_round)
    _report(results, size, report, test)
    return results


@dataclass(frozen=True)
class Shares:
    """Where a round's time went, in seconds; ``overhead`` is all that was not the slowest node's own training.

    Attributes:
        training_s: From the plan's first line to its last, at the node that worked longest.
        node_s: What that node did besides: it started a confined process, and checked what leaves.
        waiting_s: Messages under way and queues.
    """

    seconds: float
    training_s: float
    node_s: float
    transfer_s: float
    aggregation_s: float
    waiting_s: float

    @property
    def overhead(self) -> float:
        """From 0 to 1."""
        return 1 - self.training_s / self.seconds


def measure_overhead(
    side: int, updates: int, *, rounds: int = 3, channels: Sequence[int] = Size.channels
) -> list[Shares]:
    """Rounds of three sites on this machine, over TLS on loopback; the first one starts the processes besides."""
    head = ball(side)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        consortium = stack.enter_context(
            EmbeddedConsortium(Path(folder), nodes=[*SCANNERS], researchers=["researcher"])
        )
        for name in SCANNERS:
            site = _site(head, name, PATIENTS, 0)
            data = consortium.home(name) / "data"
            data.mkdir(exist_ok=True)
            write_table(data / "heads.csv", *slices_table(site.scans, site.nuclei))
            staff = GovernanceClient(consortium.home(name) / SOCKET_NAME, staff="study", via="cli")
            staff.call("plan.add", name="unet", source=(PLANS / "unet_3d.py").read_text())
            spec = {"name": "heads", "path": "heads.csv", "tags": [TAG], "researchers": ["researcher"]}
            staff.call("dataset.add", spec=spec)
        nodes = stack.enter_context(Federation(consortium.home("researcher")))
        size = Size((PATIENTS,) * 3, (0,) * 3, side, rounds, updates, tuple(channels))
        experiment = _experiment(nodes, [*SCANNERS], size)
        experiment.run()
        return [_shares(record) for record in experiment.history]


def _shares(record: RoundRecord) -> Shares:
    slowest = max((reply.timing for reply in record.replies), key=lambda timing: timing.train_s)
    timing = record.timing
    return Shares(
        record.seconds,
        slowest.train_s,
        slowest.start_s + slowest.check_s,
        timing.transfer_s,
        timing.aggregation_s,
        timing.waiting_s,
    )


def report_overhead(report: Report, side: int = 48, updates: int = 25) -> None:
    """Measure and show it."""
    report.say(f"{updates} updates of {BATCH} scans of {side} x {side} x {side} voxels, by each of three nodes")
    parts = ("training", "start, checks", "transfer", "aggregation", "waiting")
    rows: list[list[object]] = []
    for number, share in enumerate(measure_overhead(side, updates), 1):
        rows.append([number, *(f"{seconds:.1f} s" for seconds in astuple(share)), f"{share.overhead:.1%}"])
    report.table("overhead", ("round", "whole", *parts, "overhead"), rows)


def _site(head: Head, name: str, count: int, part: int) -> Site:
    first = 10_000 * (1 + 2 * [*SCANNERS].index(name) + part)
    made = [patient(head, SCANNERS[name], first + number) for number in range(count)]
    return Site(np.stack([scan for scan, _ in made]), np.stack([nuclei for _, nuclei in made]))


def _experiment(nodes: Federation, chosen: Sequence[str], size: Size) -> Experiment:
    return Experiment(
        tags=[TAG],
        nodes=chosen,
        training_plan_file=PLANS / "unet_3d.py",
        model_args={"channels": list(size.channels), "dropout": DROPOUT, "side": size.side},
        training_args={
            "num_updates": size.updates,
            "batch_size": BATCH,
            "optimizer_args": {"lr": size.lr, "momentum": 0.9},
            "random_seed": 0,
            "log_interval": size.updates,
        },
        round_limit=size.rounds,
        aggregator=FedAverage(),
        federation=nodes,
        progress=False,
    )


def _scores(experiment: Experiment, test: Mapping[str, Site]) -> dict[str, float]:
    plan: Any = experiment.training_plan()
    plan.model().eval()
    with torch.no_grad():
        return {name: plan.testing_step(*_tensors(site))["dice"] for name, site in test.items()}


def _tensors(site: Site) -> tuple[torch.Tensor, torch.Tensor]:
    scans, nuclei = (torch.from_numpy(part.astype(np.float32)).unsqueeze(1) for part in (site.scans, site.nuclei))
    return scans / 255, nuclei


def _report(results: Results, size: Size, report: Report, test: Mapping[str, Site]) -> None:
    labels = {"federated": "federated", "pooled": "all data in one place"} | {n: f"{n} alone" for n in SCANNERS}
    rows: list[list[object]] = [["patients to train on", *map(str, size.train), ""]]
    for name, scores in results.dice.items():
        rows.append([labels[name], *(scores[site] for site in SCANNERS), float(np.mean([*scores.values()]))])
    report.table("dice", ("Dice of the model", *(f"at {site}" for site in SCANNERS), "mean"), rows)
    drawn, ((left, right),) = figures.figure(1, 2, width=9.4, height=3.5)
    left.set(title="Federated model, test patients", ylabel="Dice", ylim=(0, 1))
    figures.curves(left, results.by_round)
    ours = np.arange(len(results.dice))
    means = [np.mean([*scores.values()]) for scores in results.dice.values()]
    colours = [figures.BLUE, figures.QUIET, *[figures.SKY] * len(SCANNERS)]
    bars = right.barh(ours[::-1], means, color=colours, height=0.62)
    right.bar_label(bars, fmt="%.2f", padding=4)
    right.set(title="All sites' test patients", xlabel="mean Dice", xlim=(0, 1))
    right.set_yticks(ours[::-1], [labels[name] for name in results.dice])
    right.grid(visible=False, axis="y")
    report.figure("dice", drawn)
    drawn, axes = figures.figure(1, len(SCANNERS), width=9.0, height=3.3)
    for place, (name, site) in zip(axes[0], test.items(), strict=True):
        middle = size.side // 2
        place.imshow(site.scans[0][:, :, middle].T, cmap="gray", origin="lower")
        place.contour(site.nuclei[0][:, :, middle].T, levels=[0.5], colors=[figures.ORANGE], linewidths=1.4)
        place.set(title=name, xticks=[], yticks=[])
        place.grid(visible=False)
    report.figure("heads", drawn)


def main() -> None:
    """Run it as the command line says."""
    name, folder, workers = arguments(__doc__ or "", ["overhead", *SIZES])
    report = Report("segmentation", folder, Console())
    if name == "overhead":
        report_overhead(report)
    else:
        run(SIZES[name], report, workers=workers)


if __name__ == "__main__":
    main()

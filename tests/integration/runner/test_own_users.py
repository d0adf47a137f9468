"""Where the supervisor is root, each child can be a user of its own."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runners import Runner, plan_with, running


def _is_reachable(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o1 for folder in (path, *path.resolve().parents, *path.parents))


pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a process another user"),
    pytest.mark.skipif(not _is_reachable(Path(sys.executable)), reason="other users cannot reach this Python"),
]


@pytest.fixture(scope="module")
def separated() -> Iterator[Runner]:
    """A runner with two users for its children, in a folder that they can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        with running(folder, "--own-uids", "61000-61001", "--require", "own-uid") as runner:
            runner.table.parent.chmod(0o755)
            yield runner
    finally:
        shutil.rmtree(folder)


def test_two_experiments_are_two_users(separated: Runner) -> None:
    """Then the kernel keeps them apart even where Landlock does not."""
    plan = plan_with("print(os.getuid(), os.getgid(), os.getgroups())", "import os")
    records = set()
    for experiment in ("first", "second"):
        with separated.train(plan, experiment=experiment) as result:
            records.add(result.reply.record.splitlines()[0])

    assert records == {"61000 61000 []", "61001 61001 []"}
    separated.client.stop("first")
    separated.client.stop("second")


def test_scratch_belongs_to_the_child(separated: Runner) -> None:
    """Its user must be able to write there, and nobody else."""
    separated.train(plan_with("open('notes', 'w').write('mine')"), experiment="writes").close()
    (notes,) = (separated.folder / "scratch").rglob("notes")

    assert notes.stat().st_uid in (61000, 61001)
    separated.client.stop("writes")
    assert not notes.exists()


def test_a_user_is_free_again_after_its_child(separated: Runner) -> None:
    """Two users must serve more than two experiments, one after another."""
    for number in range(3):
        separated.train(experiment=f"turn-{number}").close()
        assert separated.client.stop(f"turn-{number}").was_running

"""Where the supervisor is root, each child can be a user of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runners import Runner, plan_with, running

NEEDED = {Path(path).resolve() for path in (sys.base_prefix, sys.prefix, Path(__file__).parents[3])}
UNSHARE = ("unshare", "--mount", "--propagation", "private")
# What other users may not enter is replaced by an empty folder that holds only what a child needs, at its own path; in
# a mount namespace of the runner's own, so that nobody else sees it. Arguments: that folder, a spare one, the needed.
OPENED = """
closed=$1 spare=$2 needed=$3; shift 3
umask 022
for path in $needed; do mkdir -p "$spare$path" && mount --bind "$path" "$spare$path" || exit 1; done
mount -t tmpfs -o mode=755 none "$closed" || exit 1
for path in $needed; do mkdir -p "$path" && mount --bind "$spare$path" "$path" || exit 1; done
exec "$@"
"""


def _closed() -> Path | None:
    """The first folder on the way to what a child needs that other users may not enter."""
    on_the_way = sorted({folder for path in NEEDED for folder in (path, *path.parents)})
    return next((folder for folder in on_the_way if not folder.stat().st_mode & 0o1), None)


def _may_mount() -> bool:
    try:
        tried = subprocess.run([*UNSHARE, "mount", "--bind", "/", "/mnt"], capture_output=True, check=False)
    except OSError:
        return False
    return tried.returncode == 0 and all(path.stat().st_mode & 0o1 for path in NEEDED)


def _through(spare: Path) -> list[str]:
    closed = _closed()
    if closed is None:
        return []
    needed = " ".join(str(path) for path in sorted(NEEDED) if path.is_relative_to(closed))
    return [*UNSHARE, "sh", "-c", OPENED, "sh", str(closed), str(spare), needed]


pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a process another user"),
    pytest.mark.skipif(
        os.geteuid() == 0 and _closed() is not None and not _may_mount(),
        reason=f"other users may not enter {_closed()}, where this Python lies, and nothing may be mounted here",
    ),
]


@pytest.fixture(scope="module")
def separated() -> Iterator[Runner]:
    """A runner with two users for its children, in a folder that they can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        own = ("--own-uids", "61000-61001", "--require", "own-uid")
        with running(folder, *own, through=_through(folder / "spare")) as runner:
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

"""``python -m appliance.runner``: start the supervisor."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from appliance.protocol.errors import FedWardError
from appliance.protocol.local.jobs import SandboxLevel
from appliance.runner.supervisor import RunnerSettings, Supervisor


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to end; returns the exit status."""
    given = _parser().parse_args(arguments)
    required = SandboxLevel(
        landlock=given.require_landlock,
        seccomp="seccomp" in given.require,
        cgroup="cgroup" in given.require,
        own_uid="own-uid" in given.require,
    )
    settings = RunnerSettings(
        socket_path=given.socket, scratch=given.scratch, required=required, own_uids=given.own_uids,
        idle_s=given.idle_s, max_children=given.max_children, threads=given.threads, parent_pid=given.parent_pid,
        group_may_connect=given.group_may_connect,
    )  # fmt: skip
    try:
        Supervisor(settings).serve()
    except FedWardError as error:
        sys.stderr.write(error.explain() + "\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m appliance.runner", description="Runs training plans, confined.")
    parser.add_argument("--socket", type=Path, required=True, help="where to listen")
    parser.add_argument(
        "--group-may-connect",
        action="store_true",
        help="let the group of the socket's folder connect: a warden that runs as another user",
    )
    parser.add_argument("--scratch", type=Path, required=True, help="a folder of its own; emptied at the start")
    parser.add_argument("--require-landlock", type=int, default=0, metavar="ABI", help="refuse jobs below this version")
    parser.add_argument(
        "--require",
        action="append",
        default=[],
        choices=["seccomp", "cgroup", "own-uid"],
        help="refuse jobs without it",
    )
    parser.add_argument("--own-uids", type=_uids, default=range(0), metavar="FIRST-LAST", help="users for children")
    parser.add_argument("--idle-s", type=float, default=600.0, help="how long a child without work is kept")
    parser.add_argument("--max-children", type=int, default=8, help="how many children are kept at once")
    parser.add_argument("--threads", type=int, default=1, help="for each child's arithmetic libraries")
    parser.add_argument("--parent-pid", type=int, help="end when this process does")
    return parser


def _uids(text: str) -> range:
    first, _, last = text.partition("-")
    uids = range(int(first), int(last or first) + 1)
    if not uids or uids[0] < 1:
        raise argparse.ArgumentTypeError("users are numbers from 1, as in 61000-61063")
    return uids


if __name__ == "__main__":
    sys.exit(main())

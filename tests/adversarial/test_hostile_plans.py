"""What an approved plan can reach from inside a real node's runner, and how long it can stay.

``test_confinement.py`` shows single attacks and that each succeeds unconfined; here a plan runs where the hospital's
own keys, store and sockets lie around it.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from appliance.protocol.errors import Code, FedWardError
from tests.adversarial.hostile import Ward, plan
from tests.integration.network.hosts import wait_until

TRY_EACH = """
attempts = {
    "store": lambda: open(HOME + "/store/node.db", "rb").read(1),
    "identity key": lambda: open(next(w + "/" + f for w, _, fs in os.walk(HOME + "/keys") for f in fs)).read(1),
    "key by its name": lambda: open(HOME + "/keys/identity.pem").read(1),
    "certificate's key": lambda: os.listdir(HOME + "/tls"),
    "settings": lambda: open(HOME + "/member.toml").read(1),
    "register": lambda: open(HOME + "/register.jws").read(1),
    "log": lambda: os.listdir(HOME + "/log"),
    "spool": lambda: os.listdir(HOME + "/spool"),
    "what others keep": lambda: os.listdir(HOME + "/kept"),
    "all datasets": lambda: os.listdir(HOME + "/data"),
    "another dataset": lambda: open(HOME + "/data/other.csv").read(1),
    "write the dataset": lambda: open(HOME + "/data/cells.csv", "a"),
    "another hospital": lambda: os.listdir(HOME + "/../south"),
    "other scratch": lambda: os.listdir(HOME + "/scratch"),
    "a file in the home": lambda: open(HOME + "/left", "w"),
    "library to be imported": lambda: open(os.path.dirname(torch.__file__) + "/left.py", "w"),
    "package of ours": lambda: open(os.path.dirname(job.__file__) + "/left.py", "w"),
    "temporary folder": lambda: open("/tmp/left", "w"),
    "shared memory": lambda: open("/dev/shm/left", "w"),
    "warden's memory": lambda: open(f"/proc/{WARDEN}/mem", "rb"),
    "warden's environment": lambda: open(f"/proc/{WARDEN}/environ", "rb").read(1),
    "processes": lambda: os.listdir("/proc"),
    "signal to the warden": lambda: os.kill(WARDEN, 0),
    "signal by a pipe": lambda: __import__("fcntl").fcntl(os.pipe()[0], 8, WARDEN),
    "environment": lambda: next(name for name in os.environ if name.startswith("FEDWARD")),
    "runner's socket": lambda: __import__("socket").socket(1, 1).connect(HOME + "/run/runner.sock"),
    "governance socket": lambda: __import__("socket").socket(1, 1).connect(HOME + "/run/governance.sock"),
    "network host": lambda: __import__("socket").create_connection(("127.0.0.1", 1)),
    "name service": lambda: __import__("socket").getaddrinfo("localhost", 80)[0][4] and 1 / 0,
    "program": lambda: __import__("subprocess").run(["/bin/true"]),
    "process": lambda: os.fork() or os._exit(0),
    "more files than allowed": lambda: __import__("resource").setrlimit(1, (1 << 60, 1 << 60)),
    "higher priority": lambda: os.nice(-5),
    "real-time priority": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
    "terminal": lambda: open("/dev/tty", "w"),
    "terminal's input": lambda: __import__("fcntl").ioctl(0, 0x5412, b"x"),
}
for name, attempt in attempts.items():
    try:
        attempt()
        print("REACHED", name)
    except (OSError, StopIteration, ZeroDivisionError, ValueError) as error:
        print("kept from", name, type(error).__name__)
"""


def test_a_plan_reaches_nothing_of_the_node_around_it(ward: Ward) -> None:
    """All of it lies in folders that the runner's own user may read and write."""
    home = ward.hospitals.home("north")
    (ward.hospitals.data("north") / "other.csv").write_text("x\n1\n")
    processes = ward.hospitals.consortium.processes("north")
    warden = next(pid for pid, command in processes.items() if "appliance.warden" in command)
    for place in ("store/node.db", "member.toml", "register.jws", "run/runner.sock"):
        assert (home / place).exists()
    known = f"HOME, WARDEN = {str(home)!r}, {warden}"
    outcome = ward.run(plan(TRY_EACH, top=known), training_args={"num_updates": 1})

    lines = outcome.record.splitlines()
    assert outcome.code is None
    assert len(lines) == TRY_EACH.count("lambda")
    assert [line for line in lines if not line.startswith("kept from")] == []
    assert not list(home.rglob("left"))


FORKS = """
import signal
if os.fork() == 0:
    if os.fork() == 0:
        for number in (1, 2, 3, 15): signal.signal(number, signal.SIG_IGN)
        while True: time.sleep(60)
    os._exit(0)
os.wait()
import threading
threading.Thread(target=time.sleep, args=(600,)).start()
import atexit
atexit.register(time.sleep, 600)
self.steps = getattr(self, "steps", 0) + 1
if self.steps == 2: time.sleep(600)
"""
ENDS: dict[str, Callable[[Ward, str, str], object]] = {
    "stop": lambda ward, experiment, _: ward.hospitals.staff("north").call("experiment.stop", experiment=experiment),
    "revocation": lambda ward, _, sha256: ward.hospitals.staff("north").call("plan.revoke", plan=sha256),
    "suspension": lambda ward, *_: ward.hospitals.staff("north").call("dataset.suspend", dataset="cells"),
    "forbidding": lambda ward, *_: ward.hospitals.staff("north").call(
        "dataset.forbid", dataset="cells", researcher="alice"
    ),
}


@pytest.mark.parametrize("end", ENDS)
def test_no_process_of_a_plan_outlives_its_end(ward: Ward, end: str) -> None:
    """Forked twice, deaf, with a thread that never returns: when staff's call returns, all of it is dead."""
    already = {child.pid for child in ward.hospitals.children("north")}
    arguments = {"num_updates": 3, "log_interval": 1, "loader_args": {"num_workers": 8}}
    request = ward.request(plan(FORKS), training_args=arguments)
    ward.alice.post.heard.clear()
    jti = ward.send(request)
    ward.alice.post.hear(lambda arrived: arrived.topic.endswith("/from/north/scalar"))
    mine: list[psutil.Process] = []

    def are_there() -> bool:
        mine[:] = [child for child in ward.hospitals.children("north") if child.pid not in already]
        return len(mine) >= 3

    wait_until(are_there)
    try:
        ENDS[end](ward, request.experiment_id, request.plan_sha256)

        assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in mine)
        assert ward.outcome(request, jti).code is Code.ROUND_STOPPED
    finally:
        ward.hospitals.staff("north").call("dataset.resume", dataset="cells")
        ward.hospitals.staff("north").call("dataset.permit", dataset="cells", researcher="alice")


def test_a_plan_past_its_time_is_ended(ward: Ward) -> None:
    """In this round, not over all of them; its processes are gone, and the researcher learns why."""
    staff = ward.hospitals.staff("north")
    staff.call("policy.set", changes={"maximum_round_s": 3})
    try:
        outcome = ward.run(plan("while True: pass"))
    finally:
        staff.call("policy.set", changes={"maximum_round_s": None})

    assert outcome.code is Code.ROUND_TIMEOUT
    assert not outcome.has_update


def test_a_plan_is_refused_where_policy_asks_for_more_than_there_is(ward: Ward) -> None:
    """The researcher learns the rule; the node's log, and its doctor, what lacks."""
    staff = ward.hospitals.staff("north")
    staff.call("policy.set", changes={"sandbox": "isolated"})
    try:
        found = staff.call("node.sandbox")
        outcome = ward.run(plan("print('ran')"))
        said = ward.hospitals.fedward("doctor", "--home", ward.hospitals.home("north"), expect=1)
    finally:
        staff.call("policy.set", changes={"sandbox": None})

    assert "own_uid" in found["lacking"]  # the embedded mode never has it
    assert outcome.code is Code.SANDBOX_INCOMPLETE
    assert "ran" not in outcome.record
    assert not any("own_uid" in text for text in outcome.told)
    assert "required: isolated" in said
    assert "own_uid" in (ward.hospitals.home("north") / "log/runner.log").read_text()


class _Opens:
    """Leaves a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> object:
        return open, (str(self._path), "w")


@pytest.mark.parametrize("name", ["cells.pkl", "cells-pickled.csv", "cells.pt", "cells.npy"])
def test_a_pickle_in_the_data_folder_is_never_opened(ward: Ward, tmp_path: Path, name: str) -> None:
    """Files come from anywhere; a pickle is a program."""
    mark, file = tmp_path / "opened", ward.hospitals.data("north") / name
    file.write_bytes(pickle.dumps(_Opens(mark)))
    staff = ward.hospitals.staff("north")
    for call, more in (("dataset.profile", {"path": name}), ("dataset.preview", {"path": name})):
        with pytest.raises(FedWardError):
            staff.call(call, **more)
    with pytest.raises(FedWardError) as refusal:
        ward.hospitals.add_dataset("north", "pickled", name)
    file.unlink()

    assert refusal.value.code is Code.DATASET_INVALID
    assert not mark.exists()

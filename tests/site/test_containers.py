"""The real images, run with the very lines of images/README.md: what the parts can do in there, and what they cannot.

Needs Docker, and the images of 'fedward images build'. Broker and network host run beside, on loopback, which is why
the warden alone gets this machine's network; on a site it has one of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from docker.models.containers import Container

from appliance.embedded.consortium import EmbeddedConsortium
from appliance.warden.client import GovernanceClient
from appliance.warden.governance import SOCKET_NAME
from appliance.warden.history import History
from researcher_kit import Experiment, Federation
from researcher_kit.errors import NodeFailedError
from tests.integration.network.hosts import wait_until
from tests.site.containers import Containers, is_healthy, python

NODE = "/var/lib/fedward/node"
WARDEN, RUNNER = 10001, 10002
pytestmark = pytest.mark.timeout(600)

PLAN = '''
import os
import socket
from pathlib import Path

import torch

from appliance.training import DataManager, TorchTrainingPlan


def tried(attempt):
    """What an attempt brought, or None when it was refused."""
    try:
        return attempt()
    except BaseException:
        return None


class Plan(TorchTrainingPlan):
    def init_model(self, model_args):
        return torch.nn.Linear(2, 1)

    def training_data(self):
        return DataManager(self.dataset.matrix(["a", "b"]), self.dataset.matrix(["y"]))

    def training_step(self, data, target):
        #ATTACK
        return torch.nn.functional.binary_cross_entropy_with_logits(self.model()(data), target)
'''
ATTACK = """
        found = {
            "internet": tried(lambda: socket.create_connection(("192.0.2.1", 80), 1)),
            "datagram": tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)),
            "runner": tried(lambda: socket.socket(socket.AF_UNIX)),
            "home": tried(lambda: os.listdir("/var/lib/fedward/node")),
            "socket": tried(lambda: os.listdir("/var/lib/fedward/node/run/runner")),
            "other": tried(lambda: Path("/srv/fedward/data/other.csv").read_text()),
            "folder": tried(lambda: os.listdir("/srv/fedward/data")),
            "scratch": tried(lambda: os.listdir("/scratch")),
            "passwd": tried(lambda: Path("/etc/passwd").read_text()),
            "write": tried(lambda: Path("/tmp/left").write_text("x")),
            "program": tried(lambda: os.spawnv(os.P_WAIT, "/bin/true", ["true"])),
            "supervisor": tried(lambda: Path("/proc/1/environ").read_bytes()),
            "signal": tried(lambda: os.kill(1, 0) or "sent"),
            "secret": [name for name in os.environ if "FEDWARD" in name] or None,
        }
        raise RuntimeError("FOUND " + repr({name: value for name, value in found.items() if value is not None}))
"""


class Site:
    """One hospital in its containers, with the consortium that it belongs to."""

    def __init__(self, consortium: EmbeddedConsortium, folder: Path, containers: Containers) -> None:
        self.consortium = consortium
        self.start = containers.start
        self.home = consortium.home("north")
        self.data = folder / "data"

    def prepare(self) -> None:
        """What the role does before the first container: settings, folders, and whom they belong to."""
        self.data.mkdir()
        rng = np.random.default_rng(1)
        table = np.column_stack([rng.normal(size=(60, 2)), rng.integers(0, 2, 60)])
        for name in ("cells.csv", "other.csv"):
            np.savetxt(self.data / name, table, delimiter=",", header="a,b,y", comments="", fmt="%.4f")
        (self.home / "node.toml").write_text(
            'data_folder = "/srv/fedward/data"\nrunner_socket = "run/runner/runner.sock"\n'
        )
        for name in ("run/runner", "gui", "spool", "kept", "store"):
            (self.home / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (self.home, *self.home.rglob("*")):
            os.chown(path, WARDEN, WARDEN)
        os.chown(self.home / "run/runner", RUNNER, WARDEN)
        (self.home / "run/runner").chmod(0o2750)

    def staff(self) -> GovernanceClient:
        """Somebody of the hospital."""
        return GovernanceClient(self.home / SOCKET_NAME, staff="nurse", via="cli")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """North in containers, its broker and network host beside it."""
    folder = tmp_path_factory.mktemp("site")
    consortium = EmbeddedConsortium(folder / "c", nodes=["north"], researchers=["alice"])
    consortium.start(parts=["broker", "network"])
    try:
        with Containers() as containers:
            north = Site(consortium, folder, containers)
            north.prepare()
            yield north
    finally:
        consortium.stop()


@pytest.fixture(scope="module")
def runner(site: Site) -> Container:
    """The runner, ready."""
    container = site.start("runner", "runner-cpu", {NODE: str(site.home), "/srv/fedward/data": str(site.data)})
    wait_until((site.home / "run/runner/runner.sock").exists, 120)
    return container


@pytest.fixture(scope="module")
def warden(site: Site, runner: Container) -> Container:
    """The warden, ready, with a dataset and a plan."""
    folders = {NODE: str(site.home), "/srv/fedward/data": str(site.data), "fdw-warden": "host"}
    container = site.start("warden", "warden", folders)
    wait_until((site.home / "run/ready").exists, 120)
    spec = {"name": "cells", "path": "cells.csv", "tags": ["cells"], "researchers": ["alice"]}
    site.staff().call("dataset.add", spec=spec)
    return container


@pytest.fixture(scope="module")
def gui(site: Site) -> Container:
    """The GUI, on a network of Docker's own, published nowhere."""
    changes = {NODE: str(site.home), "fdw-gui": "bridge", "8444:8444": "127.0.0.1::8444"}
    container = site.start("gui", "node-gui", changes)
    wait_until((site.home / "run/gui.port").exists, 120)
    return container


def train(site: Site, tmp_path: Path, text: str) -> Experiment:
    """One round of a plan that staff approved."""
    plan = tmp_path / "plan.py"
    plan.write_text(text)
    site.staff().call("plan.add", name="plan", source=text)
    with Federation(site.consortium.home("alice")) as federation:
        experiment = Experiment(
            tags=["cells"], training_plan_file=plan, training_args={"num_updates": 2, "optimizer_args": {"lr": 0.1}},
            round_limit=1, federation=federation, progress=False,
        )  # fmt: skip
        experiment.run()
    return experiment


def test_a_round_is_trained_across_two_containers(site: Site, warden: Container, tmp_path: Path) -> None:
    """Warden and runner are two users in two containers; parameters and update pass between them as sealed memory."""
    train(site, tmp_path, PLAN.replace("        #ATTACK\n", ""))

    assert [line["kind"] for line in History(site.home).egress()].count("enclosed") == 1


def test_a_hostile_plan_finds_nothing(site: Site, warden: Container, tmp_path: Path) -> None:
    """No network, no secret, no other file, no other process: whoever approved it by mistake is still protected."""
    with pytest.raises(NodeFailedError, match="TRAINING_FAILED"):
        train(site, tmp_path, PLAN.replace("        #ATTACK\n", ATTACK))
    history = History(site.home)
    failed = history.rounds()[-1]

    assert "FOUND {}" in history.record(failed["experiment_id"], 1)


@pytest.mark.parametrize("part", ["runner", "warden", "gui"])
def test_a_container_has_no_rights_to_lose(part: str, request: pytest.FixtureRequest) -> None:
    """No capability, no way to gain one, filtered system calls, and nothing to write on."""
    container = request.getfixturevalue(part)
    lines = python(container, "print(open('/proc/self/status').read())").splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    refused = container.exec_run(["touch", "/opt/fedward/x"])

    assert {int(status[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapBnd")} == {0}
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert b"Read-only file system" in refused.output


def test_the_runner_has_no_interface_but_loopback(runner: Container) -> None:
    """Its own children cannot open a socket; here the supervisor has none to lend them either."""
    assert python(runner, "import os; print(sorted(os.listdir('/sys/class/net')))").strip() == "['lo']"


def test_the_runner_reaches_the_full_sandbox(runner: Container) -> None:
    """A container takes nothing from the sandbox inside it: Landlock and seccomp both hold."""
    code = (
        "from pathlib import Path\n"
        "from appliance.protocol.local.jobs import SANDBOX_LEVELS\n"
        "from appliance.protocol.local.runner_client import RunnerClient\n"
        f"level = RunnerClient(Path('{NODE}/run/runner/runner.sock')).hello().sandbox\n"
        "print(list(level.lacks(SANDBOX_LEVELS['full'])))"
    )

    assert python(runner, code).strip() == "[]"


def test_the_gui_sees_no_key_and_no_runner(gui: Container, warden: Container) -> None:
    """Staff's browser speaks to it: what it does not hold, nobody gets through it."""
    code = (
        "import os\n"
        f"found = [os.path.join(folder, name) for folder, _, names in os.walk('{NODE}') for name in names]\n"
        "print([path for path in found if path.endswith('.pem') and b'PRIVATE' in open(path, 'rb').read()\n"
        "       and '/gui/' not in path or 'runner' in path or '/spool/' in path])"
    )

    assert python(gui, code).strip() == "[]"


def test_health_is_what_the_part_itself_says(runner: Container, warden: Container, gui: Container) -> None:
    """A process that is there and does not answer is not healthy."""
    before = [is_healthy(container) for container in (runner, warden, gui)]
    found = warden.top(ps_args="-eo pid,args")["Processes"]
    process = psutil.Process(next(int(pid) for pid, args in found if args.startswith("python")))
    process.suspend()
    stopped = is_healthy(warden)
    process.resume()

    assert (before, stopped) == ([True, True, True], False)


def test_history_is_there_while_the_warden_is_not(site: Site, gui: Container, warden: Container) -> None:
    """The GUI's store is read-only, and a warden that left cleanly leaves nothing that would have to be written."""
    code = (
        "from pathlib import Path\n"
        "from appliance.warden.history import History\n"
        f"print(len(History(Path('{NODE}')).plans()))"
    )
    warden.stop(timeout=30)
    plans = python(gui, code).strip()
    warden.start()
    wait_until((site.home / "run/ready").exists, 120)

    assert int(plans) >= 1

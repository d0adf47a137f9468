"""A disk that is full or read-only: said with a code and a remedy, nothing lost, and work goes on by itself."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from appliance.embedded.consortium import NETWORK
from appliance.protocol.errors import REMEDIES, Code, FedWardError
from appliance.transport.rest import RestClient, UnreachableError
from researcher_kit import Experiment, Federation
from researcher_kit.monitor import Event, NodeReceived, RoundStarted
from tests.hospitals import Hospitals, training_args
from tests.integration.faults.damage import started_as
from tests.integration.faults.disks import Disk, State
from tests.integration.faults.records import require_done_once, require_whole
from tests.integration.network.hosts import File, wait_until

pytestmark = pytest.mark.timeout(400)  # parts are started again, which is long on a busy machine

RESEARCHER = Path(__file__).with_name("full_researcher.py")
SCRIPT_S = 60
BOTH = [State.FULL, State.READ_ONLY]


@pytest.fixture(scope="module")
def disk(hospitals: Hospitals) -> Iterator[Disk]:
    """North's: all of its folder, its log included."""
    with Disk(hospitals.home("north")) as disk, started_as(hospitals, "north", disk.command):
        yield disk


@pytest.fixture(scope="module")
def network_disk(hospitals: Hospitals) -> Iterator[Disk]:
    """The network host's."""
    with Disk(hospitals.home(NETWORK)) as disk, started_as(hospitals, NETWORK, disk.command):
        yield disk


@pytest.fixture(autouse=True)
def room_again(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test comes to, the next one begins with disks that take everything."""
    yield
    for name in {"disk", "network_disk"} & {*request.fixturenames}:
        request.getfixturevalue(name).free()


def _experiment(hospitals: Hospitals, federation: Federation, pause_s: float = 0.0) -> Experiment:
    """One round whose parameters and updates travel by the network host."""
    arguments = {"width": 2000, "pause_s": pause_s}
    return hospitals.experiment(federation, model_args=arguments, training_args=training_args(3), round_limit=1)


def _at(experiment: Experiment, kind: type[Event], disk: Disk, state: State, place: str = "") -> None:
    """At the first event of a kind the disk becomes as said; if it is a node's, at the one from north."""
    met: list[Event] = []

    def become(event: Event) -> None:
        if isinstance(event, kind) and not met and getattr(event, "node_id", "north") == "north":
            met.append(event)
            disk.become(state, place)

    experiment.on_event(become)


@pytest.mark.parametrize("state", BOTH)
def test_a_round_waits_for_room_at_a_node(
    state: State, disk: Disk, hospitals: Hospitals, federation: Federation
) -> None:
    """An administrator who frees the disk has done all that there is to do, even if no log could tell of it."""
    experiment = _experiment(hospitals, federation, pause_s=0.3)
    _at(experiment, NodeReceived, disk, state)  # in mid-training; before it, the request would not be accepted
    with disk.freed_after_a_refusal():
        experiment.run()

    assert [record.failures for record in experiment.history] == [()]
    require_done_once(hospitals, experiment)


@pytest.mark.parametrize("state", BOTH)
@pytest.mark.parametrize("place", ["spool", "scratch"])
def test_a_node_says_in_its_log_why_a_round_waits(
    place: str, state: State, disk: Disk, hospitals: Hospitals, federation: Federation
) -> None:
    """The researcher is told nothing, for the round is not lost; whoever looks after the node is."""
    log = hospitals.home("north") / "log/warden.log"
    start = log.stat().st_size
    experiment = _experiment(hospitals, federation)
    disk.become(state, place)
    with disk.freed_after_a_refusal():
        experiment.run()

    (line,) = [line for line in log.read_bytes()[start:].decode().splitlines() if "a round is put off" in line]
    assert "DISK_FULL" in line
    assert os.strerror(state.value) in line
    require_done_once(hospitals, experiment)


@pytest.mark.parametrize("state", BOTH)
def test_a_request_that_a_node_cannot_record_is_not_acknowledged(
    state: State, disk: Disk, hospitals: Hospitals, federation: Federation
) -> None:
    """What was said to be received must be on the disk; what is not comes again until it is."""
    experiment = _experiment(hospitals, federation)
    received: list[bool] = []

    def note(event: Event) -> None:
        if isinstance(event, NodeReceived) and event.node_id == "north":
            received.append(disk.is_free)

    experiment.on_event(note)
    _at(experiment, RoundStarted, disk, state, "store")
    with disk.freed_after_a_refusal():
        experiment.run()

    assert all(received)
    require_done_once(hospitals, experiment)


@pytest.mark.parametrize("state", BOTH)
def test_staff_are_told_what_to_do_about_a_disk(state: State, disk: Disk, hospitals: Hospitals) -> None:
    """A decision that is not recorded was not taken, and whoever took it must know."""
    disk.become(state, "store")
    with pytest.raises(FedWardError) as refusal:
        hospitals.staff("north").call("dataset.suspend", dataset="cells")
    disk.free()

    assert (refusal.value.code, refusal.value.remedy) == (Code.DISK_FULL, REMEDIES[Code.DISK_FULL])
    assert hospitals.history("north").dataset("cells")["state"] == "active"
    require_whole(hospitals)


@pytest.mark.parametrize("state", BOTH)
def test_a_warden_that_starts_on_such_a_disk_says_so_and_is_started_again(
    state: State, disk: Disk, hospitals: Hospitals, federation: Federation
) -> None:
    """A power cut and a full disk come together more often than not; the store is not said to be damaged."""
    log = hospitals.home("north") / "log/warden.log"
    start = log.stat().st_size
    disk.become(state, "store")
    hospitals.consortium.kill_process("north", "appliance.warden")
    wait_until(lambda: "(DISK_FULL)" in log.read_bytes()[start:].decode(), 30)
    disk.free()
    hospitals.consortium.wait_until_up("north")
    experiment = _experiment(hospitals, federation)
    experiment.run()

    assert "STORE_CORRUPT" not in log.read_bytes()[start:].decode()
    require_done_once(hospitals, experiment)


@pytest.mark.parametrize("state", BOTH)
def test_a_round_waits_for_room_at_the_network_host(
    state: State, network_disk: Disk, hospitals: Hospitals, federation: Federation
) -> None:
    """It stores for everybody: a full disk there must cost nobody a round."""
    experiment = _experiment(hospitals, federation)
    _at(experiment, RoundStarted, network_disk, state)
    with network_disk.freed_after_a_refusal():
        experiment.run()

    assert [record.failures for record in experiment.history] == [()]
    require_done_once(hospitals, experiment)


@pytest.mark.parametrize("state", BOTH)
def test_a_member_is_told_that_the_network_hosts_disk_is_full(
    state: State, network_disk: Disk, hospitals: Hospitals, federation: Federation, tmp_path: Path
) -> None:
    """Whoever waits in vain learns whose disk it is."""
    home = federation.home
    line = RestClient(home.settings.endpoints[0].rest_url, home.tls, federation._signer, give_up_s=1.0)
    network_disk.become(state)
    with pytest.raises(UnreachableError, match=r"507: The network host's disk takes no more"):
        File(tmp_path, 100_000).upload(line)
    line.close()


@pytest.mark.parametrize("state", BOTH)
@pytest.mark.parametrize(("place", "event"), [("store", "ParametersUploaded"), ("experiment", "NodeReceived")])
def test_a_researcher_whose_disk_is_full_goes_on_when_there_is_room(
    place: str, event: str, state: State, hospitals: Hospitals, tmp_path: Path
) -> None:
    """The error says whose disk it is, and run() goes on where it stopped: no hospital trains for nothing."""
    folder = hospitals.home("alice") / tmp_path.name
    command = [sys.executable, str(RESEARCHER), str(hospitals.home("alice")), str(folder), event]
    with Disk(hospitals.home("alice")) as disk, _Talk(disk.command(command)) as talk:
        talk.wait_for("met")
        disk.become(state, folder.name if place == "experiment" else place)
        talk.go_on()
        refusal = talk.wait_for("DISK_FULL")
        disk.free()
        talk.go_on()
        talk.wait_for("done")
        assert talk.ended() == 0

    assert REMEDIES[Code.DISK_FULL] in refusal
    assert "(north)" not in refusal  # no node failed
    with hospitals.federation() as federation:
        require_done_once(hospitals, Experiment.load_breakpoint(folder, federation=federation), rounds=2)
    assert not [path for path in folder.rglob("*") if ".part" in path.name or path.name.startswith(".breakpoint")]


class _Talk:
    """A script, what it says, and our word to it; on leaving, the script is ended."""

    def __init__(self, command: list[str]) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONFAULTHANDLER": "1"}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self._process = subprocess.Popen(command, env=environment, **pipes)
        self._said: list[str] = []
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._reader.join()  # before the pipe is closed, which would wait for it
        with self._process:
            pass

    def wait_for(self, text: str) -> str:
        """The next line that holds ``text``."""
        while True:
            try:
                line = self._lines.get(timeout=SCRIPT_S)
            except queue.Empty:
                pytest.fail(f"nothing for {SCRIPT_S} s, waiting for {text} after {self._said}\n{self._threads()}")
            self._said.append(line)
            assert line, f"it ended without saying {text}: {self._said}"
            if text in line:
                return line

    def go_on(self) -> None:
        """Give the word."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def ended(self) -> int:
        """Its exit status, once it has ended by itself."""
        return self._process.wait(SCRIPT_S)

    def _threads(self) -> str:
        """Where its threads are; it ends by saying so."""
        self._process.send_signal(signal.SIGABRT)
        self._reader.join()
        return "".join(self._lines.get() for _ in range(self._lines.qsize()))

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

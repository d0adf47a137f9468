"""A clock that is an hour off: told where it can be mended, nothing done twice; set right, the round goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from appliance.protocol.envelope import Signer
from appliance.protocol.errors import REMEDIES, Code
from appliance.transport.rest import RefusedError, RestClient
from researcher_kit import Federation
from researcher_kit.errors import NoDatasetError
from researcher_kit.monitor import Event, NodeReceived
from tests.hospitals import NODES, Hospitals, training_args
from tests.integration.faults.clocks import Clock, find_libfaketime
from tests.integration.faults.damage import started_as
from tests.integration.faults.records import require_done_once
from tests.integration.network.hosts import wait_until

pytestmark = pytest.mark.timeout(400)  # parts are started again, which is long on a busy machine

HOUR = 3600
SMALL, WIDE = 8, 2000  # the update travels in its reply, or by the network host
WAYS = pytest.mark.parametrize("off_s", [HOUR, -HOUR], ids=["ahead", "behind"])


@pytest.fixture(scope="module")
def north_clock(hospitals: Hospitals, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clock]:
    """North's, which can be wrong."""
    folder = tmp_path_factory.mktemp("clock")
    clock = Clock(folder, find_libfaketime(folder))
    with started_as(hospitals, "north", **clock.environment, FEDWARD_NODE__HEARTBEAT_S="1"):
        yield clock


@pytest.fixture
def clock(north_clock: Clock) -> Iterator[Clock]:
    """North's, right at the beginning and at the end."""
    yield north_clock
    north_clock.set(0)


@WAYS
def test_a_node_whose_clock_is_wrong_is_named_with_its_clock(
    off_s: int, clock: Clock, hospitals: Hospitals, federation: Federation
) -> None:
    """The researcher cannot mend it, but can tell the hospital what to look at."""
    since = hospitals.since("north")
    clock.set(off_s)
    wait_until(lambda: federation.nodes().answers["north"].ahead_s is not None)
    experiment = hospitals.experiment(federation, nodes=NODES, round_limit=1)
    way = "ahead of" if off_s > 0 else "behind"
    with pytest.raises(NoDatasetError, match=rf"no answer from north \(its clock is 60 min {way} ours\)"):
        experiment.run()
    code = Code.CLOCK_WRONG if off_s < 0 else Code.MESSAGE_EXPIRED
    since.wait_for("message.refused", code=code)
    assert f"its clock is 60 min {way} ours" in repr(federation.nodes())
    clock.set(0)
    wait_until(lambda: federation.nodes().answers["north"].is_alive(time.time()))
    experiment.run()

    require_done_once(hospitals, experiment)


@WAYS
@pytest.mark.parametrize("width", [SMALL, WIDE])
def test_a_round_outlives_a_clock_that_jumps_and_is_set_right(
    width: int, off_s: int, clock: Clock, hospitals: Hospitals, federation: Federation
) -> None:
    """As when NTP comes up late: what the wrong hour wrote neither counts twice nor waits for that hour to come."""
    experiment = hospitals.experiment(
        federation, model_args={"width": width, "pause_s": 0.3}, training_args=training_args(3), round_limit=1
    )
    log = hospitals.home("north") / "log/warden.log"
    start = log.stat().st_size
    jumped: list[Event] = []

    def jump(event: Event) -> None:
        if isinstance(event, NodeReceived) and event.node_id == "north" and not jumped:
            jumped.append(event)
            clock.set(off_s)

    def is_in_trouble() -> bool:
        refused = federation.nodes().answers["north"].ahead_s is not None
        return bool(jumped) and (refused if width == SMALL else "CLOCK_WRONG" in _since(log, start))

    experiment.on_event(jump)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(experiment.run)
        wait_until(is_in_trouble, 30)
        clock.set(0)
        assert running.result(timeout=60) == 1

    require_done_once(hospitals, experiment)


@WAYS
def test_a_researcher_whose_clock_is_wrong_reads_it_beside_the_node(
    off_s: int, clock: Clock, hospitals: Hospitals
) -> None:
    """If everybody's clock is wrong, it is one's own."""
    since = hospitals.since("north")
    way = "behind" if off_s > 0 else "ahead of"
    with Federation(hospitals.home("alice"), clock=lambda: time.time() + off_s) as wrong:
        wait_until(lambda: wrong.nodes().answers["north"].ahead_s is not None)
        with pytest.raises(NoDatasetError, match=rf"no answer from north \(its clock is 60 min {way} ours\)"):
            hospitals.experiment(wrong, nodes=["north"], round_limit=1).run()
    since.wait_for("message.refused", code=Code.CLOCK_WRONG if off_s > 0 else Code.MESSAGE_EXPIRED)
    with hospitals.federation() as right:
        experiment = hospitals.experiment(right, round_limit=1)
        experiment.run()

        require_done_once(hospitals, experiment)


@WAYS
def test_the_network_host_says_that_a_callers_clock_is_wrong(off_s: int, federation: Federation) -> None:
    """A token is written for its call: one that is not of now is a clock's fault, and no broken line."""
    home = federation.home
    signer = Signer(home.member_id, home.keys(), lambda: time.time() + off_s)
    line = RestClient(home.settings.endpoints[0].rest_url, home.tls, signer)
    with pytest.raises(RefusedError) as refusal:
        line.register()
    line.close()

    assert (refusal.value.code, refusal.value.remedy) == (Code.CLOCK_WRONG, REMEDIES[Code.CLOCK_WRONG])


def _since(log: Path, start: int) -> str:
    return log.read_bytes()[start:].decode()

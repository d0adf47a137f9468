"""A broker that loses, delays, repeats and reorders messages: rounds complete, and nothing is done twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from appliance.embedded.consortium import NETWORK
from appliance.protocol.home import MemberHome
from researcher_kit import Experiment
from tests.hospitals import Hospitals, bits
from tests.integration.faults.postman import Postman
from tests.integration.faults.records import require_done_once

pytestmark = pytest.mark.timeout(400)  # parts are started again, which is long on a busy machine

ROUNDS = 4


@contextmanager
def _carried_by_a_postman(hospitals: Hospitals, member: str) -> Iterator[Postman]:
    """The member's only way to the broker, from its next start on."""
    home, endpoint = MemberHome(hospitals.home(member)), hospitals.consortium.endpoint
    postman = Postman(endpoint, broker=MemberHome(hospitals.home(NETWORK)).tls, member=home.tls)
    settings = hospitals.home(member) / "member.toml"
    before = settings.read_text()
    settings.write_text(before.replace(str(endpoint.broker_port), str(postman.port)))
    try:
        yield postman
    finally:
        settings.write_text(before)
        postman.close()


@pytest.fixture(scope="module")
def calm(hospitals: Hospitals) -> Experiment:
    """What comes of the same rounds when the post is in order."""
    with hospitals.federation() as federation:
        experiment = hospitals.experiment(federation, round_limit=ROUNDS)
        experiment.run()
    return experiment


@pytest.fixture(scope="module")
def postmen(hospitals: Hospitals, calm: Experiment) -> Iterator[tuple[Postman, Postman]]:
    """One between north and the broker, one between alice and the broker."""
    with ExitStack() as stack:
        stack.callback(hospitals.consortium.restart, "north")  # the last of all, when its way is the usual one again
        carriers = [stack.enter_context(_carried_by_a_postman(hospitals, member)) for member in ("north", "alice")]
        hospitals.consortium.restart("north")
        yield carriers[0], carriers[1]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_rounds_come_to_the_same_model_to_the_last_bit(
    seed: int, postmen: tuple[Postman, Postman], hospitals: Hospitals, calm: Experiment
) -> None:
    """Had one reply been lost, counted twice, or taken for another round's, a bit would differ."""
    for place, postman in enumerate(postmen):
        postman.begin(10 * seed + place)
    with hospitals.federation() as federation:
        experiment = hospitals.experiment(federation, nodes=["north", "south"], round_limit=ROUNDS)
        experiment.run()

    assert bits(experiment) == bits(calm)
    require_done_once(hospitals, experiment, ROUNDS)
    did = postmen[0].did + postmen[1].did
    assert did["lost"]
    assert did["repeated"]
    assert did["reordered"]

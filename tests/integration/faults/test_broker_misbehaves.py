"""A broker that loses, delays, repeats and reorders messages: rounds complete, and nothing is done twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from appliance.embedded.consortium import NETWORK
from appliance.protocol.home import MemberHome
from researcher_kit import Experiment
from tests.hospitals import Hospitals
from tests.integration.faults.damage import require_done_once
from tests.integration.faults.postman import Postman

ROUNDS = 4


@contextmanager
def _carried_by_a_postman(hospitals: Hospitals, member: str, seed: int) -> Iterator[Postman]:
    """The member's only way to the broker."""
    home, endpoint = MemberHome(hospitals.home(member)), hospitals.consortium.endpoint
    postman = Postman(endpoint, broker=MemberHome(hospitals.home(NETWORK)).tls, member=home.tls, seed=seed)
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


@pytest.fixture(params=[1, 2, 3], ids="seed {}".format)
def postmen(request: pytest.FixtureRequest, hospitals: Hospitals, calm: Experiment) -> Iterator[list[Postman]]:
    """One between north and the broker, one between alice and the broker."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(_carried_by_a_postman(hospitals, member, 10 * request.param + place))
            for place, member in enumerate(("north", "alice"))
        ]


@pytest.fixture
def north(hospitals: Hospitals, postmen: list[Postman]) -> Iterator[None]:
    """North's warden, started where the postman carries its messages."""
    hospitals.consortium.restart("north")
    yield
    hospitals.consortium.restart("north")


def test_rounds_come_to_the_same_model_to_the_last_bit(
    postmen: list[Postman], north: None, hospitals: Hospitals, calm: Experiment
) -> None:
    """Had one reply been lost, counted twice, or taken for another round's, a bit would differ."""
    with hospitals.federation() as federation:
        experiment = hospitals.experiment(federation, nodes=["north", "south"], round_limit=ROUNDS)
        experiment.run()
        ours, theirs = experiment.parameters(), calm.parameters()

    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)
    require_done_once(hospitals, experiment, ROUNDS)
    did = sum((postman.did for postman in postmen), start=postmen[0].did.__class__())
    assert did["lost"]
    assert did["repeated"]
    assert did["reordered"]

"""A runner that hostile plans attack, in a folder with things that are none of theirs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from appliance.protocol.home import MemberHome
from researcher_kit import AllNodes
from tests.adversarial.hostile import Ward
from tests.adversarial.post import Person
from tests.hospitals import Hospitals, federation, hospitals
from tests.runners import Runner, running, write_table

__all__ = ["federation", "hospitals", "runner", "ward"]


@pytest.fixture(scope="session")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """One runner for all attacks: that it stands them all is part of the claim."""
    folder = tmp_path_factory.mktemp("hospital")
    write_table(folder / "data" / "south.csv")
    (folder / "keys").mkdir()
    (folder / "keys" / "identity.pem").write_text("the key")
    with running(folder) as started:
        yield started


@pytest.fixture(scope="module")
def ward(hospitals: Hospitals) -> Iterator[Ward]:
    """Alice at north, with a line of her own; afterwards both hospitals serve an honest experiment."""
    alice = Person(MemberHome(hospitals.home("alice")), MemberHome(hospitals.home("north")).register())
    yield Ward(hospitals, alice)
    alice.close()
    with hospitals.federation() as connection:
        experiment = hospitals.experiment(connection, round_limit=1, strategy=AllNodes(deadline_s=60))
        experiment.run()
    assert {reply.node_id for reply in experiment.history[0].replies} == {"north", "south"}

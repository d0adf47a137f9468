"""A register that the operator brings to the network host, and who comes to know it."""

from __future__ import annotations

import json
from pathlib import Path

from appliance.embedded.consortium import EmbeddedConsortium
from appliance.enrolment.register_book import RegisterBook
from appliance.protocol.files import replace_file
from appliance.protocol.home import MemberHome
from appliance.protocol.keys import MemberKeys
from appliance.protocol.register import MemberState
from appliance.warden.history import History
from researcher_kit.federation import Federation
from tests.integration.network.hosts import wait_until


def test_a_revocation_reaches_hospitals_and_researchers_by_itself(tmp_path: Path) -> None:
    """The operator touches the hub alone; everybody else has only to be on the line, or to come back to it."""
    with EmbeddedConsortium(tmp_path, nodes=["north"], researchers=["alice", "mallory"]) as consortium:
        keys = MemberKeys.load(consortium.home("operator") / "keys")
        book = RegisterBook(tmp_path / "authority/register.jws", keys, consortium="Embedded consortium")
        book.revoke("mallory")
        replace_file(consortium.home("network") / "register.jws", book.issue())
        consortium.restart("broker")  # whoever connects asks at once, and else within half a minute

        wait_until(lambda: MemberHome(consortium.home("north")).register().version == 2, 60)
        wait_until(lambda: _is_noted(consortium.home("north")))
        with Federation(consortium.home("alice")) as federation:
            wait_until(lambda: federation.register.version == 2)
            assert federation.register.find("mallory").state is MemberState.REVOKED


def _is_noted(home: Path) -> bool:
    return any(json.loads(line.text)["event"] == "register.changed" for line in History(home).audit_lines())

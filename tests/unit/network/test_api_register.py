"""GET /api/v1/register, and who is let in at all."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from appliance.network.audit import selectors
from appliance.network.members.models import RegisterVersion
from appliance.network.members.services import register_import
from appliance.protocol.envelope import Signer
from appliance.protocol.errors import ConfigurationError
from appliance.protocol.keys import MemberKeys

ADDRESS = "/api/v1/register"


def last_line() -> dict[str, Any]:
    """The newest line of the audit log."""
    return json.loads(list(selectors.line_stream())[-1].text)


def test_a_member_gets_the_register_in_the_operators_signature(north: Any, world: Any) -> None:
    """Members check it themselves: the host's word is worth nothing."""
    answer = north.get(ADDRESS)

    assert answer.content.decode() == RegisterVersion.objects.get().text
    assert answer["Content-Type"] == "application/jose"


def test_a_member_that_has_it_is_not_sent_it_again(north: Any, world: Any) -> None:
    """All ask every half minute; nothing travels and nothing is logged then."""
    tag, lines = north.get(ADDRESS)["ETag"], len(list(selectors.line_stream()))
    answer = north.get(ADDRESS, HTTP_IF_NONE_MATCH=tag)

    assert (answer.status_code, answer.content, len(list(selectors.line_stream()))) == (304, b"", lines)


def test_nobody_enters_without_a_token(host: Any, world: Any) -> None:
    """The certificate opens the line; the token says who speaks."""
    answer = world.client().get(ADDRESS)

    assert answer.status_code == 401
    assert answer["WWW-Authenticate"] == "Bearer"


REFUSED = {
    "not a token": lambda _: "nonsense",
    "for another service": lambda world: world.token("north", audience="gui"),
    "expired": lambda world: world.token("north", clock=lambda: time.time() - 1000),
    "of a stranger": lambda _: Signer("eve", MemberKeys.generate()).token()[0],
    "by another key": lambda _: Signer("north", MemberKeys.generate()).token()[0],
    "very long": lambda _: "a" * 5000,
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_token_is_refused_when_it_is(case: str, host: Any, world: Any) -> None:
    """A token is the only thing that says who calls."""
    answer = world.client(token=REFUSED[case](world)).get(ADDRESS)

    assert answer.status_code == 401


@pytest.mark.parametrize("state", ["suspended", "revoked"])
def test_a_member_that_lost_its_standing_is_refused_at_once(state: str, host: Any, world: Any) -> None:
    """Revocation must not wait for a token or a cache to expire."""
    token = world.token("north")
    assert world.client(token=token).get(ADDRESS).status_code == 200

    register_import(world.register(version=2, north=state))

    assert world.client(token=token).get(ADDRESS).status_code == 401


def test_a_refusal_is_audited_without_the_token(host: Any, world: Any) -> None:
    """Whom it claimed to be is worth knowing; the token itself would let a reader of the log in."""
    register_import(world.register(version=2, mallory="revoked"))
    token = world.token("mallory")

    world.client(token=token).get(ADDRESS)

    details = last_line()["details"]
    assert last_line()["actor"] == "anonymous"
    assert (details["claimed"], details["status"], details["code"]) == ("mallory", 401, "SENDER_UNKNOWN")
    assert token not in json.dumps(last_line())


def test_an_older_register_is_refused(host: Any, world: Any) -> None:
    """A thief could bring back a member that was revoked."""
    register_import(world.register(version=3))

    with pytest.raises(ConfigurationError, match="version 2"):
        register_import(world.register(version=2))


def test_another_text_of_the_same_version_is_refused(host: Any, world: Any) -> None:
    """Two registers under one number mean that somebody signs what was not published."""
    with pytest.raises(ConfigurationError, match="Another"):
        register_import(world.register(version=1, south="revoked"))


def test_a_register_by_another_key_is_refused(host: Any, world: Any, configure: Any) -> None:
    """Only the operator's offline key makes members."""
    configure(operator=MemberKeys.generate().public.identity)

    with pytest.raises(ConfigurationError, match="not signed"):
        register_import(world.register(version=2))


def test_the_same_register_again_changes_nothing(host: Any, world: Any) -> None:
    """A start imports what lies in the folder, each time."""
    register_import(RegisterVersion.objects.get().text)

    assert RegisterVersion.objects.count() == 1


def test_without_a_register_nobody_is_known(host: Any, world: Any) -> None:
    """An empty register must not mean that everybody may enter."""
    RegisterVersion.objects.all().delete()

    answer = world.client("north").get(ADDRESS)

    assert answer.status_code == 503
    assert "register import" in answer.json()["remedy"]

"""Becoming a member."""

from __future__ import annotations

import stat

import pytest

from appliance.enrolment.errors import EnrolmentError
from appliance.enrolment.joining import JoinAnswer, JoinRequest, complete
from appliance.protocol.home import MemberHome
from appliance.protocol.keys import MemberKeys, b64url


def _tree(home) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in home.rglob("*") if path.is_file()}


def test_a_member_that_joined_has_a_whole_folder(operator, ask, tmp_path) -> None:
    """Every component starts from this folder alone."""
    answer = operator.admit(ask(tmp_path / "north"))
    complete(tmp_path / "north", answer)

    home = MemberHome(tmp_path / "north")
    assert home.settings.endpoints == answer.endpoints
    assert home.register().require("north").keys == home.keys().public


def test_preparing_twice_makes_no_new_keys(ask, tmp_path) -> None:
    """The playbook runs again after a failure; a member with new keys would be a stranger."""
    first, second = ask(tmp_path / "north"), ask(tmp_path / "north")

    assert (first.identity, first.sealing) == (second.identity, second.sealing)


def test_private_keys_are_for_their_owner_only(ask, tmp_path) -> None:
    """Design promise: secrets are files with mode 0600."""
    ask(tmp_path / "north")

    secrets = [*(tmp_path / "north/keys").iterdir(), tmp_path / "north/tls/key.pem"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}


def test_only_public_parts_travel(operator, ask, tmp_path) -> None:
    """Request and answer may be sent by plain mail."""
    request = ask(tmp_path / "north")
    answer = operator.admit(request)

    travelling = request.model_dump_json() + answer.model_dump_json()
    assert "PRIVATE KEY" not in travelling
    seed = MemberKeys.load(tmp_path / "north/keys")._identity.private_bytes_raw()
    assert b64url(seed) not in travelling


def test_request_and_answer_survive_their_journey(operator, ask, tmp_path) -> None:
    """They travel as files."""
    request = JoinRequest.read(ask(tmp_path / "north").model_dump_json())
    answer = JoinAnswer.read(operator.admit(request).model_dump_json(by_alias=True))

    complete(tmp_path / "north", answer)
    assert MemberHome(tmp_path / "north").member_id == "north"


def test_a_half_made_pair_of_keys_is_made_anew(ask, tmp_path) -> None:
    """A power cut between the two keys must not leave a folder that can never join."""
    half = tmp_path / "north/keys.new"
    half.mkdir(parents=True)
    (half / "identity.pem").write_text("")

    assert ask(tmp_path / "north").member().id == "north"


def test_a_half_finished_joining_completes(operator, ask, tmp_path) -> None:
    """Without member.toml the folder is not whole, and the same answer finishes it."""
    answer = operator.admit(ask(tmp_path / "north"))
    complete(tmp_path / "north", answer)
    whole = _tree(tmp_path / "north")
    (tmp_path / "north/member.toml").unlink()
    (tmp_path / "north/tls/cert.pem").unlink()

    complete(tmp_path / "north", answer)
    assert _tree(tmp_path / "north") == whole


def test_a_folder_belongs_to_one_member(ask, tmp_path) -> None:
    """Two members with one key would be one member with two names."""
    ask(tmp_path / "north")

    with pytest.raises(EnrolmentError, match="belongs to 'north', not to 'south'"):
        ask(tmp_path / "north", "south")


def test_nobody_joins_with_anothers_key(operator, ask, tmp_path) -> None:
    """Mallory knows south's public key; it is not hers to enrol."""
    south = ask(tmp_path / "south", "south")
    stolen = ask(tmp_path / "mallory", "mallory").model_copy(update={"identity": south.identity})

    with pytest.raises(EnrolmentError, match="not signed by the key"):
        operator.admit(stolen)


def test_a_request_changed_on_its_way_is_refused(operator, ask, tmp_path) -> None:
    """Eve carries the file; she must not put her own sealing key into it."""
    sealing = MemberKeys.generate().public.sealing
    changed = ask(tmp_path / "north").model_copy(update={"sealing": sealing})

    with pytest.raises(EnrolmentError, match="changed after it was signed"):
        operator.admit(changed)


def test_admitting_twice_renews_the_certificate_only(operator, ask, tmp_path) -> None:
    """Renewal is the same step again; the register stays as it was."""
    request = ask(tmp_path / "north")
    first, second = operator.admit(request), operator.admit(request)

    assert first.register_text == second.register_text
    assert first.certificate != second.certificate


def test_an_answer_for_another_member_is_refused(operator, ask, tmp_path) -> None:
    """Two files mixed up at the operator must not end in a folder that half works."""
    ask(tmp_path / "north")
    answer = operator.admit(ask(tmp_path / "south", "south"))

    with pytest.raises(EnrolmentError, match="belongs to 'north'"):
        complete(tmp_path / "north", answer)


def test_an_answer_by_another_operator_is_refused_once_one_is_pinned(operator, ask, tmp_path) -> None:
    """Whoever could replace the operator could replace every member."""
    request = ask(tmp_path / "north")
    complete(tmp_path / "north", operator.admit(request))
    mallory = operator.admit(request).model_copy(update={"operator": MemberKeys.generate().public.identity})

    with pytest.raises(EnrolmentError, match="another operator's key"):
        complete(tmp_path / "north", mallory)


def test_an_older_register_never_returns(operator, ask, tmp_path) -> None:
    """It could bring back a revoked member; the member fetched a newer one by itself meanwhile."""
    old = operator.admit(ask(tmp_path / "north"))
    operator.admit(ask(tmp_path / "south", "south"))
    complete(tmp_path / "north", operator.admit(ask(tmp_path / "north")))

    complete(tmp_path / "north", old)
    assert MemberHome(tmp_path / "north").register().version == 2


def test_a_certificate_for_another_key_is_refused(operator, ask, tmp_path) -> None:
    """A line that opens for a key which is elsewhere would never open here."""
    answer = operator.admit(ask(tmp_path / "north"))
    (tmp_path / "north/tls/key.pem").unlink()
    ask(tmp_path / "north")

    with pytest.raises(EnrolmentError, match="not for 'north' with the key on this machine"):
        complete(tmp_path / "north", answer)


@pytest.mark.parametrize("text", ["", "{}", '{"format": "fedward-join-request/2"}', "[" * 100_000, "x" * (1 << 21)])
def test_a_file_that_is_no_request_is_refused_in_a_sentence(text) -> None:
    """The operator opens files that others wrote."""
    with pytest.raises(EnrolmentError, match="The join request"):
        JoinRequest.read(text)


@pytest.mark.parametrize("member_id", ["North", "../north", "north hospital", ""])
def test_an_id_that_is_no_member_id_is_refused(ask, tmp_path, member_id) -> None:
    """The id becomes a topic, a user name and a folder."""
    with pytest.raises(EnrolmentError, match="id"):
        ask(tmp_path / "north", member_id)

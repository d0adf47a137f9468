"""The register of peers: one bad entry never harms another."""

from __future__ import annotations

import json
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.vpn.addresses import AddressPlan
from appliance.vpn.config import Peer
from appliance.vpn.errors import NetworkRefusedError, PeerRefusedError, PeersUnreadableError
from appliance.vpn.keys import PresharedKey, PrivateKey
from appliance.vpn.peers import PeerBook, PeerState
from tests.unit.vpn.conftest import HUB_KEY, NORTH, SOUTH

EVE = PrivateKey(b"e" * 32)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)
_fields = st.fixed_dictionaries(
    {},
    optional={
        "addresses": _json
        | st.lists(st.sampled_from(["100.80.0.2", "100.80.0.9", "fd42:6665:6477::2", "::1"]), max_size=3),
        "preshared_key": _json | st.sampled_from(["north.key", "../private.key", "eve.key"]),
        "public_key": _json | st.sampled_from([NORTH.public, EVE.public, HUB_KEY.public, "A" * 43 + "="]),
        "state": _json | st.sampled_from(["active", "revoked", "Active"]),
    },
)


@pytest.fixture
def book(tmp_path: Path, plan: AddressPlan) -> PeerBook:
    """North and south are members."""
    book = PeerBook(tmp_path, plan, HUB_KEY.public)
    book.admit("north", NORTH.public)
    book.admit("south", SOUTH.public)
    return book


def opened(folder: Path, plan: AddressPlan) -> PeerBook:
    """The register as the next command reads it."""
    return PeerBook(folder, plan, HUB_KEY.public)


def edited(folder: Path, plan: AddressPlan, members: dict[str, Any]) -> PeerBook:
    """The register after somebody changed some entries by hand; None removes one."""
    whole = json.loads((folder / "peers.json").read_text())
    whole["members"] = {k: v for k, v in (whole["members"] | members).items() if v is not None}
    (folder / "peers.json").write_text(json.dumps(whole))
    return opened(folder, plan)


def entry(folder: Path, member: str, **changes: object) -> dict[str, object]:
    """An entry with some fields changed."""
    return json.loads((folder / "peers.json").read_text())["members"][member] | changes


def last(book: PeerBook) -> dict[str, Peer]:
    """What was last on the interface."""
    return {peer.name: peer for peer in book.peers({})[0]}


def test_members_get_the_next_addresses(book: PeerBook, tmp_path: Path, plan: AddressPlan) -> None:
    """The hub is 1; and what was given is on the disk."""
    peers, findings = opened(tmp_path, plan).peers({})

    assert [(peer.name, str(peer.addresses[0]), str(peer.addresses[1])) for peer in peers] == [
        ("north", "100.80.0.2", "fd42:6665:6477::2"),
        ("south", "100.80.0.3", "fd42:6665:6477::3"),
    ]
    assert findings == ()
    assert (tmp_path / "peers.json").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "preshared/north.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "preshared").stat().st_mode & 0o777 == 0o700


def test_admitting_twice_changes_nothing(book: PeerBook, tmp_path: Path) -> None:
    """A playbook runs often; addresses and preshared key stay."""
    before = (tmp_path / "peers.json").read_text(), (tmp_path / "preshared/north.key").read_text()

    assert book.admit("north", NORTH.public)[1] is False
    assert ((tmp_path / "peers.json").read_text(), (tmp_path / "preshared/north.key").read_text()) == before


def test_a_revoked_members_addresses_stay_taken(book: PeerBook) -> None:
    """Nobody else ever speaks from them."""
    book.set_state("north", PeerState.REVOKED)
    addresses, _ = book.admit("eve", EVE.public)

    assert str(addresses[0]) == "100.80.0.4"
    assert [peer.name for peer in book.peers({})[0]] == ["eve", "south"]


def test_a_bad_entrys_addresses_stay_taken(book: PeerBook, tmp_path: Path, plan: AddressPlan) -> None:
    """It may be mended tomorrow."""
    book = edited(tmp_path, plan, {"north": {"addresses": ["100.80.0.2", 7]}, "x": [{"addresses": "100.80.0.4"}]})

    assert str(book.admit("eve", EVE.public)[0][0]) == "100.80.0.5"


def test_a_revoked_member_stays_revoked(book: PeerBook, tmp_path: Path) -> None:
    """Its key may be in a thief's hands; its preshared key goes at once."""
    assert book.set_state("north", PeerState.REVOKED)
    book.save()
    assert not book.set_state("north", PeerState.REVOKED)

    for change in (lambda: book.set_state("north", PeerState.ACTIVE), lambda: book.admit("north", EVE.public)):
        with pytest.raises(PeerRefusedError, match="'north' is revoked"):
            change()
    assert [path.name for path in (tmp_path / "preshared").iterdir()] == ["south.key"]


def test_a_suspended_member_comes_back_as_it_was(book: PeerBook) -> None:
    """Suspension is for the time of a question."""
    before = book.peers({})
    book.set_state("north", PeerState.SUSPENDED)
    assert [peer.name for peer in book.peers({})[0]] == ["south"]
    book.set_state("north", PeerState.ACTIVE)

    assert book.peers({}) == before


def test_a_new_key_is_taken_only_when_said(book: PeerBook, tmp_path: Path) -> None:
    """A machine set up anew keeps its addresses and gets a new preshared key; else somebody else asks in its name."""
    before = last(book)["north"]
    with pytest.raises(PeerRefusedError, match="'north' has another public key"):
        book.admit("north", EVE.public)
    book.admit("north", EVE.public, replace_key=True)
    after = last(book)["north"]

    assert after.addresses == before.addresses
    assert (after.public_key, after.preshared_key == before.preshared_key) == (EVE.public, False)
    assert sorted(path.name for path in (tmp_path / "preshared").iterdir()) == ["north-2.key", "south.key"]


@pytest.mark.parametrize(
    ("member", "key", "why"),
    [
        ("North", EVE.public, "no member id"),
        ("../x", EVE.public, "no member id"),
        ("e" * 64, EVE.public, "no member id"),
        ("eve\n", EVE.public, "no member id"),
        ("eve", "eve", "44 characters"),
        ("eve", "A" * 43 + "=", "small order"),
        ("eve", HUB_KEY.public, "the hub's own"),
        ("eve", NORTH.public, "in the register for 'north'"),
    ],
)
def test_who_cannot_be_admitted_is_told(book: PeerBook, tmp_path: Path, member: str, key: str, why: str) -> None:
    """And the register is as it was."""
    before = (tmp_path / "peers.json").read_text()

    with pytest.raises(PeerRefusedError, match=why):
        book.admit(member, key)
    assert (tmp_path / "peers.json").read_text() == before


def test_a_full_plan_is_told(tmp_path: Path) -> None:
    """With the number that it holds."""
    book = PeerBook(tmp_path, AddressPlan([ip_network("100.80.0.0/30")]), HUB_KEY.public)
    book.admit("north", NORTH.public)

    with pytest.raises(NetworkRefusedError, match="all 1 members' addresses are taken"):
        book.admit("south", SOUTH.public)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"addresses": []}, "one address in each network"),
        ({"addresses": ["100.80.0.1"]}, "the hub's"),
        ({"addresses": ["10.0.0.1"]}, "outside"),
        ({"addresses": "100.80.0.2"}, "addresses: expected a list of IP addresses"),
        ({"public_key": HUB_KEY.public}, "the hub's own"),
        ({"public_key": "AAAA"}, "public_key: A WireGuard key"),
        ({"preshared_key": "../private.key"}, "preshared_key: expected the name of a file"),
        ({"preshared_key": "gone.key"}, "gone.key: No such file"),
        ({"colour": "blue"}, "'colour' is no field of an entry"),
        ({"addresses": ["100.80.0.3"]}, "100.80.0.3 stands in another entry, too"),
        ({"public_key": SOUTH.public}, f"the public key {SOUTH.public} stands in another entry"),
    ],
)
def test_a_bad_entry_keeps_its_member_where_it_was(
    book: PeerBook, tmp_path: Path, plan: AddressPlan, changes: dict[str, object], what: str
) -> None:
    """And nobody else is touched: neither by what it says nor by what it claims."""
    before = last(book)
    book = edited(tmp_path, plan, {"north": entry(tmp_path, "north", **changes)})
    peers, findings = book.peers(before)

    assert list(peers) == list(before.values())
    assert what in str(next(finding for finding in findings if finding.member == "north"))
    assert all(finding.kept for finding in findings)


@pytest.mark.parametrize("state", ["revoked", "Revoked", "gone", None, ["active"]])
def test_a_bad_entry_that_does_not_say_active_is_closed(
    book: PeerBook, tmp_path: Path, plan: AddressPlan, state: object
) -> None:
    """Who touches the state of an entry means to end it; in doubt it ends."""
    before = last(book)
    peers, _ = edited(tmp_path, plan, {"north": entry(tmp_path, "north", state=state, colour=1)}).peers(before)

    assert [peer.name for peer in peers] == ["south"]


def test_a_revoked_members_key_opens_for_nobody(book: PeerBook, tmp_path: Path, plan: AddressPlan) -> None:
    """Neither under another id nor from what was last on the interface."""
    before = last(book)
    book.set_state("north", PeerState.REVOKED)
    book.save()
    (tmp_path / "preshared/eve.key").write_text((tmp_path / "preshared/south.key").read_text())
    (tmp_path / "preshared/eve.key").chmod(0o600)
    again = entry(tmp_path, "north", state="active", preshared_key="eve.key", addresses=["100.80.0.9"])
    book = edited(tmp_path, plan, {"eve": again})
    peers, findings = book.peers(before | {"eve": before["north"]})

    assert [peer.name for peer in peers] == ["south"]
    assert [(finding.member, finding.kept) for finding in findings] == [("eve", False)]


def test_a_new_entry_wins_over_a_kept_one(book: PeerBook, tmp_path: Path, plan: AddressPlan) -> None:
    """What the register says is stronger than what was there: an address never has two owners."""
    before = last(book)
    moved = entry(tmp_path, "south", addresses=["100.80.0.2"])
    book = edited(tmp_path, plan, {"north": {"state": "active"}, "south": moved})
    peers, findings = book.peers(before)

    assert [(peer.name, str(peer.addresses[0])) for peer in peers] == [("south", "100.80.0.2")]
    assert [finding.kept for finding in findings] == [False]


def test_an_id_that_stands_twice_is_a_bad_entry(book: PeerBook, tmp_path: Path, plan: AddressPlan) -> None:
    """JSON would let the last one win in silence. One of the two revoked: it is closed."""
    before = last(book)
    text = json.dumps(entry(tmp_path, "north"))
    for second, kept in ((text, ["north", "south"]), (text.replace("active", "revoked"), ["south"])):
        south = json.dumps(entry(tmp_path, "south"))
        whole = f'{{"format": 1, "members": {{"north": {text}, "south": {south}, "north": {second}}}}}'
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other/peers.json").write_text(whole)
        (tmp_path / "other/preshared").exists() or (tmp_path / "other/preshared").symlink_to(tmp_path / "preshared")

        peers, findings = opened(tmp_path / "other", plan).peers(before)
        assert [peer.name for peer in peers] == kept
        assert [finding.member for finding in findings] == ["north"]


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 100_000),
        *(b'{"format": 2, "members": {}}', b'{"members": {}}', b'{"format": 1}', b'{"format": 1, "members": []}'),
        b'{"format": 1, "members": {"x": ' + b"9" * 5000 + b"}}",
    ],
    ids=range(11),
)
def test_a_file_that_is_no_register_stops_everything(tmp_path: Path, plan: AddressPlan, content: bytes) -> None:
    """Half a register would cut off the other half."""
    (tmp_path / "peers.json").write_bytes(content)

    with pytest.raises(PeersUnreadableError, match=r"peers\.json"):
        opened(tmp_path, plan)


@given(st.binary(max_size=200) | _json.map(lambda value: json.dumps(value).encode()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_register_or_refused(tmp_path: Path, plan: AddressPlan, content: bytes) -> None:
    """Nothing else comes of them."""
    (tmp_path / "peers.json").write_bytes(content)
    try:
        assert opened(tmp_path, plan).peers({})[0] == ()
    except PeersUnreadableError as error:
        assert "peers.json" in error.message


@given(
    st.dictionaries(
        st.sampled_from(["north", "eve", "Eve", "a\x1b[31m"]) | st.text(max_size=70), _fields | _json, max_size=4
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_else_stands_there_south_keeps_its_tunnel(
    tmp_path: Path, plan: AddressPlan, others: dict[str, Any]
) -> None:
    """Entries of any form, with claims of any kind but south's own: south is served, no address has two owners."""
    if not (tmp_path / "preshared/south.key").exists():
        PresharedKey(b"p" * 32).save(tmp_path / "preshared/south.key")
        PresharedKey(b"q" * 32).save(tmp_path / "preshared/north.key")
    south = {"addresses": ["100.80.0.3"], "preshared_key": "south.key", "public_key": SOUTH.public, "state": "active"}
    text = json.dumps({"format": 1, "members": others | {"south": south}})
    (tmp_path / "peers.json").write_text(text)
    before = {"north": Peer("north", NORTH.public, PresharedKey(b"q" * 32), (ip_address("100.80.0.2"),))}
    peers, findings = opened(tmp_path, plan).peers(before)
    addresses = [address for peer in peers for address in peer.addresses]

    assert "south" in [peer.name for peer in peers]
    assert len(addresses) == len(set(addresses))
    assert len({peer.public_key for peer in peers}) == len(peers)
    assert set(map(str, addresses)).isdisjoint({"100.80.0.1", "fd42:6665:6477::1"})
    assert all(str(finding).isprintable() for finding in findings)


def test_a_secret_in_the_wrong_place_is_not_repeated(book: PeerBook, tmp_path: Path, plan: AddressPlan) -> None:
    """Somebody pastes the key itself where its file's name belongs."""
    secret = PresharedKey.generate().reveal()
    for field in ("preshared_key", "public_key", "state", "addresses"):
        value = [secret] if field == "addresses" else f"{secret}x"
        book = edited(tmp_path, plan, {"north": entry(tmp_path, "north") | {field: value}})
        _, findings = book.peers({})

        assert findings != ()
        assert secret not in str(findings) + "".join(map(str, findings))
    with pytest.raises(PeerRefusedError) as caught:
        book.admit("north", NORTH.public)
    assert secret not in str(caught.value)


def test_a_bad_entry_can_be_closed_and_not_opened(book: PeerBook, tmp_path: Path, plan: AddressPlan) -> None:
    """Its addresses stay taken."""
    book = edited(tmp_path, plan, {"north": {"addresses": ["100.80.0.2"], "state": "active"}})
    assert book.set_state("north", PeerState.SUSPENDED)
    with pytest.raises(PeerRefusedError, match="'north': preshared_key is missing"):
        book.set_state("north", PeerState.ACTIVE)

    assert [peer.name for peer in book.peers({})[0]] == ["south"]
    assert str(book.admit("eve", EVE.public)[0][0]) == "100.80.0.4"


def test_a_crash_between_key_and_entry_leaves_nothing_half(book: PeerBook, tmp_path: Path) -> None:
    """A preshared key without an entry: the next admission makes another."""
    PresharedKey.generate().save(tmp_path / "preshared/eve.key")
    book.admit("eve", EVE.public)

    assert book.secret_file(book.entry("eve")).name == "eve-2.key"


def test_a_member_that_is_unknown_is_told(book: PeerBook) -> None:
    """With where to look."""
    with pytest.raises(PeerRefusedError, match=r"'nobody' is not in peers\.json") as caught:
        book.set_state("nobody", PeerState.REVOKED)
    assert "fedward vpn status" in caught.value.remedy

"""Whoever stands between a member and the operator lies: a thief of the REST service, mallory, and the network host."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.enrolment import renewal
from appliance.enrolment.authority import Authority, open_transport_key, signing_request
from appliance.enrolment.authority_home import AuthorityHome
from appliance.enrolment.errors import EnrolmentError
from appliance.enrolment.joining import JoinRequest, answer_to, complete, prepare
from appliance.enrolment.operator import initialise, open_book
from appliance.enrolment.renewal import RENEWALS_PER_DAY, RenewalDesk, serve
from appliance.protocol.errors import ConfigurationError
from appliance.protocol.home import Endpoint, MemberHome
from appliance.protocol.keys import MemberKeys
from appliance.protocol.register import Role, sign_register
from appliance.transport.register import RegisterPull

ENDPOINT = Endpoint(broker_host="127.0.0.1", broker_port=8883, rest_url="https://127.0.0.1:8443")


class Hub:
    """An operator, its authority, and who joined."""

    def __init__(self, root: Path) -> None:
        self.root = root
        initialise(root / "operator", consortium="Test", contact="a@b")
        self.key = (root / "operator/operator.pub").read_text().strip()
        self.requests = {member: self.prepare(member) for member in ("north", "mallory")}
        self.admit(*self.requests.values())
        self.authority = Authority.open(root / "authority", "Test")
        for request in self.requests.values():
            complete(root / request.id, answer_to(request, self.authority, self.text, self.key, endpoints=[ENDPOINT]))

    @property
    def text(self) -> str:
        """The register in force."""
        return (self.root / "operator/register.jws").read_text()

    def prepare(self, member: str, folder: str | None = None) -> JoinRequest:
        """A request as the member's machine makes it."""
        facts = {"role": Role.NODE, "institution": f"{member} hospital", "contact": f"{member}@x"}
        return prepare(self.root / (folder or member), member, **facts)

    def admit(self, *requests: JoinRequest) -> None:
        """As the operator does it."""
        with open_book(self.root / "operator") as book:
            for request in requests:
                book.add(request.member())
            book.issue()
        AuthorityHome(self.root / "authority").take(self.text, self.key)

    def change(self, verb: str, member: str) -> None:
        """Suspend, resume or revoke."""
        with open_book(self.root / "operator") as book:
            getattr(book, verb)(member)
            book.issue()
        AuthorityHome(self.root / "authority").take(self.text, self.key)

    @property
    def desk(self) -> RenewalDesk:
        """The authority as a service."""
        return RenewalDesk(self.root / "authority")


@pytest.fixture
def hub(tmp_path: Path) -> Hub:
    """North is honest; mallory is a member, too, and has the REST service in her hands."""
    return Hub(tmp_path)


@pytest.fixture
def line(hub: Hub) -> Iterator[Path]:
    """The authority's socket."""
    path = hub.root / "authority.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=serve, args=(hub.desk, listener), daemon=True)
        thread.start()
        yield path
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(20)


def say(path: Path, text: bytes) -> dict[str, str]:
    """One question to the authority."""
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(20)
        caller.connect(str(path))
        caller.sendall(text)
        caller.shutdown(socket.SHUT_WR)
        heard = b""
        while piece := caller.recv(1 << 16):
            heard += piece
    return dict(json.loads(heard))


def test_the_honest_member_gets_its_certificate(hub: Hub, line: Path) -> None:
    """The counterpart of the refusals below."""
    assert "BEGIN CERTIFICATE" in say(line, hub.requests["north"].model_dump_json().encode())["certificate"]


def _for_a_key_of_mallorys(hub: Hub) -> JoinRequest:
    key = open_transport_key(hub.root / "loot/key.pem")
    return hub.requests["north"].model_copy(update={"csr": signing_request(key, "north")})


def _with_mallorys_identity(hub: Hub) -> JoinRequest:
    mallory = MemberKeys.load(hub.root / "mallory/keys")
    stolen = {"identity": mallory.public.identity, "sealing": mallory.public.sealing}
    return _for_a_key_of_mallorys(hub).model_copy(update=stolen).signed(mallory)


LIES = {
    "north's request with another key to certify": _for_a_key_of_mallorys,
    "a request in north's name, signed by mallory": _with_mallorys_identity,
    "a request of a stranger": lambda hub: hub.prepare("eve"),
    "a request of north's second machine": lambda hub: hub.prepare("north", "second"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_thief_of_the_rest_service_gets_no_certificate(lie: str, hub: Hub, line: Path) -> None:
    """It hands requests in and is not believed: the member's own signature and the register decide."""
    before = len(hub.authority.issued())

    answer = say(line, LIES[lie](hub).model_dump_json().encode())

    assert answer["code"] == "ENROLMENT_REFUSED"
    assert len(hub.authority.issued()) == before


@pytest.mark.parametrize("verb", ["suspend", "revoke"])
def test_whoever_may_not_act_gets_no_further_certificate(verb: str, hub: Hub, line: Path) -> None:
    """Its last one ends by itself, should all else fail."""
    hub.change(verb, "mallory")

    assert "in the membership register" in say(line, hub.requests["mallory"].model_dump_json().encode())["message"]


@pytest.mark.parametrize("text", [b"", b"{}", b"\xff" * 1000, b"[" * 100_000, b"x" * (3 << 20)], ids=len)
def test_no_bytes_end_the_authority(text: bytes, hub: Hub, line: Path) -> None:
    """Whoever can reach its socket must not be able to switch it off."""
    try:
        answer = say(line, text)
    except OSError:
        answer = {"code": "ENROLMENT_REFUSED"}  # it hung up in the midst of too long a text

    assert answer["code"] == "ENROLMENT_REFUSED"
    assert "certificate" in say(line, hub.requests["north"].model_dump_json().encode())


def test_a_caller_that_says_nothing_keeps_nobody_out_for_long(
    hub: Hub, line: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one desk; a silent caller is sent away."""
    monkeypatch.setattr(renewal, "PATIENCE_S", 0.2)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(str(line))

        assert "certificate" in say(line, hub.requests["north"].model_dump_json().encode())


def test_a_replayed_request_is_worth_little(hub: Hub) -> None:
    """It brings certificates for north's own key, and not many of them."""
    certificates = [hub.desk.renew(hub.requests["north"]) for _ in range(RENEWALS_PER_DAY - 1)]

    with pytest.raises(EnrolmentError, match="within a day"):
        hub.desk.renew(hub.requests["north"])
    assert len(certificates) == RENEWALS_PER_DAY - 1


def test_the_authority_believes_one_operator(hub: Hub) -> None:
    """Whoever can call it must not bring a register of her own making."""
    mallory = MemberKeys.generate()
    forged = sign_register(AuthorityHome(hub.root / "authority").register(), mallory)

    with pytest.raises(EnrolmentError, match="another operator"):
        AuthorityHome(hub.root / "authority").take(forged, mallory.public.identity)
    with pytest.raises(ConfigurationError, match="not signed"):
        AuthorityHome(hub.root / "authority").take_newer(forged)


def test_an_old_register_brings_nobody_back_at_the_hub(hub: Hub) -> None:
    """Whoever can write one file at the hub must not undo a revocation."""
    old = hub.text
    hub.change("revoke", "mallory")

    with pytest.raises(ConfigurationError, match="is known"):
        AuthorityHome(hub.root / "authority").take_newer(old)


class Liar:
    """A network host that sends what it likes."""

    def __init__(self, text: str) -> None:
        self.text = text

    def register_besides(self, _sha256: str, **_: object) -> str:
        """The same to everybody, whatever they hold."""
        return self.text


@pytest.mark.parametrize("lie", ["forged", "older", "nonsense"])
def test_a_lying_network_host_changes_no_members_register(lie: str, hub: Hub) -> None:
    """It could bring back a revoked member, or make one."""
    home, old = MemberHome(hub.root / "north"), hub.text
    hub.change("revoke", "mallory")
    home.take_register(hub.text)
    texts = {"forged": sign_register(home.register(), MemberKeys.generate()), "older": old, "nonsense": "x" * 10_000}

    with pytest.raises(ConfigurationError, match="membership register"):
        RegisterPull(home, Liar(texts[lie])).pull()
    assert (hub.root / "north/register.jws").read_text() == hub.text

"""Becoming a member, in three steps: prepare (on the member's machine), admit (the operator), complete.

    member                          operator
    prepare ── JoinRequest ───────► admit       public keys and a signing request
    complete ◄──────── JoinAnswer ──            certificate, authority, register, operator's key, endpoints

Only public parts travel; both documents may be read by anyone. Whoever carries them compares the register's
digest with the operator over another line. Each step may be repeated, and finishes what a power cut left half done.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from appliance.enrolment.authority import (
    DEFAULT_DAYS,
    Authority,
    TransportKey,
    canonical,
    is_certificate_for,
    is_due,
    is_for,
    issued_at,
    open_transport_key,
    require_certificate,
    serves_as,
    signing_request,
)
from appliance.enrolment.errors import EnrolmentError
from appliance.enrolment.register_book import RegisterBook
from appliance.protocol.files import locked, replace_file, sync_folder
from appliance.protocol.home import Endpoint, MemberSettings
from appliance.protocol.jose import NotSignedError, read_jws, sign_text
from appliance.protocol.keys import MemberKeys, thumbprint
from appliance.protocol.register import KeyText, Member, MemberId, MemberState, Register, Role, open_register
from appliance.protocol.settings import read_settings, read_text

JOIN_TYPE = "fedward-join+jws"
REQUEST_FILE = "join-request.json"
MAX_DOCUMENT_CHARACTERS = 1 << 20

_Document = TypeVar("_Document", bound=BaseModel)


class JoinRequest(BaseModel):
    """What a member asks with; all of it is public.

    Attributes:
        proof: The identity key's signature over all the rest, so that nobody joins with another's key.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["fedward-join-request/1"] = "fedward-join-request/1"
    id: MemberId
    role: Role
    institution: str = Field(min_length=1, max_length=200)
    contact: str = Field(min_length=1, max_length=200)
    identity: KeyText
    sealing: KeyText
    csr: str = Field(max_length=8192)
    proof: str = Field(default="", max_length=1024)

    @classmethod
    def read(cls, text: str) -> JoinRequest:
        """The request in a file that a member handed in; raises EnrolmentError."""
        return _read(cls, text, "join request")

    def member(self) -> Member:
        """The register's line for whoever made this request.

        Raises:
            EnrolmentError: It was not signed with the identity key that it names.
        """
        try:
            proof = read_jws(self.proof)
            digest = proof.payload_by(self.identity)
        except NotSignedError as error:
            raise EnrolmentError(f"The join request of '{self.id}' is not signed by the key that it names.") from error
        if proof.header.get("typ") != JOIN_TYPE or digest != self._digest().encode():
            raise EnrolmentError(f"The join request of '{self.id}' was changed after it was signed.")
        return Member(
            id=self.id,
            role=self.role,
            institution=self.institution,
            contact=self.contact,
            identity=self.identity,
            sealing=self.sealing,
        )

    def signed(self, keys: MemberKeys) -> JoinRequest:
        """The same request with its proof."""
        proof = sign_text(self._digest(), keys, typ=JOIN_TYPE, kid=thumbprint(self.identity))
        return self.model_copy(update={"proof": proof})

    def _digest(self) -> str:
        text = json.dumps(self.model_dump(mode="json", exclude={"proof"}), separators=(",", ":"), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


class JoinAnswer(BaseModel):
    """What an admitted member takes home; all of it is public."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal["fedward-join-answer/1"] = "fedward-join-answer/1"
    id: MemberId
    certificate: str
    authority: str
    register_text: str = Field(alias="register")
    operator: KeyText
    endpoints: tuple[Endpoint, ...] = Field(min_length=1)

    @classmethod
    def read(cls, text: str) -> JoinAnswer:
        """The answer in a file that the operator sent back; raises EnrolmentError."""
        return _read(cls, text, "answer")


def prepare(home: Path, member_id: str, *, role: Role, institution: str, contact: str) -> JoinRequest:
    """Make a member's keys in ``home``, if it has none, and the request to join with; the one there stays if it holds.

    Args:
        home: The member's folder; the private keys stay in it.
        member_id: The id agreed with the operator.
        role: What the member will be.
        institution: Shown to all members.
        contact: Where people reach whoever answers for this member; shown to all members.

    Raises:
        EnrolmentError: ``home`` is already another member's, or a particular is not allowed.
        ConfigurationError: A key in ``home`` cannot be used.
    """
    _require_same_member(home, member_id)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    keys = open_member_keys(home / "keys")
    transport_key = open_transport_key(home / "tls/key.pem")
    try:
        request = JoinRequest(
            id=member_id,
            role=role,
            institution=institution,
            contact=contact,
            identity=keys.public.identity,
            sealing=keys.public.sealing,
            csr="",
        )
    except ValidationError as error:
        raise _refused("join request", error) from error
    held = _held_request(home)
    if held is not None and _says_the_same(held, request, transport_key):
        return held
    request = request.model_copy(update={"csr": signing_request(transport_key, member_id)}).signed(keys)
    replace_file(home / REQUEST_FILE, request.model_dump_json(indent=2) + "\n")
    return request


def admit(
    request: JoinRequest,
    authority: Authority,
    book: RegisterBook,
    *,
    endpoints: Sequence[Endpoint],
    names: Sequence[str] = (),
    days: int = DEFAULT_DAYS,
) -> JoinAnswer:
    """Enter whoever made ``request`` into the register and give it a certificate.

    The operator has compared id, role and institution with what was agreed before calling this. A member that is in
    the register already gets a new certificate, as for renewal.

    Args:
        request: What the member handed in.
        authority: Issues the certificate.
        book: Takes the member in, and is issued anew if that changes it.
        endpoints: The ways to the network host, in the order in which members try them.
        names: The DNS names and IP addresses under which this member serves, if it does.
        days: How long the certificate lasts.

    Raises:
        EnrolmentError: The request is not what it says, or the id is taken.
    """
    book.add(request.member())
    text = book.issue()
    return answer_to(request, authority, text, book.operator_identity, endpoints=endpoints, names=names, days=days)


def answer_to(
    request: JoinRequest,
    authority: Authority,
    register_text: str,
    operator: str,
    *,
    endpoints: Sequence[Endpoint],
    names: Sequence[str] = (),
    days: int = DEFAULT_DAYS,
    held: JoinAnswer | None = None,
) -> JoinAnswer:
    """The answer to whom the register lists: at the authority, which has no operator's key.

    A newer register alone is no reason for another answer: members fetch it by themselves.

    Args:
        request: What the member handed in.
        authority: Issues the certificate.
        register_text: The register in force.
        operator: The operator's public key.
        endpoints: The ways to the network host, in the order in which members try them.
        names: The DNS names and IP addresses under which this member serves, if it does.
        days: How long the certificate lasts.
        held: The answer that was given last; it stands while its certificate is good for more than a third of its
            life and nothing but the register has changed.

    Raises:
        EnrolmentError: The request is not what it says, or its keys are not those of an active member.
        ConfigurationError: The register is not signed by the operator.
    """
    register = open_register(register_text, operator)
    require_listed(request, register)
    fresh = {
        "id": request.id,
        "authority": authority.certificate_pem,
        "register": register_text,
        "operator": operator,
        "endpoints": tuple(endpoints),
    }
    if held is None or not _is_good(held.certificate, request, authority, register, names):
        certificate = authority.issue(request.csr, request.id, identity=request.identity, names=names, days=days)
        return JoinAnswer(certificate=certificate, **fresh)
    answer = JoinAnswer(certificate=held.certificate, **fresh)
    is_same = held == answer.model_copy(update={"register_text": held.register_text})
    return held if is_same else answer


def require_listed(request: JoinRequest, register: Register) -> None:
    """Check that whoever made ``request`` is an active member with these keys in this role.

    Raises:
        EnrolmentError: It is not, or the request is not what it says.
    """
    asking, listed = request.member(), register.find(request.id)
    if listed is None or listed.state is not MemberState.ACTIVE:
        state = "not in the membership register" if listed is None else f"{listed.state} in the membership register"
        raise EnrolmentError(
            f"'{request.id}' is {state} (version {register.version}).",
            remedy="Ask the operator, who admits members with 'fedward member admit' and resumes them.",
        )
    if (listed.keys, listed.role) != (asking.keys, asking.role):
        raise EnrolmentError(
            f"The join request of '{request.id}' has another role or other keys than the membership register lists.",
            remedy="A member that lost its keys is given new ones by the operator: 'fedward member rotate'.",
        )


def complete(home: Path, answer: JoinAnswer) -> bool:
    """Check an answer against the keys in ``home`` and write what it brings.

    An older register than the one held is left aside, and so is an older certificate: a member fetches newer ones by
    itself. ``member.toml`` comes last: a folder that has one is whole.

    Returns:
        Whether anything was written.

    Raises:
        EnrolmentError: The answer is another member's, its parts do not fit, or it names another operator than the
            one pinned here.
        ConfigurationError: The register is not signed by the operator named.
    """
    _require_same_member(home, answer.id)
    with locked(home):
        return _complete(home, answer)


def _complete(home: Path, answer: JoinAnswer) -> bool:
    keys = MemberKeys.load(home / "keys")
    register_text = _newest_register(home, answer, keys)
    transport_key = open_transport_key(home / "tls/key.pem")
    require_certificate(answer.certificate, answer.authority, member_id=answer.id, key=transport_key)
    held = _text(home / "tls/cert.pem")
    certificate = held if held and _is_renewal(held, answer, transport_key) else answer.certificate
    files = {
        "tls/ca.pem": answer.authority,
        "tls/cert.pem": certificate,
        "register.jws": register_text,
        "member.toml": _member_toml(answer),
    }
    changed = [name for name, text in files.items() if _text(home / name) != text]
    for name in changed:
        replace_file(home / name, files[name])
    return bool(changed)


def take_certificate(home: Path, certificate: str) -> None:
    """Put a renewed certificate in the place of the one in ``home``; the next connection shows it.

    Raises:
        EnrolmentError: It is not from the authority known here, for another member or for another key.
    """
    member_id = read_settings(home / "member.toml", MemberSettings).id
    key = open_transport_key(home / "tls/key.pem")
    require_certificate(certificate, read_text(home / "tls/ca.pem"), member_id=member_id, key=key)
    replace_file(home / "tls/cert.pem", certificate)


def renewal_request(home: Path) -> JoinRequest:
    """The request in ``home``, as it is sent again for a further certificate.

    Raises:
        ConfigurationError: It is not there.
    """
    return JoinRequest.read(read_text(home / REQUEST_FILE))


def _require_same_member(home: Path, member_id: str) -> None:
    path = home / REQUEST_FILE
    if not path.exists():
        return
    known = JoinRequest.read(path.read_text()).id
    if known != member_id:
        raise EnrolmentError(f"{home} belongs to '{known}', not to '{member_id}'.", remedy="Choose another folder.")


def open_member_keys(folder: Path) -> MemberKeys:
    """The keys in ``folder``, made there if there are none.

    Both keys appear together or not at all: they are made beside ``folder`` and moved there in one step.
    """
    if not folder.exists():
        fresh = folder.with_name("keys.new")
        shutil.rmtree(fresh, ignore_errors=True)
        MemberKeys.generate().save(fresh)
        fresh.rename(folder)
        sync_folder(folder.parent)
    return MemberKeys.load(folder)


def _newest_register(home: Path, answer: JoinAnswer, keys: MemberKeys) -> str:
    """The answer's register or the one held, whichever is newer; an older one never returns."""
    text, held_text = answer.register_text, ""
    if (home / "member.toml").exists():
        pinned = read_settings(home / "member.toml", MemberSettings).operator
        if pinned != answer.operator:
            raise EnrolmentError(
                "The answer names another operator's key than the one pinned on this machine.",
                remedy="Ask the operator over another line; do not go on if the key was not changed on purpose.",
            )
        held_text = _text(home / "register.jws")
    register = open_register(text, answer.operator)
    if held_text:
        held = open_register(held_text, answer.operator)
        if held.version >= register.version:
            text, register = held_text, held
    me = register.find(answer.id)
    if me is None or me.keys != keys.public or me.state is not MemberState.ACTIVE:
        raise EnrolmentError(f"The register in the answer does not list '{answer.id}' as active with its present keys.")
    return text


def _is_renewal(held: str, answer: JoinAnswer, key: TransportKey) -> bool:
    """Whether the certificate held came after the answer's, from the same authority for the same key and names."""
    try:
        require_certificate(held, answer.authority, member_id=answer.id, key=key)
        return issued_at(held) > issued_at(answer.certificate) and serves_as(held) == serves_as(answer.certificate)
    except (EnrolmentError, ValueError):
        return False


def _is_good(
    certificate: str, request: JoinRequest, authority: Authority, register: Register, names: Sequence[str]
) -> bool:
    """Whether a certificate given earlier still serves whoever made ``request``."""
    try:
        is_same = is_certificate_for(certificate, request.csr) and serves_as(certificate) == canonical(names)
        return is_same and authority.opens(certificate, register) and not is_due(certificate)
    except ValueError:
        return False


def _says_the_same(held: JoinRequest, request: JoinRequest, key: TransportKey) -> bool:
    return held == request.model_copy(update={"csr": held.csr, "proof": held.proof}) and is_for(held.csr, key)


def _held_request(home: Path) -> JoinRequest | None:
    try:
        return JoinRequest.read(_text(home / REQUEST_FILE))
    except EnrolmentError:
        return None


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _member_toml(answer: JoinAnswer) -> str:
    """A JSON string is a TOML basic string too, once the one character that differs is escaped (TOML 1.0)."""

    def quoted(text: str) -> str:
        return json.dumps(text).replace("\x7f", "\\u007f")

    lines = [f"id = {quoted(answer.id)}", f"operator = {quoted(answer.operator)}"]
    for endpoint in answer.endpoints:
        lines += [
            "",
            "[[endpoints]]",
            f"route = {quoted(endpoint.route)}",
            f"broker_host = {quoted(endpoint.broker_host)}",
            f"broker_port = {endpoint.broker_port}",
            f"rest_url = {quoted(endpoint.rest_url)}",
        ]
    return "\n".join(lines) + "\n"


def _read(kind: type[_Document], text: str, name: str) -> _Document:
    if len(text) > MAX_DOCUMENT_CHARACTERS:
        raise EnrolmentError(f"The {name} has {len(text)} characters; {MAX_DOCUMENT_CHARACTERS} are allowed.")
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise _refused(name, error) from error


def _refused(name: str, error: ValidationError) -> EnrolmentError:
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return EnrolmentError(f"The {name} cannot be used: {place + ': ' if place else ''}{first['msg']}.")

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
    open_transport_key,
    require_certificate,
    signing_request,
)
from appliance.enrolment.errors import EnrolmentError
from appliance.enrolment.register_book import RegisterBook
from appliance.protocol.files import replace_file, sync_folder
from appliance.protocol.home import Endpoint, MemberSettings
from appliance.protocol.jose import NotSignedError, read_jws, sign_text
from appliance.protocol.keys import MemberKeys, thumbprint
from appliance.protocol.register import KeyText, Member, MemberId, MemberState, Register, Role, open_register
from appliance.protocol.settings import read_settings

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
    """Make a member's keys in ``home``, if it has none, and the request to join with.

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
    keys = _open_keys(home / "keys")
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
    certificate = authority.issue(request.csr, request.id, names=names, days=days)
    return JoinAnswer(
        id=request.id,
        certificate=certificate,
        authority=authority.certificate_pem,
        register=book.issue(),
        operator=book.operator_identity,
        endpoints=tuple(endpoints),
    )


def complete(home: Path, answer: JoinAnswer) -> None:
    """Check an answer against the keys in ``home`` and write what it brings.

    ``member.toml`` comes last: a folder that has one is whole.

    Raises:
        EnrolmentError: The answer is another member's, its parts do not fit, or it names another operator than the
            one pinned here.
        ConfigurationError: The register is not signed by the operator named, or is older than the one held.
    """
    _require_same_member(home, answer.id)
    keys = MemberKeys.load(home / "keys")
    _require_register(home, answer, keys)
    transport_key = open_transport_key(home / "tls/key.pem")
    require_certificate(answer.certificate, answer.authority, member_id=answer.id, key=transport_key)
    replace_file(home / "tls/ca.pem", answer.authority)
    replace_file(home / "tls/cert.pem", answer.certificate)
    replace_file(home / "register.jws", answer.register_text)
    replace_file(home / "member.toml", _member_toml(answer))


def _require_same_member(home: Path, member_id: str) -> None:
    path = home / REQUEST_FILE
    if not path.exists():
        return
    known = JoinRequest.read(path.read_text()).id
    if known != member_id:
        raise EnrolmentError(f"{home} belongs to '{known}', not to '{member_id}'.", remedy="Choose another folder.")


def _open_keys(folder: Path) -> MemberKeys:
    """Both keys appear together or not at all: they are made beside ``folder`` and moved there in one step."""
    if not folder.exists():
        fresh = folder.with_name("keys.new")
        shutil.rmtree(fresh, ignore_errors=True)
        MemberKeys.generate().save(fresh)
        fresh.rename(folder)
        sync_folder(folder.parent)
    return MemberKeys.load(folder)


def _require_register(home: Path, answer: JoinAnswer, keys: MemberKeys) -> None:
    pinned, held = answer.operator, 0
    if (home / "member.toml").exists():
        pinned = read_settings(home / "member.toml", MemberSettings).operator
        held = open_register((home / "register.jws").read_text(), pinned).version
    if pinned != answer.operator:
        raise EnrolmentError(
            "The answer names another operator's key than the one pinned on this machine.",
            remedy="Ask the operator over another line; do not go on if the key was not changed on purpose.",
        )
    register: Register = open_register(answer.register_text, pinned, newer_than=held)
    me = register.find(answer.id)
    if me is None or me.keys != keys.public or me.state is not MemberState.ACTIVE:
        raise EnrolmentError(f"The register in the answer does not list '{answer.id}' as active with its present keys.")


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

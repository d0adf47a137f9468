"""The consortium's transport authority: short-lived certificates that open lines, and nothing more.

Who a member is stands in the membership register, in the operator's signature; so this authority may live
online. Names in a certificate come from the operator's word, never from the request's.

FOLDER/
ca-key.pem      0600, made here, never copied
ca.pem          what members pin
issued.jsonl    a line for each certificate, written before it is handed out
"""

from __future__ import annotations

import datetime as dt
import fcntl
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from pydantic import BaseModel, ConfigDict, ValidationError

from appliance.enrolment.errors import EnrolmentError
from appliance.protocol.errors import Code, ConfigurationError
from appliance.protocol.files import replace_file, sync_folder
from appliance.protocol.keys import require_secret, thumbprint, write_secret
from appliance.protocol.register import MemberState, Register

AUTHORITY_DAYS = 3650
DEFAULT_DAYS = 30
CRL_DAYS = 400  # an overdue list would shut everybody out; it is signed anew when half of this is over
_CLOCK_SKEW = dt.timedelta(days=1)  # a member whose clock runs late may use its certificate at once

TransportKey = ec.EllipticCurvePrivateKey


class Issued(BaseModel):
    """What is noted of a certificate.

    Attributes:
        serial: In hexadecimal.
        member: The common name.
        key: The thumbprint of the identity key by which the member asked; empty if that is not known.
        names: Under which the member serves.
        at: When it was issued.
        until: When it ends.
    """

    model_config = ConfigDict(frozen=True)

    serial: str
    member: str
    key: str = ""
    names: tuple[str, ...] = ()
    at: dt.datetime
    until: dt.datetime


class Authority:
    """Issues certificates, and lists those that open no more, from ``folder``."""

    def __init__(self, folder: Path, key: TransportKey, certificate: x509.Certificate) -> None:
        self._folder = folder
        self._key = key
        self._certificate = certificate

    @classmethod
    def open(cls, folder: Path, consortium: str) -> Authority:
        """The authority in ``folder``, made there at the first call.

        Raises:
            ConfigurationError: Its key is unreadable, open to others, or not the certificate's.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        key = open_transport_key(folder / "ca-key.pem")
        path = folder / "ca.pem"
        if not path.exists():
            replace_file(path, _pem(_self_signed(key, consortium)))
        try:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
        except ValueError as error:
            raise ConfigurationError(f"{path}: not a certificate in PEM form.") from error
        if certificate.public_key() != key.public_key():
            raise ConfigurationError(f"{path}: not the certificate of ca-key.pem beside it.", code=Code.KEY_UNUSABLE)
        return cls(folder, key, certificate)

    @property
    def certificate_pem(self) -> str:
        """What members pin."""
        return _pem(self._certificate)

    def issue(
        self,
        csr_pem: str,
        member_id: str,
        *,
        identity: str = "",
        names: Sequence[str] = (),
        days: int = DEFAULT_DAYS,
    ) -> str:
        """A certificate in PEM form for the key in a signing request.

        Args:
            csr_pem: PKCS #10 request; only its key is used, and only if it proves that its maker holds it.
            member_id: The common name, which the broker takes as the user name.
            identity: The identity key by which the member asked: once another takes its place in the register, the
                certificate opens no more.
            names: DNS names and IP addresses under which the member serves; without any it is a client only.
            days: How long the certificate lasts.

        Raises:
            EnrolmentError: The request is malformed, for another member, or with a key of another kind.
        """
        request = _checked_request(csr_pem, member_id)
        key = request.public_key()
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if names else [])]
        builder = (
            _builder(request.subject, self._certificate.subject, key, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if names:
            alternatives = x509.SubjectAlternativeName([_general_name(name) for name in names])
            builder = builder.add_extension(alternatives, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        self._record(certificate, member_id, identity, names)
        return _pem(certificate)

    def opens(self, certificate_pem: str, register: Register) -> bool:
        """Whether a certificate is this authority's and opens lines; raises ValueError if it is none."""
        certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
        try:
            certificate.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return certificate.serial_number not in self.closed(register)

    def issued(self) -> list[Issued]:
        """What was issued, the oldest first.

        Raises:
            ConfigurationError: The list cannot be read: without it nobody could be shut out.
        """
        path = self._folder / "issued.jsonl"
        if not path.exists():
            return []
        # A line without its end was cut off by a crash, before its certificate was handed out.
        whole = path.read_text().rpartition("\n")[0]
        try:
            return [Issued.model_validate_json(line) for line in whole.splitlines()]
        except ValidationError as error:
            raise ConfigurationError(f"{path}: a line is not as it was written.") from error

    def closed(self, register: Register) -> dict[int, x509.ReasonFlags]:
        """The serial numbers that open no more lines, with the reasons: of members that may not act, and of old keys.

        Args:
            register: The one in force.
        """
        now = dt.datetime.now(dt.UTC)
        return {
            int(each.serial, 16): reason
            for each in self.issued()
            if each.until > now and (reason := _why_closed(each, register)) is not None
        }

    def revocation_list(self, register: Register, held_pem: str = "") -> str:
        """The certificate revocation list in PEM form (RFC 5280, section 5).

        Args:
            register: The one in force.
            held_pem: The list as it was; returned as it is if it still holds.
        """
        closed, now = self.closed(register), dt.datetime.now(dt.UTC).replace(microsecond=0)
        if self._still_holds(held_pem, closed, now):
            return held_pem
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(now - _CLOCK_SKEW)
            .next_update(now + dt.timedelta(days=CRL_DAYS))
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(x509.CRLNumber(int(now.timestamp())), critical=False)
        )
        for serial, reason in sorted(closed.items()):
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now)
            builder = builder.add_revoked_certificate(
                entry.add_extension(x509.CRLReason(reason), critical=False).build()
            )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode("ascii")

    def _still_holds(self, pem: str, closed: dict[int, x509.ReasonFlags], now: dt.datetime) -> bool:
        """What is listed beyond need, of certificates that have ended, waits until there is another reason."""
        try:
            held = x509.load_pem_x509_crl(pem.encode())
        except ValueError:
            return False
        ends = held.next_update_utc
        if not held.is_signature_valid(self._key.public_key()) or ends is None:
            return False
        ended = {int(each.serial, 16) for each in self.issued() if each.until <= now}
        listed = listed_serials(pem)
        is_same = {serial: reason for serial, reason in listed.items() if serial not in ended} == closed
        return is_same and ends - now > dt.timedelta(days=CRL_DAYS / 2)

    def _record(self, certificate: x509.Certificate, member_id: str, identity: str, names: Sequence[str]) -> None:
        """Noted before it is handed out, so that a revocation finds every serial number."""
        line = Issued(
            serial=format(certificate.serial_number, "x"),
            member=member_id,
            key=thumbprint(identity) if identity else "",
            names=tuple(names),
            at=dt.datetime.now(dt.UTC),
            until=certificate.not_valid_after_utc,
        )
        with (self._folder / "issued.jsonl").open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)  # a line that a crash cut off
            file.write(line.model_dump_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def listed_serials(crl_pem: str) -> dict[int, x509.ReasonFlags]:
    """The serial numbers on a revocation list in PEM form, with the reasons; none for a text that is no such list."""
    try:
        entries = x509.load_pem_x509_crl(crl_pem.encode())
    except ValueError:
        return {}
    return {
        entry.serial_number: entry.extensions.get_extension_for_class(x509.CRLReason).value.reason for entry in entries
    }


def is_due(certificate_pem: str) -> bool:
    """Whether less than a third of a certificate's life is left; raises ValueError if it is none."""
    end = x509.load_pem_x509_certificate(certificate_pem.encode()).not_valid_after_utc
    return end - dt.datetime.now(dt.UTC) < (end - issued_at(certificate_pem)) / 3


def issued_at(certificate_pem: str) -> dt.datetime:
    """When a certificate of ours was issued; raises ValueError if it is none."""
    return x509.load_pem_x509_certificate(certificate_pem.encode()).not_valid_before_utc + _CLOCK_SKEW


def serves_as(certificate_pem: str) -> tuple[str, ...]:
    """The names and addresses in a certificate, in its order; raises ValueError if it is none."""
    certificate = x509.load_pem_x509_certificate(certificate_pem.encode())
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    return tuple(str(name.value) for name in names)


def canonical(names: Sequence[str]) -> tuple[str, ...]:
    """Names as ``serves_as`` gives them."""
    return tuple(str(_general_name(name).value) for name in names)


def is_for(csr_pem: str, key: TransportKey) -> bool:
    """Whether a signing request is for ``key``."""
    try:
        return x509.load_pem_x509_csr(csr_pem.encode()).public_key() == key.public_key()
    except ValueError:
        return False


def is_certificate_for(certificate_pem: str, csr_pem: str) -> bool:
    """Whether a certificate has the key of a signing request; raises ValueError if either is none."""
    request = x509.load_pem_x509_csr(csr_pem.encode())
    return x509.load_pem_x509_certificate(certificate_pem.encode()).public_key() == request.public_key()


def _why_closed(issued: Issued, register: Register) -> x509.ReasonFlags | None:
    member = register.find(issued.member)
    if member is None or member.state is MemberState.REVOKED:
        return x509.ReasonFlags.privilege_withdrawn
    if issued.key and issued.key != thumbprint(member.identity):
        return x509.ReasonFlags.superseded
    return x509.ReasonFlags.certificate_hold if member.state is MemberState.SUSPENDED else None


def open_transport_key(path: Path) -> TransportKey:
    """The P-256 key at ``path``, made there (mode 0600) if there is none.

    P-256 because every TLS 1.3 peer must speak it (RFC 8446, section 9.1); old OpenSSL builds lack Ed25519 there.

    Raises:
        ConfigurationError: The file is open to others or holds no such key.
    """
    if not path.exists():
        _make_key(path)
    try:
        key = serialization.load_pem_private_key(require_secret(path), password=None)
    except ValueError as error:
        raise ConfigurationError(f"{path}: not a private key in PEM form.", code=Code.KEY_UNUSABLE) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError(f"{path}: expected a P-256 key.", code=Code.KEY_UNUSABLE)
    return key


def signing_request(key: TransportKey, member_id: str) -> str:
    """A PKCS #10 request in PEM form for ``member_id``."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(_name(member_id))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode("ascii")


def require_certificate(pem: str, ca_pem: str, *, member_id: str, key: TransportKey) -> None:
    """Check that a certificate is ``member_id``'s own, from that authority.

    Raises:
        EnrolmentError: Malformed, from another authority, for another name, or for another key.
    """
    try:
        certificate, authority = (x509.load_pem_x509_certificate(text.encode()) for text in (pem, ca_pem))
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise EnrolmentError("The certificate in the answer is not from the authority in the answer.") from error
    if certificate.subject != _name(member_id) or certificate.public_key() != key.public_key():
        raise EnrolmentError(f"The certificate in the answer is not for '{member_id}' with the key on this machine.")


def _make_key(path: Path) -> None:
    """Under a passing name first: a power cut leaves no half key behind that would stop every later start."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    write_secret(fresh, pem)
    fresh.rename(path)
    sync_folder(path.parent)


def _checked_request(csr_pem: str, member_id: str) -> x509.CertificateSigningRequest:
    try:
        request = x509.load_pem_x509_csr(csr_pem.encode())
    except ValueError as error:
        raise EnrolmentError("The signing request is not a PKCS #10 request in PEM form.") from error
    if request.subject != _name(member_id):
        asked = request.subject.rfc4514_string()[:80]
        raise EnrolmentError(f"The signing request is for '{asked}', not for 'CN={member_id}'.")
    key = request.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise EnrolmentError("The signing request's key is not a P-256 key.")
    if not request.is_signature_valid:
        raise EnrolmentError("The signing request is not signed by the key that it names.")
    return request


def _self_signed(key: TransportKey, consortium: str) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{consortium} transport"[:64])])
    return (
        _builder(name, name, key.public_key(), AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: CertificatePublicKeyTypes, days: int
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _name(member_id: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, member_id)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")

"""The consortium's transport authority: short-lived certificates that open lines, and nothing more.

Who a member is stands in the membership register, in the operator's signature; so this authority may live
online. Names in a certificate come from the operator's word, never from the request's.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import json
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.enrolment.errors import EnrolmentError
from appliance.protocol.errors import Code, ConfigurationError
from appliance.protocol.files import replace_file, sync_folder
from appliance.protocol.keys import require_secret, write_secret

AUTHORITY_DAYS = 3650
DEFAULT_DAYS = 30
_CLOCK_SKEW = dt.timedelta(days=1)  # a member whose clock runs late may use its certificate at once

TransportKey = ec.EllipticCurvePrivateKey


class Authority:
    """Issues certificates from ``folder``, which holds ca.pem, ca-key.pem (0600) and the list of what was issued."""

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

    def issue(self, csr_pem: str, member_id: str, *, names: Sequence[str] = (), days: int = DEFAULT_DAYS) -> str:
        """A certificate in PEM form for the key in a signing request.

        Args:
            csr_pem: PKCS #10 request; only its key is used, and only if it proves that its maker holds it.
            member_id: The common name, which the broker takes as the user name.
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
        self._record(certificate, member_id)
        return _pem(certificate)

    def _record(self, certificate: x509.Certificate, member_id: str) -> None:
        """Noted before it is handed out, so that a revocation finds every serial number."""
        line = {
            "serial": format(certificate.serial_number, "x"),
            "member": member_id,
            "until": certificate.not_valid_after_utc.isoformat(),
        }
        with (self._folder / "issued.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
            file.flush()
            os.fsync(file.fileno())


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

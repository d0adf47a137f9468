"""The transport authority."""

from __future__ import annotations

import datetime as dt
import json
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from appliance.enrolment.authority import Authority, open_transport_key, require_certificate, signing_request
from appliance.enrolment.errors import EnrolmentError
from appliance.protocol.errors import ConfigurationError
from appliance.protocol.home import TlsFiles
from appliance.transport.tls import client_context


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A fresh authority."""
    return Authority.open(tmp_path / "authority", "Test")


@pytest.fixture
def north_key(tmp_path: Path) -> ec.EllipticCurvePrivateKey:
    """North's own transport key."""
    return open_transport_key(tmp_path / "north/key.pem")


def _usages(pem: str) -> list[x509.ObjectIdentifier]:
    certificate = x509.load_pem_x509_certificate(pem.encode())
    return list(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_the_common_name_is_the_member_id(authority, north_key) -> None:
    """The broker takes it as the user name, and every access rule hangs on it."""
    pem = authority.issue(signing_request(north_key, "north"), "north")

    assert x509.load_pem_x509_certificate(pem.encode()).subject.rfc4514_string() == "CN=north"


def test_a_request_for_another_member_is_refused(authority, north_key) -> None:
    """Mallory must not get south's name by handing in her own request."""
    with pytest.raises(EnrolmentError, match=r"CN=south.*not for 'CN=north'"):
        authority.issue(signing_request(north_key, "south"), "north")


def test_names_in_the_request_are_not_taken_over(authority, north_key) -> None:
    """Only the operator's word gives a member a server's name."""
    wanted = x509.SubjectAlternativeName([x509.DNSName("network.example")])
    builder = x509.CertificateSigningRequestBuilder()
    builder = builder.subject_name(x509.Name.from_rfc4514_string("CN=north")).add_extension(wanted, critical=False)
    request = builder.sign(north_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    pem = authority.issue(request.decode(), "north")

    assert "network.example" not in str(x509.load_pem_x509_certificate(pem.encode()).extensions)


def test_a_member_without_names_cannot_serve(authority, north_key) -> None:
    """A hospital's stolen certificate must not be able to play the network host."""
    pem = authority.issue(signing_request(north_key, "north"), "north")

    assert _usages(pem) == [ExtendedKeyUsageOID.CLIENT_AUTH]


def test_a_certificate_lasts_the_days_asked_for(authority, north_key) -> None:
    """Short-lived certificates bound what a lost one is worth."""
    pem = authority.issue(signing_request(north_key, "north"), "north", days=3)

    certificate = x509.load_pem_x509_certificate(pem.encode())
    assert 2.99 < (certificate.not_valid_after_utc - dt.datetime.now(dt.UTC)).total_seconds() / 86400 <= 3


def test_a_clock_that_is_behind_takes_a_new_certificate(authority, north_key) -> None:
    """Else a wrong clock would show as a broken line, and nobody would be told of the clock."""
    pem = authority.issue(signing_request(north_key, "north"), "north", days=3)

    certificate = x509.load_pem_x509_certificate(pem.encode())
    assert certificate.not_valid_before_utc < dt.datetime.now(dt.UTC) - dt.timedelta(hours=23)


def test_every_serial_number_is_noted(authority, north_key, tmp_path) -> None:
    """A certificate that nobody noted could not be revoked."""
    pem = authority.issue(signing_request(north_key, "north"), "north")

    (line,) = (tmp_path / "authority/issued.jsonl").read_text().splitlines()
    assert int(json.loads(line)["serial"], 16) == x509.load_pem_x509_certificate(pem.encode()).serial_number


def test_the_authority_is_made_once(authority, tmp_path) -> None:
    """A second authority would cut off everybody who pinned the first."""
    assert Authority.open(tmp_path / "authority", "Test").certificate_pem == authority.certificate_pem


def test_keys_are_for_their_owner_only(authority, tmp_path) -> None:
    """Whoever reads the authority's key can open any line."""
    assert stat.S_IMODE((tmp_path / "authority/ca-key.pem").stat().st_mode) == 0o600


def test_a_key_that_others_may_read_is_refused(authority, tmp_path) -> None:
    """It may have been copied already: going on would hide that."""
    (tmp_path / "authority/ca-key.pem").chmod(0o644)

    with pytest.raises(ConfigurationError, match="0644, expected 0600"):
        Authority.open(tmp_path / "authority", "Test")


def test_a_half_made_key_is_made_anew(tmp_path) -> None:
    """A power cut while the key was written must not stop every later start."""
    (tmp_path / "key.new").write_text("-----BEGIN PRIV")

    assert isinstance(open_transport_key(tmp_path / "key.pem"), ec.EllipticCurvePrivateKey)


def test_a_certificate_of_another_authority_is_not_taken(authority, north_key, tmp_path) -> None:
    """Eve may run an authority of the same name."""
    eve = Authority.open(tmp_path / "eve", "Test")
    pem = eve.issue(signing_request(north_key, "north"), "north")

    with pytest.raises(EnrolmentError, match="not from the authority"):
        require_certificate(pem, authority.certificate_pem, member_id="north", key=north_key)


def test_both_ends_speak_tls_with_these_certificates(authority, tmp_path) -> None:
    """The very contexts that members use must accept them, client certificate and strict checks included."""
    server, client = (_files(authority, tmp_path / name, name, names) for name, names in _ENDS)
    listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    listening.load_cert_chain(server.certificate, server.key)
    listening.load_verify_locations(server.ca)
    listening.verify_mode = ssl.CERT_REQUIRED
    listening.verify_flags |= ssl.VERIFY_X509_STRICT
    trusting = client_context(client)
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()
    serving = threading.Thread(target=_serve, args=(listening, theirs))
    serving.start()

    with trusting.wrap_socket(ours, server_hostname="127.0.0.1") as line:
        said = line.recv(64)

    serving.join(10)
    assert said == b"north"


_ENDS = (("network", ["127.0.0.1", "localhost"]), ("north", []))


def _files(authority: Authority, folder: Path, member_id: str, names: list[str]) -> TlsFiles:
    key = open_transport_key(folder / "key.pem")
    (folder / "cert.pem").write_text(authority.issue(signing_request(key, member_id), member_id, names=names))
    (folder / "ca.pem").write_text(authority.certificate_pem)
    return TlsFiles(folder / "ca.pem", folder / "cert.pem", folder / "key.pem")


def _serve(context: ssl.SSLContext, line: socket.socket) -> None:
    with context.wrap_socket(line, server_side=True) as secured:
        peer = dict(part[0] for part in secured.getpeercert()["subject"])
        secured.sendall(peer["commonName"].encode())

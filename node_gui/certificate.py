"""What the GUI shows a browser: the hospital's own certificate, or one that it made for itself.

The node's certificate is not used: it proves a member to the network host, its key is the warden's alone, and no
browser would take it.
"""

from __future__ import annotations

import datetime as dt
import fcntl
import ipaddress
import os
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.protocol.errors import Code, ConfigurationError
from appliance.protocol.keys import require_secret
from node_gui.config import GuiConfig

OWN = "gui/tls"  # HOME/gui/tls/cert.pem and key.pem (0600)
DAYS, RENEW_DAYS = 365, 30


@dataclass(frozen=True)
class TlsPair:
    """A certificate and its key, in PEM form."""

    certificate: Path
    key: Path


def tls_files(home: Path, config: GuiConfig) -> TlsPair:
    """Where the certificate and the key lie that the GUI serves with; they may not be there yet.

    Raises:
        ConfigurationError: Only one of ``certificate`` and ``key`` is set.
    """
    if config.certificate is not None and config.key is not None:
        return TlsPair(home / config.certificate, home / config.key)
    if config.certificate is not None or config.key is not None:
        raise ConfigurationError(f"{home}/gui.toml: certificate and key belong together; one is missing.")
    return TlsPair(home / OWN / "cert.pem", home / OWN / "key.pem")


def ready_tls_files(home: Path, config: GuiConfig) -> TlsPair:
    """The files of ``tls_files``; the GUI's own are made when there are none that fit, and anew before they end.

    Raises:
        ConfigurationError: As ``tls_files``.
    """
    pair = tls_files(home, config)
    return pair if config.certificate is not None else own_pair(home / OWN, _hosts(config), "FedWard node GUI")


def own_pair(folder: Path, hosts: Iterable[str], title: str) -> TlsPair:
    """A certificate of our own making for these hosts, made when there is none in ``folder`` that fits and lasts."""
    pair = TlsPair(folder / "cert.pem", folder / "key.pem")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two that start at once would mix their files
        if not _lasts(pair.certificate) or not _fit(pair):
            _make(pair, [_name(host) for host in sorted({"localhost", "127.0.0.1", *hosts})], title)
    return pair


def fingerprint(certificate: Path) -> str:
    """SHA-256 of a certificate, as browsers show it."""
    digest = x509.load_pem_x509_certificate(certificate.read_bytes()).fingerprint(hashes.SHA256())
    return digest.hex(":").upper()


def server_context(pair: TlsPair) -> ssl.SSLContext:
    """TLS 1.3 alone.

    Raises:
        ConfigurationError: A file is missing, open to others, or not what it should be.
    """
    require_secret(pair.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(pair.certificate, pair.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"{pair.certificate}: cannot be used with {pair.key.name} ({type(error).__name__}).", code=Code.KEY_UNUSABLE
        ) from error
    return context


def _lasts(path: Path) -> bool:
    try:
        ends = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (OSError, ValueError):
        return False
    return ends - dt.datetime.now(dt.UTC) > dt.timedelta(days=RENEW_DAYS)


def _fit(pair: TlsPair) -> bool:
    """Whether key and certificate belong together; a stop between the two writes leaves a pair that does not."""
    try:
        key = serialization.load_pem_private_key(pair.key.read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate(pair.certificate.read_bytes())
    except (OSError, ValueError, TypeError):
        return False
    return key.public_key() == certificate.public_key()


def _hosts(config: GuiConfig) -> set[str]:
    hosts = {config.host}
    if config.address is not None:
        hosts.add(urlsplit(config.address).hostname or "localhost")
    return hosts - {"0.0.0.0", "::"}  # noqa: S104 - never bound here


def _name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _make(pair: TlsPair, names: list[x509.GeneralName], title: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    _put(pair.key, pem)
    _put(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM))


def _put(path: Path, content: bytes) -> None:
    fresh = path.with_suffix(".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)

"""Mosquitto's configuration: TLS 1.3, certificates required, each member on its own topics.

The certificate's name becomes the user name, and the access list's patterns follow it. Mosquitto answers a forbidden
subscription as if it were granted and then delivers nothing; a forbidden publication is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from appliance.protocol.errors import ConfigurationError
from appliance.protocol.files import replace_file
from appliance.protocol.home import TlsFiles
from appliance.protocol.register import CONSORTIUM

MAX_MESSAGE_BYTES = 2 << 20
_QUEUED_MESSAGES = 1000  # for each member that is away; what is dropped, its sender's outbox repeats
_QUEUED_BYTES = 64 << 20


@dataclass(frozen=True)
class Broker:
    """How the broker runs.

    Attributes:
        hosts: The addresses to listen on.
        port: The port, on each of them.
        tls: The broker's certificate and key, and the consortium's authority.
        acl_file: Where ``render_acl``'s text lies.
        store: Where sessions survive a restart; None keeps them in memory alone.
        user: Whom a broker that root starts becomes; None leaves it to Mosquitto (``mosquitto``).
        log_file: Where it writes its log; None means standard error.
        crl: The list of certificates that open no more lines ('fedward authority crl'); it must be there at the start,
            and is read again at each reload. None: there is none.
    """

    hosts: tuple[str, ...]
    port: int
    tls: TlsFiles
    acl_file: Path
    store: Path | None = None
    user: str | None = None
    log_file: Path | None = None
    crl: Path | None = None


def render_config(broker: Broker) -> str:
    """The text of ``mosquitto.conf``.

    Raises:
        ConfigurationError: A path or name would break the file's lines.
    """
    settings: list[tuple[str, object]] = [
        ("per_listener_settings", "false"),
        *([("user", broker.user)] if broker.user else []),
        *(setting for host in broker.hosts for setting in _listener(broker, host)),
        ("allow_anonymous", "false"),
        ("allow_zero_length_clientid", "false"),
        ("acl_file", broker.acl_file),
        ("set_tcp_nodelay", "true"),  # else a small message waits 40 ms for the one before
        ("message_size_limit", MAX_MESSAGE_BYTES),
        ("max_inflight_messages", 200),
        ("max_queued_messages", _QUEUED_MESSAGES),
        ("max_queued_bytes", _QUEUED_BYTES),
        ("queue_qos0_messages", "false"),
        ("retain_available", "false"),  # nothing of ours is retained
        ("persistent_client_expiration", "14d"),
        ("sys_interval", 0),
        *_persistence(broker.store),
        ("log_dest", f"file {broker.log_file}" if broker.log_file else "stderr"),
        *(("log_type", kind) for kind in ("error", "warning", "notice")),  # none of them shows a payload
        ("log_timestamp_format", "%Y-%m-%dT%H:%M:%S%z"),
        ("connection_messages", "true"),
    ]
    for name, value in settings:
        if any(ord(character) < 32 for character in str(value)):
            raise ConfigurationError(f"mosquitto.conf: {name}: holds a control character.")
    return "".join(f"{name} {value}\n" for name, value in settings)


def render_acl() -> str:
    """The text of the access list; ``%u`` is the name in the member's certificate.

    Presence is a pattern too: a plain ``topic`` line before any ``user`` line would be for anonymous clients.
    """
    return f"pattern read to/%u/from/+/+\npattern read to/{CONSORTIUM}/from/+/+\npattern write to/+/from/%u/+\n"


def write_broker_files(folder: Path, broker: Broker, *, check: bool = False) -> bool:
    """Write ``mosquitto.conf`` and the access list, where they are not so already; says whether they were not.

    Args:
        folder: Where the configuration goes; the access list goes to ``broker.acl_file``.
        check: Write nothing.

    Raises:
        ConfigurationError: A path or name would break the file's lines.
    """
    texts = {broker.acl_file: render_acl(), folder / "mosquitto.conf": render_config(broker)}
    stale = {path: text for path, text in texts.items() if not path.exists() or path.read_text() != text}
    for path, text in stale.items():
        if not check:
            replace_file(path, text)
    return bool(stale)


def _listener(broker: Broker, host: str) -> list[tuple[str, object]]:
    """What each listener has of its own, also without ``per_listener_settings``: TLS left out here would be off."""
    return [
        ("listener", f"{broker.port} {host}"),
        ("cafile", broker.tls.ca),
        ("certfile", broker.tls.certificate),
        ("keyfile", broker.tls.key),
        *([("crlfile", broker.crl)] if broker.crl else []),
        ("tls_version", "tlsv1.3"),
        ("require_certificate", "true"),
        ("use_identity_as_username", "true"),
    ]


def _persistence(store: Path | None) -> list[tuple[str, object]]:
    if store is None:
        return [("persistence", "false")]
    return [
        ("persistence", "true"),
        ("persistence_location", f"{store}/"),
        ("autosave_interval", 60),
    ]

"""TLS to the network host: version 1.3, the consortium's CA and no other, our own certificate shown."""

from __future__ import annotations

import ssl

import structlog

from appliance.protocol.errors import ConfigurationError
from appliance.protocol.home import TlsFiles

_log = structlog.get_logger(__name__)


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """A context that believes the consortium's CA only.

    Raises:
        ConfigurationError: A file is missing or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    files.load_into(context)
    return context


class ClientContexts:
    """The context of the moment: a renewed certificate is shown from the next connection on.

    Raises:
        ConfigurationError: At the first time, a file is missing or is not what it should be.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._seen = self._stamp()
        self.current = client_context(files)

    def renewed(self) -> ssl.SSLContext | None:
        """A new context if the files have changed since the last one was made; files half renewed wait."""
        stamp = self._stamp()
        if stamp == self._seen:
            return None
        self._seen = stamp
        try:
            self.current = client_context(self._files)
        except ConfigurationError as error:
            _log.warning("renewed TLS files cannot be used", reason=error.message)
            return None
        return self.current

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        try:
            found = [path.stat() for path in (self._files.ca, self._files.certificate, self._files.key)]
        except OSError:
            return ()
        return tuple((each.st_mtime_ns, each.st_ino) for each in found)

"""TLS to the network host: version 1.3, the consortium's CA and no other, our own certificate shown."""

from __future__ import annotations

import ssl

from appliance.protocol.home import TlsFiles


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """A context that believes the consortium's CA only.

    Raises:
        ConfigurationError: A file is missing or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    files.load_into(context)
    return context

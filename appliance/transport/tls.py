"""TLS to the network host: version 1.3, the consortium's CA and no other, our own certificate shown."""

from __future__ import annotations

import ssl

from appliance.protocol.errors import Code, ConfigurationError
from appliance.protocol.home import TlsFiles


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """A context that believes the consortium's CA only.

    Raises:
        ConfigurationError: A file is missing or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_verify_locations(files.ca)
        context.load_cert_chain(files.certificate, files.key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(
            f"{files.certificate.parent}: the TLS files cannot be used ({type(error).__name__}).",
            code=Code.KEY_UNUSABLE,
        ) from error
    return context

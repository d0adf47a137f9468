"""``python -m appliance.embedded.network HOME PORT``: the network host on loopback, with the register in its folder."""

from __future__ import annotations

import sys
from pathlib import Path

from appliance.embedded.ports import LOOPBACK
from appliance.network.serve import migrate, prepare, serve
from appliance.protocol.errors import FedWardError


def run_network(home: Path, port: int) -> None:
    """Take the register in ``home`` if it is newer than the one held, then serve until SIGTERM; does not return.

    Raises:
        ConfigurationError: The register, a setting, a key or a certificate cannot be used.
    """
    prepare(home)
    migrate()
    # Django's models can be imported only now.
    from django.db import connections  # noqa: PLC0415

    from appliance.network.members.services import register_import  # noqa: PLC0415

    register_import((home / "register.jws").read_text())
    connections.close_all()  # no connection crosses a fork
    serve(home, LOOPBACK, port)


if __name__ == "__main__":
    try:
        run_network(Path(sys.argv[1]), int(sys.argv[2]))
    except FedWardError as error:
        sys.exit(error.explain())

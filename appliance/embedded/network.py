"""``python -m appliance.embedded.network HOME PORT``: the network host on loopback, with the register in its folder."""

from __future__ import annotations

import sys
from pathlib import Path

from appliance.embedded.ports import LOOPBACK
from appliance.network.serve import serve
from appliance.protocol.errors import FedWardError

if __name__ == "__main__":
    try:
        serve(Path(sys.argv[1]), LOOPBACK, int(sys.argv[2]))
    except FedWardError as error:
        sys.exit(error.explain())

"""``python -m appliance.warden HOME``: the warden alone, as a unit or a container starts it."""

from __future__ import annotations

import sys
from pathlib import Path

from appliance.protocol.errors import FedWardError
from appliance.warden.main import run_warden


def main() -> int:
    """Run until told to stop; returns the exit status."""
    try:
        run_warden(Path(sys.argv[1]))
    except FedWardError as error:
        sys.stderr.write(f"{error.explain()}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

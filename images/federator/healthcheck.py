"""Healthy: the federator looked into its queue lately. Whether the network host answered is no question here."""

import os
import time
from pathlib import Path

# A look waits for the network host for as long as its client's patience lasts: ten minutes.
age_s = time.time() - Path(os.environ["FEDWARD_FEDERATOR_HOME"], "run/alive").stat().st_mtime
if age_s > 900:
    raise SystemExit(f"the federator last looked {age_s:.0f} s ago")

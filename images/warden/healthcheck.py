"""Healthy: the warden answers over its governance socket. Whether the network host is in reach is no question here."""

import os
from pathlib import Path

from appliance.protocol.local.frames import connect

with connect(Path(os.environ["FEDWARD_NODE_HOME"], "run/governance.sock"), timeout_s=5) as channel:
    staff = {"name": "healthcheck", "via": "cli"}
    channel.send({"method": "node.status", "params": {}, "staff": staff}, timeout_s=5)
    answer = channel.receive(5)
    if answer is None or "result" not in answer.data:
        raise SystemExit("the warden does not answer")

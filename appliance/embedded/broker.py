"""The broker's files for a consortium on one machine."""

from __future__ import annotations

import os
from pathlib import Path

from appliance.embedded.ports import LOOPBACK
from appliance.network.broker import Broker, render_acl, render_config
from appliance.protocol.files import replace_file
from appliance.protocol.home import MemberHome

STORE = "broker/store"


def write_broker_files(home: Path, *, port: int) -> Path:
    """Write the broker's configuration and access list below the network host's folder.

    Returns:
        The configuration's path.
    """
    store = home / STORE
    store.mkdir(mode=0o700, parents=True, exist_ok=True)
    broker = Broker(
        host=LOOPBACK,
        port=port,
        tls=MemberHome(home).tls,
        acl_file=home / "broker/acl",
        store=store,
        user=None if os.geteuid() else "root",  # else it becomes somebody who may not read the key
    )
    replace_file(broker.acl_file, render_acl())
    config = home / "broker/mosquitto.conf"
    replace_file(config, render_config(broker))
    return config

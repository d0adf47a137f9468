"""The broker's files for a consortium on one machine."""

from __future__ import annotations

import os
from pathlib import Path

from appliance.embedded.ports import LOOPBACK
from appliance.network.broker import Broker, write_broker_files
from appliance.protocol.home import MemberHome

STORE = "broker/store"


def place_broker(home: Path, *, port: int) -> Path:
    """Write the broker's configuration and access list below the network host's folder.

    Returns:
        The configuration's path.
    """
    store = home / STORE
    store.mkdir(mode=0o700, parents=True, exist_ok=True)
    broker = Broker(
        hosts=(LOOPBACK,),
        port=port,
        tls=MemberHome(home).tls,
        acl_file=home / "broker/acl",
        store=store,
        user=None if os.geteuid() else "root",  # else it becomes somebody who may not read the key
    )
    write_broker_files(home / "broker", broker)
    return home / "broker/mosquitto.conf"

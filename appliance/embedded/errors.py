"""What can go wrong while a consortium runs on one machine.

FedWardError
├── BrokerMissingError     no Mosquitto here, and none to be had
├── PartDiedError          a process ended that should run
└── FolderBusyError        another consortium runs in the same folder
"""

from __future__ import annotations

from appliance.protocol.errors import Code, FedWardError


class BrokerMissingError(FedWardError):
    """There is no Mosquitto on this machine, and it cannot be fetched."""

    code = Code.BROKER_MISSING


class PartDiedError(FedWardError):
    """A part ended, or did not come up, while it should run."""

    code = Code.PART_DIED


class FolderBusyError(FedWardError):
    """Another consortium runs in the folder."""

    code = Code.STORE_BUSY

"""What can go wrong with the VPN.

    VpnError
    ├── NetworkRefusedError    a network that cannot be the consortium's
    ├── KeyFileError           a key that is malformed, missing, or open to others
    ├── ConfigInvalidError     settings or a configuration that contradict themselves
    ├── PeerRefusedError       a change of the peers that cannot be made
    ├── PeersUnreadableError   the register of peers cannot be read as a whole
    └── InterfaceError         WireGuard's tools or the live interface refused

No message holds a secret: keys are named by their file or their public half.
"""

from __future__ import annotations


class VpnError(Exception):
    """Something is wrong that a person can do something about.

    Args:
        message: What is wrong and where, in plain English.
        remedy: What to do, where it is more than ``docs/errors.md`` says for the code.

    Attributes:
        code: The row in ``docs/errors.md``.
    """

    code = "CONFIGURATION_INVALID"

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class NetworkRefusedError(VpnError):
    """A network is in use already, or not of a kind that a VPN may have."""

    code = "VPN_NETWORK_REFUSED"


class KeyFileError(VpnError):
    """A key is malformed, its file is missing, or others may read it."""

    code = "KEY_UNUSABLE"


class ConfigInvalidError(VpnError):
    """Settings or a configuration file cannot be used as they are."""


class PeerRefusedError(VpnError):
    """A member cannot be admitted or changed as asked."""

    code = "VPN_PEER_REFUSED"


class PeersUnreadableError(VpnError):
    """The register of peers cannot be read; the interface stays as it is."""

    code = "VPN_PEERS_UNREADABLE"


class InterfaceError(VpnError):
    """``wg`` or ``ip`` is missing or refused."""

    code = "VPN_INTERFACE_FAILED"

"""The governance socket's other end, for the command line and the GUI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.local.frames import connect

CALL_TIMEOUT_S = 600.0  # reading a large dataset takes its time
QUICK_TIMEOUT_S = 10.0
# What pages wait for: a warden that hangs is down.
_QUICK = frozenset({"account.record", "experiment.live", "node.status", "policy.own", "policy.show"})


class GovernanceClient:
    """Calls the node's warden in one person's name.

    Args:
        socket: The node's governance socket.
        staff: The name of the person who decides.
        via: ``cli`` or ``gui``.
    """

    def __init__(self, socket: Path, *, staff: str, via: str) -> None:
        self._socket = socket
        self._staff = {"name": staff, "via": via}

    def call(self, method: str, **params: Any) -> Any:
        """Call a method and return its result.

        Raises:
            FedWardError: As the warden answered; NODE_NOT_RUNNING when nobody answers.
        """
        timeout_s = QUICK_TIMEOUT_S if method in _QUICK else CALL_TIMEOUT_S
        try:
            with connect(self._socket) as channel:
                channel.send({"method": method, "params": params, "staff": self._staff})
                frame = channel.receive(timeout_s=timeout_s)
        except OSError as error:
            raise FedWardError("The warden did not answer.", code=Code.NODE_NOT_RUNNING) from error
        if frame is None:
            raise FedWardError("The warden ended before it answered.", code=Code.NODE_NOT_RUNNING)
        if "error" in frame.data:
            shape = frame.data["error"]
            raise FedWardError(shape["message"], code=Code(shape["code"]), rule=shape["rule"], remedy=shape["remedy"])
        return frame.data["result"]

"""What can go wrong while a host leaves."""

from __future__ import annotations

from appliance.protocol.errors import Code, FedWardError


class LeavingError(FedWardError):
    """A step was not possible; those before it are done, and the next run goes on with it."""

    code = Code.LEAVING_INCOMPLETE

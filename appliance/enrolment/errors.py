"""What can go wrong while a member joins."""

from __future__ import annotations

from appliance.protocol.errors import Code, FedWardError


class EnrolmentError(FedWardError):
    """A join request, an answer to it, or a change of the register was not accepted."""

    code = Code.ENROLMENT_REFUSED

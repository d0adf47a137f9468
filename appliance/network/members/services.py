"""Writes to the membership register."""

from __future__ import annotations

from appliance.network.audit.services import line_append
from appliance.network.database import writing
from appliance.network.members.models import RegisterVersion
from appliance.network.members.selectors import operator_key
from appliance.protocol.errors import ConfigurationError
from appliance.protocol.register import Register, open_register


def register_import(text: str) -> Register:
    """Take a newer register; the same one again changes nothing.

    Raises:
        ConfigurationError: Not signed by the pinned operator, older than the one held, or another text under
            the number of one held.
    """
    text = text.strip()
    with writing():
        held = RegisterVersion.objects.order_by("-version").first()
        register = open_register(text, operator_key(), newer_than=held.version if held else 0)
        if held and register.version == held.version:
            if held.text != text:
                raise ConfigurationError(f"Another membership register of version {held.version} is known.")
            return register
        RegisterVersion.objects.create(version=register.version, text=text)
        line_append(
            "operator",
            "register.imported",
            str(register.version),
            digest=register.digest(),
            members=len(register.members),
        )
    return register

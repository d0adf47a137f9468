"""Writes to the membership register."""

from __future__ import annotations

from pathlib import Path

import structlog
from django.conf import settings
from django.db import Error

from appliance.network.audit.services import line_append
from appliance.network.database import writing
from appliance.network.members.models import RegisterVersion
from appliance.network.members.selectors import operator_key
from appliance.protocol.errors import ConfigurationError
from appliance.protocol.register import Register, open_register
from appliance.protocol.settings import read_text

REGISTER_FILE = "register.jws"
_log = structlog.get_logger(__name__)
_seen: tuple[Path, int, int] | None = None  # the file as it was when last looked at; replaced as a whole


def register_follow() -> None:
    """Take the register in our folder if its file is another than at the last look; never raises.

    A file that is refused leaves the register held in force: it is the one that was believed last.
    """
    global _seen  # noqa: PLW0603 - what this process has seen
    path = settings.FEDWARD_HOME / REGISTER_FILE
    try:
        found = path.stat()
    except OSError:
        return  # a register may be imported by command alone
    stamp = (path, found.st_mtime_ns, found.st_ino)
    if stamp == _seen:
        return
    try:
        register_import(read_text(path))
    except ConfigurationError as error:
        _log.warning("the membership register in our folder was refused", reason=error.message)
    except Error as error:
        _log.warning("the membership register could not be taken; trying again", reason=str(error))
        return
    _seen = stamp


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
            changes=_changes(open_register(held.text, operator_key()) if held else None, register),
        )
    return register


def _changes(old: Register | None, new: Register) -> dict[str, str]:
    """What became of whom."""
    found = {}
    for member in new.members:
        known = old.find(member.id) if old else None
        if known is None:
            found[member.id] = "admitted"
        elif known.state is not member.state:
            found[member.id] = str(member.state)
        elif known.keys != member.keys:
            found[member.id] = "rotated"
    return found

"""Reads of the membership register."""

from __future__ import annotations

from dataclasses import dataclass

from django.conf import settings

from appliance.network.errors import RegisterMissingError
from appliance.network.members.models import RegisterVersion
from appliance.protocol.errors import ConfigurationError
from appliance.protocol.register import Register, open_register


@dataclass(frozen=True)
class _Opened:
    version: int
    text: str
    register: Register


_opened: _Opened | None = None  # the last one used; replaced as a whole, so threads need no lock


def register_current() -> Register:
    """The register that counts now, checked against the operator's key.

    Raises:
        RegisterMissingError: None was imported yet.
    """
    return _current().register


def register_text() -> str:
    """The same in the operator's signature; raises RegisterMissingError."""
    return _current().text


def register_version() -> int:
    """Its version; 0 if none was imported yet."""
    return RegisterVersion.objects.order_by("-version").values_list("version", flat=True).first() or 0


def operator_key() -> str:
    """The operator's pinned key; raises ConfigurationError."""
    key: str | None = settings.FEDWARD.operator
    if key is None:
        raise ConfigurationError("network.toml: operator: the operator's public key is missing.")
    return key


def _current() -> _Opened:
    global _opened  # noqa: PLW0603 - a cache
    version = register_version()
    if version == 0:
        raise RegisterMissingError(
            "The network host has no membership register yet.",
            remedy="The operator imports it: 'fedward network register import FILE'.",
        )
    opened = _opened
    if opened is None or opened.version != version:
        text = RegisterVersion.objects.values_list("text", flat=True).get(version=version)
        opened = _opened = _Opened(version, text, open_register(text, operator_key()))
    return opened

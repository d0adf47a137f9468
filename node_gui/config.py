"""The GUI's settings: ``gui.toml`` in the node's folder, each key overridable as ``FEDWARD_GUI__KEY``.

HOME/gui/staff.db    accounts, sessions and one-time links (0600)
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from appliance.protocol.settings import ComponentSettings, read_settings

FILE_NAME = "gui.toml"


class GuiConfig(ComponentSettings):
    """How the GUI runs. Paths are relative to the node's folder.

    Attributes:
        host: The address to listen on.
        port: The port; 0 for any free one.
        address: How staff reach it, when that is another name than host and port: ``https://node.hospital.example``.
        certificate: The hospital's own certificate (PEM, with its chain); the node's own if None.
        key: Its private key (PEM, mode 0600).
        idle_minutes: A session ends when nothing was opened for so long.
        session_hours: A session ends after so long at the latest.
        invitation_hours: How long a one-time link opens.
        threads: Requests that are answered at once.
    """

    model_config = SettingsConfigDict(env_prefix="FEDWARD_GUI__")

    host: str = "127.0.0.1"
    port: int = Field(default=8444, ge=0, le=65535)
    address: str | None = Field(default=None, pattern=r"^https://[^/\s]+$")
    certificate: Path | None = None
    key: Path | None = None
    idle_minutes: float = Field(default=20, gt=0, le=240)
    session_hours: float = Field(default=10, gt=0, le=24)
    invitation_hours: float = Field(default=24, gt=0, le=168)
    threads: int = Field(default=8, ge=2, le=64)

    def address_at(self, fallback: str) -> str:
        """How staff reach the GUI: what was set, else ``fallback``; without a slash at its end."""
        return (self.address or fallback).rstrip("/")


def read_config(home: Path) -> GuiConfig:
    """The settings of the GUI of the node in ``home``; a missing file means the defaults.

    Raises:
        ConfigurationError: A setting is unknown or has a wrong value; names file and setting.
    """
    return read_settings(home / FILE_NAME, GuiConfig, is_required=False)

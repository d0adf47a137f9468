"""Settings files: TOML, checked by a pydantic model; a fault is named with its file and its setting."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from appliance.protocol.errors import ConfigurationError

_Settings = TypeVar("_Settings", bound=BaseModel)


class ComponentSettings(BaseSettings):
    """A component's settings file, each key of which an environment variable may override.

    A subclass names its variables' beginning: ``SettingsConfigDict(env_prefix="FEDWARD_NODE__")``.
    """

    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the base's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file; nothing else is read."""
        return env_settings, init_settings


def read_settings(path: Path, model: type[_Settings], *, is_required: bool = True) -> _Settings:
    """Read a settings file.

    Args:
        model: What the file must hold.
        is_required: Whether a missing file is a fault; otherwise it means the defaults.

    Raises:
        ConfigurationError: The file cannot be read, or a setting is unknown or wrong; names file, setting and fault.
    """
    text = read_text(path) if is_required or path.exists() else ""
    try:
        return model(**tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path}: {error}.") from error
    except ValidationError as error:
        # A misspelt name is both unknown and missing: the one that stands in the file helps more.
        first = min(error.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        raise ConfigurationError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from error


def read_text(path: Path) -> str:
    """A file's text; raises ConfigurationError when it cannot be read as UTF-8."""
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{path}: byte {error.start} is not UTF-8 text.") from error

"""The warden's settings: ``node.toml`` in the node's folder, each key overridable as ``FEDWARD_NODE__KEY``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from appliance.protocol.settings import ComponentSettings, read_settings

FILE_NAME = "node.toml"


class NodeConfig(ComponentSettings):
    """How a node runs. Paths are relative to the node's folder.

    Attributes:
        data_folder: Only files below it can become datasets.
        consortium_policy: The consortium's floor, which the site's own policy can only tighten.
        runner_socket: Where the runner's supervisor listens.
        heartbeat_s: Seconds between two signs of life.
        concurrent_rounds: How many rounds of different experiments train at once.
    """

    model_config = SettingsConfigDict(env_prefix="FEDWARD_NODE__")

    data_folder: Path = Path("data")
    consortium_policy: Path = Path("consortium-policy.toml")
    runner_socket: Path = Path("run/runner.sock")
    heartbeat_s: float = Field(default=10.0, gt=0, le=300)
    concurrent_rounds: int = Field(default=1, ge=1, le=64)


def read_config(home: Path) -> NodeConfig:
    """The settings of the node in ``home``; a missing file means the defaults.

    Raises:
        ConfigurationError: A setting is unknown or has a wrong value; names file and setting.
    """
    config = read_settings(home / FILE_NAME, NodeConfig, is_required=False)
    return config.model_copy(
        update={
            "data_folder": (home / config.data_folder).resolve(),
            "consortium_policy": home / config.consortium_policy,
            "runner_socket": home / config.runner_socket,
        }
    )

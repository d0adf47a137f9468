"""The warden's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.protocol.errors import ConfigurationError
from appliance.warden.config import read_config


def test_a_node_without_a_file_runs_on_the_defaults(tmp_path: Path) -> None:
    """The demo's nodes need no settings."""
    config = read_config(tmp_path)
    assert config.data_folder == (tmp_path / "data").resolve()
    assert config.concurrent_rounds == 1


def test_paths_are_relative_to_the_nodes_folder(tmp_path: Path) -> None:
    """The same file serves wherever the folder lies."""
    (tmp_path / "node.toml").write_text('data_folder = "files"\nrunner_socket = "/run/fedward/runner.sock"\n')
    config = read_config(tmp_path)
    assert config.data_folder == (tmp_path / "files").resolve()
    assert config.runner_socket == Path("/run/fedward/runner.sock")


def test_a_data_folder_behind_a_link_is_known_by_its_real_path(tmp_path: Path) -> None:
    """Datasets are compared with it after links are followed."""
    (tmp_path / "mounted").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "mounted")
    assert read_config(tmp_path).data_folder == (tmp_path / "mounted").resolve()


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container is configured so."""
    (tmp_path / "node.toml").write_text("concurrent_rounds = 2\n")
    monkeypatch.setenv("FEDWARD_NODE__CONCURRENT_ROUNDS", "3")
    assert read_config(tmp_path).concurrent_rounds == 3


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("concurent_rounds = 2", "concurent_rounds"),
        ("concurrent_rounds = 0", "concurrent_rounds"),
        ("heartbeat_s = 'often'", "heartbeat_s"),
        ("heartbeat_s = ", "Invalid value"),
    ],
)
def test_a_wrong_setting_is_named_with_its_file(tmp_path: Path, text: str, named: str) -> None:
    """A typing error must stop the start, not be passed over."""
    (tmp_path / "node.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=named) as refusal:
        read_config(tmp_path)
    assert "node.toml" in refusal.value.message


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    """Never a bare traceback."""
    (tmp_path / "node.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"node\.toml"):
        read_config(tmp_path)

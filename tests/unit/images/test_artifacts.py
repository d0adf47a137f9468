"""The folder of artifacts: nothing is taken from it that its signer did not sign."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from docker.errors import ImageNotFound

from appliance.images import artifacts
from appliance.images.errors import ArtifactsError, BuildError
from appliance.protocol.errors import FedWardError

ID, OTHER = "sha256:" + "1" * 64, "sha256:" + "2" * 64


class Docker:
    """A Docker that has certain images, and gets one more out of each archive."""

    def __init__(self, *here: str, archived: str = ID) -> None:
        self.here = set(here)
        self.archived = archived
        self.images = self

    def get(self, image_id: str) -> Any:
        """An image by its id."""
        if image_id not in self.here:
            raise ImageNotFound("none")
        return type("Found", (), {"id": image_id})

    def load(self, file: Any) -> list[Any]:
        """Take an archive."""
        assert file.read(2) == b"\x1f\x8b"
        self.here.add(self.archived)
        return []


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """The operator's SSH key."""
    return make_key(tmp_path / "operator")


@pytest.fixture
def signers(tmp_path: Path, key: Path) -> Path:
    """Whom a host believes."""
    path = tmp_path / "allowed_signers"
    path.write_text(f"operator {key.with_suffix('.pub').read_text()}")
    return path


@pytest.fixture
def folder(tmp_path: Path, key: Path) -> Path:
    """Artifacts of one image, signed."""
    path = tmp_path / "artifacts"
    (path / "wheels").mkdir(parents=True)
    (path / "wheels/site.lock").write_text("pip==1\n")
    content = io.BytesIO()
    tarfile.open(fileobj=content, mode="w").close()
    artifacts.archive(path, "warden").write_bytes(gzip.compress(content.getvalue()))
    artifacts.write_lock(path, {"warden": ID})
    artifacts.write_sums(path)
    artifacts.sign(path, key)
    return path


def make_key(path: Path) -> Path:
    """A new SSH key without a passphrase."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path


def test_what_was_signed_is_taken(folder: Path, signers: Path) -> None:
    """The ids are what a host pins."""
    assert artifacts.verify(folder, signers) == {"warden": ID}


def alter(folder: Path) -> None:
    """Another wheel under a known name."""
    (folder / "wheels/site.lock").write_text("pip==2\n")


def add(folder: Path) -> None:
    """A file that nobody listed."""
    (folder / "wheels/more.whl").write_text("")


def drop(folder: Path) -> None:
    """A file that is listed."""
    artifacts.archive(folder, "warden").unlink()


def link(folder: Path) -> None:
    """A link that leads out of the folder."""
    (folder / "more").symlink_to("/etc")


def list_again(folder: Path) -> None:
    """New checksums that fit, under the old signature."""
    signature = (folder / artifacts.SIGNATURE).read_bytes()
    alter(folder)
    artifacts.write_sums(folder)
    (folder / artifacts.SIGNATURE).write_bytes(signature)


def unsign(folder: Path) -> None:
    """No signature at all."""
    (folder / artifacts.SIGNATURE).unlink()


def sign_by_another(folder: Path) -> None:
    """A good signature of nobody whom the host believes."""
    artifacts.sign(folder, make_key(folder.parent / "mallory"))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (alter, "site.lock is not the file"),
        (add, "more.whl is not in SHA256SUMS"),
        (drop, "warden.tar.gz is missing"),
        (link, "more is not in SHA256SUMS"),
        (list_again, "is of nobody in"),
        (unsign, "is not signed"),
        (sign_by_another, "is of nobody in"),
    ],
)
def test_what_was_altered_is_refused(harm: Callable[[Path], None], said: str, folder: Path, signers: Path) -> None:
    """By a message that says which file it is, before any image is loaded."""
    harm(folder)

    with pytest.raises(ArtifactsError, match=said):
        artifacts.verify(folder, signers)


def test_new_checksums_take_the_old_signature_away(folder: Path) -> None:
    """A signature that fits nothing would look like an attack."""
    artifacts.write_sums(folder)

    assert not (folder / artifacts.SIGNATURE).exists()


def test_an_image_is_loaded_once(folder: Path) -> None:
    """A second run of a deployment changes nothing."""
    client: Any = Docker()
    first = artifacts.load(client, folder, {"warden": ID}, [])

    assert (first, artifacts.load(client, folder, {"warden": ID}, [])) == (["warden"], [])


def test_another_image_than_the_pinned_one_is_refused(folder: Path) -> None:
    """An archive names its images itself: only the id says what came out of it."""
    client: Any = Docker(archived=OTHER)

    with pytest.raises(ArtifactsError, match=r"holds another image than images\.lock pins"):
        artifacts.load(client, folder, {"warden": ID}, ["warden"])


@pytest.mark.parametrize("text", ["[]", "{", json.dumps({"warden": "latest"}), json.dumps({"warden": 1})])
def test_a_list_of_images_that_is_none_is_refused(text: str, folder: Path) -> None:
    """A tag is no pin."""
    (folder / artifacts.LOCK).write_text(text)

    with pytest.raises(ArtifactsError, match=r"images\.lock"):
        artifacts.read_lock(folder)


def test_a_key_that_cannot_sign_is_said(folder: Path, tmp_path: Path) -> None:
    """The operator reads what ssh-keygen said, and what to do."""
    with pytest.raises(BuildError, match="ssh-keygen failed") as caught:
        artifacts.sign(folder, tmp_path / "none")

    assert isinstance(caught.value, FedWardError)
    assert "ssh-agent" in caught.value.remedy

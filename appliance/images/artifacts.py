"""The folder of artifacts: all that a deployment carries to hosts, with one signature over it.

FOLDER/
<image>.tar.gz       an image each
images.lock          JSON: name -> image id; hosts start images by these ids alone
wheels/              for the hosts' own fedward: wheels, and site.lock with their hashes
sbom/<image>.cdx.json
SHA256SUMS           of every file above
SHA256SUMS.sig       the operator's SSH signature over it, in the namespace ``fedward-images``
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from appliance.images.errors import ArtifactsError, BuildError
from appliance.images.process import run
from appliance.protocol.errors import Code
from appliance.protocol.files import replace_file

if TYPE_CHECKING:  # to check a folder takes no Docker
    import docker

LOCK, SUMS, SIGNATURE = "images.lock", "SHA256SUMS", "SHA256SUMS.sig"
NAMESPACE = "fedward-images"
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")
_SUM_LINE = re.compile(r"([0-9a-f]{64})  ([^/\n][^\n]*)")
_FETCH_AGAIN = "Take the folder anew from whoever built it, and start nothing from this one."


def read_lock(folder: Path) -> dict[str, str]:
    """The images' ids, by name.

    Raises:
        ArtifactsError: ``images.lock`` is missing or malformed.
    """
    path = folder / LOCK
    try:
        ids = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactsError(
            f"{path} cannot be read ({error}).", remedy="'fedward images build' writes it; give its folder."
        ) from error
    if not isinstance(ids, dict) or not all(isinstance(i, str) and _IMAGE_ID.fullmatch(i) for i in ids.values()):
        raise ArtifactsError(f"{path} is not a list of image ids.", remedy=_FETCH_AGAIN)
    return ids


def write_lock(folder: Path, ids: dict[str, str]) -> None:
    """Note the images' ids."""
    replace_file(folder / LOCK, json.dumps(dict(sorted(ids.items())), indent=2) + "\n")


def write_sums(folder: Path) -> None:
    """Write the checksums of all that lies in ``folder``; a signature over earlier ones goes."""
    (folder / SIGNATURE).unlink(missing_ok=True)
    replace_file(folder / SUMS, "".join(f"{_sha256(folder / name)}  {name}\n" for name in _files(folder)))


def sign(folder: Path, key: Path) -> None:
    """Sign the checksums with the operator's SSH key.

    Raises:
        BuildError: ssh-keygen refuses the key.
    """
    (folder / SIGNATURE).unlink(missing_ok=True)
    run(
        ["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", NAMESPACE, folder / SUMS],
        remedy="Give the private key's file; a key with a passphrase must be in ssh-agent (then give its .pub file).",
    )


def verify(folder: Path, allowed_signers: Path | None) -> dict[str, str]:
    """Check the signature, then every file; the images' ids.

    Args:
        allowed_signers: Whose signature counts (``man ssh-keygen``, ALLOWED SIGNERS); None: the checksums alone.

    Raises:
        ArtifactsError: It is signed by nobody of these, or a file is missing, altered or not listed.
    """
    if allowed_signers is not None:
        _verify_signature(folder, allowed_signers)
    sums = _read_sums(folder)
    here = set(_files(folder))
    if missing := sorted(set(sums) - here):
        raise ArtifactsError(f"{folder}: {missing[0]} is missing.", remedy=_FETCH_AGAIN)
    if extra := sorted(here - set(sums)):
        raise ArtifactsError(f"{folder}: {extra[0]} is not in {SUMS}.", remedy=_FETCH_AGAIN)
    for name, expected in sums.items():
        if _sha256(folder / name) != expected:
            raise ArtifactsError(f"{folder}: {name} is not the file that {SUMS} lists.", remedy=_FETCH_AGAIN)
    return read_lock(folder)


def load(client: docker.DockerClient, folder: Path, ids: dict[str, str], names: list[str]) -> list[str]:
    """Load the archives of images that Docker does not have yet; the names of those that were loaded.

    Args:
        ids: The pinned ids, as ``verify`` returned them.
        names: Which; all that have an archive when empty.

    Raises:
        ArtifactsError: There is no such archive, or another image came out of it.
    """
    if unknown := sorted(set(names) - set(ids)):
        raise ArtifactsError(
            f"{folder / LOCK} has no image '{unknown[0]}'.",
            code=Code.ARGUMENT_INVALID,
            remedy=f"It has {', '.join(ids)}.",
        )
    loaded = []
    for name in names or [name for name in ids if archive(folder, name).exists()]:
        if has_image(client, ids[name]):
            continue
        _load_one(client, archive(folder, name))
        if not has_image(client, ids[name]):
            raise ArtifactsError(
                f"{archive(folder, name)} holds another image than {LOCK} pins ({ids[name]}).", remedy=_FETCH_AGAIN
            )
        loaded.append(name)
    return loaded


def archive(folder: Path, name: str) -> Path:
    """Where an image's archive lies."""
    return folder / f"{name}.tar.gz"


def has_image(client: docker.DockerClient, image_id: str) -> bool:
    """Whether Docker has the image of exactly this id."""
    from docker.errors import ImageNotFound  # noqa: PLC0415

    try:
        return bool(client.images.get(image_id).id == image_id)
    except ImageNotFound:
        return False


def _load_one(client: docker.DockerClient, path: Path) -> None:
    from docker.errors import DockerException  # noqa: PLC0415

    try:
        with gzip.open(path) as content:
            content.peek(1)
        with path.open("rb") as file:
            answer: Any = client.images.load(file)
            list(answer)
    except (OSError, DockerException) as error:
        raise ArtifactsError(f"{path} cannot be loaded ({error}).", remedy=_FETCH_AGAIN) from error


def _verify_signature(folder: Path, allowed_signers: Path) -> None:
    signature = folder / SIGNATURE
    if not signature.exists():
        raise ArtifactsError(f"{folder} is not signed.", remedy="The operator signs with 'fedward images sign'.")
    keygen = ["ssh-keygen", "-Y"]
    try:
        found = subprocess.run(  # noqa: S603 - our own command
            [*keygen, "find-principals", "-f", str(allowed_signers), "-s", str(signature)],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        signer = next(iter(found.stdout.split()), None)
        with (folder / SUMS).open("rb") as sums:
            is_good = signer is not None and not subprocess.run(  # noqa: S603
                [*keygen, "verify", "-f", str(allowed_signers), "-I", signer, "-n", NAMESPACE, "-s", str(signature)],
                stdin=sums, capture_output=True, check=False,
            ).returncode  # fmt: skip
    except FileNotFoundError as error:
        raise BuildError(
            f"{error.filename} is missing.", remedy="Install OpenSSH's client (Debian: apt install openssh-client)."
        ) from error
    if not is_good:
        raise ArtifactsError(
            f"{folder}: the signature over {SUMS} is of nobody in {allowed_signers}.", remedy=_FETCH_AGAIN
        )


def _read_sums(folder: Path) -> dict[str, str]:
    try:
        lines = (folder / SUMS).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactsError(f"{folder / SUMS} cannot be read ({error}).", remedy=_FETCH_AGAIN) from error
    matches = [_SUM_LINE.fullmatch(line) for line in lines]
    if not all(matches):
        raise ArtifactsError(f"{folder / SUMS} is malformed.", remedy=_FETCH_AGAIN)
    return {match[2]: match[1] for match in matches if match}


def _files(folder: Path) -> list[str]:
    """Every file below ``folder`` that the checksums cover; a link is none of ours, and is not followed."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    names = (str(path.relative_to(folder)) for path in found)
    return sorted(name for name in names if name not in {SUMS, SIGNATURE})


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

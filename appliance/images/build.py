"""Builds the images, each from a context that holds all of it: Dockerfile, lock, wheels. No build has a network.

Only the base's may, when it is made from an image of a registry.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
from docker.errors import DockerException, ImageNotFound

from appliance.images.catalogue import BASE, Image, Source
from appliance.images.errors import BuildError
from appliance.images.process import run
from appliance.images.wheels import PIP, fetch, own_wheel, with_cuda
from appliance.protocol.errors import Code

SUITE = "bookworm"
PACKAGES = ("ca-certificates", "libseccomp2", "python3", "tini")
DEBIAN = f"fedward/debian:{SUITE}"
_PINNED_DATE = "1760000000"  # the same packages make the same bytes
_SHARED = ("install-libraries", "install-fedward")
_LAST_LINES = 15
_AT_ONCE = 2  # images; most of a build is one process that unpacks wheels

Say = Callable[[str], None]


@dataclass(frozen=True)
class Network:
    """How this machine reaches the world, where that is not direct.

    Attributes:
        ca_bundle: PEM file of the authorities to believe, a company's own among them.
        proxy: URL of a company's proxy.
    """

    ca_bundle: Path | None = None
    proxy: str | None = None

    def environment(self) -> dict[str, str]:
        """What pip, apt and mmdebstrap read."""
        found: dict[str, str] = {}
        if self.ca_bundle is not None:
            found |= dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), str(self.ca_bundle))
        if self.proxy:
            found |= dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), self.proxy)
        return found

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Let every program that this process starts go this way."""
        before = dict(os.environ)
        os.environ.update(self.environment())
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)


@dataclass(frozen=True)
class Builder:
    """Builds images in the Docker of this machine.

    Attributes:
        source: What they are built from.
        cache: Where fetched wheels are kept from one build to the next.
        base_image: What the base stands on; made here with mmdebstrap when None.
        network: How this machine reaches the world.
        say: Told of each step.
    """

    source: Source
    cache: Path
    base_image: str | None = None
    network: Network = field(default_factory=Network)
    say: Say = print

    def build(self, images: list[Image]) -> dict[str, str]:
        """Build the base and then these; the id of each, by name.

        Raises:
            BuildError: A part is missing, or a step failed.
        """
        client = docker_client()
        with self.network.in_force():
            own = own_wheel(self.source, self.cache / "own")
            (pip,) = fetch(self.source.lock(PIP), self.cache / PIP)
            base = self._build_base(client)
            with ThreadPoolExecutor(_AT_ONCE) as pool:
                made = pool.map(lambda image: self._build_on(base, client, image, pip, own), images)
                return {BASE: base, **{image.name: image_id for image, image_id in zip(images, made, strict=True)}}

    def _build_on(self, base: str, client: docker.DockerClient, image: Image, pip: Path, own: Path) -> str:
        self.say(f"{image.name}: wheels")
        with self._context(image.name) as context:
            wheels = self._fetch(image, context / "lock")
            for name in _SHARED:
                shutil.copy(self.source.images / name, context)
            (context / "wheels").mkdir()
            for wheel in wheels:
                shutil.copy(wheel, context / "wheels")
            shutil.copy(pip, context)
            shutil.copy(own, context)
            return self._docker_build(client, image.name, context, {"BASE": base})

    def tag(self, name: str) -> str:
        """What Docker calls an image of ours."""
        return f"fedward/{name}:{self.source.version}"

    def _fetch(self, image: Image, lock: Path) -> list[Path]:
        """Write the lock that this image is built from, and fetch what it names."""
        text = self.source.lock(image.name).read_text()
        lock.write_text(text)
        try:
            return fetch(lock, self.cache / "wheels")
        except BuildError:
            if "+cpu" not in text:
                raise
            self.say(f"{image.name}: no torch without CUDA is served here; taking the one with it, gigabytes larger")
            lock.write_text(with_cuda(text, self.source.lock("runner-gpu").read_text()))
            return fetch(lock, self.cache / "wheels")

    def _build_base(self, client: docker.DockerClient) -> str:
        base_image = self.base_image
        if base_image is None:
            base_image = DEBIAN
            self.say(f"{BASE}: Debian {SUITE} by mmdebstrap")
            self._bootstrap(client)
        with self._context(BASE) as context:
            bundle = self.network.ca_bundle
            (context / "ca-bundle.pem").write_bytes(b"" if bundle is None else bundle.read_bytes())
            arguments = {"BASE_IMAGE": base_image, "PACKAGES": " ".join(PACKAGES)}
            if self.base_image is None:
                return self._docker_build(client, BASE, context, arguments)
            proxy = {name: value for name, value in self.network.environment().items() if "proxy" in name.lower()}
            return self._docker_build(client, BASE, context, arguments | proxy, network="default")

    def _bootstrap(self, client: docker.DockerClient) -> None:
        """A Debian of this moment's packages, from Debian's own archive, by its signatures."""
        with tempfile.TemporaryDirectory() as name:
            archive = Path(name, "debian.tar")
            left_out = (f"--dpkgopt=path-exclude=/usr/share/{what}/*" for what in ("man", "locale", "doc"))
            run(
                [
                    "mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", *left_out,
                    '--aptopt=Acquire::Languages "none"', SUITE, archive,
                ],
                env=os.environ | {"SOURCE_DATE_EPOCH": _PINNED_DATE},
                remedy="Install mmdebstrap (Debian: apt install mmdebstrap), or give --base-image from a registry.",
            )  # fmt: skip
            with archive.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            # The same packages are the same image, so that what was built on it need not be built again.
            same = {"reference": DEBIAN, "label": f"fedward.archive={digest}"}
            if not client.images.list(filters=same):
                repository, tag = DEBIAN.split(":")
                label = [f"LABEL fedward.archive={digest}"]
                client.api.import_image_from_file(str(archive), repository=repository, tag=tag, changes=label)

    @contextmanager
    def _context(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory() as folder:
            context = Path(folder, name)
            shutil.copytree(self.source.images / name, context)
            yield context

    def _docker_build(
        self, client: docker.DockerClient, name: str, context: Path, arguments: dict[str, str], network: str = "none"
    ) -> str:
        steps = client.api.build(
            path=str(context), tag=self.tag(name), buildargs=arguments, network_mode=network, rm=True, forcerm=True,
            decode=True, labels={"org.opencontainers.image.title": f"fedward {name}",
                                 "org.opencontainers.image.version": self.source.version,
                                 "org.opencontainers.image.licenses": "Apache-2.0"},
        )  # fmt: skip
        said: list[str] = []
        for step in steps:
            line = str(step.get("stream", "")).strip()
            said += [line] if line else []
            if line.startswith("Step "):
                self.say(f"{name}: {line}")
            if "error" in step:
                last = "\n".join(said[-_LAST_LINES:])
                raise BuildError(f"The image {name} could not be built: {step['error']}\n{last}")
        return str(client.images.get(self.tag(name)).id)


def docker_client() -> docker.DockerClient:
    """A client for the Docker of this machine.

    Raises:
        BuildError: There is none that answers.
    """
    try:
        return docker.from_env(timeout=600)
    except DockerException as error:
        raise BuildError(
            f"Docker does not answer here ({error}).",
            remedy="Start it (Debian: apt install docker.io), and be its user: root, or of the group docker.",
        ) from error


def save(client: docker.DockerClient, image_id: str, tag: str, path: Path) -> None:
    """Write an image as an archive that any Docker loads: gzip, as older ones know no other; quick, not small."""
    name = tag.rsplit(":", 1)[0]
    fresh = path.with_name(f".{path.name}.part")
    try:
        image: Any = client.images.get(image_id)
        with fresh.open("wb") as file, gzip.GzipFile("", "wb", compresslevel=1, fileobj=file, mtime=0) as archive:
            for chunk in image.save(named=tag if tag in image.tags else name):
                archive.write(chunk)
        fresh.replace(path)
    except ImageNotFound as error:
        raise BuildError(f"{tag} is not in Docker here.", code=Code.IMAGE_BUILD_FAILED) from error
    finally:
        fresh.unlink(missing_ok=True)

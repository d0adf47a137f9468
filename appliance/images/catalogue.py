"""The images, and where their parts lie in the source."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path

from appliance.images.errors import BuildError
from appliance.protocol.errors import Code
from appliance.protocol.wording import did_you_mean

BASE = "base"


@dataclass(frozen=True)
class Image:
    """An image that is made of ``images/<name>`` and ``images/locks/<name>.lock``.

    Attributes:
        extras: What of ``pyproject.toml`` its lock is made for.
        more: Further requirements of its lock, as a requirements file has them.
        is_default: Whether it is built when no names are given.
        carries_torch: Whether learning libraries may be in it; else none but those that declearn needs, where it is.
    """

    name: str
    extras: tuple[str, ...]
    more: tuple[str, ...] = ()
    is_default: bool = True
    carries_torch: bool = False


IMAGES = {
    image.name: image
    for image in (
        Image("network", ("network",)),
        Image("warden", ("warden",)),
        Image("node-gui", ("gui",)),
        Image("runner-cpu", ("runner", "declearn"), carries_torch=True),
        Image("runner-gpu", ("runner", "declearn"), carries_torch=True, is_default=False),
        Image("researcher-kit", ("kit", "declearn"), carries_torch=True),
        Image("federator", ("federator", "declearn")),
    )
}


def choose(names: list[str]) -> list[Image]:
    """The images of these names, or those that are built by default.

    Raises:
        BuildError: There is no image of that name.
    """
    for name in names:
        if name not in IMAGES and name != BASE:
            known = [BASE, *IMAGES]
            raise BuildError(
                f"There is no image '{name}'.{did_you_mean(name, known)}",
                code=Code.ARGUMENT_INVALID,
                remedy=f"Choose among {', '.join(known)}.",
            )
    return [image for image in IMAGES.values() if (image.name in names if names else image.is_default)]


@dataclass(frozen=True)
class Source:
    """A checkout of FedWard."""

    root: Path

    def __post_init__(self) -> None:
        """Raise BuildError when this is no checkout."""
        if not (self.images / "base/Dockerfile").exists() or not (self.root / "pyproject.toml").exists():
            raise BuildError(
                f"{self.root} is no checkout of FedWard.",
                code=Code.ARGUMENT_INVALID,
                remedy="Images are built from the source: give its folder with --source.",
            )

    @property
    def images(self) -> Path:
        """The folder with a folder for each image."""
        return self.root / "images"

    @property
    def version(self) -> str:
        """The version of what is built from here."""
        project = tomllib.loads((self.root / "pyproject.toml").read_text("utf-8"))["project"]
        return str(project["version"])

    def lock(self, name: str) -> Path:
        """The lock of that name."""
        return self.images / "locks" / f"{name}.lock"

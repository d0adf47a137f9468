"""A bill of materials (CycloneDX) for an image: what its own package databases say is installed."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import docker
from cyclonedx.model import Property
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from appliance.images.catalogue import Image
from appliance.images.errors import BuildError

_OF_DECLEARN = {"declearn", "pandas", "scikit-learn", "scipy"}
_LEARNING = {"opacus", "torch"} | _OF_DECLEARN
# Runs in the image, on its own Python: the distributions and the Debian packages that are really there.
_LIST = r"""
import glob, json, os, sys
from importlib.metadata import distributions
path = glob.glob("/opt/fedward/lib/python3*/site-packages")
python = sorted({(d.metadata["Name"], d.version) for d in distributions(path=path)})
debian, fields = [], {}
with open("/var/lib/dpkg/status", encoding="utf-8") as status:
    for line in [*status, "\n"]:
        if line == "\n":
            if fields.get("Status", "").endswith(" installed"):
                debian.append((fields["Package"], fields["Version"], fields["Architecture"]))
            fields = {}
        elif line[0] not in " \t":
            name, _, value = line.partition(":")
            fields[name] = value.strip()
print(json.dumps({"python": python, "debian": sorted(debian)}))
"""


def installed(client: docker.DockerClient, image_id: str) -> dict[str, list[list[str]]]:
    """What is installed in an image: ``python``: name and version, ``debian``: name, version and architecture."""
    listing = client.containers.run(
        image_id, ["-I", "-c", _LIST], entrypoint=["/usr/bin/python3"], user="65534:65534", network_mode="none",
        read_only=True, cap_drop=["ALL"], security_opt=["no-new-privileges"], remove=True,
    )  # fmt: skip
    found: dict[str, list[list[str]]] = json.loads(listing)
    return found


def require_no_torch(image: Image, found: dict[str, list[list[str]]]) -> None:
    """Raise BuildError when learning libraries are in an image that holds keys or faces people.

    The federator has declearn's, for the optimizers of researchers' aggregators, which no plan's code can reach there.
    """
    names = {name.lower() for name, _ in found["python"]}
    if "declearn" in image.extras:
        names -= _OF_DECLEARN
    if not image.carries_torch and (strays := sorted(names & _LEARNING)):
        raise BuildError(f"The image {image.name} holds {', '.join(strays)}: no plan's library belongs where keys are.")


def bill(name: str, version: str, image_id: str, created: str, found: dict[str, list[list[str]]]) -> str:
    """The bill of materials of one image, as JSON; the same image gives the same text.

    Args:
        created: When the image was built, ISO 8601.
        found: What ``installed`` returned.
    """
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_OID, image_id), components=[*_python(found), *_debian(found)])
    bom.metadata.timestamp = datetime.fromisoformat(created[:19]).replace(tzinfo=UTC)
    bom.metadata.component = Component(
        name=f"fedward/{name}", version=version, type=ComponentType.CONTAINER, bom_ref=image_id,
        properties=[Property(name="docker:image-id", value=image_id)],
    )  # fmt: skip
    bom.register_dependency(bom.metadata.component, bom.components)
    text: Any = JsonV1Dot6(bom).output_as_string(indent=1)
    return f"{text}\n"


def _python(found: dict[str, list[list[str]]]) -> list[Component]:
    return [_component(PackageURL("pypi", None, name.lower(), version)) for name, version in found["python"]]


def _debian(found: dict[str, list[list[str]]]) -> list[Component]:
    return [
        _component(PackageURL("deb", "debian", name, version, {"arch": architecture, "distro": "debian-12"}))
        for name, version, architecture in found["debian"]
    ]


def _component(url: PackageURL) -> Component:
    return Component(name=url.name, version=url.version, purl=url, type=ComponentType.LIBRARY, bom_ref=url.to_string())

"""What can go wrong with images.

FedWardError
├── BuildError            an image or a wheel could not be made
└── ArtifactsError        what lies in the folder of artifacts, or in Docker, is not what was signed
"""

from __future__ import annotations

from appliance.protocol.errors import Code, FedWardError


class BuildError(FedWardError):
    """An image or a wheel could not be made."""

    code = Code.IMAGE_BUILD_FAILED


class ArtifactsError(FedWardError):
    """What lies in the folder of artifacts, or in Docker, is not what was signed. Nothing may be started from it."""

    code = Code.IMAGE_REFUSED

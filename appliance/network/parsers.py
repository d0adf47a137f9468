"""JSON bodies, bounded before they are read."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import IO, Any

from rest_framework.parsers import BaseParser

from appliance.network.errors import RequestInvalidError
from appliance.protocol.jose import read_json

MAX_BODY_BYTES = 1 << 20


class BoundedJsonParser(BaseParser):
    """Reads a JSON object of at most 1 MiB."""

    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,  # noqa: ARG002 - the base's signature
        parser_context: Mapping[str, Any] | None = None,  # noqa: ARG002
    ) -> dict[str, Any]:
        """The object in the body; raises RequestInvalidError."""
        body = stream.read(MAX_BODY_BYTES + 1)
        if len(body) > MAX_BODY_BYTES:
            raise RequestInvalidError(
                f"The body is larger than {MAX_BODY_BYTES} bytes.", status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE
            )
        try:
            value = read_json(body)
        except ValueError as error:
            raise RequestInvalidError("The body is not JSON.") from error
        if not isinstance(value, dict):
            raise RequestInvalidError("The body is not a JSON object.")
        return value

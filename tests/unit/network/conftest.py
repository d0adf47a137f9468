"""A network host without a line: Django's test client calls it in the members' names."""

from __future__ import annotations

import atexit
import base64
import hashlib
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django
import pytest

_HOME = Path(tempfile.mkdtemp(prefix="fedward-network-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
(_HOME / "network.toml").write_text("")
os.environ["FEDWARD_NETWORK_HOME"] = str(_HOME)
os.environ["DJANGO_SETTINGS_MODULE"] = "appliance.network.settings"
django.setup()

from rest_framework.test import APIClient  # noqa: E402

from appliance.network.config import store_settings  # noqa: E402 - Django first
from appliance.network.members import selectors as member_selectors  # noqa: E402
from appliance.network.members.services import register_import  # noqa: E402
from appliance.protocol.envelope import Signer  # noqa: E402
from appliance.protocol.keys import MemberKeys  # noqa: E402
from appliance.protocol.register import Role, sign_register  # noqa: E402
from tests.registers import register_of  # noqa: E402

BODY = "application/offset+octet-stream"
ROLES = {
    "north": Role.NODE,
    "south": Role.NODE,
    "alice": Role.RESEARCHER,
    "mallory": Role.RESEARCHER,
    "fed": Role.FEDERATOR,
    "rival": Role.FEDERATOR,
    "operator": Role.OPERATOR,
}


class World:
    """The members, their keys, and what they send."""

    def __init__(self) -> None:
        self.keys = {name: MemberKeys.generate() for name in ROLES}

    @property
    def operator(self) -> str:
        """The operator's public key."""
        return self.keys["operator"].public.identity

    def register(self, version: int = 1, **states: str) -> str:
        """The signed register; ``states`` by member."""
        register = register_of(self.keys, ROLES, version=version, issued_at=1, states=states)
        return sign_register(register, self.keys["operator"])

    def token(self, member: str, **options: Any) -> str:
        """A bearer token of the member's."""
        return Signer(member, self.keys[member], options.pop("clock", time.time)).token(**options)[0]

    def client(self, member: str | None = None, token: str | None = None) -> APIClient:
        """Calls in the member's name; an error inside becomes the answer that a caller would get."""
        client = APIClient(raise_request_exception=False)
        token = token or (self.token(member) if member else None)
        if token:
            client.credentials(HTTP_AUTHORIZATION=f"Bearer {token}")
        return client


class Letter:
    """Bytes to upload, with their announcement."""

    def __init__(self, content: bytes = b"sealed bytes", recipients: str = "alice", **metadata: str) -> None:
        self.content = content
        self.id = metadata.get("id", str(uuid.uuid4()))
        self.metadata = {
            "id": self.id,
            "sha256": hashlib.sha256(content).hexdigest(),
            "recipients": recipients,
            "purpose": "update",
            "experiment": "e1",
            **metadata,
        }
        self.length = str(len(content))

    def announce(self, client: APIClient, body: bytes = b"", type_: str = BODY, **headers: str) -> Any:
        """POST, with a body or without."""
        pairs = (f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in self.metadata.items())
        return client.generic(
            "POST",
            "/api/v1/uploads",
            body,
            content_type=type_ if body else "",
            **{
                "HTTP_TUS_RESUMABLE": "1.0.0",
                "HTTP_UPLOAD_LENGTH": self.length,
                "HTTP_UPLOAD_METADATA": ",".join(pairs),
                **headers,
            },
        )

    def append(self, client: APIClient, offset: int, body: bytes, **headers: str) -> Any:
        """PATCH."""
        return client.generic(
            "PATCH",
            f"/api/v1/uploads/{self.id}",
            body,
            content_type=BODY,
            **{
                "HTTP_TUS_RESUMABLE": "1.0.0",
                "HTTP_UPLOAD_OFFSET": str(offset),
                "CONTENT_LENGTH": str(len(body)),
                **headers,
            },
        )

    def ask(self, client: APIClient) -> Any:
        """HEAD."""
        return client.head(f"/api/v1/uploads/{self.id}", HTTP_TUS_RESUMABLE="1.0.0")

    def remove(self, client: APIClient) -> Any:
        """DELETE."""
        return client.delete(f"/api/v1/uploads/{self.id}", HTTP_TUS_RESUMABLE="1.0.0")

    def fetch(self, client: APIClient, **headers: str) -> Any:
        """GET its content."""
        return client.get(f"/api/v1/uploads/{self.id}/content", **headers)


@pytest.fixture(scope="session")
def world() -> World:
    """Everybody's keys."""
    return World()


@pytest.fixture
def host(db: None, settings: Any, tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A fresh network host with a register; its settings can be changed by ``configure``."""
    settings.FEDWARD_HOME = tmp_path
    settings.FEDWARD = settings.FEDWARD.model_copy(update={"operator": world.operator, "reserve_bytes": 0})
    settings.STORAGES = {"parameters": store_settings("disk", tmp_path)}
    monkeypatch.setattr(member_selectors, "_opened", None)
    register_import(world.register())
    return settings


@pytest.fixture
def configure(host: Any) -> Callable[..., None]:
    """Change settings of the host."""

    def change(**values: Any) -> None:
        host.FEDWARD = host.FEDWARD.model_copy(update=values)

    return change


@pytest.fixture
def north(host: Any, world: World) -> APIClient:
    """The hospital that uploads."""
    return world.client("north")


@pytest.fixture
def alice(host: Any, world: World) -> APIClient:
    """The researcher for whom uploads are."""
    return world.client("alice")


@pytest.fixture
def mallory(host: Any, world: World) -> APIClient:
    """A member for whom nothing is."""
    return world.client("mallory")


@pytest.fixture
def letter() -> Letter:
    """A small upload from north to alice."""
    return Letter()


@pytest.fixture
def new_letter() -> type[Letter]:
    """Makes letters."""
    return Letter

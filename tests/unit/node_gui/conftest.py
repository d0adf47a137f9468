"""The GUI in a test: real accounts, a real store to read, and a warden that writes down what it is asked."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from argon2 import PasswordHasher
from flask import Flask
from flask.testing import FlaskClient

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.register import sign_register
from appliance.warden.store import Store
from node_gui.access import Role
from node_gui.app import create_app
from node_gui.certificate import ready_tls_files
from node_gui.config import GuiConfig
from node_gui.context import EXTENSION
from node_gui.staff import StaffBook
from tests.conftest import make_members

FAST = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD = "correct horse battery staple"
_ADDRESSES = count()  # each its own: what comes from one is limited
HTTPS = "https://node.test"
STATUS = {
    "member": "north",
    "register_version": 3,
    "running": [],
    "messages_waiting": 0,
    "is_connected": True,
    "contact_at": 1_770_000_000.0,
    "plan_approval": "required",
    "sandbox_required": "partial",
}


RULES = {
    "plan_approval": "required",
    "second_reviewer": False,
    "minimum_samples": 20,
    "pooled_counts": "histograms",
    "minimum_cell": 5,
    "maximum_round_s": 3600.0,
    "maximum_value": 1e6,
    "maximum_update_bytes": 4 << 30,
    "models": "own",
    "gpu": "offer",
    "secagg": "allowed",
    "sandbox": "partial",
}


def rules(**changes: Any) -> list[dict[str, Any]]:
    """The answer to ``policy.show``, with some of the site's own."""
    return [
        {"name": name, "value": changes.get(name, value), "set_by": "site" if name in changes else "release"}
        | {"floor": None}
        for name, value in RULES.items()
    ]


def answers() -> dict[str, Any]:
    """What a warden answers that has nothing special to say."""
    return {
        "node.status": dict(STATUS),
        "account.record": {},
        "policy.show": rules(),
        "policy.set": rules,
        "policy.own": {"ranges": [], "overrides": {}},
        "node.machine": {"processes": [{"part": "warden", "memory_bytes": 90_000_000, "since": 1.77e9}]}
        | {"gpus": [], "gpu": "offer"},
        "node.settings": [{"name": "heartbeat_s", "here": 5.0, "release": 10.0}],
        "node.sandbox": {"level": {}, "required": "partial", "lacking": []},
        "audit.export": {"signature": "a.b.c", "up_to": 3},
    }


@dataclass
class FakeWarden:
    """Answers as it was told, and remembers who called what."""

    answers: dict[str, Any] = field(default_factory=answers)
    calls: list[tuple[str, str, dict[str, Any]]] = field(default_factory=list)
    is_down: bool = False

    def __call__(self, name: str) -> FakeWarden._InName:
        """The socket in that person's name."""
        return self._InName(self, name)

    def asked(self, method: str) -> list[tuple[str, dict[str, Any]]]:
        """Who called the method, with what."""
        return [(name, params) for name, called, params in self.calls if called == method]

    @dataclass
    class _InName:
        warden: FakeWarden
        name: str

        def call(self, method: str, **params: Any) -> Any:
            if self.warden.is_down:
                raise FedWardError("The warden did not answer.", code=Code.NODE_NOT_RUNNING)
            self.warden.calls.append((self.name, method, params))
            answer = self.warden.answers[method]
            if isinstance(answer, FedWardError):
                raise answer
            return answer(**params) if callable(answer) else answer


@dataclass
class Gui:
    """The application, and its people."""

    app: Flask
    warden: FakeWarden
    home: Path

    @property
    def staff(self) -> StaffBook:
        """The accounts."""
        return self.app.extensions[EXTENSION].staff

    @property
    def cookie(self) -> str:
        """The name of the session's cookie."""
        return str(self.app.extensions[EXTENSION].cookie)

    def client(self) -> FlaskClient:
        """A browser that nobody has signed in with."""
        return self.app.test_client()

    def add(self, role: Role, name: str | None = None) -> str:
        """An account of that role; returns its name."""
        name = name or f"{role.value} anna"
        self.staff.join(self.staff.invite("setup", name, role), PASSWORD)
        return name

    def signed_in(self, role: Role, name: str | None = None) -> Browser:
        """A browser with somebody of that role."""
        name = name or f"{role.value} anna"
        if name not in {person.name for person in self.staff.people()}:
            self.add(role, name)
        browser = Browser(self.client())
        browser.token = self.staff.sign_in(name, PASSWORD, "", address=str(next(_ADDRESSES)))
        browser.client.set_cookie(self.cookie, browser.token, domain="node.test", secure=True)
        browser.csrf = self.staff.session(browser.token, is_touch=False).csrf
        return browser


@dataclass
class Browser:
    """A signed-in browser that sends forms as a page of ours would."""

    client: FlaskClient
    token: str = ""
    csrf: str = ""

    def get(self, path: str, **options: Any) -> Any:
        """Open a page."""
        return self.client.get(path, base_url=HTTPS, buffered=True, **options)

    def post(self, path: str, /, *, headers: Any = None, **form: Any) -> Any:
        """Send a form."""
        sent = {"csrf": self.csrf} | form
        return self.client.post(path, base_url=HTTPS, buffered=True, data=sent, headers=headers)


def write_home(root: Path) -> None:
    """A node's folder with register and certificates; the private keys are not there, for the GUI opens none."""
    members = make_members()
    endpoint = 'broker_host = "127.0.0.1"\nbroker_port = 8883\nrest_url = "https://127.0.0.1:8443"\n'
    operator = members.operator.public.identity
    (root / "member.toml").write_text(f'id = "north"\noperator = "{operator}"\n\n[[endpoints]]\n{endpoint}')
    (root / "register.jws").write_text(sign_register(members.register, members.operator))
    (root / "tls").mkdir()
    for name in ("ca.pem", "cert.pem"):
        (root / "tls" / name).write_bytes(ready_tls_files(root, GuiConfig()).certificate.read_bytes())


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node's store as its first start leaves it, made once: its migrations take longer than a test."""
    folder = tmp_path_factory.mktemp("empty") / "store"
    Store(folder).close()
    return folder


@pytest.fixture
def make_gui(tmp_path: Path, empty_store: Path) -> Iterator[Callable[..., Gui]]:
    """Makes a GUI over an empty store, in the folder of an enrolled node."""
    shutil.copytree(empty_store, tmp_path / "store")
    write_home(tmp_path)
    made: list[Gui] = []

    def make(**settings: Any) -> Gui:
        warden = FakeWarden()
        gui = Gui(create_app(GuiConfig(**settings), warden, tmp_path, hasher=FAST), warden, tmp_path)
        made.append(gui)
        return gui

    yield make
    for gui in made:
        gui.app.extensions[EXTENSION].close()


@pytest.fixture
def gui(make_gui: Callable[..., Gui]) -> Gui:
    """A GUI with the release's settings."""
    return make_gui()

"""An operator with its book and authority, and a hospital that wants to join."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from appliance.enrolment.authority import Authority
from appliance.enrolment.joining import JoinAnswer, JoinRequest, admit, prepare
from appliance.enrolment.register_book import RegisterBook
from appliance.protocol.home import Endpoint
from appliance.protocol.keys import MemberKeys
from appliance.protocol.register import Role

ENDPOINT = Endpoint(broker_host="127.0.0.1", broker_port=8883, rest_url="https://127.0.0.1:8443")


@dataclass
class Operator:
    """What the operator holds."""

    authority: Authority
    book: RegisterBook
    keys: MemberKeys
    folder: Path

    def admit(self, request: JoinRequest, **options) -> JoinAnswer:
        """The operator's answer to ``request``."""
        return admit(request, self.authority, self.book, endpoints=[ENDPOINT], **options)

    def open_book(self) -> RegisterBook:
        """The book as another run of the operator's command would find it."""
        return RegisterBook(self.folder / "register.jws", self.keys, consortium="Test")


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    """An operator whose book is empty."""
    folder, keys = tmp_path / "operator", MemberKeys.generate()
    book = RegisterBook(folder / "register.jws", keys, consortium="Test")
    return Operator(Authority.open(tmp_path / "authority", "Test"), book, keys, folder)


@pytest.fixture
def ask():
    """Prepare a folder for a member and return its request."""

    def asking(home: Path, member_id: str = "north", role: Role = Role.NODE, **changes) -> JoinRequest:
        facts = {"institution": "North Hospital", "contact": "it@north.example"} | changes
        return prepare(home, member_id, role=role, **facts)

    return asking

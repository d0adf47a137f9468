"""What a page has at hand: the signed-in person, the warden in that person's name, and the node's records."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from flask import current_app, g

from appliance.protocol.errors import FedWardError
from appliance.protocol.home import MemberSettings
from appliance.protocol.register import Register, open_register
from appliance.protocol.settings import read_settings, read_text
from appliance.warden.history import History
from node_gui.config import GuiConfig
from node_gui.notices.book import NoticeBook
from node_gui.staff import Person, StaffBook

EXTENSION = "fedward"


class Caller(Protocol):
    """The warden's governance socket, in one person's name."""

    def call(self, method: str, **params: Any) -> Any:
        """Call a method; raises FedWardError as the warden answered, or NODE_NOT_RUNNING."""


@dataclass
class Parts:
    """What ``create_app`` was given.

    Attributes:
        home: The node's folder.
        governance: Gives the governance socket's client for a person of that name.
        notices: What staff are told, kept beside the accounts.
        cookie: The session cookie's name: browsers keep one for all ports of a host, which may have several nodes.
    """

    home: Path
    config: GuiConfig
    staff: StaffBook
    governance: Callable[[str], Caller]
    notices: NoticeBook = field(init=False)
    cookie: str = field(init=False)
    _history: History | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.notices = NoticeBook(self.staff)
        self.cookie = f"__Host-fedward-{hashlib.sha256(_member_id(self.home).encode()).hexdigest()[:8]}"

    def history(self) -> History:
        """The node's records, opened at the first use: a node that never ran has none."""
        if self._history is None:
            self._history = History(self.home)
        return self._history

    def close(self) -> None:
        """Let go of the files."""
        self.staff.close()
        if self._history is not None:
            self._history.close()


def _member_id(home: Path) -> str:
    try:
        return read_settings(home / "member.toml", MemberSettings).id
    except FedWardError:
        return str(home.resolve())  # not enrolled yet


def parts() -> Parts:
    """The parts of the application that answers."""
    found: Parts = current_app.extensions[EXTENSION]
    return found


def person() -> Person:
    """Who is signed in; every page that is not public has one."""
    found: Person = g.session.person
    return found


def say(text: str, kind: str = "good") -> None:
    """Let the next page say a sentence; kind: good, warning, danger."""
    parts().staff.say(g.session, kind, text)


def said() -> list[tuple[str, str]]:
    """What this page shall say, each with its kind."""
    return parts().staff.said(g.session) if g.session is not None else []


def governance() -> Caller:
    """The warden, called in the signed-in person's name."""
    return parts().governance(person().name)


def history() -> History:
    """The node's records; read-only, and there while the warden is down.

    Raises:
        FedWardError: NODE_NOT_RUNNING when the node has never run; STORE_CORRUPT.
    """
    return parts().history()


def register() -> Register:
    """The membership register, checked against the pinned operator key.

    Not through MemberHome, which opens the node's key: no key is the GUI's.

    Raises:
        FedWardError: It cannot be read, or is not the operator's.
    """
    home = parts().home
    return open_register(read_text(home / "register.jws"), member().operator)


def member() -> MemberSettings:
    """Who this node is, by its ``member.toml``; raises FedWardError when it cannot be read."""
    return read_settings(parts().home / "member.toml", MemberSettings)


def node_status() -> dict[str, Any] | None:
    """What the node does at this moment (``node.status``), asked once a request; None while the warden cannot say."""
    if "node_status" not in g:
        try:
            g.node_status = governance().call("node.status")
        except FedWardError:  # every page asks, also the one that says what went wrong
            g.node_status = None
    found: dict[str, Any] | None = g.node_status
    return found

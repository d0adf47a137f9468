"""Fetches newer membership registers from the network host: a new member or a revocation reaches everybody by itself.

The network host is not believed: what it sends must be in the operator's signature, and newer than what is held.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

import structlog

from appliance.protocol.errors import FedWardError
from appliance.protocol.home import MemberHome
from appliance.transport.rest import TransferStoppedError

EVERY_S = 30.0
_log = structlog.get_logger(__name__)


class Source(Protocol):
    """Where the register comes from, as ``RestClient`` reaches it."""

    def register_besides(self, sha256: str, *, stop: threading.Event | None = None) -> str | None:
        """The register, unless its text has this hash (hex); ``stop`` ends the attempts."""


class RegisterPull:
    """Asks every half minute, and when told to; what is new goes into the member's folder.

    Args:
        home: The member's folder.
        source: Whom to ask.
        on_newer: Called, from a thread of ours, when a newer register lies there.
        every_s: Seconds between two questions; tests ask more often.
    """

    def __init__(
        self, home: MemberHome, source: Source, on_newer: Callable[[], None] = lambda: None, *, every_s: float = EVERY_S
    ) -> None:
        self._home = home
        self._source = source
        self._on_newer = on_newer
        self._every_s = every_s
        self._asked = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fedward-register", daemon=True)

    def start(self) -> None:
        """Begin with ``every_s``; the first question of a member that is about to connect is its ``ask``."""
        self._thread.start()

    def ask(self) -> None:
        """Ask now: the line to the network host stands again."""
        self._asked.set()

    def close(self) -> None:
        """Ask no more; a question under way ends by itself."""
        self._closing.set()
        self._asked.set()

    def pull(self) -> bool:
        """Ask once; says whether a newer register was taken.

        Raises:
            FedWardError: The network host is out of reach, or what it sent is not to be believed.
        """
        text = self._source.register_besides(self._home.register_digest(), stop=self._closing)
        return text is not None and self._home.take_register(text)

    def _run(self) -> None:
        while True:
            self._asked.wait(self._every_s)
            self._asked.clear()
            if self._closing.is_set():
                return
            try:
                if self.pull():
                    self._on_newer()
            except TransferStoppedError:
                return
            except FedWardError as error:
                _log.warning("no newer membership register could be taken", reason=error.message)
            except Exception:  # noqa: BLE001 - whatever it was, the next time may go better
                _log.exception("the membership register could not be looked at")

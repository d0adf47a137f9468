"""The wire of a local federation: queues instead of a broker, a folder instead of the network host's store."""

from __future__ import annotations

import queue
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from appliance.protocol.envelope import Signer
from appliance.protocol.errors import Code, FedWardError, takes_no_more
from appliance.protocol.home import MemberHome
from appliance.protocol.messages import SealedFile
from appliance.transport.mqtt import Event, LinkUp

Deliver = Callable[[str, str], None]  # a topic and a message
UNUSED_S = 7 * 24 * 3600.0  # no request lives longer, and so nobody asks for an older file


class LocalLink:
    """See ``researcher_kit.wire.Link``; what is published is handed to the nodes at once.

    Attributes:
        deliver: Takes a topic and a message for a node.
    """

    def __init__(self) -> None:
        self.deliver: Deliver = lambda _topic, _text: None
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._is_up = False

    def open(self) -> None:
        """Connect."""
        self._is_up = True
        self._events.put(LinkUp())

    def close(self) -> None:
        """Carry nothing more."""
        self._is_up = False

    @property
    def is_up(self) -> bool:
        """Whether it was opened, and not closed since."""
        return self._is_up

    def publish(self, topic: str, payload: str) -> None:
        """Hand a message to the nodes."""
        if self._is_up:
            self.deliver(topic, payload)

    def put(self, event: Event) -> None:
        """Hand an event to the researcher's side; any thread may call it."""
        self._events.put(event)

    def receive(self, timeout_s: float) -> Iterator[Event]:
        """What happened, waiting for it or for ``wake``."""
        with suppress(queue.Empty):
            event = self._events.get(timeout=timeout_s)
            while event is not None:
                yield event
                event = self._events.get_nowait()

    def wake(self) -> None:
        """End a wait in ``receive``."""
        self._events.put(None)


class LocalFiles:
    """See ``researcher_kit.wire.Files``; nodes put their updates here as well.

    Args:
        folder: Holds a file for each upload, under its id.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for path in folder.iterdir():  # left by a process that was killed
            if path.stat().st_mtime < time.time() - UNUSED_S:
                path.unlink(missing_ok=True)

    def upload(
        self,
        source: Path,
        *,
        upload_id: str,
        sha256: str,  # noqa: ARG002 - of the network host's promise; here the file is the source itself
        recipients: Sequence[str],  # noqa: ARG002 - likewise: who else could read this folder?
        purpose: str,  # noqa: ARG002
        experiment_id: str,  # noqa: ARG002
        stop: threading.Event | None = None,  # noqa: ARG002
    ) -> None:
        """Keep a file that is never changed: by another name for it, or a copy.

        Raises:
            FedWardError: The disk is full (DISK_FULL).
        """
        target = self._folder / upload_id
        try:
            target.unlink(missing_ok=True)
            try:
                target.hardlink_to(source)
            except OSError:  # another file system, or one without links
                shutil.copyfile(source, target)
        except OSError as error:
            if not takes_no_more(error):
                raise
            raise FedWardError(f"{target}: {error.strerror}.", code=Code.DISK_FULL) from error

    def open_new(self, upload_id: str) -> BinaryIO:
        """A file to be written."""
        return (self._folder / upload_id).open("xb")

    def download(self, sealed: SealedFile, *, stop: threading.Event | None = None) -> BinaryIO:  # noqa: ARG002
        """A file, to be read once in a ``with``.

        Raises:
            FedWardError: It is not there (TRANSFER_MISSING).
        """
        try:
            return (self._folder / str(sealed.upload_id)).open("rb")
        except FileNotFoundError:
            raise FedWardError(f"There is no file {sealed.upload_id}.", code=Code.TRANSFER_MISSING) from None

    def delete(self, upload_id: str) -> None:
        """Delete a file; one that is gone already is no fault."""
        (self._folder / upload_id).unlink(missing_ok=True)

    def register_besides(self, sha256: str, *, stop: threading.Event | None = None) -> str | None:  # noqa: ARG002
        """A local register changes only while nobody is connected."""
        return None

    def close(self) -> None:
        """Nothing is open."""


class LocalWire:
    """See ``researcher_kit.wire.Wire``."""

    def __init__(self, link: LocalLink, files: LocalFiles) -> None:
        self._link = link
        self._files = files

    def link(self, home: MemberHome) -> LocalLink:  # noqa: ARG002 - there is one line
        """The line."""
        return self._link

    def files(self, home: MemberHome, signer: Signer) -> LocalFiles:  # noqa: ARG002 - there is one store
        """The store."""
        return self._files

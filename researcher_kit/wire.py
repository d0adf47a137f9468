"""The one seam for the wire: a line for messages and a store for files, to be swapped by tests and simulators."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

from appliance.protocol.envelope import Signer
from appliance.protocol.home import MemberHome
from appliance.protocol.messages import SealedFile
from appliance.transport.mqtt import Event, MqttLink
from appliance.transport.register import Source
from appliance.transport.rest import RestClient


class Link(Protocol):
    """The line to the broker, as ``MqttLink`` keeps it."""

    def open(self) -> None:
        """Start to connect, in the background."""

    def close(self) -> None:
        """End the line."""

    @property
    def is_up(self) -> bool:
        """Whether the line stands at this moment."""

    def publish(self, topic: str, payload: str) -> None:
        """Hand a message over if the line stands, else drop it."""

    def receive(self, timeout_s: float) -> Iterator[Event]:
        """What happens on the line, waiting for it or for ``wake``."""

    def wake(self) -> None:
        """End a wait in ``receive``; any thread may call it."""


class Files(Source, Protocol):
    """The parameter store and the membership register, as ``RestClient`` reaches them."""

    def upload(
        self,
        source: Path,
        *,
        upload_id: str,
        sha256: str,
        recipients: Sequence[str],
        purpose: str,
        experiment_id: str,
        stop: threading.Event | None = None,
    ) -> None:
        """Upload a file, whole; the same id and hash again change nothing."""

    def download(self, sealed: SealedFile, *, stop: threading.Event | None = None) -> BinaryIO:
        """A file, to be read once in a ``with``; the read that finds its end has checked the hash."""

    def delete(self, upload_id: str) -> None:
        """Delete an upload of ours."""

    def close(self) -> None:
        """Close what is open."""


@runtime_checkable
class Queue(Protocol):
    """The federators' queue, as ``RestClient`` reaches it."""

    def jobs_submit(self, job_id: str, *, federator: str, spec: Any, mandate: str) -> dict[str, Any]:
        """Put a job into a federator's queue."""

    def jobs_list(self, *, state: str | None = None) -> list[dict[str, Any]]:
        """The jobs that we submitted or claimed, of one state if it is given, the newest first."""

    def jobs_show(self, job_id: str) -> dict[str, Any]:
        """One of them, with all that belongs to it."""

    def jobs_cancel(self, job_id: str) -> dict[str, Any]:
        """Take back a job of ours."""

    def jobs_claim(self) -> dict[str, Any] | None:
        """Take the oldest job that waits for us."""

    def jobs_progress(self, job_id: str, progress: Any) -> dict[str, Any]:
        """Say how far a job is that we claimed."""

    def jobs_finish(self, job_id: str, outcome: Any) -> dict[str, Any]:
        """Say that a job we claimed is done."""

    def jobs_fail(self, job_id: str, outcome: Any) -> dict[str, Any]:
        """Say that a job we claimed could not be done."""


class Wire(Protocol):
    """Opens a researcher's connections."""

    def link(self, home: MemberHome) -> Link:
        """A line, not yet open."""

    def files(self, home: MemberHome, signer: Signer) -> Files:
        """The parameter store in the researcher's name."""


class NetworkWire:
    """The consortium's network host, at the first endpoint of the member's settings."""

    def link(self, home: MemberHome) -> Link:
        """See ``Wire``. The client id is of this process: two notebooks of one researcher may run at once."""
        return MqttLink(
            home.settings.endpoints[0],
            member_id=home.member_id,
            client_id=secrets.token_hex(16),
            tls=home.tls,
            hears_presence=True,
            keeps_session=False,
        )

    def files(self, home: MemberHome, signer: Signer) -> Files:
        """See ``Wire``."""
        return RestClient(home.settings.endpoints[0].rest_url, home.tls, signer)

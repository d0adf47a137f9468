"""The node tells the network host how it is, so that the operator sees it before somebody calls."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import structlog
from cryptography import x509

from appliance.protocol.errors import FedWardError
from appliance.transport.rest import RestClient

EVERY_S = 60.0
_GIVE_UP_S = 20.0  # the next one is newer anyway
_log = structlog.get_logger(__name__)


class Presence:
    """Says it once a minute, on a thread of its own: a line that hangs keeps no message waiting.

    Args:
        root: The node's folder.
        running: How many rounds run now.
    """

    def __init__(self, root: Path, rest: RestClient, running: Callable[[], int]) -> None:
        self._root = root
        self._rest = rest
        self._running = running
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def close(self) -> None:
        """Tell nothing more."""
        self._stopping.set()

    def state(self) -> dict[str, str | int]:
        """Everything that is told: nothing of data, people or plans.

        Raises:
            OSError, ValueError: The disk or the certificate cannot be read.
        """
        disk = shutil.disk_usage(self._root)
        certificate = x509.load_pem_x509_certificate((self._root / "tls/cert.pem").read_bytes())
        return {
            "version": version("fedward"),
            "disk_free_bytes": disk.free,
            "disk_total_bytes": disk.total,
            "certificate_until": int(certificate.not_valid_after_utc.timestamp()),
            "running_rounds": self._running(),
        }

    def _run(self) -> None:
        while True:
            try:
                self._rest.state_tell(self.state(), give_up_s=_GIVE_UP_S)
            except (FedWardError, OSError, ValueError) as error:
                _log.info("the network host was not told how this node is", reason=str(error))
            if self._stopping.wait(EVERY_S):
                return

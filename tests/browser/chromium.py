"""Debian's Chromium, driven from outside, and windows that write down whatever goes wrong in them."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Request,
    Response,
    expect,
    sync_playwright,
)

from node_gui.app import HEADERS

PROGRAM = Path("/usr/bin/chromium")
PATIENCE_MS = 30_000  # the machine may be slow; what is right comes at last
POLICY = "content-security-policy"
_ARGUMENTS = (
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--no-sandbox",
)


@contextmanager
def chromium(scratch: Path, certificates: Iterable[Path]) -> Iterator[Browser]:
    """A browser with a profile of its own; every process that came with it ends with it, whatever happened.

    Args:
        scratch: Becomes the browser's home.
        certificates: What it trusts, and nothing else: those that the GUIs made for themselves (PEM).
    """
    expect.set_options(timeout=PATIENCE_MS)
    us = psutil.Process()
    before = set(us.children(recursive=True))
    ours: set[psutil.Process] = set()
    try:
        with sync_playwright() as playwright:
            ours = set(us.children(recursive=True)) - before
            browser = playwright.chromium.launch(
                executable_path=PROGRAM,
                headless=True,
                args=[*_ARGUMENTS, f"--ignore-certificate-errors-spki-list={','.join(map(_key_hash, certificates))}"],
                env={**os.environ, "HOME": str(scratch)},
                timeout=PATIENCE_MS,
            )
            ours = set(us.children(recursive=True)) - before
            yield browser
            browser.close()
    finally:
        _end(ours)


def _key_hash(certificate: Path) -> str:
    """SHA-256 of the certificate's public key, as Chromium wants it."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


def _end(processes: set[psutil.Process]) -> None:
    """Kill what is left of them, with all that they started."""
    left = [process for process in processes if process.is_running()]
    for process in left:
        try:
            left += process.children(recursive=True)
        except psutil.NoSuchProcess:
            continue
    for process in set(left):
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(left, timeout=10)


class Window:
    """A browser window on one hospital's GUI.

    Attributes:
        page: What it shows.
        faults: What no window may have: an error in the console, a script's error, a request that failed, an answer
            with an error that the test did not ask for, an answer without the policy header.
    """

    def __init__(self, browser: Browser, address: str, **options: Any) -> None:
        self.address = address
        self.faults: list[str] = []
        self._expected = 200
        self._context: BrowserContext = browser.new_context(
            base_url=address,
            locale="en-GB",
            reduced_motion="reduce",
            **({"viewport": {"width": 1280, "height": 800}} | options),
        )
        self._context.set_default_timeout(PATIENCE_MS)
        self._context.on("console", self._heard)
        self._context.on("weberror", lambda error: self.faults.append(f"script: {error.error}"))
        self._context.on("requestfailed", self._failed)
        self._context.on("response", self._answered)
        self.page: Page = self._context.new_page()

    def open(self, path: str, *, status: int = 200) -> Page:
        """Go to a page that answers with this status."""
        self._expected = status
        answer = self.page.goto(path)
        assert answer is not None
        assert answer.status == status, f"{path}: {answer.status}"
        return self.page

    def expect_status(self, status: int) -> None:
        """What is done next is answered with this status."""
        self._expected = status

    def stand_still(self) -> None:
        """Let no live part refresh itself from now on: what is measured shall not change meanwhile."""
        self._context.route("**/live*", lambda route: route.fulfill(status=204, headers=HEADERS))

    def state(self) -> Any:
        """The cookies, for another window of the same person."""
        return self._context.storage_state()

    def close(self) -> None:
        """Close it."""
        self._context.close()

    def _heard(self, message: ConsoleMessage) -> None:
        is_fault = message.type == "error" or message.text.startswith("[DOM]")  # what the page's own text does wrong
        # A status says more where the answer is looked at.
        if is_fault and "the server responded with a status of" not in message.text:
            self.faults.append(f"console: {message.type}: {message.text}")

    def _failed(self, request: Request) -> None:
        # Leaving a page ends what it was still fetching, and a download ends its navigation.
        if request.failure != "net::ERR_ABORTED":
            self.faults.append(f"request: {request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400 and response.status != self._expected:
            self.faults.append(f"status {response.status}: {response.url}")
        if response.headers.get(POLICY) != HEADERS["Content-Security-Policy"]:
            self.faults.append(f"no policy: {response.url}")

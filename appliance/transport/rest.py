"""The REST client: files and jobs, over a line that may break at any byte.

Uploads go on where they stopped (tus 1.0), downloads as well (byte ranges); either is done only when its SHA-256 was
checked. Whatever may pass by itself is tried again until patience ends; what the network host refuses is raised at
once, with the host's own reason.

    FedWardError
    ├── UnreachableError        the line did not come back in time
    ├── RefusedError            the host said no; the code is the host's
    ├── CorruptError            the bytes are not those that were announced
    ├── LocalFileError          a file on this machine could not be read or written
    └── TransferStoppedError    the caller's stop was set
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import ssl
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import urlsplit

import requests
import structlog
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError

from appliance.protocol.envelope import Signer
from appliance.protocol.errors import REMEDIES, Code, ConfigurationError, FedWardError, takes_no_more
from appliance.protocol.home import TlsFiles
from appliance.protocol.messages import SealedFile
from appliance.transport.backoff import Backoff
from appliance.transport.tls import ClientContexts

GIVE_UP_S = 600.0
CHUNK_BYTES = 256 << 10
SMALL_BYTES = 1 << 20  # goes along with its announcement: one call instead of two
CONNECT_S, ANSWER_S = 30.0, 120.0  # the first is also how long a line may stand still while we send
RENEW_BEFORE_S = 60
_TUS = {"Tus-Resumable": "1.0.0"}
_BODY = {"Content-Type": "application/offset+octet-stream"}
_CORRUPT = 460  # tus 1.0: the checksum does not match
_PASSING = frozenset({408, 423, 425, 429, 500, 502, 503, 504, 507})
_CONNECTIONS = 16
_log = structlog.get_logger(__name__)

Progress = Callable[[int, int], None]  # bytes done, bytes in all
_T = TypeVar("_T")


class UnreachableError(FedWardError):
    """The network host did not answer, or could not, for as long as we had patience."""

    code = Code.NETWORK_UNREACHABLE


class RefusedError(FedWardError):
    """The network host refused, with its own reason.

    Attributes:
        status: The HTTP status.
    """

    code = Code.NETWORK_REFUSED

    def __init__(self, message: str, *, status: int, code: Code, remedy: str) -> None:
        super().__init__(message, code=code, remedy=remedy)
        self.status = status


class CorruptError(FedWardError):
    """The bytes have another hash than was announced."""

    code = Code.TRANSFER_CORRUPT


class LocalFileError(FedWardError):
    """A file on this machine could not be read or written."""


class TransferStoppedError(FedWardError):
    """The transfer was told to stop; what is there already is kept for the next time."""

    code = Code.ROUND_STOPPED

    def __init__(self) -> None:
        super().__init__("The transfer was stopped.")


class _PassingError(Exception):
    """Try again: the line broke, or the host is busy."""


class RestClient:
    """A member's line to the network host's REST service. Threads may share it.

    Args:
        base_url: ``https://HOST:PORT``.
        tls: Our transport identity, and the authority that the host must be from.
        signer: Signs the bearer tokens.
        give_up_s: Seconds without progress after which a call raises UnreachableError.
    """

    def __init__(self, base_url: str, tls: TlsFiles, signer: Signer, *, give_up_s: float = GIVE_UP_S) -> None:
        self._line = _Line(base_url, tls, signer)
        self._give_up_s = give_up_s

    def close(self) -> None:
        """Close the connections that are kept."""
        self._line.close()

    # Files

    def upload(
        self,
        source: Path | bytes | memoryview,
        *,
        upload_id: str,
        sha256: str,
        recipients: Sequence[str],
        purpose: str,
        experiment_id: str,
        on_progress: Progress | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """Upload a file, whole; the same call again goes on where the last one ended, or finds it done.

        Args:
            source: A file, or bytes in memory.
            upload_id: A UUID of the caller's choice.
            sha256: Of the source, in hex.
            recipients: The members that may download it.
            purpose: What it is for, as one word.
            experiment_id: To which experiment it belongs.
            on_progress: Told (bytes done, bytes in all).
            stop: Ends the transfer when it is set.

        Raises:
            RefusedError: Among others with the codes QUOTA_EXCEEDED and UPLOAD_CONFLICT.
            CorruptError: The source does not have that hash.
            LocalFileError: The source cannot be read.
            UnreachableError: No progress for too long.
            TransferStoppedError: ``stop`` was set.
        """
        announcement = {
            "id": _uuid(upload_id),
            "sha256": sha256,
            "recipients": ",".join(recipients),
            "purpose": purpose,
            "experiment": experiment_id,
        }
        backoff = Backoff(self._give_up_s, stop)
        with _local(source), _opened(source) as (file, size):
            upload = _Upload(self._line, announcement, _Pump(file, size, on_progress, backoff), backoff)
            while not upload.is_complete:
                self._line.persist(upload.step, backoff)

    def download(self, sealed: SealedFile, *, stop: threading.Event | None = None) -> BinaryIO:
        """A file, to be read once from its beginning, in a ``with``; see ``Download``.

        Args:
            sealed: Which file, with its size and hash.
            stop: Ends the transfer when it is set.
        """
        return cast("BinaryIO", Download(self._line, sealed, Backoff(self._give_up_s, stop)))

    def delete(self, upload_id: str) -> None:
        """Delete an upload of ours, or one that was for us alone; one that is gone already is no fault."""
        try:
            self._answer("DELETE", f"/uploads/{_uuid(upload_id)}", headers=_TUS)
        except RefusedError as error:
            if error.status != HTTPStatus.NOT_FOUND:
                raise

    # The register and the queue

    def register(self) -> str:
        """The membership register in the operator's signature; the caller checks it."""
        return self._answer("GET", "/register").text

    def register_besides(self, sha256: str, *, stop: threading.Event | None = None) -> str | None:
        """The same, unless it is the one whose text has this hash (hex), which is not sent again."""
        asked = {"If-None-Match": f'"{sha256}"'}
        answer = self._line.persist(
            lambda: self._line.call("GET", "/register", headers=asked), Backoff(self._give_up_s, stop)
        )
        return None if answer.status_code == HTTPStatus.NOT_MODIFIED else answer.text

    def certificate(self, request: Mapping[str, Any]) -> str:
        """A further certificate for us, by the join request that we signed; the caller checks it."""
        return str(self._object("POST", "/certificates", dict(request)).get("certificate"))

    def state_tell(self, state: Mapping[str, str | int], *, give_up_s: float) -> None:
        """Say how we are: version, disk, the certificate's end, running rounds; ``/api/schema`` has the fields."""
        self._line.persist(lambda: self._line.call("PUT", "/members/me/state", json=dict(state)), Backoff(give_up_s))

    def jobs_submit(self, job_id: str, *, federator: str, spec: Any, mandate: str) -> dict[str, Any]:
        """Put a job into a federator's queue; the same id again finds the first one."""
        job = {"id": _uuid(job_id), "federator": federator, "spec": spec, "mandate": mandate}
        return self._object("POST", "/jobs", job)

    def jobs_list(self, *, state: str | None = None) -> list[dict[str, Any]]:
        """The jobs that we submitted or claimed, of one state if it is given, the newest first."""
        return list(self._answer("GET", "/jobs", params=None if state is None else {"state": state}).json())

    def jobs_show(self, job_id: str) -> dict[str, Any]:
        """One of them."""
        return self._object("GET", f"/jobs/{_uuid(job_id)}")

    def jobs_cancel(self, job_id: str) -> dict[str, Any]:
        """Take back a job of ours."""
        return self._object("POST", f"/jobs/{_uuid(job_id)}/cancel")

    def jobs_claim(self) -> dict[str, Any] | None:
        """Take the oldest job that waits for us, if one does."""
        answer = self._answer("POST", "/jobs/claim")
        return None if answer.status_code == HTTPStatus.NO_CONTENT else dict(answer.json())

    def jobs_progress(self, job_id: str, progress: Any) -> dict[str, Any]:
        """Say how far a job is that we claimed.

        Raises:
            RefusedError: With JOB_STATE once the researcher cancelled it.
        """
        return self._object("POST", f"/jobs/{_uuid(job_id)}/progress", {"progress": progress})

    def jobs_finish(self, job_id: str, outcome: Any) -> dict[str, Any]:
        """Say that a job we claimed is done."""
        return self._object("POST", f"/jobs/{_uuid(job_id)}/finish", {"outcome": outcome})

    def jobs_fail(self, job_id: str, outcome: Any) -> dict[str, Any]:
        """Say that a job we claimed could not be done."""
        return self._object("POST", f"/jobs/{_uuid(job_id)}/fail", {"outcome": outcome})

    def _answer(self, method: str, path: str, **options: Any) -> requests.Response:
        return self._line.persist(lambda: self._line.call(method, path, **options), Backoff(self._give_up_s))

    def _object(self, method: str, path: str, json: Any = None) -> dict[str, Any]:
        return dict(self._answer(method, path, json=json).json())


class Download(io.RawIOBase):
    """A file as it comes over the line; a line that breaks is taken up again where it broke.

    Its bytes are to be believed only when the end was read: that read checks the hash. Nothing is written down, so a
    process that dies fetches the file again (decision 9).

    Raises:
        RefusedError: With TRANSFER_MISSING when there is no such file for us.
        CorruptError: The bytes do not have the hash that was announced.
        UnreachableError: No progress for too long.
        TransferStoppedError: The caller's stop was set.
    """

    def __init__(self, line: _Line, sealed: SealedFile, backoff: Backoff) -> None:
        super().__init__()
        self._line = line
        self._sealed = sealed
        self._backoff = backoff
        self._path = f"/uploads/{_uuid(sealed.upload_id or '')}/content"
        self._answer: requests.Response | None = None
        self._digest = hashlib.sha256()
        self._done = 0

    def readable(self) -> bool:
        """Nothing else can be done with it."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Fill ``buffer`` with what comes next; 0 at the end of a file that is whole and the one announced."""
        view = memoryview(buffer)[: min(CHUNK_BYTES, self._sealed.size_bytes - self._done)]
        if not view:
            self._require_same()
            return 0
        piece = self._line.persist(lambda: self._piece(len(view)), self._backoff)
        self._backoff.progressed()
        self._digest.update(piece)
        self._done += len(piece)
        view[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        """Give the line back, or cut it when the rest was not read."""
        if self._answer is not None:
            self._answer.close()
        super().close()

    def _piece(self, limit: int) -> bytes:
        answer = self._answer = self._answer or self._open()
        try:
            if piece := answer.raw.read(limit):
                return bytes(piece)
            reason = "the answer ended"
        except HTTPError as error:
            reason = type(error).__name__
        self._answer = None
        answer.close()
        raise _PassingError(f"the line broke after {self._done} of {self._sealed.size_bytes} bytes ({reason})")

    def _open(self) -> requests.Response:
        ranged = {"Range": f"bytes={self._done}-", "If-Range": f'"{self._sealed.sha256}"'} if self._done else {}
        headers = {**ranged, "Accept-Encoding": "identity"}
        answer = self._line.call("GET", self._path, headers=headers, stream=True)
        if self._done and answer.status_code != HTTPStatus.PARTIAL_CONTENT:
            answer.close()
            raise CorruptError(f"Upload {self._sealed.upload_id} has become another file while it was fetched.")
        return answer

    def _require_same(self) -> None:
        if (found := self._digest.hexdigest()) != self._sealed.sha256:
            announced = f"{self._sealed.sha256} was announced"
            raise CorruptError(f"Upload {self._sealed.upload_id} has the SHA-256 {found}; {announced}.")


class _Line:
    """Connections with our certificate, and calls with our token."""

    def __init__(self, base_url: str, tls: TlsFiles, signer: Signer) -> None:
        parts = urlsplit(base_url)
        if parts.scheme != "https" or not parts.netloc:
            raise ConfigurationError(f"{base_url[:80]!r} is not an https address.")
        self._base = f"https://{parts.netloc}"
        self._signer = signer
        self._token = ("", 0.0)
        self._lock = threading.Lock()
        self._session = requests.Session()
        self._session.trust_env = False  # neither a proxy nor a password from somebody's environment
        self._session.verify = str(tls.ca)
        self._session.mount("https://", _Adapter(tls))

    def close(self) -> None:
        """Close the connections that are kept."""
        self._session.close()

    def persist(self, action: Callable[[], _T], backoff: Backoff) -> _T:
        """Do it, and again for as long as only the line is at fault."""
        while not backoff.is_stopped:
            try:
                return action()
            except _PassingError as error:
                _log.info("call to the network host failed", reason=str(error))
                if not backoff.pause() and not backoff.is_stopped:
                    raise UnreachableError(f"The network host at {self._base} is out of reach: {error}.") from error
        raise TransferStoppedError

    def call(
        self, method: str, path: str, *, headers: Mapping[str, str] | None = None, **options: Any
    ) -> requests.Response:
        """One call, one answer.

        Raises:
            RefusedError: The host refused for good.
            _PassingError: The line broke, or the host is busy.
        """
        token, is_fresh = self._bearer()
        try:
            answer = self._session.request(
                method,
                f"{self._base}/api/v1{path}",
                headers={"Authorization": f"Bearer {token}", **(headers or {})},
                timeout=(CONNECT_S, ANSWER_S),
                allow_redirects=False,
                **options,
            )
        except requests.RequestException as error:
            raise _broken(error) from error
        if answer.status_code == HTTPStatus.UNAUTHORIZED and not is_fresh:
            self._token = ("", 0.0)  # clocks may have been set since it was signed
            raise _PassingError("the token was no longer accepted")
        if answer.status_code in _PASSING:
            raise _PassingError(f"it answered {answer.status_code}: {_refusal(answer).message}")
        is_known = answer.status_code == HTTPStatus.NOT_MODIFIED and "If-None-Match" in (headers or {})
        if answer.status_code >= HTTPStatus.MULTIPLE_CHOICES and not is_known:  # a redirection is no answer of ours
            raise _refusal(answer)
        return answer

    def _bearer(self) -> tuple[str, bool]:
        """The token to send, and whether it was signed just now."""
        with self._lock:
            is_fresh = time.time() > self._token[1] - RENEW_BEFORE_S
            if is_fresh:
                self._token = self._signer.token()
            return self._token[0], is_fresh


class _Adapter(HTTPAdapter):
    """Connections over our own TLS context; TCP_NODELAY is the library's default."""

    def __init__(self, tls: TlsFiles) -> None:
        self._contexts = ClientContexts(tls)
        self._renewing = threading.Lock()
        super().__init__(pool_connections=1, pool_maxsize=_CONNECTIONS, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Every connection uses the context; its check of the host's name stays on."""
        super().init_poolmanager(*args, ssl_context=self._contexts.current, blocksize=CHUNK_BYTES, **kwargs)

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Over fresh connections once the certificate was renewed; calls under way keep theirs."""
        with self._renewing:
            if self._contexts.renewed() is not None:
                self.init_poolmanager(1, _CONNECTIONS)
        return super().send(*args, **kwargs)


class _Pump:
    """An upload's source, as the HTTP library reads it."""

    def __init__(self, file: BinaryIO, size: int, on_progress: Progress | None, backoff: Backoff) -> None:
        self._file = file
        self.size = size
        self._on_progress = on_progress
        self._backoff = backoff

    def seek(self, offset: int) -> None:
        """Go on from ``offset``."""
        self._file.seek(offset)
        if self._on_progress is not None:
            self._on_progress(offset, self.size)

    def __len__(self) -> int:
        return self.size - self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """The next bytes; raises TransferStoppedError when the caller wants to stop."""
        if self._backoff.is_stopped:
            raise TransferStoppedError
        chunk = self._file.read(size)
        if self._on_progress is not None:
            self._on_progress(self._file.tell(), self.size)
        return chunk


class _Upload:
    """One upload, from its announcement to its last byte."""

    def __init__(self, line: _Line, announcement: Mapping[str, str], pump: _Pump, backoff: Backoff) -> None:
        self._line = line
        self._pump = pump
        self._backoff = backoff
        self._path = f"/uploads/{announcement['id']}"
        metadata = (f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in announcement.items())
        self._headers = {**_TUS, "Upload-Length": str(pump.size), "Upload-Metadata": ",".join(metadata)}
        self._offset: int | None = None  # None: we do not know
        self._furthest = 0
        self.is_complete = False

    def step(self) -> None:
        """Announce, or append; whenever a call fails, the next step announces again and so learns where we stand."""
        offset, self._offset = self._offset, None
        try:
            self._note(self._announce() if offset is None else self._append(offset))
        except RefusedError as error:
            if error.status == _CORRUPT:
                raise CorruptError(error.message) from error
            if offset is not None and error.status in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                raise _PassingError("the upload stands elsewhere than we believed") from error
            raise

    def _announce(self) -> requests.Response:
        if not 0 < self._pump.size <= SMALL_BYTES:
            return self._line.call("POST", "/uploads", headers=self._headers)
        self._pump.seek(0)
        return self._line.call("POST", "/uploads", headers={**self._headers, **_BODY}, data=self._pump)

    def _append(self, offset: int) -> requests.Response:
        self._pump.seek(offset)
        headers = {**_TUS, **_BODY, "Upload-Offset": str(offset)}
        return self._line.call("PATCH", self._path, headers=headers, data=self._pump if len(self._pump) else b"")

    def _note(self, answer: requests.Response) -> None:
        self.is_complete = answer.headers.get("Upload-Complete") == "?1"
        self._offset = min(_number(answer.headers.get("Upload-Offset")), self._pump.size)
        if self._offset > self._furthest:
            self._furthest = self._offset
            self._backoff.progressed()


class _Memory(io.RawIOBase):
    """Bytes in memory as a file, without a copy of them all."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def seek(self, offset: int, _whence: int = os.SEEK_SET) -> int:
        self._at = offset
        return offset

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        end = len(self._view) if size < 0 else self._at + size
        chunk = self._view[self._at : end].tobytes()
        self._at += len(chunk)
        return chunk


@contextmanager
def _opened(source: Path | bytes | memoryview) -> Iterator[tuple[BinaryIO, int]]:
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    else:
        view = memoryview(source).cast("B")
        yield cast("BinaryIO", _Memory(view)), len(view)


@contextmanager
def _local(path: Path | bytes | memoryview) -> Iterator[None]:
    """A file on this machine fails for reasons of this machine."""
    try:
        yield
    except OSError as error:
        name = path if isinstance(path, Path) else "the upload's source"
        if takes_no_more(error):
            raise LocalFileError(f"{name}: {error.strerror}.", code=Code.DISK_FULL) from error
        raise LocalFileError(f"{name}: {error.strerror}.", remedy="Check the file named and its folder.") from error


def _broken(error: requests.RequestException) -> FedWardError | _PassingError:
    """Why a call got no answer; only a certificate that is not the host's does not pass by itself."""
    fault = _tls_fault(error)
    if isinstance(fault, ssl.SSLCertVerificationError):
        return UnreachableError(
            f"The network host's certificate is not accepted: {fault.verify_message}",
            remedy="Check the address of the network host, and that its certificate is the consortium's and in date.",
        )
    reason = fault.reason if fault is not None else type(error).__name__
    return _PassingError(f"no answer ({reason})")


def _tls_fault(error: BaseException) -> ssl.SSLError | None:
    """The TLS library's own error, somewhere beneath the HTTP library's."""
    seen: set[int] = set()
    waiting: list[Any] = [error]
    while waiting:
        found = waiting.pop()
        if isinstance(found, ssl.SSLError):
            return found
        if isinstance(found, BaseException) and id(found) not in seen:
            seen.add(id(found))
            waiting += [found.__cause__, found.__context__, getattr(found, "reason", None), *found.args]
    return None


def _refusal(answer: requests.Response) -> RefusedError:
    try:
        body = answer.json()
        code = Code(body["code"])
        return RefusedError(str(body["message"]), status=answer.status_code, code=code, remedy=str(body["remedy"]))
    except (requests.RequestException, ValueError, KeyError, TypeError):
        message = f"The network host answered {answer.status_code} without a reason."
        code = Code.NETWORK_REFUSED
        return RefusedError(message, status=answer.status_code, code=code, remedy=REMEDIES[code])


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise ConfigurationError(f"{text[:64]!r} is not a UUID.") from error

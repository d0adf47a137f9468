"""The layers of a model that no round trains, on their way to the nodes: uploaded once, and named in each request.

The same content is sealed to the same bytes, under the key that it had before: so a node that has the file knows it
by its hash, also when it had to be uploaded again.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

import structlog

from appliance.protocol.errors import FedWardError, SealError
from appliance.protocol.messages import FROZEN_SINCE, SealedFile
from appliance.protocol.sealing import Sealed, open_key, seal_key
from appliance.protocol.tensors import TensorFile, gathered_pieces
from researcher_kit.federation import Federation
from researcher_kit.spool import Spool
from researcher_kit.store import FrozenRow, RoundBook

RENEW_S = 24 * 3600.0  # an upload that is older is made again before it may expire at the network host
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class FrozenFile:
    """Frozen layers at the network host.

    Attributes:
        uploaded_bytes: What it cost to have them there; 0 if they were.
    """

    file: SealedFile
    content_key: bytes = field(repr=False)
    context: str
    uploaded_bytes: int

    def to(self, sealing: str) -> SealedFile:
        """The file, for the member with that public key."""
        return self.file.model_copy(update={"content_key": seal_key(self.content_key, sealing, context=self.context)})


class FrozenLayers:
    """One experiment's frozen layers."""

    def __init__(self, experiment_id: str, federation: Federation, book: RoundBook) -> None:
        self._experiment_id = experiment_id
        self._federation = federation
        self._book = book
        self._context = f"{experiment_id}/frozen"

    def are_understood(self, nodes: Collection[str]) -> bool:
        """Whether all these nodes are known to take them apart from the parameters."""
        return all(self._federation.speaks(node, FROZEN_SINCE) for node in nodes)

    def provide(
        self, layers: TensorFile, nodes: Sequence[str], others: Collection[str], spool: Spool, stop: threading.Event
    ) -> FrozenFile:
        """Have the layers at the network host.

        Args:
            layers: The frozen tensors.
            nodes: Who must be able to fetch them.
            others: Who may have to in a later round.
            spool: Holds the file while it is uploaded.
            stop: Ends the upload when it is set.

        Raises:
            FedWardError: The network host is out of reach, or does not take the file.
        """
        digest = hashlib.sha256()
        for piece in gathered_pieces({name: (layers, name) for name in layers}):
            digest.update(piece)
        content, known = digest.hexdigest(), self._book.find_frozen()
        key = self._key_of(known) if known and known.content_sha256 == content else None
        is_new = known is not None and self._federation.clock() - known.uploaded_at < RENEW_S
        if known and key and is_new and set(nodes) <= set(known.recipients):
            return FrozenFile(known.file, key, self._context, uploaded_bytes=0)
        later = {*others, *(known.recipients if known else ())}
        recipients = sorted({*nodes, *filter(self._federation.register.is_active, later)})
        row, key = self._upload(layers, content, recipients, key, spool, stop)
        self._book.put_frozen(row)
        if known is not None:
            with suppress(FedWardError):  # it expires
                self._federation.files.delete(str(known.file.upload_id))
        return FrozenFile(row.file, key, self._context, uploaded_bytes=row.file.size_bytes)

    def renew(self) -> None:
        """Let the next round upload them again: a node did not find them."""
        known = self._book.find_frozen()
        if known is not None:
            self._book.put_frozen(replace(known, uploaded_at=0.0))

    def _upload(
        self,
        layers: TensorFile,
        content: str,
        recipients: Sequence[str],
        key: bytes | None,
        spool: Spool,
        stop: threading.Event,
    ) -> tuple[FrozenRow, bytes]:
        path, sealed = spool.seal_parameters(spool.write_request(layers), key=key)
        upload_id = str(uuid.uuid4())
        self._federation.files.upload(
            path,
            upload_id=upload_id,
            sha256=sealed.sha256,
            recipients=recipients,
            purpose="frozen",
            experiment_id=self._experiment_id,
            stop=stop,
        )
        path.unlink()
        file = SealedFile(
            upload_id=upload_id,
            sha256=sealed.sha256,
            size_bytes=sealed.size_bytes,
            content_key=self._kept_key(sealed),
        )
        return FrozenRow(content, file, tuple(recipients), self._federation.clock()), sealed.content_key

    def _kept_key(self, sealed: Sealed) -> str:
        """The key, sealed to ourselves, so that the store holds no secret in clear."""
        return seal_key(sealed.content_key, self._federation.keys.public.sealing, context=self._context)

    def _key_of(self, row: FrozenRow) -> bytes | None:
        try:
            return open_key(row.file.content_key, self._federation.keys.sealing, context=self._context)
        except SealError:
            _log.info("frozen layers are sealed anew: our key has changed", experiment=self._experiment_id)
            return None

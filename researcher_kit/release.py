"""Sending a finished model to the hospitals, whose staff find it in their node's GUI.

The three files of an export that hold no code (``RELEASE_FILES``) are sealed once, uploaded where they are large, and
named in a signed message to each node, with their keys sealed to it. A node takes nothing else.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from appliance.protocol.errors import FedWardError
from appliance.protocol.keys import b64url
from appliance.protocol.messages import MAX_ENCLOSED_BYTES, RELEASE_FILES, ErrorReply, ModelKept, Release, SealedFile
from appliance.protocol.sealing import Sealed, seal, seal_key
from researcher_kit.federation import Answer, Federation
from researcher_kit.tables import NodeTable

PURPOSE = "model"


def release(
    exported: Path, name: str, *, experiment_id: str, federation: Federation, nodes: Sequence[str], timeout_s: float
) -> NodeTable[ModelKept]:
    """Send an exported model to these nodes, and wait for what they say.

    Args:
        exported: The folder that ``write_export`` made; sealed files are written into it.
        name: What the hospitals' staff read in their list.
        experiment_id: Whose model it is.
        federation: Uploads the files and sends the messages.
        nodes: Who may download them.
        timeout_s: A node that is silent has a week to fetch the model.

    Raises:
        FedWardError: The network host is out of reach, or does not take the files.
    """
    sealed = _SealedModel(exported, experiment_id=experiment_id, federation=federation, nodes=nodes)
    answers = federation.ask(sealed.messages(name), timeout_s=timeout_s)
    if len(answers) == len(nodes):
        sealed.withdraw()
    kept = {node: answer.body for node, answer in answers.items() if isinstance(answer.body, ModelKept)}
    rows = [(node, federation.institution(node), *_words(answers.get(node))) for node in nodes]
    silent = tuple(node for node in nodes if node not in answers)
    return NodeTable(f"Model {name}", ("node", "institution", "state", "note"), tuple(rows), kept, silent)


def _words(answer: Answer | None) -> tuple[str, str]:
    """What became of it at a node, for people."""
    match answer.body if answer else None:
        case ModelKept(model_sha256=sha256):
            return "kept", sha256
        case ErrorReply(code=code, message=message, rule=rule):
            return code, f"{message} ({rule})" if rule else message
        case _:
            return "no answer yet", "It has a week to fetch the model."


@dataclass(frozen=True)
class _Part:
    """A sealed file, where it is, and the purpose to which its key is sealed."""

    sealed: Sealed
    upload_id: str | None
    content: str | None
    context: str

    def to(self, sealing: str) -> SealedFile:
        """The file, for the member with that public key."""
        return SealedFile(
            upload_id=self.upload_id,
            content=self.content,
            sha256=self.sealed.sha256,
            size_bytes=self.sealed.size_bytes,
            content_key=seal_key(self.sealed.content_key, sealing, context=self.context),
        )


class _SealedModel:
    """An exported model, sealed, and uploaded where it is large."""

    def __init__(self, exported: Path, *, experiment_id: str, federation: Federation, nodes: Sequence[str]) -> None:
        self._experiment_id = experiment_id
        self._federation = federation
        self._nodes = tuple(nodes)
        self._parts = {field: self._part(exported / name) for field, name in RELEASE_FILES.items()}

    def messages(self, name: str) -> dict[str, Release]:
        """The message to each node."""
        messages = {}
        for node in self._nodes:
            sealing = self._federation.register.require(node).sealing
            parts = {field: part.to(sealing) for field, part in self._parts.items()}
            messages[node] = Release(experiment_id=self._experiment_id, name=name, **parts)
        return messages

    def withdraw(self) -> None:
        """Delete what was uploaded, once every node has it."""
        for part in self._parts.values():
            if part.upload_id is not None:
                with suppress(FedWardError):  # it expires
                    self._federation.files.delete(part.upload_id)

    def _part(self, file: Path) -> _Part:
        target = file.with_name(f"{file.name}.sealed")
        with file.open("rb", buffering=0) as source, target.open("wb") as out:
            sealed = seal(source, out)
        upload_id = content = None
        if sealed.size_bytes <= MAX_ENCLOSED_BYTES:
            content = b64url(target.read_bytes())
        else:
            upload_id = str(uuid.uuid4())
            self._federation.files.upload(
                target,
                upload_id=upload_id,
                sha256=sealed.sha256,
                recipients=self._nodes,
                purpose=PURPOSE,
                experiment_id=self._experiment_id,
            )
        return _Part(sealed, upload_id, content, f"{self._experiment_id}/release/{file.name}")

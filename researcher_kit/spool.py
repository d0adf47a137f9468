"""Files of the round that runs: parameters on their way out, updates on their way in.

A file has its final name only when it is whole; what a crash leaves behind is fetched or made again.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path

from appliance.protocol.errors import TensorFileError, UpdateRefusedError
from appliance.protocol.local.sealed import create_memfd
from appliance.protocol.messages import SealedFile
from appliance.protocol.sealing import Sealed, read_chunks, seal, sealed_size, unseal
from appliance.protocol.tensors import (
    Array,
    TensorFile,
    TensorSpec,
    data_bytes,
    most_header_bytes,
    require_finite,
    write_tensors,
)
from researcher_kit.aggregators import Aggregator
from researcher_kit.folders import disk_named
from researcher_kit.wire import Files

MAX_ABSOLUTE_VALUE = 1e12  # beyond it, a model is broken and a sum over nodes loses its small terms


class Spool:
    """The files of one round, in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._state, self._memory = folder / "aggregator.json", folder / "aggregator.safetensors"

    @property
    def aggregated(self) -> Path:
        """The next global parameters, once they are written."""
        return self._folder / "aggregated.safetensors"

    def seal_parameters(self, parameters: Path, *, key: bytes | None = None) -> tuple[Path, Sealed]:
        """Encrypt a tensor file for upload, with the key that its content had before if there is one."""
        target = self._folder / "parameters.sealed"
        with (
            disk_named(self._folder),
            parameters.open("rb", buffering=0) as source,
            target.open("wb") as out,
        ):
            return target, seal(source, out, key=key)

    def fetch_update(
        self,
        node_id: str,
        update: SealedFile,
        content_key: bytes,
        files: Files,
        expected: Mapping[str, TensorSpec],
        stop: threading.Event,
    ) -> TensorFile:
        """Download, open and check a node's update, over one that a crash left here: the disk may not have had it all.

        Raises:
            UpdateRefusedError: Not a tensor file, not the model's tensors, or values that no model has.
            FedWardError: The file cannot be fetched, or was not sealed to us for this purpose.
        """
        if update.size_bytes > sealed_size(data_bytes(expected) + most_header_bytes(expected)):
            raise UpdateRefusedError("Its update was refused. It is larger than the model's tensors need.")
        enclosed = update.enclosed()
        if enclosed is not None:  # in the store with its reply: no file need hold it too
            return _opened(enclosed, content_key, expected)
        target = self._folder / f"{node_id}.safetensors"
        self._fetch(target, update, content_key, files, stop)
        try:
            return _checked(target, expected)
        except TensorFileError as error:
            target.unlink(missing_ok=True)
            raise UpdateRefusedError(f"Its update was refused. {error.message}") from error

    def write_aggregated(self, tensors: Mapping[str, Array], aggregator: Aggregator, *, is_synced: bool) -> None:
        """Write the next global parameters, and before them what the aggregator remembers.

        Args:
            is_synced: Return when they are safe against a power cut.
        """
        if state := aggregator.state():
            self._write(self._state, json.dumps(state), is_synced=is_synced)
        if memory := aggregator.state_tensors():
            self._write(self._memory, memory, is_synced=is_synced)
        self._write(self.aggregated, tensors, is_synced=is_synced)

    def restore(self, aggregator: Aggregator) -> None:
        """Let the aggregator remember what it did when these parameters were written."""
        if self._state.exists():
            memory = TensorFile(self._memory) if self._memory.exists() else {}
            aggregator.restore(json.loads(self._state.read_text()), memory)

    def write_request(self, tensors: Mapping[str, Array]) -> Path:
        """Write the tensors that nodes get, where they are not the global parameters alone."""
        path = self._folder / "request.safetensors"
        self._write(path, tensors, is_synced=False)
        return path

    def _write(self, path: Path, content: Mapping[str, Array] | str, *, is_synced: bool) -> None:
        part = path.with_suffix(".part")
        with disk_named(self._folder):
            if isinstance(content, str):
                part.write_text(content)
            else:
                write_tensors(content, part)
            if is_synced:
                sync(part)
            part.replace(path)

    def clear(self) -> None:
        """Delete the folder: the round is closed, or begins anew."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def open(self) -> None:
        """Make the folder when it is missing."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _fetch(self, target: Path, update: SealedFile, content_key: bytes, files: Files, stop: threading.Event) -> None:
        part = target.with_suffix(".part")
        with disk_named(self._folder), files.download(update, stop=stop) as source, part.open("wb") as out:
            unseal(read_chunks(source), content_key, out)
        part.replace(target)


def sync(path: Path) -> None:
    """Return when the disk has the file, or the folder's list of files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _opened(enclosed: bytes, content_key: bytes, expected: Mapping[str, TensorSpec]) -> TensorFile:
    memory = create_memfd("update")
    try:
        with os.fdopen(memory, "wb", closefd=False) as out:
            unseal(read_chunks(io.BytesIO(enclosed)), content_key, out)
        return _checked(Path(f"/proc/self/fd/{memory}"), expected)
    except TensorFileError as error:
        raise UpdateRefusedError(f"Its update was refused. {error.message}") from error
    finally:
        os.close(memory)


def _checked(path: Path, expected: Mapping[str, TensorSpec]) -> TensorFile:
    update = TensorFile(path)
    update.require(expected)
    require_finite(update, maximum=MAX_ABSOLUTE_VALUE)
    return update

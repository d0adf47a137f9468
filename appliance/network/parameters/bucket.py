"""Whole uploads in an S3 bucket. They are gathered on the local disk first, and put there when they are whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError
from storages.backends.s3 import S3Storage

from appliance.network.parameters.stores import CHUNK_BYTES

_PART_BYTES = 8 << 20


class BucketStore(S3Storage):  # type: ignore[misc] # the library has no types
    """One object an upload."""

    def __init__(self, **options: Any) -> None:
        # One part at a time, else ten threads hold ten parts in memory.
        transfer = TransferConfig(multipart_chunksize=_PART_BYTES, multipart_threshold=_PART_BYTES, use_threads=False)
        client = Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            connect_timeout=5,
            read_timeout=60,
            retries={"max_attempts": 3, "mode": "standard"},
        )
        super().__init__(transfer_config=transfer, client_config=client, file_overwrite=True, **options)

    def names(self) -> Iterator[str]:
        """The objects below our location."""
        prefix = f"{self.location}/" if self.location else ""
        return (item.key.removeprefix(prefix) for item in self.bucket.objects.filter(Prefix=prefix))

    def read_range(self, name: str, first: int, length: int) -> Iterator[bytes]:
        """``length`` bytes from ``first`` on."""
        chunks = self._chunks(f"{self.location}/{name}" if self.location else name, first, length)
        next(chunks)
        return chunks

    def _chunks(self, key: str, first: int, length: int) -> Iterator[bytes]:
        # An empty range cannot be asked for: the whole of an empty object can.
        span = {"Range": f"bytes={first}-{first + length - 1}"} if length else {}
        try:
            answer = self.bucket.Object(key).get(**span)
        except ClientError as error:
            raise FileNotFoundError(key) from error
        with closing(answer["Body"]) as body:
            yield b""  # taken by read_range: a missing object is an error there, and no broken answer later
            yield from body.iter_chunks(CHUNK_BYTES)

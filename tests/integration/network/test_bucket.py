"""Whole uploads in a real S3 server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from appliance.transport.rest import CorruptError, RefusedError
from tests.integration.network.hosts import File, Host, Line, fetch, wait_until

NewFile = Callable[[int], File]
BUCKET = "uploads"


@pytest.fixture(scope="module")
def bucket(s3: str) -> object:
    """As the operator of the S3 server sees it."""
    resource = boto3.resource("s3", endpoint_url=s3, region_name="eu", aws_access_key_id="a", aws_secret_access_key="b")
    bucket = resource.Bucket(BUCKET)

    def is_made() -> bool:
        try:
            bucket.create()
            bucket.put_object(Key="probe", Body=b"x")
        except (BotoCoreError, ClientError):
            return False
        return True

    wait_until(is_made, 60)
    bucket.Object("probe").delete()
    return bucket


@pytest.fixture(scope="module")
def host(s3: str, bucket: object, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A host that keeps whole uploads there, by one setting."""
    folder = tmp_path_factory.mktemp("network")
    keys = folder / "s3.ini"
    keys.write_text("[default]\naws_access_key_id = a\naws_secret_access_key = b\n")
    keys.chmod(0o600)
    url = f"s3://{BUCKET}/parameters?endpoint={s3}&region=eu&credentials={keys}"
    host = Host(folder, parameters=url, reserve_bytes=0).start()
    yield host
    host.stop()


@pytest.mark.parametrize("size", [0, 1000, 20 << 20])
def test_a_file_arrives_as_it_was_sent(size: int, host: Host, new_file: NewFile, tmp_path: Path) -> None:
    """In one part or in several."""
    file = new_file(size)

    file.upload(host.client("north"))
    fetch(host.client("alice"), file.sealed(), tmp_path / "got")

    assert (tmp_path / "got").read_bytes() == file.content


def test_a_broken_download_goes_on(
    host: Host, new_file: NewFile, new_line: Callable[..., Line], tmp_path: Path
) -> None:
    """Ranges are passed on to the S3 server."""
    file = new_file(3 << 20)
    file.upload(host.client("north"))
    line = new_line(host.port, down=(1 << 20,))

    fetch(host.client("alice", port=line.port), file.sealed(), tmp_path / "got")

    assert (tmp_path / "got").read_bytes() == file.content
    assert line.bytes["down"] < (3 << 20) + 300_000


def test_what_is_not_whole_never_reaches_the_bucket(host: Host, new_file: NewFile, bucket: object) -> None:
    """Neither a part nor a file with another hash."""
    file = new_file(5000)
    file.sha256 = "0" * 64

    with pytest.raises(CorruptError):
        file.upload(host.client("north"))

    assert not [item.key for item in bucket.objects.all() if file.id.replace("-", "") in item.key]


def test_a_deleted_upload_leaves_the_bucket(host: Host, new_file: NewFile, bucket: object, tmp_path: Path) -> None:
    """And nothing stays on the host's own disk either."""
    file = new_file(5000)
    file.upload(host.client("north"))

    host.client("north").delete(file.id)

    assert not [item.key for item in bucket.objects.all() if file.id.replace("-", "") in item.key]
    assert not list((host.home / "store/uploads").iterdir())
    with pytest.raises(RefusedError):
        fetch(host.client("alice"), file.sealed(), tmp_path / "got")


def test_a_large_file_does_not_pass_through_memory(host: Host, new_file: NewFile, tmp_path: Path) -> None:
    """64 MB in and out, and the host grows by a part or two."""
    warm = new_file(10 << 20)
    warm.upload(host.client("north"))
    fetch(host.client("alice"), warm.sealed(), tmp_path / "warm")
    [worker] = host.workers()
    before = worker.memory_info().rss
    file = new_file(64 << 20)

    file.upload(host.client("north"))
    fetch(host.client("alice"), file.sealed(), tmp_path / "got")

    assert worker.memory_info().rss - before < 32 << 20

"""Files through a real host over real TLS, on lines that break; over SQLite and PostgreSQL alike."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.messages import SealedFile
from appliance.transport.rest import (
    CorruptError,
    LocalFileError,
    RefusedError,
    TransferStoppedError,
    UnreachableError,
)
from tests.integration.network.hosts import File, Host, Line, fetch

NewFile = Callable[[int], File]
NewLine = Callable[..., Line]
LARGE = 3 << 20


@pytest.mark.parametrize("size", [0, 1, 1000, 1 << 20, (1 << 20) + 1, LARGE])
def test_a_file_arrives_as_it_was_sent(size: int, host: Host, new_file: NewFile, tmp_path: Path) -> None:
    """Whether it goes along with its announcement or after it."""
    file = new_file(size)

    file.upload(host.client("north"))
    fetch(host.client("alice"), file.sealed(), tmp_path / "got")

    assert (tmp_path / "got").read_bytes() == file.content


def test_bytes_in_memory_are_sent_as_well(host: Host, new_file: NewFile, tmp_path: Path) -> None:
    """An update need not touch the hospital's disk on its way out."""
    file = new_file(LARGE)

    host.client("north").upload(
        memoryview(file.content),
        upload_id=file.id,
        sha256=file.sha256,
        recipients=["alice"],
        purpose="update",
        experiment_id="e1",
    )
    fetch(host.client("alice"), file.sealed(), tmp_path / "got")

    assert (tmp_path / "got").read_bytes() == file.content


def test_the_same_upload_again_is_done_at_once(host: Host, new_file: NewFile, new_line: NewLine) -> None:
    """A round that is repeated after a crash sends nothing twice."""
    file, line = new_file(LARGE), new_line(host.port)
    file.upload(host.client("north"))

    file.upload(host.client("north", port=line.port))

    assert line.bytes["up"] < 20_000


@pytest.mark.parametrize("cut", [1, 700, 3000, 9000, 200_000, LARGE])
def test_an_upload_survives_a_line_that_breaks(
    cut: int, host: Host, new_file: NewFile, new_line: NewLine, tmp_path: Path
) -> None:
    """At any byte: in the handshake, the announcement, the first or the last part."""
    file, line = new_file(LARGE), new_line(host.port, up=(cut,))

    file.upload(host.client("north", port=line.port))
    fetch(host.client("alice"), file.sealed(), tmp_path / "got")

    assert line.cuts_left == 0
    assert (tmp_path / "got").read_bytes() == file.content


def test_an_upload_does_not_begin_again(host: Host, new_file: NewFile, new_line: NewLine) -> None:
    """What arrived before each of three breaks is not sent again, but for a chunk each."""
    file, line = new_file(4 * LARGE), new_line(host.port, up=(LARGE, LARGE, LARGE))

    file.upload(host.client("north", port=line.port))

    assert line.cuts_left == 0
    assert line.bytes["up"] < 4 * LARGE + 3 * (512 << 10)


@pytest.mark.parametrize("size", [1000, LARGE])
@pytest.mark.parametrize("cut", [2500, 3000, 3500, 4000])
def test_an_upload_survives_a_lost_answer(
    cut: int, size: int, host: Host, new_file: NewFile, new_line: NewLine, tmp_path: Path
) -> None:
    """The host has done it and the hospital does not know: asking again must find it done."""
    file, line = new_file(size), new_line(host.port, down=(cut,))

    file.upload(host.client("north", port=line.port))
    fetch(host.client("alice"), file.sealed(), tmp_path / "got")

    assert (tmp_path / "got").read_bytes() == file.content


@pytest.mark.parametrize("cut", [1, 2500, 3500, 200_000, LARGE])
def test_a_download_survives_a_line_that_breaks(
    cut: int, host: Host, new_file: NewFile, new_line: NewLine, tmp_path: Path
) -> None:
    """It goes on where it stopped, and is checked as a whole."""
    file, line = new_file(LARGE), new_line(host.port, down=(cut,))
    file.upload(host.client("north"))

    fetch(host.client("alice", port=line.port), file.sealed(), tmp_path / "got")

    assert (tmp_path / "got").read_bytes() == file.content
    assert line.bytes["down"] < LARGE + 300_000


def test_a_download_does_not_begin_again(host: Host, new_file: NewFile, new_line: NewLine, tmp_path: Path) -> None:
    """What came before each of three breaks is neither fetched nor hashed twice."""
    file, line = new_file(4 * LARGE), new_line(host.port, down=(LARGE, LARGE, LARGE))
    file.upload(host.client("north"))

    fetch(host.client("alice", port=line.port), file.sealed(), tmp_path / "got")

    assert line.cuts_left == 0
    assert (tmp_path / "got").read_bytes() == file.content
    assert line.bytes["down"] < 4 * LARGE + 3 * (512 << 10)


def test_a_file_with_another_hash_never_appears(host: Host, new_file: NewFile, tmp_path: Path) -> None:
    """The message says which bytes it means; the host could lie."""
    file = new_file(1000)
    file.upload(host.client("north"))
    meant = file.sealed().model_copy(update={"sha256": "0" * 64})

    with pytest.raises(CorruptError):
        fetch(host.client("alice"), meant, tmp_path / "got")

    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize("size", [1000, LARGE])
def test_a_source_with_another_hash_is_refused(size: int, host: Host, new_file: NewFile) -> None:
    """A disk that returns other bytes than were hashed must be noticed at once."""
    file = new_file(size)
    file.sha256 = "0" * 64

    with pytest.raises(CorruptError, match="0000"):
        file.upload(host.client("north"))


def test_other_members_do_not_see_a_file(host: Host, new_file: NewFile, tmp_path: Path) -> None:
    """South's update is none of mallory's business, even with its id."""
    file = new_file(1000)
    file.upload(host.client("north"))

    with pytest.raises(RefusedError) as caught:
        fetch(host.client("mallory"), file.sealed(), tmp_path / "got")

    assert caught.value.code == Code.TRANSFER_MISSING


def test_two_senders_of_one_upload_make_one_file(host: Host, new_file: NewFile, tmp_path: Path) -> None:
    """A warden that was started twice: each may win parts, none may spoil them."""
    file = new_file(4 * LARGE)

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(file.upload, host.client("north")) for _ in range(4)]:
            done.result()
    fetch(host.client("alice"), file.sealed(), tmp_path / "got")

    assert (tmp_path / "got").read_bytes() == file.content


def test_many_members_at_once(host: Host, new_file: NewFile, tmp_path: Path) -> None:
    """A round's updates come together."""
    files = [new_file(200_000) for _ in range(16)]
    clients = [host.client("north" if number % 2 else "south") for number in range(16)]
    alice = host.client("alice")

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda pair: pair[0].upload(pair[1]), zip(files, clients, strict=True)))
        list(pool.map(lambda file: fetch(alice, file.sealed(), tmp_path / f"{file.id}.got"), files))

    assert all((tmp_path / f"{file.id}.got").read_bytes() == file.content for file in files)


def test_deleting_twice_is_no_fault(host: Host, new_file: NewFile, tmp_path: Path) -> None:
    """The first answer may have been lost."""
    file, north = new_file(1000), host.client("north")
    file.upload(north)

    north.delete(file.id)
    north.delete(file.id)

    with pytest.raises(RefusedError):
        fetch(host.client("alice"), file.sealed(), tmp_path / "got")


def test_the_queue_hands_each_job_out_once(host: Host) -> None:
    """Two federators must not train the same experiment."""
    alice, fed = host.client("alice"), host.client("fed")
    ids = [str(uuid.uuid4()) for _ in range(8)]
    for job_id in ids:
        alice.jobs_submit(job_id, federator="fed", spec={"a": 1}, mandate="signed")

    with ThreadPoolExecutor(8) as pool:
        claimed = [job["id"] for job in pool.map(lambda _: fed.jobs_claim(), range(10)) if job]

    assert sorted(claimed) == sorted(ids)
    assert fed.jobs_finish(ids[0], {"auc": 1})["state"] == "done"
    assert fed.jobs_fail(ids[1], "why")["state"] == "failed"
    assert alice.jobs_cancel(ids[2])["state"] == "cancelled"
    assert alice.jobs_show(ids[0])["outcome"] == {"auc": 1}
    assert {job["id"] for job in alice.jobs_list()} >= set(ids)


def test_a_stopped_upload_ends_and_can_go_on(host: Host, new_file: NewFile) -> None:
    """Staff who stop an experiment should not wait for a transfer."""
    file, stop = new_file(4 * LARGE), threading.Event()

    with pytest.raises(TransferStoppedError):
        file.upload(host.client("north"), stop=stop, on_progress=lambda done, _: done > LARGE and stop.set())

    file.upload(host.client("north"))


def test_a_stopped_download_ends(host: Host, new_file: NewFile) -> None:
    """Between two pieces, and for good."""
    file, stop = new_file(4 * LARGE), threading.Event()
    file.upload(host.client("north"))

    with host.client("alice").download(file.sealed(), stop=stop) as source:
        assert source.read(1000) == file.content[:1000]
        stop.set()
        with pytest.raises(TransferStoppedError):
            source.read(1000)


def test_progress_ends_with_the_last_byte(host: Host, new_file: NewFile) -> None:
    """People watch it."""
    file = new_file(LARGE)
    told: list[tuple[int, int]] = []

    file.upload(host.client("north"), on_progress=lambda *args: told.append(args))

    assert told[-1] == (LARGE, LARGE)


def test_nobody_there_is_said_after_patience(host: Host, new_file: NewFile) -> None:
    """With the remedy for a line that is down, and with an end."""
    client = host.client("north", port=1, give_up_s=0.3)

    with pytest.raises(UnreachableError, match="out of reach"):
        new_file(10).upload(client)


def test_a_missing_source_is_named(host: Host, new_file: NewFile) -> None:
    """Not blamed on the network."""
    file = new_file(10)
    file.path.unlink()

    with pytest.raises(LocalFileError, match=file.id):
        file.upload(host.client("north"))


def test_an_id_that_is_none_is_refused_here(host: Host, tmp_path: Path) -> None:
    """It would become a part of an address."""
    sealed = SealedFile.model_construct(upload_id="../jobs", sha256="0" * 64, size_bytes=1)

    with pytest.raises(FedWardError, match="UUID"):
        fetch(host.client("alice"), sealed, tmp_path / "got")


def test_every_line_of_it_all_is_in_the_chain(host: Host) -> None:
    """After everything above, from two processes with eight threads each."""
    assert "all as they were written" in host.command("audit", "verify")

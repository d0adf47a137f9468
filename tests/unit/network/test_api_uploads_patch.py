"""HEAD and PATCH /api/v1/uploads/{id}: going on with an upload."""

from __future__ import annotations

import io
from typing import Any

import pytest

from appliance.network.errors import NetworkError, UploadBusyError, UploadConflictError
from appliance.network.parameters import selectors, services, spool
from appliance.network.parameters.models import Upload


class Broken(io.BytesIO):
    """A line that breaks when its bytes are used up."""

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes, or the break."""
        chunk = super().read(size)
        if not chunk:
            raise ConnectionResetError
        return chunk


def test_an_append_moves_the_offset(north: Any, letter: Any) -> None:
    """Tus 1.0, core."""
    letter.announce(north)

    answer = letter.append(north, 0, letter.content[:4])

    assert (answer.status_code, answer["Upload-Offset"]) == (204, "4")
    assert letter.ask(north)["Upload-Offset"] == "4"


def test_the_last_byte_completes_the_upload(north: Any, alice: Any, letter: Any) -> None:
    """In as many pieces as the line allowed."""
    letter.announce(north, letter.content[:4])
    letter.append(north, 4, letter.content[4:6])

    answer = letter.append(north, 6, letter.content[6:])

    assert answer["Upload-Complete"] == "?1"
    assert b"".join(letter.fetch(alice).streaming_content) == letter.content


def test_half_an_upload_is_not_there_for_its_recipient(north: Any, alice: Any, letter: Any) -> None:
    """Training on half a file would not even fail."""
    letter.announce(north, letter.content[:-1])

    assert letter.fetch(alice).status_code == 404
    assert letter.fetch(north).status_code == 404


@pytest.mark.parametrize("offset", [0, 3, 5, 99])
def test_an_append_elsewhere_is_refused_with_the_offset(offset: int, north: Any, letter: Any) -> None:
    """A repeated or overtaken PATCH must not write over what is there."""
    letter.announce(north, letter.content[:4])

    answer = letter.append(north, offset, b"xx")

    assert (answer.status_code, answer["Upload-Offset"]) == (409, "4")


def test_more_bytes_than_announced_are_refused(north: Any, letter: Any) -> None:
    """Else the quota would be a suggestion."""
    letter.announce(north)

    assert letter.append(north, 0, letter.content + b"more").status_code == 413


def _append_again(upload: Upload) -> None:
    with pytest.raises(UploadConflictError):
        services.upload_append(upload, offset=0, stream=io.BytesIO(b"x"), size=1)


@pytest.mark.parametrize("call", [selectors.upload_offset_settled, _append_again], ids=["head", "patch"])
def test_a_call_that_meets_the_uploads_completion_leaves_no_file(call: Any, north: Any, letter: Any) -> None:
    """It looked at the row a moment before: what it opened then was nobody's, and would lie there for good."""
    letter.announce(north)
    before = Upload.objects.get()
    letter.append(north, 0, letter.content)

    call(before)

    assert list(spool.names()) == []


def test_a_repeated_last_append_is_told_that_all_is_there(north: Any, letter: Any) -> None:
    """The answer to the first one may have been lost."""
    letter.announce(north, letter.content)

    answer = letter.append(north, 5, letter.content[5:])

    assert (answer.status_code, answer["Upload-Complete"]) == (409, "?1")


def test_a_broken_append_keeps_what_came(north: Any, letter: Any) -> None:
    """A hospital's line is slow: no byte should travel twice."""
    letter.announce(north)
    upload = Upload.objects.get()

    with pytest.raises(NetworkError, match="5 of 12"):
        services.upload_append(upload, offset=0, stream=Broken(letter.content[:5]), size=len(letter.content))

    assert letter.ask(north)["Upload-Offset"] == "5"
    assert letter.append(north, 5, letter.content[5:])["Upload-Complete"] == "?1"


def test_a_corrupt_resume_is_found(north: Any, letter: Any) -> None:
    """After a resume the hash is taken from the disk, over all parts."""
    letter.announce(north, b"X" + letter.content[1:4])

    assert letter.append(north, 4, letter.content[4:]).status_code == 460


def test_one_call_at_a_time_appends(north: Any, letter: Any) -> None:
    """Two at once would interleave their bytes."""
    letter.announce(north)

    with spool.hold(Upload.objects.get().name):
        answer = letter.append(north, 0, letter.content)

    assert (answer.status_code, answer.json()["code"]) == (423, "UPLOAD_BUSY")


def test_no_offset_is_told_while_it_moves(north: Any, letter: Any) -> None:
    """A broken call's last bytes may still be on their way to the disk; who went on from here would send them again."""
    letter.announce(north)

    with spool.hold(Upload.objects.get().name):
        answers = [letter.ask(north), letter.announce(north)]

    assert [answer.status_code for answer in answers] == [423, 423]


def test_a_file_that_was_finished_meanwhile_is_not_held(host: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between open and lock the file may have become the whole upload; writing to it would alter that."""
    lock = spool.fcntl.flock

    def finish_first(descriptor: int, how: int) -> None:
        (spool.folder() / "a").rename(spool.folder() / "b")
        lock(descriptor, how)

    monkeypatch.setattr(spool.fcntl, "flock", finish_first)

    with pytest.raises(UploadBusyError), spool.hold("a"):
        pass


def test_bytes_that_the_row_does_not_know_are_dropped(north: Any, letter: Any) -> None:
    """After a crash the file may be longer than what was promised: only the promise is certain."""
    letter.announce(north, letter.content[:4])
    with (spool.folder() / Upload.objects.get().name).open("ab") as file:
        file.write(b"garbage")

    assert letter.ask(north)["Upload-Offset"] == "4"
    assert letter.append(north, 4, letter.content[4:])["Upload-Complete"] == "?1"


def test_a_lost_file_begins_again(north: Any, letter: Any) -> None:
    """A promise that the disk did not keep must not become a hole in a file."""
    letter.announce(north, letter.content[:4])
    spool.drop(Upload.objects.get().name)

    assert letter.ask(north)["Upload-Offset"] == "0"
    assert letter.append(north, 0, letter.content)["Upload-Complete"] == "?1"


def test_a_store_that_fails_is_tried_again_without_the_bytes(
    north: Any, alice: Any, letter: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An S3 store may be away for a minute; the hospital has done its part."""
    letter.announce(north)
    with monkeypatch.context() as broken:
        broken.setattr("appliance.network.parameters.stores.DiskStore.save", lambda *_: 1 / 0)
        assert letter.append(north, 0, letter.content).status_code == 500

    asked = letter.ask(north)
    answer = letter.append(north, int(asked["Upload-Offset"]), b"")

    assert (asked["Upload-Offset"], asked["Upload-Complete"]) == (letter.length, "?0")
    assert answer["Upload-Complete"] == "?1"
    assert b"".join(letter.fetch(alice).streaming_content) == letter.content


def test_a_full_disk_keeps_what_fitted(north: Any, letter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """When room is made, the upload goes on."""
    letter.announce(north)
    write = spool.os.write
    room = [5]

    def short_of_room(descriptor: int, data: Any) -> int:
        if not room[0]:
            raise OSError(28, "No space left on device")
        written = write(descriptor, bytes(data)[: room[0]])
        room[0] -= written
        return written

    with monkeypatch.context() as full:
        full.setattr(spool.os, "write", short_of_room)
        assert letter.append(north, 0, letter.content).status_code == 507

    assert letter.ask(north)["Upload-Offset"] in {"0", "5"}


@pytest.mark.parametrize("member", ["alice", "mallory"])
def test_an_upload_on_its_way_is_its_owners_alone(member: str, north: Any, world: Any, letter: Any) -> None:
    """Its recipient included: to others it is not there."""
    letter.announce(north)
    other = world.client(member)

    assert letter.ask(other).status_code == 404
    assert letter.append(other, 0, b"x").status_code == 404


def test_an_expired_upload_is_gone(north: Any, letter: Any, configure: Any) -> None:
    """Tus 1.0, expiration."""
    configure(keep_unfinished_s=1e-6)
    letter.announce(north)

    assert letter.ask(north).status_code == 404


def test_the_offset_is_compared_when_it_is_saved(north: Any, letter: Any) -> None:
    """Another host's lock is not ours, yet both write to one database."""
    letter.announce(north, letter.content[:4])
    stale = Upload.objects.get()
    Upload.objects.update(offset=6)

    with spool.hold(stale.name) as part, pytest.raises(UploadBusyError):
        services._save_offset(stale, part, 5)

    assert selectors.upload_owned("north", stale.id).offset == 6

"""POST /api/v1/uploads: announcing an upload, with a body or without."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from appliance.network.audit import selectors as audit
from appliance.network.members.services import register_import
from appliance.network.parameters.models import Upload


def test_an_announcement_is_answered_with_the_uploads_address(north: Any, letter: Any) -> None:
    """Tus 1.0, creation."""
    answer = letter.announce(north)

    assert answer.status_code == 201
    assert answer["Location"] == f"/api/v1/uploads/{letter.id}"
    assert answer["Upload-Offset"] == "0"
    assert answer["Upload-Complete"] == "?0"


def test_an_upload_with_its_body_is_complete_at_once(north: Any, alice: Any, letter: Any) -> None:
    """One call for a small file keeps a round short."""
    answer = letter.announce(north, letter.content)

    assert answer["Upload-Complete"] == "?1"
    assert b"".join(letter.fetch(alice).streaming_content) == letter.content


def test_a_part_of_the_body_is_kept(north: Any, letter: Any) -> None:
    """Tus 1.0, creation-with-upload: the rest comes by PATCH."""
    answer = letter.announce(north, letter.content[:5])

    assert (answer.status_code, answer["Upload-Offset"]) == (201, "5")


def test_the_same_announcement_again_finds_the_first(north: Any, letter: Any) -> None:
    """The first answer may have been lost: nobody can know, so repeating must be safe."""
    letter.announce(north, letter.content[:5])

    answer = letter.announce(north, letter.content)

    assert (answer.status_code, answer["Upload-Offset"]) == (200, "5")
    assert Upload.objects.count() == 1


def test_an_empty_file_is_complete_with_its_announcement(north: Any, new_letter: Any) -> None:
    """No byte of it is left to send."""
    assert new_letter(b"").announce(north)["Upload-Complete"] == "?1"


@pytest.mark.parametrize("change", [{"recipients": "south"}, {"sha256": "0" * 64}, {"purpose": "other"}])
def test_an_id_stands_for_one_announcement(change: dict[str, str], north: Any, letter: Any) -> None:
    """Else a second file would appear under the first one's id."""
    letter.announce(north)
    letter.metadata.update(change)

    assert letter.announce(north).status_code == 409


def test_an_id_belongs_to_whoever_used_it_first(north: Any, mallory: Any, letter: Any) -> None:
    """Nobody takes over another member's upload."""
    letter.announce(north)

    assert letter.announce(mallory).status_code == 409


@pytest.mark.parametrize(
    "change",
    [
        {"id": "not-a-uuid"},
        {"sha256": "ABC"},
        {"recipients": ""},
        {"recipients": "Alice!"},
        {"recipients": "nobody"},
        {"purpose": "two words"},
        {"extra": "field"},
    ],
)
def test_a_faulty_announcement_is_refused_by_its_field(change: dict[str, str], north: Any, letter: Any) -> None:
    """The sender must see which field is wrong."""
    letter.metadata.update(change)

    answer = letter.announce(north)

    assert (answer.status_code, answer.json()["code"]) == (400, "REQUEST_INVALID")
    assert next(iter(change)) in answer.json()["message"]


@pytest.mark.parametrize(
    "headers",
    [{"HTTP_UPLOAD_LENGTH": "-1"}, {"HTTP_UPLOAD_LENGTH": "1e3"}, {"HTTP_UPLOAD_METADATA": "id"},
     {"HTTP_UPLOAD_METADATA": "id !!"}],
)  # fmt: skip
def test_a_malformed_header_is_refused(headers: dict[str, str], north: Any, letter: Any) -> None:
    """Never a 500 for what a caller wrote."""
    assert letter.announce(north, **headers).status_code == 400


def test_the_body_must_say_what_it_is(north: Any, letter: Any) -> None:
    """Tus 1.0: only application/offset+octet-stream is appended."""
    answer = letter.announce(north, b"x", type_="text/plain")

    assert answer.status_code == 415


def test_a_suspended_member_cannot_be_a_recipient(host: Any, world: Any, north: Any, letter: Any) -> None:
    """What nobody may fetch should not be stored."""
    register_import(world.register(version=2, alice="suspended"))

    assert letter.announce(north).status_code == 400


def test_the_quota_counts_what_was_announced(north: Any, new_letter: Any, configure: Any) -> None:
    """Counting only what has arrived would let many announcements fill the disk together."""
    configure(quota_bytes=20)
    new_letter(b"a" * 15).announce(north)

    answer = new_letter(b"b" * 6).announce(north)

    assert (answer.status_code, answer.json()["code"]) == (413, "QUOTA_EXCEEDED")


def test_a_repeat_needs_no_quota_of_its_own(north: Any, letter: Any, configure: Any) -> None:
    """Resuming the upload that filled the quota must stay possible."""
    letter.announce(north)
    configure(quota_bytes=len(letter.content))

    assert letter.announce(north).status_code == 200


def test_a_quota_is_each_members_own(north: Any, mallory: Any, new_letter: Any, configure: Any) -> None:
    """One member cannot use up another's space."""
    configure(quota_bytes=20)
    new_letter(b"a" * 20).announce(mallory)

    assert new_letter(b"b" * 20).announce(north).status_code == 201


def test_a_file_beyond_the_limit_is_refused(north: Any, letter: Any, configure: Any) -> None:
    """Before a byte of it is sent."""
    configure(max_upload_bytes=5)

    assert letter.announce(north).status_code == 413


def test_a_full_disk_is_said_before_the_transfer(north: Any, letter: Any, configure: Any) -> None:
    """And the reserve keeps the database alive."""
    configure(reserve_bytes=1 << 60)

    answer = letter.announce(north)

    assert (answer.status_code, answer.json()["code"]) == (507, "DISK_FULL")


def test_another_hash_throws_the_bytes_away(north: Any, alice: Any, new_letter: Any) -> None:
    """Half a file, or another one, must never look like the file."""
    letter = new_letter(sha256="0" * 64)

    answer = letter.announce(north, letter.content)

    assert (answer.status_code, answer.json()["code"]) == (460, "TRANSFER_CORRUPT")
    assert letter.ask(north).status_code == 404
    assert letter.fetch(alice).status_code == 404


def test_a_completed_upload_is_in_the_log(north: Any, letter: Any) -> None:
    """Who sent what to whom, and how much."""
    letter.announce(north, letter.content)

    [line] = [line.text for line in audit.line_stream() if '"upload.completed"' in line.text]
    assert letter.id in line
    assert '"recipients":["alice"]' in line


def test_the_host_says_what_of_tus_it_speaks(north: Any) -> None:
    """Tus 1.0, discovery."""
    answer = north.options("/api/v1/uploads")

    assert answer.status_code == 204
    assert "creation-with-upload" in answer["Tus-Extension"]


def test_the_operator_uploads_nothing(host: Any, world: Any, letter: Any) -> None:
    """Only those who take part in rounds have files to send."""
    assert letter.announce(world.client("operator")).status_code == 403


def test_names_in_the_metadata_come_in_base64(north: Any, letter: Any) -> None:
    """A value that is not text is a malformed announcement, not a fault inside."""
    broken = base64.b64encode(b"\xff").decode()

    assert letter.announce(north, HTTP_UPLOAD_METADATA=f"id {broken}").status_code == 400


def test_a_member_sees_its_own_uploads_and_its_space(north: Any, mallory: Any, letter: Any) -> None:
    """Whoever hits the quota must see what to delete."""
    letter.announce(north)

    mine = north.get("/api/v1/uploads").json()

    assert [upload["id"] for upload in mine["uploads"]] == [letter.id]
    assert mine["used_bytes"] == len(letter.content)
    assert mallory.get("/api/v1/uploads").json()["uploads"] == []

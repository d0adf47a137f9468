"""DELETE /api/v1/uploads/{id}, and what is collected."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from appliance.network.audit import selectors as audit
from appliance.network.parameters import services, spool
from appliance.network.parameters.models import Upload
from appliance.network.parameters.stores import store


@pytest.mark.parametrize("sent", [5, 12])
def test_an_owner_deletes_its_upload(sent: int, north: Any, alice: Any, letter: Any) -> None:
    """Tus 1.0, termination; whole or not, nothing of it stays on the disk."""
    letter.announce(north, letter.content[:sent])

    assert letter.remove(north).status_code == 204
    assert letter.fetch(alice).status_code == 404
    assert [*spool.names(), *store().names()] == []


def test_the_only_recipient_may_delete_what_it_has_fetched(north: Any, alice: Any, letter: Any) -> None:
    """A researcher that has an update frees the hospital's quota."""
    letter.announce(north, letter.content)

    assert letter.remove(alice).status_code == 204


def test_one_recipient_of_many_may_not(north: Any, alice: Any, new_letter: Any) -> None:
    """The others have not fetched it yet."""
    letter = new_letter(recipients="alice,south")
    letter.announce(north, letter.content)

    assert letter.remove(alice).status_code == 404


def test_nobody_else_may(north: Any, mallory: Any, letter: Any) -> None:
    """And does not even learn that it is there."""
    letter.announce(north, letter.content)

    assert letter.remove(mallory).status_code == 404
    assert Upload.objects.exists()


def test_deleting_frees_the_quota(north: Any, letter: Any, configure: Any, new_letter: Any) -> None:
    """That is what the remedy of QUOTA_EXCEEDED promises."""
    configure(quota_bytes=len(letter.content))
    letter.announce(north, letter.content)
    letter.remove(north)

    assert new_letter().announce(north).status_code == 201


def test_a_deletion_is_in_the_log(north: Any, letter: Any) -> None:
    """What was once here must not vanish without a trace."""
    letter.announce(north, letter.content)
    letter.remove(north)

    assert [line for line in audit.line_stream() if '"upload.deleted"' in line.text and letter.id in line.text]


def test_what_has_expired_is_collected(north: Any, letter: Any, configure: Any) -> None:
    """Whole uploads end as well: the host is a post office, no archive."""
    configure(keep_s=1e-6)
    letter.announce(north, letter.content)

    assert services.collect() == 1
    assert [*spool.names(), *store().names()] == []
    assert [line for line in audit.line_stream() if '"upload.expired"' in line.text]


def test_what_lives_is_not_collected(north: Any, alice: Any, letter: Any, new_letter: Any) -> None:
    """Neither whole nor half."""
    letter.announce(north, letter.content)
    half = new_letter()
    half.announce(north, half.content[:5])

    assert services.collect() == 0
    assert half.ask(north)["Upload-Offset"] == "5"
    assert b"".join(letter.fetch(alice).streaming_content) == letter.content


def test_an_upload_that_somebody_appends_to_lives_on(north: Any, letter: Any, configure: Any) -> None:
    """Its owner is at it this moment."""
    configure(keep_unfinished_s=1e-6)
    letter.announce(north)

    with spool.hold(Upload.objects.get().name):
        assert services.collect() == 0


def test_files_that_no_upload_knows_are_collected(host: Any) -> None:
    """A crash between row and file leaves them."""
    orphan = uuid.uuid4().hex
    (spool.folder() / orphan).write_bytes(b"x")
    (spool.folder() / "not-ours").write_bytes(b"x")

    services.collect()

    assert [*spool.names()] == ["not-ours"]


def test_an_expired_id_may_be_used_again(north: Any, letter: Any, configure: Any) -> None:
    """Its owner repeats a call after a long weekend."""
    configure(keep_unfinished_s=1e-6)
    letter.announce(north)
    configure(keep_unfinished_s=60)

    assert letter.announce(north, letter.content).status_code == 201

"""GET /api/v1/uploads/{id}/content: the way out."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.network.audit import selectors as audit
from appliance.network.errors import RangeInvalidError
from appliance.network.parameters.ranges import read_range


@pytest.fixture
def sent(north: Any, letter: Any) -> Any:
    """A whole upload from north to alice."""
    letter.announce(north, letter.content)
    return letter


def body(answer: Any) -> bytes:
    """All that was streamed."""
    return b"".join(answer.streaming_content)


def test_the_recipient_gets_the_bytes(sent: Any, alice: Any) -> None:
    """And with them what it needs to go on after a break."""
    answer = sent.fetch(alice)

    assert body(answer) == sent.content
    assert answer["ETag"] == f'"{sent.metadata["sha256"]}"'
    assert answer["Content-Length"] == sent.length
    assert answer["Accept-Ranges"] == "bytes"


def test_the_owner_gets_them_as_well(sent: Any, north: Any) -> None:
    """It knows them anyway."""
    assert body(sent.fetch(north)) == sent.content


def test_another_member_does_not_even_learn_that_it_is_there(sent: Any, mallory: Any, new_letter: Any) -> None:
    """The same answer, word for word, as for what was never here."""
    assert sent.fetch(mallory).status_code == 404
    assert sent.fetch(mallory).content == new_letter().fetch(mallory).content


@pytest.mark.parametrize(
    ("asked", "given_"),
    [
        ("bytes=3-5", (3, 6)),
        ("bytes=3-", (3, 12)),
        ("bytes=-4", (8, 12)),
        ("bytes=3-99", (3, 12)),
        ("bytes=0-0", (0, 1)),
    ],
)
def test_a_range_is_answered_with_that_range(asked: str, given_: tuple[int, int], sent: Any, alice: Any) -> None:
    """A broken download goes on where it stopped."""
    first, end = given_

    answer = sent.fetch(alice, HTTP_RANGE=asked)

    assert answer.status_code == 206
    assert body(answer) == sent.content[first:end]
    assert answer["Content-Range"] == f"bytes {first}-{end - 1}/12"


@pytest.mark.parametrize("asked", ["bytes=12-", "bytes=99-100", "bytes=-0", "bytes=5-3"])
def test_a_range_beyond_the_end_is_refused(asked: str, sent: Any, alice: Any) -> None:
    """With the real length, so that the caller can mend it."""
    answer = sent.fetch(alice, HTTP_RANGE=asked)

    assert (answer.status_code, answer["Content-Range"]) == (416, "bytes */12")


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "lines=1-2", "bytes=a-b", "bytes=-"])
def test_a_range_that_we_do_not_serve_means_the_whole(asked: str, sent: Any, alice: Any) -> None:
    """RFC 9110, section 14.2: it may be ignored."""
    answer = sent.fetch(alice, HTTP_RANGE=asked)

    assert (answer.status_code, body(answer)) == (200, sent.content)


def test_a_part_of_another_file_is_not_continued(sent: Any, alice: Any) -> None:
    """If-Range: two halves of two files make no file."""
    answer = sent.fetch(alice, HTTP_RANGE="bytes=3-", HTTP_IF_RANGE='"another"')

    assert (answer.status_code, body(answer)) == (200, sent.content)


def test_a_part_of_this_file_is_continued(sent: Any, alice: Any) -> None:
    """If-Range with our own ETag."""
    answer = sent.fetch(alice, HTTP_RANGE="bytes=3-", HTTP_IF_RANGE=f'"{sent.metadata["sha256"]}"')

    assert answer.status_code == 206


def test_head_tells_without_sending(sent: Any, alice: Any) -> None:
    """Size and hash at the price of one line."""
    answer = alice.head(f"/api/v1/uploads/{sent.id}/content")

    assert (answer["Content-Length"], answer.content) == (sent.length, b"")


def test_a_download_is_in_the_log_with_the_bytes_that_left(sent: Any, alice: Any) -> None:
    """Not those that were asked for."""
    answer = sent.fetch(alice, HTTP_RANGE="bytes=2-")
    body(answer)

    line = json.loads(list(audit.line_stream())[-1].text)
    assert (line["actor"], line["subject"]) == ("alice", sent.id)
    assert (line["details"]["sent"], line["details"]["range"]) == (10, "bytes 2-11/12")


@given(st.integers(1, 50), st.integers(0, 60), st.integers(0, 60))
def test_a_range_never_leaves_the_file(size: int, first: int, last: int) -> None:
    """Whatever is asked, what is sent lies within the file, and is not empty."""
    try:
        span = read_range(f"bytes={first}-{last}", size, etag='"x"', if_range=None)
    except RangeInvalidError:
        assert first >= size or last < first
    else:
        assert 0 <= span.first < span.first + span.length <= size

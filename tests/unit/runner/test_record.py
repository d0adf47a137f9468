"""What a child printed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from appliance.protocol.local.jobs import MAX_RECORD
from appliance.runner.record import Record


@pytest.fixture
def pipe() -> Iterator[tuple[Record, int]]:
    """A record, and the end of the pipe that a child would write to."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    record = Record(reader)
    yield record, writer
    record.close()
    os.close(writer)


def test_a_short_record_is_whole(pipe: tuple[Record, int]) -> None:
    """Most are."""
    os.write(pipe[1], "zwölf\n".encode())

    assert pipe[0].take() == "zwölf\n"


def test_each_job_has_its_own_record(pipe: tuple[Record, int]) -> None:
    """One round's output is not shown with another's."""
    os.write(pipe[1], b"first")
    pipe[0].take()
    os.write(pipe[1], b"second")

    assert pipe[0].take() == "second"


def test_a_long_record_keeps_both_ends(pipe: tuple[Record, int]) -> None:
    """How it began and how it ended tell the most."""
    for part in (b"begin" + bytes(60_000), *[b"x" * 60_000] * 10, b"end"):
        os.write(pipe[1], part)
        pipe[0].read()
    text = pipe[0].take()

    assert text.startswith("begin")
    assert text.endswith("end")
    assert "bytes left out" in text
    assert len(text) <= MAX_RECORD


def test_bytes_that_are_no_text_do_no_harm(pipe: tuple[Record, int]) -> None:
    """A plan may print anything."""
    os.write(pipe[1], b"\xff\xfe ok")

    assert pipe[0].take().endswith("ok")

"""Frames between a node's own processes."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from appliance.protocol.errors import Code, FedWardError, MessageRefusedError
from appliance.protocol.local.frames import MAX_FRAME, Channel, connect, encode, listen

Pair = tuple[Channel, Channel]


def test_a_message_arrives_as_it_was_sent(pair: Pair) -> None:
    """Anything else and nothing works."""
    pair[0].send({"a": [1, "zwei", None]})

    frame = pair[1].receive(1)

    assert frame is not None
    assert frame.data == {"a": [1, "zwei", None]}


def test_each_descriptor_stays_with_its_frame(pair: Pair) -> None:
    """One experiment's tensors must never arrive with another's message."""
    reader, writer = os.pipe()
    pair[0].send({"n": 1})
    pair[0].send({"n": 2}, [writer])
    pair[0].send({"n": 3})
    frames = [pair[1].receive(1) for _ in range(3)]

    assert [len(frame.fds) for frame in frames if frame] == [0, 1, 0]
    for frame in frames:
        if frame:
            frame.close()
    os.close(reader)
    os.close(writer)


def test_a_frame_larger_than_a_socket_holds_arrives(pair: Pair) -> None:
    """A preview of a wide table is some megabytes."""
    text = "x" * (MAX_FRAME - 100)
    sender = threading.Thread(target=pair[0].send, args=({"text": text},))
    sender.start()
    frame = pair[1].receive(10)
    sender.join()

    assert frame is not None
    assert len(frame.data["text"]) == len(text)


def test_the_end_is_none(pair: Pair) -> None:
    """A peer that is gone is no error for who listens."""
    pair[0].close()

    assert pair[1].receive(1) is None


def test_silence_is_a_timeout(pair: Pair) -> None:
    """Nobody waits for ever."""
    with pytest.raises(TimeoutError):
        pair[1].receive(0.01)


def test_half_a_frame_is_a_timeout(pair: Pair) -> None:
    """A peer that dribbles bytes must not hold its reader."""
    os.write(pair[0].fileno(), encode({"a": 1})[:-1])

    with pytest.raises(TimeoutError):
        pair[1].receive(0.05)


def test_a_stated_length_beyond_the_limit_is_refused_at_once(pair: Pair) -> None:
    """Four bytes must not make the reader set aside four gigabytes."""
    os.write(pair[0].fileno(), b"\xff\xff\xff\xff\x00")

    with pytest.raises(MessageRefusedError) as caught:
        pair[1].receive(1)

    assert caught.value.code is Code.MESSAGE_TOO_LARGE


def test_too_large_a_message_is_not_sent(pair: Pair) -> None:
    """The sender learns it, not the reader."""
    with pytest.raises(MessageRefusedError):
        pair[0].send({"text": "x" * (MAX_FRAME + 1)})


def test_a_descriptor_that_is_stated_and_missing_is_refused(pair: Pair) -> None:
    """A later frame's would be taken in its place."""
    os.write(pair[0].fileno(), b"\x00\x00\x00\x02\x01{}")

    with pytest.raises(MessageRefusedError, match="states 1"):
        pair[1].receive(1)


@pytest.mark.parametrize("stated", [0, 5])
def test_descriptors_that_nobody_stated_are_refused_and_closed(stated: int) -> None:
    """A flood of them would use up the reader's table."""
    ours, theirs = socket.socketpair()
    reader, writer = os.pipe()
    channel = Channel(theirs)
    socket.send_fds(ours, [b"\x00\x00\x00\x02" + bytes([stated]) + b"{}"], [writer] * (stated or 1))
    os.close(writer)

    with pytest.raises(MessageRefusedError):
        channel.receive(1)
    channel.close()

    assert os.read(reader, 1) == b""  # every copy of the writing end is closed
    os.close(reader)
    ours.close()


@pytest.mark.parametrize("payload", [b"[1]", b"\xff", b"[" * 100_000, b"1"])
def test_what_is_no_json_object_is_refused(pair: Pair, payload: bytes) -> None:
    """Whoever reads it gets one kind of error."""
    sender = threading.Thread(
        target=os.write, args=(pair[0].fileno(), len(payload).to_bytes(4, "big") + b"\0" + payload)
    )
    sender.start()
    frame = pair[1].receive(5)
    sender.join()

    assert frame is not None
    with pytest.raises(MessageRefusedError):
        _ = frame.data


def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    """Temporary and home folders are often deeper than 107 letters."""
    folder = tmp_path / ("a" * 120)
    folder.mkdir()
    with listen(folder / "s.sock") as listener, connect(folder / "s.sock") as ours:
        sock, _ = listener.accept()
        with Channel(sock) as theirs:
            ours.send({"far": True})

            assert theirs.receive(1) is not None


def test_a_socket_is_its_owners_alone(tmp_path: Path) -> None:
    """Other users of the machine have nothing to say to a node's processes."""
    with listen(tmp_path / "s.sock"):
        assert (tmp_path / "s.sock").stat().st_mode & 0o777 == 0o600


def test_a_socket_that_a_crash_left_is_replaced(tmp_path: Path) -> None:
    """A restart after a power cut needs no hand."""
    listen(tmp_path / "s.sock").close()

    with listen(tmp_path / "s.sock"), connect(tmp_path / "s.sock") as channel:
        assert channel.fileno() > 0


def test_a_socket_in_use_is_not_taken_over(tmp_path: Path) -> None:
    """Two processes would each do half the work."""
    with listen(tmp_path / "s.sock"), pytest.raises(FedWardError) as caught:
        listen(tmp_path / "s.sock")

    assert caught.value.code is Code.STORE_BUSY


def test_nobody_at_the_socket_is_said_so(tmp_path: Path) -> None:
    """The reader is told which process to start."""
    with pytest.raises(FedWardError, match="nobody answers") as caught:
        connect(tmp_path / "s.sock")

    assert caught.value.code is Code.NODE_NOT_RUNNING

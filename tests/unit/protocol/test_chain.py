"""The hash-chained log: no byte changes unseen, and the line that changed is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.protocol.chain import GENESIS, Line, append, digest, export, read_export, read_file, verify


def log(count: int = 4, **details: object) -> list[Line]:
    """A log of so many lines."""
    lines: list[Line] = []
    for number in range(1, count + 1):
        previous = lines[-1].hash if lines else GENESIS
        lines.append(
            append(
                previous,
                number,
                at=1_770_000_000 + number,
                actor="staff:Jürgen",
                event="plan.approved",
                subject="p-1",
                details=details,
            )
        )
    return lines


def exported(tmp_path: Path, raw: bytes) -> list[Line]:
    """The lines of an exported log with these bytes."""
    path = tmp_path / "audit.log"
    path.write_bytes(raw)
    return list(read_file(path))


def test_an_untouched_log_is_whole() -> None:
    """Its head is what staff note elsewhere."""
    lines = log()
    verdict = verify(lines)

    assert verdict.is_whole
    assert (verdict.lines, verdict.head) == (4, lines[-1].hash)


def test_a_log_is_checked_in_parts_as_in_one() -> None:
    """A part takes up where the one before was found whole: neither a gap nor a repeat passes."""
    lines = log()
    first = verify(lines[:2])

    assert verify(lines[2:], first) == verify(lines)
    assert verify([], first) == first
    assert verify(lines[3:], first).altered_line == 3
    assert verify(lines[1:], first).reason == "it does not follow the line before"


def test_an_empty_log_is_whole() -> None:
    """A node that did nothing has nothing to hide."""
    assert verify([]).head == GENESIS


def test_an_export_reads_back(tmp_path: Path) -> None:
    """Byte for byte, with letters beyond ASCII."""
    lines = log(note="Größe\n\u2028\x85 end")

    assert exported(tmp_path, "".join(export(lines)).encode()) == lines


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80])
def test_every_changed_byte_of_an_export_is_found_at_its_line(tmp_path: Path, flip: int) -> None:
    """Exhaustive: every byte of the file, in three ways."""
    raw = "".join(export(log(3))).encode()

    for place in range(len(raw)):
        changed = raw[:place] + bytes([raw[place] ^ flip]) + raw[place + 1 :]
        assert verify(exported(tmp_path, changed)).altered_line == raw[:place].count(b"\n") + 1, place


@pytest.mark.parametrize("byte", [b"\n", b"\r", b" ", b"\x00", b"\x0b", b"\x85", b"\xff"])
def test_a_byte_that_could_end_a_line_is_found_at_its_line(tmp_path: Path, byte: bytes) -> None:
    """Readers differ on what ends a line: a change from one end to another must show."""
    raw = "".join(export(log(3))).encode()

    for place in range(len(raw)):
        changed = raw[:place] + byte + raw[place + 1 :]
        if changed != raw:
            assert verify(exported(tmp_path, changed)).altered_line == raw[:place].count(b"\n") + 1, place


def test_a_changed_text_is_found_where_log_and_hash_lie_apart() -> None:
    """In the store the two are columns of one row."""
    lines = log()
    lines[2] = Line(lines[2].text.replace("approved", "rejected"), lines[2].hash)

    assert verify(lines).altered_line == 3


def test_a_line_with_a_fitting_hash_is_found_by_the_next() -> None:
    """Whoever changes a line can compute its hash, but not those behind it without changing them all."""
    lines = log()
    text = lines[1].text.replace("approved", "rejected")
    lines[1] = Line(text, digest(text))

    verdict = verify(lines)
    assert verdict.altered_line == 3
    assert "follow" in verdict.reason


@pytest.mark.parametrize("order", [(1, 2, 3), (0, 2, 3), (0, 1, 3), (0, 2, 1, 3), (0, 0, 1, 2), (3, 2, 1, 0)])
def test_a_line_taken_out_or_moved_is_found(order: tuple[int, ...]) -> None:
    """The first line that stands where it should not is named."""
    lines = log()
    expected = next(i for i, place in enumerate(order) if place != i) + 1

    assert verify([lines[place] for place in order]).altered_line == expected


def test_a_wrong_number_is_found() -> None:
    """The chain may be whole and yet start in the middle."""
    line = append(GENESIS, 7, at=0, actor="a", event="e.f", subject="s", details={})

    assert verify([line]).reason == "it says that it is line 7"


@pytest.mark.parametrize("text", ["", "x", "[]", "null", "5", "{}", '{"previous": null}', "[" * 100_000])
def test_what_is_no_log_line_is_found(text: str) -> None:
    """Even with the right hash."""
    assert verify([Line(text, digest(text))]).altered_line == 1


@pytest.mark.parametrize("raw", [b"\n", b"no hash\n", b"\xff\xfe\n", b" \n"])
def test_a_file_that_is_no_export_is_found_at_line_one(tmp_path: Path, raw: bytes) -> None:
    """The wrong file was given."""
    assert verify(exported(tmp_path, raw)).altered_line == 1


def test_a_file_name_that_is_not_utf8_can_be_logged() -> None:
    """Linux allows such names; no database does."""
    line = append(GENESIS, 1, at=0, actor="a", event="e.f", subject="s", details={"file": "caf\udce9.csv"})

    assert json.loads(line.text.encode("utf-8"))["details"]["file"] == "caf\udce9.csv"


def test_a_number_that_is_none_is_not_logged() -> None:
    """The log stays JSON for every reader."""
    with pytest.raises(ValueError):
        log(1, loss=float("nan"))


@given(st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.none()), min_size=1, max_size=5))
def test_any_log_is_whole_after_the_way(records: list[dict[str, object]]) -> None:
    """Whatever letters its details hold."""
    lines: list[Line] = []
    for number, details in enumerate(records, 1):
        previous = lines[-1].hash if lines else GENESIS
        lines.append(append(previous, number, at=0, actor="a", event="e.f", subject="s", details=details))

    assert verify(read_export(export(lines))) == verify(lines)
    assert verify(lines).is_whole

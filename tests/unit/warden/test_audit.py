"""The audit log: whatever is changed, the line is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from appliance.protocol import chain
from appliance.warden import audit as audit_module
from appliance.warden.audit import audit_lines
from appliance.warden.history import History
from appliance.warden.store import audit
from tests.unit.warden.conftest import Node


@pytest.fixture
def written(node: Node) -> Node:
    """A node with five lines, some of them with more than ASCII in them."""
    for number in range(1, 6):
        with node.store.write() as connection:
            node.services.audit.write(connection, "staff:Dr. Groß", "plan.approved", f"p{number}", note="für Ü")
    return node


def verdict(node: Node) -> chain.Verdict:
    """What verification says now."""
    with node.store.read() as connection:
        return chain.verify(audit_lines(connection))


def change(node: Node, sql: str, **values: object) -> None:
    """Somebody writes into the database past the warden."""
    with node.store.write() as connection:
        connection.execute(sa.text(sql), values)


def test_a_log_as_it_was_written_is_whole(written: Node) -> None:
    """Otherwise every alarm would be ignored."""
    assert verdict(written).is_whole
    assert verdict(written).lines == 5


@pytest.mark.parametrize("column", ["text", "hash"])
def test_any_changed_byte_in_the_database_is_named_with_its_line(written: Node, column: str) -> None:
    """Also one that is no letter any more afterwards."""
    with written.store.read() as connection:
        original = connection.scalar(sa.select(audit.c[column]).where(audit.c.n == 3)).encode()
    for place in range(len(original)):
        for flip in (0x01, 0x80):
            altered = original[:place] + bytes([original[place] ^ flip]) + original[place + 1 :]
            change(written, f"UPDATE audit SET {column} = CAST(:raw AS TEXT) WHERE n = 3", raw=altered)
            assert verdict(written).altered_line == 3, (place, flip)
    change(written, f"UPDATE audit SET {column} = CAST(:raw AS TEXT) WHERE n = 3", raw=original)
    assert verdict(written).is_whole


def test_a_line_taken_out_is_missed_at_its_place(written: Node) -> None:
    """Forgetting is changing."""
    change(written, "DELETE FROM audit WHERE n = 2")
    assert verdict(written).altered_line == 2


def test_a_line_with_another_number_is_named(written: Node) -> None:
    """Not even the last one may wander."""
    change(written, "UPDATE audit SET n = 9 WHERE n = 5")
    assert verdict(written).altered_line == 5


def test_two_lines_that_changed_places_are_named(written: Node) -> None:
    """Order is part of what the log says."""
    change(written, "UPDATE audit SET n = n + 10 WHERE n IN (2, 3)")
    change(written, "UPDATE audit SET n = 15 - n WHERE n > 10")
    assert verdict(written).altered_line == 2


def test_any_changed_byte_of_an_export_is_named_with_its_line(written: Node, tmp_path: Path) -> None:
    """The copy at the auditor's is as good as the original."""
    file = tmp_path / "log.txt"
    with written.store.read() as connection:
        whole = "".join(chain.export(audit_lines(connection))).encode()
    rows = whole.splitlines(keepends=True)
    start = len(b"".join(rows[:2]))
    for place in range(start, start + len(rows[2]) - 1):
        for flip in (0x01, 0x80):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ flip]) + whole[place + 1 :])
            assert chain.verify(chain.read_file(file)).altered_line == 3, (place, flip)


def test_what_is_rolled_back_leaves_no_gap(written: Node) -> None:
    """A refused transaction must not look like a deleted line."""
    with pytest.raises(ZeroDivisionError), written.store.write() as connection:
        written.services.audit.write(connection, "node", "round.accepted", "e-1")
        raise ZeroDivisionError
    with written.store.write() as connection:
        written.services.audit.write(connection, "node", "round.accepted", "e-2")
    assert verdict(written).lines == 6


def test_a_long_log_is_read_page_by_page(written: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Years of lines must not have to fit into memory."""
    monkeypatch.setattr(audit_module, "_PAGE", 2)
    assert verdict(written).lines == 5


def test_the_log_can_be_read_while_the_warden_is_down(written: Node) -> None:
    """An auditor comes when he comes."""
    written.close()
    assert chain.verify(History(written.root).audit_lines()).lines == 5

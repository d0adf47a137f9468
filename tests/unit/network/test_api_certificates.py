"""POST /api/v1/certificates: handing a request in to the authority, which decides."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.network.audit import selectors

ADDRESS = "/api/v1/certificates"
REQUEST = {
    "format": "fedward-join-request/1",
    "id": "north",
    "role": "node",
    "institution": " North ",
    "contact": "it@north",
    "identity": "i" * 43,
    "sealing": "s" * 43,
    "csr": "-----BEGIN CERTIFICATE REQUEST-----\n",
    "proof": "a.b.c",
}
Authority = Callable[[bytes], list[bytes]]


@pytest.fixture
def authority(configure: Any, tmp_path: Path) -> Iterator[Authority]:
    """An authority that gives one answer; what it was asked is returned."""
    path, heard = tmp_path / "authority.sock", []
    with socket.socket(socket.AF_UNIX) as listener:

        def answer(said: bytes) -> None:
            line, _ = listener.accept()
            with line:
                line.settimeout(20)
                heard.append(b"".join(iter(lambda: line.recv(1 << 16), b"")))
                line.sendall(said)

        def start(said: bytes) -> list[bytes]:
            listener.bind(str(path))
            listener.listen()
            threading.Thread(target=answer, args=(said,), daemon=True).start()
            return heard

        configure(authority_socket=path)
        yield start


def test_a_request_is_handed_in_as_it_was_signed(north: Any, authority: Authority) -> None:
    """A blank that is lost would break the member's signature."""
    heard = authority(b'{"certificate": "PEM"}')
    answer = north.post(ADDRESS, REQUEST, format="json")

    assert (answer.status_code, answer.json()) == (201, {"certificate": "PEM"})
    assert json.loads(heard[0]) == REQUEST
    assert "certificate.renewed" in [json.loads(line.text)["event"] for line in selectors.line_stream()]


def test_the_authoritys_refusal_is_passed_on(north: Any, authority: Authority) -> None:
    """With its reason and its remedy."""
    authority(b'{"code": "ENROLMENT_REFUSED", "message": "No.", "remedy": "Wait a day."}')
    answer = north.post(ADDRESS, REQUEST, format="json")

    assert (answer.status_code, answer.json()["remedy"]) == (403, "Wait a day.")


@pytest.mark.parametrize("said", [b"", b"[]", b"nonsense", b"{}"])
def test_an_authority_that_talks_nonsense_is_absent(said: bytes, north: Any, authority: Authority) -> None:
    """The member tries again."""
    authority(said)

    assert north.post(ADDRESS, REQUEST, format="json").status_code == 503


def test_without_an_authority_the_member_tries_again(north: Any, configure: Any, tmp_path: Path) -> None:
    """It may be restarting."""
    configure(authority_socket=tmp_path / "nobody.sock")

    assert north.post(ADDRESS, REQUEST, format="json").status_code == 503


def test_nobody_asks_for_another(mallory: Any) -> None:
    """The authority would refuse as well; it need not hear of it."""
    assert mallory.post(ADDRESS, REQUEST, format="json").status_code == 403


def test_strangers_are_not_heard(host: Any, world: Any) -> None:
    """A certificate is renewed for members only."""
    assert world.client().post(ADDRESS, REQUEST, format="json").status_code == 401

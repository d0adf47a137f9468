"""What mallory tells the network host of others, and what she and eve read there; over a host that really runs."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from appliance.protocol.home import TlsFiles
from tests.integration.network.hosts import Authority, Host

STATE = {
    "version": "0.1.0",
    "disk_free_bytes": 5 << 30,
    "disk_total_bytes": 10 << 30,
    "certificate_until": 1_800_000_000,
    "running_rounds": 1,
}


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A network host with everybody's register."""
    host = Host(tmp_path_factory.mktemp("network"), reserve_bytes=0).start()
    yield host
    host.stop()


def call(host: Host, method: str, path: str, token: str, *, tls: TlsFiles | None = None, **options: Any) -> Any:
    """One call over TLS with mallory's certificate, or another."""
    tls = tls or host.authority.files("mallory")
    return requests.request(
        method,
        f"https://127.0.0.1:{host.port}{path}",
        headers={"Authorization": f"Bearer {token}"},
        verify=str(host.authority.ca),
        cert=(str(tls.certificate), str(tls.key)),
        timeout=20,
        **options,
    )


def told(host: Host, member: str) -> set[str]:
    """What is known of a member, but for when it was last heard: from the metrics, as the operator reads them."""
    answer = call(host, "GET", "/metrics", host.signer("operator").token()[0])
    assert answer.status_code == 200
    return {row for row in answer.text.splitlines() if f'member="{member}"' in row and "last_seen" not in row}


def test_a_node_tells_its_state_and_the_operator_sees_it(host: Host) -> None:
    """The counterpart of the refusals below: by the warden's own client, to the operator's own command."""
    host.client("north").state_tell(STATE, give_up_s=20)
    found = json.loads(host.command("status", "--json"))
    north = next(row for row in found["members"] if row["id"] == "north")

    assert {name: north[name] for name in STATE} == STATE
    assert north["seen_at"] is not None
    assert told(host, "north") <= set(host.command("metrics").splitlines())
    assert 'fedward_member_running_rounds{member="north"} 1' in told(host, "north")


def test_mallory_tells_nothing_in_anothers_name(host: Host) -> None:
    """Not by a field, not by another's certificate, not by her word for a member: the token alone says who calls."""
    token = host.signer("mallory").token()[0]
    before = told(host, "south")
    named = call(host, "PUT", "/api/v1/members/me/state", token, json=STATE | {"member": "south"})
    elsewhere = call(host, "PUT", "/api/v1/members/south/state", token, json=STATE)
    in_souths_lines = call(
        host, "PUT", "/api/v1/members/me/state", token, json=STATE, tls=host.authority.files("south")
    )

    assert (named.status_code, elsewhere.status_code, in_souths_lines.status_code) == (400, 404, 204)
    assert told(host, "south") == before


@pytest.mark.parametrize(
    "body",
    [
        b'{"version": "' + b"x" * 100_000 + b'"}',
        json.dumps(STATE | {"version": "0.1\u202e\x1b[2J"}).encode(),
        json.dumps(STATE | {"running_rounds": 10**30}).encode(),
        json.dumps(STATE | {"disk_free_bytes": True}).encode(),
        json.dumps(STATE | {"certificate_until": [1]}).encode(),
        json.dumps(STATE | {"note": "text of a plan"}).encode(),
        b"[]",
        b"\xff\xfe",
    ],
    ids=["long", "terminal", "number", "truth", "list", "text", "array", "bytes"],
)
def test_mallory_smuggles_nothing_in_her_own_state(body: bytes, host: Host) -> None:
    """What the operator reads on a terminal are five plain values of bounded size; anything else is refused."""
    token = host.signer("mallory").token()[0]
    before = told(host, "mallory")
    answer = call(host, "PUT", "/api/v1/members/me/state", token, data=body)

    assert 400 <= answer.status_code < 500
    assert told(host, "mallory") == before


def test_a_revoked_member_has_no_state_any_more(host: Host) -> None:
    """From the next call on."""
    host.import_register(host.register(2, fed="revoked"))
    answer = call(host, "PUT", "/api/v1/members/me/state", host.signer("fed").token()[0], json=STATE)

    assert answer.status_code == 401
    assert told(host, "fed") == {'fedward_member_info{member="fed",role="federator",state="revoked",version=""} 1'}


@pytest.mark.parametrize("member", ["mallory", "north"])
def test_a_member_does_not_read_the_metrics(member: str, host: Host) -> None:
    """They tell when each hospital trains, and how it stands."""
    refused = call(host, "GET", "/metrics", host.signer(member).token()[0])
    operators = call(host, "GET", "/metrics", host.signer("operator").token()[0])

    assert (refused.status_code, operators.status_code) == (403, 200)
    assert "fedward_" not in refused.text


def test_eve_does_not_get_as_far_as_a_token(host: Host, tmp_path: Path) -> None:
    """Without the consortium's certificate the line ends in the handshake, also for the metrics."""
    eve = Authority(tmp_path / "eve", "eve").files("mallory")

    with pytest.raises((requests.ConnectionError, ssl.SSLError), match=r".*"):
        call(host, "GET", "/metrics", host.signer("operator").token()[0], tls=eve)

"""The doctor at a network host and at a broker that really run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.doctor import clock, services
from appliance.doctor.finding import Finding, State
from appliance.doctor.host import Kind, find_host
from appliance.protocol.home import TlsFiles
from appliance.protocol.keys import MemberKeys
from tests.integration.network.hosts import Authority, Host
from tests.integration.test_broker import Running

NOBODY = 1  # a port that nobody listens on


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that runs many tests at once may take longer than a doctor should."""
    monkeypatch.setattr(services, "LIMIT_S", 60.0)
    monkeypatch.setattr(clock, "NOTICED_S", 60)


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A network host."""
    host = Host(tmp_path_factory.mktemp("network"), reserve_bytes=0).start()
    yield host
    host.stop()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A Mosquitto."""
    running = Running(tmp_path_factory.mktemp("broker"))
    yield running
    running.stop()


def look(folder: Path, tls: TlsFiles, *, rest: int = NOBODY, broker: int = NOBODY) -> dict[str, Finding]:
    """What is said at a member with these files, by the finding's first word."""
    (folder / "tls").mkdir()
    for name, path in (("ca", tls.ca), ("cert", tls.certificate), ("key", tls.key)):
        shutil.copy(path, folder / f"tls/{name}.pem")
    (folder / "member.toml").write_text(
        f'id = "north"\noperator = "{MemberKeys.generate().public.identity}"\n[[endpoints]]\n'
        f'broker_host = "127.0.0.1"\nbroker_port = {broker}\nrest_url = "https://127.0.0.1:{rest}"\n'
    )
    host = find_host(folder, kind=Kind.NODE, home=folder)
    return {finding.name.split()[0]: finding for finding in services.check(host)}


def test_a_member_reaches_the_rest_service_and_compares_the_clock(rest: Host, tmp_path: Path) -> None:
    """With its own certificate, over TLS 1.3, as the warden does; without a token, for the key stays the warden's."""
    found = look(tmp_path, rest.authority.files("north"), rest=rest.port)

    assert found["REST"].state is State.OK
    assert found["against"].state is State.OK
    assert found["broker"].state is State.FAILED


def test_a_member_reaches_the_broker_beside_its_own_session(broker: Running, tmp_path: Path) -> None:
    """A second connection under the warden's client id would end the warden's."""
    warden = broker.member("north")
    found = look(tmp_path, broker.authority.files("north"), broker=broker.port)
    warden.subscribe("to/north/from/+/+")
    broker.member("alice").publish("to/north/from/alice/ping", b"hello")

    assert found["broker"].state is State.OK
    assert warden.heard.get(timeout=20)[1] == b"hello"


def test_another_authoritys_host_is_not_believed(rest: Host, tmp_path: Path) -> None:
    """Something in between answers in the hub's name."""
    eve = Authority(tmp_path / "eve", "eve")
    found = look(tmp_path, eve.files("north"), rest=rest.port)

    assert found["REST"].state is State.FAILED
    assert "certificate is not accepted" in found["REST"].because


def test_a_certificate_of_another_authority_is_refused_there(broker: Running, tmp_path: Path) -> None:
    """Told as ours to mend, not as a line that is down."""
    eve = Authority(tmp_path / "eve", "eve").files("north")
    ours = TlsFiles(broker.authority.ca, eve.certificate, eve.key)
    found = look(tmp_path, ours, broker=broker.port)

    assert found["broker"].state is State.FAILED
    assert "not revoked" in found["broker"].remedy

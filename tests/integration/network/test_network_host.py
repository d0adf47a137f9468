"""A host as a process: who gets in, what a crash costs, what it leaves in memory and in the log."""

from __future__ import annotations

import json
import socket
import sqlite3
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests

from appliance.protocol import chain
from appliance.protocol.envelope import Signer
from appliance.protocol.errors import Code
from appliance.protocol.home import TlsFiles
from appliance.protocol.keys import MemberKeys
from appliance.transport.rest import RefusedError, RestClient, UnreachableError
from appliance.transport.tls import client_context
from tests.integration.network.hosts import Authority, File, Host, fetch, wait_until

NewFile = Callable[[int], File]


@pytest.fixture
def own_host(tmp_path: Path) -> Host:
    """A host that a test may kill."""
    host = Host(tmp_path / "own", reserve_bytes=0)
    yield host
    host.stop()


def ask(host: Host, context: ssl.SSLContext) -> bytes:
    """A bare call, whatever the certificate."""
    with (
        socket.create_connection(("127.0.0.1", host.port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as sock,
    ):
        sock.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return sock.recv(1000)


# Who gets in


def test_a_members_certificate_opens_the_line(sqlite_host: Host) -> None:
    """The counterpart of the refusals below."""
    assert b"200 OK" in ask(sqlite_host, client_context(sqlite_host.authority.files("north")))


def test_a_caller_without_certificate_is_refused(sqlite_host: Host) -> None:
    """Whoever is not of the consortium does not reach HTTP."""
    context = ssl.create_default_context(cafile=str(sqlite_host.authority.ca))

    with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
        ask(sqlite_host, context)


def test_tls_1_2_is_refused(sqlite_host: Host) -> None:
    """It lets an eavesdropper see the certificates."""
    files = sqlite_host.authority.files("north")
    context = ssl.create_default_context(cafile=str(files.ca))
    context.load_cert_chain(files.certificate, files.key)
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    with pytest.raises(ssl.SSLError):
        ask(sqlite_host, context)


def test_a_certificate_of_another_authority_is_refused(sqlite_host: Host, tmp_path: Path) -> None:
    """Eve can name herself north, but not sign it."""
    eve = Authority(tmp_path / "eve", "test authority").files("north")
    context = client_context(TlsFiles(sqlite_host.authority.ca, eve.certificate, eve.key))

    with pytest.raises((ssl.SSLError, ConnectionError)):
        ask(sqlite_host, context)


def test_a_host_of_another_authority_is_refused_at_once(sqlite_host: Host, tmp_path: Path) -> None:
    """The client believes the consortium's authority and nobody else."""
    eve = Authority(tmp_path / "eve").files("north")
    client = RestClient(f"https://127.0.0.1:{sqlite_host.port}", eve, sqlite_host.signer("north"))

    with pytest.raises(UnreachableError, match="certificate"):
        client.register()
    client.close()


def test_a_host_under_another_name_is_refused_at_once(sqlite_host: Host) -> None:
    """Any member has a certificate; only the host has one for its address."""
    files = sqlite_host.authority.files("north")
    client = RestClient(f"https://localhost:{sqlite_host.port}", files, sqlite_host.signer("north"))

    with pytest.raises(UnreachableError, match="certificate"):
        client.register()
    client.close()


def test_a_certificate_without_a_line_in_the_register_is_not_enough(sqlite_host: Host) -> None:
    """Certificates open lines; members are made by the operator."""
    files = sqlite_host.authority.files("eve")
    client = RestClient(f"https://127.0.0.1:{sqlite_host.port}", files, Signer("eve", MemberKeys.generate()))

    with pytest.raises(RefusedError) as caught:
        client.register()
    client.close()

    assert caught.value.code == Code.SENDER_UNKNOWN


def test_a_peer_that_says_nothing_costs_nobody_anything(sqlite_host: Host) -> None:
    """More silent connections than there are threads, and the host still answers."""
    silent = [socket.create_connection(("127.0.0.1", sqlite_host.port)) for _ in range(40)]
    for sock in silent:
        sock.sendall(b"\x16")  # the first byte of a handshake

    assert sqlite_host.client("north", give_up_s=60).register()
    for sock in silent:
        sock.close()


def test_a_redirection_is_not_followed(sqlite_host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token must not be carried to wherever somebody points."""
    answer = requests.Response()
    answer.status_code, answer.headers["Location"] = 307, "https://elsewhere.example"
    client = sqlite_host.client("north")
    monkeypatch.setattr(client._line._session, "request", lambda *_, allow_redirects, **__: answer)

    with pytest.raises(RefusedError, match="307"):
        client.register()


def test_a_token_is_used_again_until_shortly_before_its_end(sqlite_host: Host) -> None:
    """Signing for every call would cost more than the call."""
    signer = sqlite_host.signer("north")
    client = RestClient(f"https://127.0.0.1:{sqlite_host.port}", sqlite_host.authority.files("north"), signer)

    assert client._line._bearer()[0] == client._line._bearer()[0]
    client._line._token = ("old", client._line._token[1] - 250)
    assert client._line._bearer()[0] != "old"
    client.close()


def test_a_revoked_member_is_out_at_once(own_host: Host, new_file: NewFile) -> None:
    """In the middle of its session."""
    own_host.start()
    north = own_host.client("north")
    north.register()

    own_host.import_register(own_host.register(version=2, north="revoked"))

    with pytest.raises(RefusedError, match="revoked"):
        new_file(10).upload(north)


# What a crash costs


def test_a_killed_host_keeps_what_it_acknowledged(own_host: Host, new_file: NewFile, tmp_path: Path) -> None:
    """A power cut after the answer must not lose the file."""
    own_host.start()
    file = new_file(100_000)
    file.upload(own_host.client("north"))

    own_host.kill()
    own_host.start()

    fetch(own_host.client("alice"), file.sealed(), tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == file.content
    assert "all as they were written" in own_host.command("audit", "verify")


def test_an_upload_goes_on_after_the_host_was_killed(own_host: Host, new_file: NewFile, tmp_path: Path) -> None:
    """Whatever was being written at that instant."""
    own_host.start()
    file, far = new_file(40 << 20), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(
            file.upload,
            own_host.client("north", give_up_s=60),
            on_progress=lambda sent, _: far.set() if sent > 20 << 20 else None,
        )
        assert far.wait(30)
        own_host.kill()
        port = own_host.port
        own_host.start_at(port)
        done.result()

    fetch(own_host.client("alice"), file.sealed(), tmp_path / "got")
    assert (tmp_path / "got").read_bytes() == file.content


def test_sigterm_ends_everything(own_host: Host) -> None:
    """No worker outlives the host."""
    own_host.start()
    own_host.client("north").register()
    workers = own_host.workers()

    assert own_host.stop() == 0
    assert not [worker for worker in workers if worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE]


def test_a_renewed_certificate_is_used_without_a_restart(own_host: Host) -> None:
    """They last weeks; hosts run for months."""
    own_host.start()
    own_host.client("north").register()
    new = own_host.authority.files("network-renewed", host="127.0.0.1")
    for name, path in (("cert", new.certificate), ("key", new.key)):
        (own_host.home / f"tls/{name}.pem").unlink()
        (own_host.home / f"tls/{name}.pem").symlink_to(path)
    context = client_context(own_host.authority.files("north"))

    with (
        socket.create_connection(("127.0.0.1", own_host.port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as sock,
    ):
        shown = dict(pair[0] for pair in sock.getpeercert()["subject"])

    assert shown["commonName"] == "network-renewed"


# What it leaves in memory and in the log


def test_a_large_file_does_not_pass_through_memory(sqlite_host: Host, new_file: NewFile, tmp_path: Path) -> None:
    """64 MB in and out, and the host grows by a few."""
    sqlite_host.client("north").register()
    [worker] = sqlite_host.workers()
    before = worker.memory_info().rss
    file = new_file(64 << 20)

    file.upload(sqlite_host.client("north"))
    fetch(sqlite_host.client("alice"), file.sealed(), tmp_path / "got")

    assert worker.memory_info().rss - before < 12 << 20


def test_neither_log_holds_a_token(own_host: Host, new_file: NewFile) -> None:
    """Whoever reads logs must not be able to call in a member's name."""
    own_host.start()
    client = own_host.client("north")
    new_file(1000).upload(client)
    own_host.keys["mallory"] = MemberKeys.generate()
    forger = own_host.client("mallory")
    with pytest.raises(RefusedError):
        forger.register()

    logs = own_host.log.read_text() + own_host.command("audit", "export")
    for token in (client._line._bearer()[0], forger._line._bearer()[0]):
        assert token.rpartition(".")[2] not in logs


def test_the_host_logs_json(own_host: Host) -> None:
    """For whatever collects it."""
    own_host.start()
    own_host.stop()

    assert all(json.loads(line) for line in own_host.log.read_text().splitlines())


def test_the_chain_holds_under_eight_threads(host: Host) -> None:
    """In two processes, over either database: no line lost, none forked."""
    clients = [host.client("north" if number % 2 else "alice") for number in range(8)]
    before = len(host.command("audit", "export").splitlines())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda client: [client.register() for _ in range(15)], clients))

    rows = host.command("audit", "export").splitlines(keepends=True)
    assert len(rows) - before == 120
    assert chain.verify(chain.read_export(rows)).is_whole


def test_verify_names_the_first_altered_line(own_host: Host) -> None:
    """After any change of a byte in the database."""
    own_host.start()
    for _ in range(3):
        own_host.client("north").register()
    own_host.stop()
    with sqlite3.connect(own_host.home / "store/network.sqlite3") as database:
        database.execute("UPDATE audit_auditline SET text = replace(text, 'north', 'sorth') WHERE n = 3")
    database.close()

    assert "line 3" in own_host.command("audit", "verify", expect=1)


def test_an_export_can_be_checked_elsewhere(own_host: Host, tmp_path: Path) -> None:
    """By whoever trusts neither host nor database."""
    own_host.command("audit", "export", "--out", str(tmp_path / "log.txt"))

    assert chain.verify(chain.read_file(tmp_path / "log.txt")).lines == 1


@pytest.mark.parametrize("text", ["nonsense", ""])
def test_a_file_that_is_no_register_is_explained(text: str, own_host: Host, tmp_path: Path) -> None:
    """With a sentence and exit code 1."""
    (tmp_path / "register").write_text(text)

    said = own_host.command("register", "import", str(tmp_path / "register"), expect=1)

    assert "not signed" in said
    assert "Traceback" not in said


def test_collect_says_what_it_did(own_host: Host) -> None:
    """A timer's log should tell that it worked."""
    assert "0 uploads had expired" in own_host.command("collect")


def test_a_start_that_fails_is_explained(own_host: Host) -> None:
    """The certificate is missing: which file, and what to do."""
    (own_host.home / "tls/cert.pem").unlink()

    said = own_host.command("serve", expect=1)

    assert "tls" in said
    assert "Traceback" not in said


def test_expired_uploads_are_collected_by_the_host_itself(tmp_path: Path, new_file: NewFile) -> None:
    """Nobody needs to set up a timer."""
    host = Host(tmp_path / "own", reserve_bytes=0, keep_s=0.1, collect_every_s=0.1).start()
    new_file(100).upload(host.client("north"))

    wait_until(lambda: not any((host.home / "store/parameters").iterdir()))
    host.stop()
    assert not any((host.home / "store/parameters").iterdir())

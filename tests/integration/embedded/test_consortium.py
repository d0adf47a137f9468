"""A consortium on one machine, with its real broker."""

from __future__ import annotations

import http.client
import os
import queue
import select
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.embedded.consortium import EmbeddedConsortium, Seat, require_unused
from appliance.embedded.errors import FolderBusyError
from appliance.embedded.ports import free_port
from appliance.protocol.envelope import Signer
from appliance.protocol.errors import ConfigurationError
from appliance.protocol.home import Endpoint, MemberHome
from appliance.transport.tls import client_context


def _shake_hands(consortium: EmbeddedConsortium, member_id: str) -> str | None:
    context = client_context(MemberHome(consortium.home(member_id)).tls)
    address = (consortium.endpoint.broker_host, consortium.endpoint.broker_port)
    line = socket.create_connection(address, timeout=10)
    with context.wrap_socket(line, server_hostname=consortium.endpoint.broker_host) as secured:
        return secured.version()


def test_every_member_is_enrolled(consortium) -> None:
    """By the same steps as across a country: keys of its own, a certificate, the operator's register."""
    for member_id in ("network", "north", "south", "alice", "operator"):
        home = MemberHome(consortium.home(member_id))
        assert home.register().require(member_id).keys == home.keys().public


def test_the_broker_speaks_tls_with_the_members(consortium) -> None:
    """The demo runs with the protection that it reports."""
    assert _shake_hands(consortium, "north") == "TLSv1.3"


def test_a_second_start_keeps_the_members_keys(consortium) -> None:
    """Whoever ends the demo and starts it again in the same folder goes on."""
    before = MemberHome(consortium.home("north")).keys().public
    consortium.stop()
    consortium.start(["broker"])

    assert MemberHome(consortium.home("north")).keys().public == before
    assert _shake_hands(consortium, "north") == "TLSv1.3"


def test_a_broker_that_was_killed_comes_back_where_it_was(consortium) -> None:
    """The members know one address."""
    endpoint = consortium.endpoint
    consortium.kill("broker", forget=True)
    consortium.restart("broker")

    assert consortium.endpoint == endpoint
    assert _shake_hands(consortium, "south") == "TLSv1.3"


def test_a_killed_broker_can_forget_everything(consortium) -> None:
    """The protocol assumes such a broker, so tests need one."""
    consortium.restart("broker")  # an orderly end writes the store
    consortium.kill("broker", forget=True)

    assert not list((consortium.home("network") / "broker/store").iterdir())


def test_the_network_host_lists_the_members_that_the_operator_signed(consortium) -> None:
    """It has the register from the start, and from the operator's signature alone."""
    consortium.stop()
    consortium.start(["broker", "network"])
    north = MemberHome(consortium.home("north"))
    token, _ = Signer("north", north.keys()).token()
    address = consortium.endpoint.rest_url.removeprefix("https://")
    line = http.client.HTTPSConnection(address, context=client_context(north.tls), timeout=20)
    line.request("GET", "/api/v1/register", headers={"Authorization": f"Bearer {token}"})
    answer = line.getresponse().read().decode()
    line.close()

    assert (north.root / "register.jws").read_text().strip() in answer


def test_nothing_runs_after_the_end(consortium) -> None:
    """Ending the demo leaves no process."""
    (pid,) = consortium.processes("broker")
    consortium.stop()

    assert not Path(f"/proc/{pid}").exists()


def test_an_unexpected_death_is_reported(tmp_path) -> None:
    """The demo says what died and why, instead of waiting for ever."""
    deaths = queue.SimpleQueue()
    consortium = EmbeddedConsortium(tmp_path, nodes=[], on_death=deaths.put)
    consortium.start(["broker"])
    os.kill(next(iter(consortium.processes("broker"))), signal.SIGKILL)

    assert "broker was ended by SIGKILL" in deaths.get(timeout=20).message
    consortium.stop()


def test_two_consortia_cannot_share_a_folder(consortium) -> None:
    """They would share keys, stores and ports."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(FolderBusyError, match="Another consortium runs"):
        patch.setattr("appliance.embedded.consortium.GRACE_S", -2)
        EmbeddedConsortium(consortium.root, nodes=["north"]).start(["broker"])


def test_a_folder_can_be_asked_about_before_it_is_emptied(consortium, monkeypatch) -> None:
    """A second demo must not delete the folder of the first while that runs."""
    monkeypatch.setattr("appliance.embedded.consortium.GRACE_S", -2)
    with pytest.raises(FolderBusyError):
        require_unused(consortium.root)
    consortium.stop()

    require_unused(consortium.root)


def test_another_port_is_chosen_when_one_is_taken(tmp_path, monkeypatch) -> None:
    """Between the choice and the start, another program may be faster."""
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        taken, free = stranger.getsockname()[1], free_port()
        endpoints = iter(
            Endpoint(broker_host="127.0.0.1", broker_port=port, rest_url="https://127.0.0.1:9")
            for port in (taken, free)
        )
        monkeypatch.setattr("appliance.embedded.consortium._fresh_endpoint", lambda: next(endpoints))
        consortium = EmbeddedConsortium(tmp_path, nodes=["north"])
        consortium.start(["broker"])

    assert MemberHome(consortium.home("north")).settings.endpoints[0].broker_port == free
    consortium.stop()


def test_private_files_are_private(consortium) -> None:
    """A demo on a shared machine holds keys, too."""
    keys = [path for path in consortium.root.rglob("*.pem") if "PRIVATE" in path.read_text()]

    assert len(keys) == 5 * 3 + 1  # identity, sealing and transport of each member, and the authority's
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}


@pytest.mark.parametrize("taken", ["broker", "network", "operator"])
def test_the_parts_ids_are_refused(tmp_path, taken) -> None:
    """A hospital of that name would share the network host's folder."""
    with pytest.raises(ConfigurationError, match=taken):
        EmbeddedConsortium(tmp_path, nodes=[Seat(taken, "A hospital")])


def test_all_ends_when_the_demo_is_killed(tmp_path) -> None:
    """SIGKILL leaves no time to tidy up; nothing may run on unseen."""
    text = """
import sys, time
from pathlib import Path
from appliance.embedded.consortium import EmbeddedConsortium
consortium = EmbeddedConsortium(Path(sys.argv[1]), nodes=["north"])
consortium.start(["broker"])
print(next(iter(consortium.processes("broker"))), flush=True)
time.sleep(60)
"""
    starter = subprocess.Popen([sys.executable, "-c", text, str(tmp_path / "run")], stdout=subprocess.PIPE)
    with starter:
        ended = os.pidfd_open(int(starter.stdout.readline()))
        starter.kill()

        assert select.select([ended], [], [], 20)[0]
    os.close(ended)


def test_a_long_folder_name_is_no_obstacle(tmp_path) -> None:
    """The paths of Unix sockets end at 107 bytes; people's folders do not."""
    deep = tmp_path / ("a-rather-long-name-of-a-folder-" * 5) / "run"
    consortium = EmbeddedConsortium(deep, nodes=[])
    consortium.start(["broker", "network"])
    consortium.require_alive()
    assert consortium.processes("network")
    consortium.stop()

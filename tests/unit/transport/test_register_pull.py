"""Members fetch newer registers by themselves."""

from __future__ import annotations

import hashlib
import threading
import time
from pathlib import Path

import pytest

from appliance.protocol.errors import Code, FedWardError
from appliance.protocol.home import MemberHome
from appliance.protocol.keys import MemberKeys
from appliance.protocol.register import Role, sign_register
from appliance.transport.register import RegisterPull
from tests.registers import register_of

OPERATOR, NORTH = MemberKeys.generate(), MemberKeys.generate()


def signed(version: int) -> str:
    """A register of that version."""
    register = register_of({"north": NORTH}, {"north": Role.NODE}, version=version, issued_at=int(time.time()))
    return sign_register(register, OPERATOR)


class Host:
    """A network host that holds ``text``, or is out of reach."""

    def __init__(self, text: str | None) -> None:
        self.text = text
        self.asked = threading.Semaphore(0)

    def register_besides(self, sha256: str, **_: object) -> str | None:
        """As the REST service answers."""
        self.asked.release()
        if self.text is None:
            raise FedWardError("Out of reach.", code=Code.NETWORK_UNREACHABLE)
        return None if sha256 == hashlib.sha256(self.text.encode()).hexdigest() else self.text


@pytest.fixture
def home(tmp_path: Path) -> MemberHome:
    """A member that holds version 2."""
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls/key.pem").touch(mode=0o600)
    endpoint = 'broker_host = "h"\nbroker_port = 1\nrest_url = "https://h"\n'
    text = f'id = "north"\noperator = "{OPERATOR.public.identity}"\n[[endpoints]]\n{endpoint}'
    (tmp_path / "member.toml").write_text(text)
    (tmp_path / "register.jws").write_text(f"{signed(2)}\n")
    return MemberHome(tmp_path)


def test_a_newer_register_is_taken(home: MemberHome) -> None:
    """A fourth hospital, or a revocation, reaches everybody without a visit."""
    assert RegisterPull(home, Host(signed(3))).pull()
    assert home.register().version == 3


def test_an_older_register_changes_nothing(home: MemberHome) -> None:
    """The operator brought this member a newer one by hand; the network host is behind."""
    with pytest.raises(FedWardError, match="version 1; 2 is known"):
        RegisterPull(home, Host(signed(1))).pull()


def test_what_is_held_is_not_written_again(home: MemberHome) -> None:
    """Nobody reads a register again that is the same."""
    before = (home.root / "register.jws").stat().st_mtime_ns
    host = Host((home.root / "register.jws").read_text().strip())

    assert not RegisterPull(home, host).pull()
    assert (home.root / "register.jws").stat().st_mtime_ns == before


def test_it_goes_on_asking_while_nobody_answers(home: MemberHome) -> None:
    """The hub may be down for a day."""
    host, taken = Host(None), threading.Event()
    pull = RegisterPull(home, host, taken.set, every_s=0.01)
    pull.start()
    assert all(host.asked.acquire(timeout=20) for _ in range(3))
    host.text = signed(3)

    assert taken.wait(20)
    pull.close()


def test_it_asks_at_once_when_the_line_is_up_again(home: MemberHome) -> None:
    """Half a minute is long for a member that is revoked."""
    taken = threading.Event()
    pull = RegisterPull(home, Host(signed(3)), taken.set, every_s=3600)
    pull.start()
    pull.ask()

    assert taken.wait(20)
    pull.close()

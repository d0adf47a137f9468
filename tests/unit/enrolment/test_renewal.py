"""Further certificates, for whom the authority knows already."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from appliance.enrolment.authority import serves_as
from appliance.enrolment.authority_home import AuthorityHome
from appliance.enrolment.errors import EnrolmentError
from appliance.enrolment.joining import JoinRequest
from appliance.enrolment.renewal import RENEWALS_PER_DAY, RenewalDesk, inherited_socket
from appliance.protocol.errors import ConfigurationError


@pytest.fixture
def request_of_north(operator, ask, tmp_path) -> JoinRequest:
    """A member that has had its first certificate, for two days, as a server."""
    request = ask(tmp_path / "north")
    answer = operator.admit(request, names=("10.0.0.1", "north.example"), days=2)
    AuthorityHome(tmp_path / "authority").take(answer.register_text, answer.operator)
    return request


def test_a_renewal_keeps_names_and_length(request_of_north, tmp_path) -> None:
    """They are the operator's word; nothing else at the hub has one."""
    desk = RenewalDesk(tmp_path / "authority")
    certificate = desk.renew(request_of_north)

    last = desk._authority.issued()[-1]
    assert serves_as(certificate) == ("10.0.0.1", "north.example")
    assert round((last.until - last.at) / dt.timedelta(days=1)) == 2


def test_the_limit_is_over_after_a_day(request_of_north, tmp_path) -> None:
    """A member whose timer ran wild must not fall silent for good."""
    desk = RenewalDesk(tmp_path / "authority")
    for _ in range(RENEWALS_PER_DAY - 1):
        desk.renew(request_of_north)
    with pytest.raises(EnrolmentError, match="8 certificates within a day"):
        desk.renew(request_of_north)

    later = RenewalDesk(tmp_path / "authority", lambda: dt.datetime.now(dt.UTC) + dt.timedelta(days=1, minutes=1))
    assert later.renew(request_of_north)


def test_the_first_certificate_is_the_operators_to_give(operator, ask, tmp_path) -> None:
    """A member in the register whom nobody gave a certificate has not been set up, or is not who it says."""
    request = ask(tmp_path / "north")
    operator.book.add(request.member())
    AuthorityHome(tmp_path / "authority").take(operator.book.issue(), operator.book.operator_identity)

    with pytest.raises(EnrolmentError, match="had no certificate for these keys"):
        RenewalDesk(tmp_path / "authority").renew(request)


def test_an_authority_without_a_register_does_not_start(operator, tmp_path: Path) -> None:
    """It could not tell who is a member."""
    with pytest.raises(EnrolmentError, match="knows no membership register"):
        RenewalDesk(tmp_path / "authority")


def test_without_a_socket_from_systemd_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody typed the command."""
    monkeypatch.delenv("LISTEN_FDS", raising=False)

    with pytest.raises(ConfigurationError, match="No socket was handed over"):
        inherited_socket()

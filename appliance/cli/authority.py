"""``fedward authority``: the transport authority at the hub, which issues certificates and nothing more."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated

import structlog
import typer
from pydantic import TypeAdapter, ValidationError

from appliance.cli.console import explained, print_changed
from appliance.enrolment.authority import DEFAULT_DAYS, Authority
from appliance.enrolment.authority_home import AuthorityHome
from appliance.enrolment.errors import EnrolmentError
from appliance.enrolment.joining import JoinAnswer, JoinRequest, answer_to
from appliance.enrolment.renewal import RenewalDesk, inherited_socket
from appliance.enrolment.renewal import serve as answer
from appliance.enrolment.revocation import publish_list
from appliance.protocol.errors import ConfigurationError
from appliance.protocol.files import locked, replace_file
from appliance.protocol.home import Endpoint
from appliance.protocol.logs import ErrorStreamLogger
from appliance.protocol.settings import read_text

app = typer.Typer(
    no_args_is_help=True,
    help="""The transport authority: certificates for whom the operator's register lists, and for nobody else.

    Its folder holds the key that signs certificates. Run it as the authority's own user.""",
)

Home = Annotated[Path, typer.Option(help="The authority's folder.", file_okay=False)]
_ENDPOINTS = TypeAdapter(tuple[Endpoint, ...])


@app.callback()
def private() -> None:
    """What is made here is for its owner alone."""
    os.umask(0o077)


@app.command()
@explained
def issue(
    request: Annotated[Path, typer.Argument(help="The member's join-request.json.", show_default=False)],
    home: Home,
    register: Annotated[Path, typer.Option(help="The signed register that lists the member (register.jws).")],
    operator: Annotated[str, typer.Option(help="The operator's public key, or a file with it (operator.pub).")],
    endpoints: Annotated[Path, typer.Option(help="The ways to the network host: a JSON list, the best first.")],
    out: Annotated[Path, typer.Option(help="Where the answer goes, for 'fedward join complete'.")],
    names: Annotated[
        list[str] | None, typer.Option("--name", help="A DNS name or address under which this member serves.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=825, help="How long the certificate lasts.")] = DEFAULT_DAYS,
) -> None:
    """Give a member of the register its certificate, in an answer to its join request.

    Prints 'changed' or 'unchanged'. An answer that is there stands while its certificate is good for more than a third
    of its life, for the same key and the same names; a newer register alone changes nothing, for members fetch that
    by themselves.

    Each endpoint: {"route": "udp", "broker_host": "100.80.0.1", "broker_port": 8883,
    "rest_url": "https://100.80.0.1:8443"}.
    """
    asked, text = JoinRequest.read(read_text(request)), read_text(register)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with locked(home):
        key = _key(operator)
        in_force = AuthorityHome(home).take(text, key)
        held_text = read_text(out) if out.exists() else ""
        answer = answer_to(
            asked,
            Authority.open(home, in_force.consortium),
            text,
            key,
            endpoints=_read_endpoints(endpoints),
            names=tuple(names or ()),
            days=days,
            held=_held(held_text),
        )
        answer_text = answer.model_dump_json(by_alias=True, indent=2) + "\n"
        if answer_text != held_text:
            replace_file(out, answer_text)
    print_changed(answer_text != held_text)


@app.command()
@explained
def crl(
    home: Home,
    out: Annotated[Path, typer.Option(help="Where Mosquitto and nginx read it; public.")],
) -> None:
    """Write the list of certificates that open no more lines; 'fedward hub enforce' does so, too.

    Prints 'changed' or 'unchanged'. The list holds for 400 days, and is signed anew when half of that is over.
    """
    with locked(home):
        print_changed(publish_list(home, out))


@app.command()
@explained
def serve(
    home: Home,
    socket_activated: Annotated[
        bool, typer.Option("--socket-activated", help="Take the socket that systemd listens on.")
    ] = False,
) -> None:
    """Renew members' certificates, for the REST service beside us, until SIGTERM.

    Each request is checked against the register in HOME and the member's own signature; the REST service is not
    believed. A member gets eight certificates a day at most.
    """
    if not socket_activated:
        raise ConfigurationError(
            "It listens on a socket of systemd's only.", remedy="Say --socket-activated, in a unit with a socket."
        )
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("info"), logger_factory=ErrorStreamLogger)
    answer(RenewalDesk(home), inherited_socket())


def _key(text: str) -> str:
    is_key = re.fullmatch(r"[A-Za-z0-9_-]{43}", text.strip()) is not None
    return text.strip() if is_key else read_text(Path(text)).strip()


def _read_endpoints(path: Path) -> tuple[Endpoint, ...]:
    try:
        return _ENDPOINTS.validate_python(json.loads(read_text(path)))
    except ValidationError as error:
        first = error.errors()[0]
        raise ConfigurationError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from error
    except ValueError as error:
        raise ConfigurationError(f"{path}: not JSON: {error}.") from error


def _held(text: str) -> JoinAnswer | None:
    """The answer that was given last; one that cannot be read is given anew."""
    try:
        return JoinAnswer.read(text)
    except EnrolmentError:
        return None

"""``fedward network``: runs the network host and looks after it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from appliance.cli.console import explained, print_changed
from appliance.cli.status import print_status
from appliance.network.broker import Broker, write_broker_files
from appliance.protocol import chain
from appliance.protocol.errors import Code, ConfigurationError, FedWardError
from appliance.protocol.home import TlsFiles
from appliance.protocol.words import six_words

app = typer.Typer(
    no_args_is_help=True,
    help="""The network host: the consortium's post office.

    It stores and forwards sealed files, keeps the membership register and the job queue, and logs every call. Its
    folder holds network.toml, the TLS files and the store; name it with --home or FEDWARD_NETWORK_HOME.""",
)
register_app = typer.Typer(no_args_is_help=True, help="The membership register that callers are checked against.")
audit_app = typer.Typer(no_args_is_help=True, help="The hash-chained log of requests, transfers and jobs.")
app.add_typer(register_app, name="register")
app.add_typer(audit_app, name="audit")

Home = Annotated[
    Path,
    typer.Option(
        envvar="FEDWARD_NETWORK_HOME", help="The network host's folder, which holds network.toml.", file_okay=False
    ),
]


@app.command()
@explained
def serve(
    home: Home,
    host: Annotated[str, typer.Option(help="The address to listen on; behind a VPN, the VPN's.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes any free one.")] = 8443,
    socket: Annotated[
        Path | None, typer.Option(help="A Unix socket to listen on instead, behind a web server that sees to TLS.")
    ] = None,
    socket_mode: Annotated[
        str, typer.Option(help="The socket's permissions; its group is its setgid folder's.")
    ] = "0660",
) -> None:
    """Serve the REST interface until SIGTERM.

    Only TLS 1.3 with a certificate of the consortium's authority gets in. The port stands in HOME/run/rest.port as
    soon as connections are accepted.

    With --socket it is plain HTTP on that socket: the web server before it must let in TLS 1.3 with such a certificate
    only. Who calls is told by the bearer token, as ever.

    A newer HOME/register.jws, in the operator's signature, counts from the next call on.
    """
    from appliance.network.serve import serve as run
    from appliance.network.serve import serve_socket

    if socket is None:
        run(home, host, port)
    else:
        serve_socket(home, socket.absolute(), mode=_mode(socket_mode))


@register_app.command("import")
@explained
def register_import(
    file: Annotated[Path, typer.Argument(help="The signed register, as the operator wrote it (register.jws).")],
    home: Home,
) -> None:
    """Take a newer membership register.

    It must carry the signature of the operator whose key stands in network.toml, and may not be older than the one
    held. It counts from the next call on: a member that it revokes is refused at once.
    """
    _open(home)
    from appliance.network.members.services import register_import as take

    register = take(_read(file))
    typer.echo(f"Register version {register.version} of '{register.consortium}': {len(register.members)} members.")
    typer.echo(f"Digest: {register.digest()}")
    typer.echo(f"In six words, as every member's GUI shows them: {' '.join(six_words(register.digest()))}")


@app.command()
@explained
def broker(
    folder: Annotated[Path, typer.Argument(help="Where mosquitto.conf and acl go.", file_okay=False)],
    tls: Annotated[Path, typer.Option(help="The folder of ca.pem and cert.pem.", file_okay=False)],
    crl: Annotated[Path, typer.Option(help="The authority's list of revoked certificates.")],
    key: Annotated[Path, typer.Option(help="The certificate's private key.")],
    store: Annotated[Path, typer.Option(help="Where sessions survive a restart.", file_okay=False)],
    address: Annotated[list[str], typer.Option(help="An address to listen on; may be given several times.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port, on each address.")] = 8883,
    check: Annotated[bool, typer.Option("--check", help="Only say whether something would change.")] = False,
) -> None:
    """Write the configuration of Mosquitto, the broker: TLS 1.3, certificates, each member on its own topics.

    Prints 'changed' or 'unchanged'.
    """
    files = TlsFiles(tls / "ca.pem", tls / "cert.pem", key)
    wanted = Broker(tuple(address), port, files, folder / "acl", store, crl=crl)
    print_changed(write_broker_files(folder, wanted, check=check))


@app.command()
@explained
def collect(home: Home) -> None:
    """Delete expired uploads, and files that a crash left behind. The service does so by itself every hour."""
    _open(home)
    from appliance.network.parameters.services import collect as run

    typer.echo(f"{run()} uploads had expired.")


@app.command()
@explained
def status(
    home: Home, as_json: Annotated[bool, typer.Option("--json", help="For 'fedward status', and for machines.")] = False
) -> None:
    """Say when each member was last heard here, and how it said it was."""
    _open(home)
    from appliance.network.presence.selectors import status_show

    found = status_show()
    if as_json:
        typer.echo(json.dumps(found))
    else:
        print_status(found)


@app.command()
@explained
def metrics(home: Home) -> None:
    """Print what /metrics answers, in the text format of Prometheus, for its textfile collector."""
    _open(home)
    from appliance.network.metrics import metrics_text

    typer.echo(metrics_text(), nl=False)


@audit_app.command("verify")
@explained
def audit_verify(
    home: Home,
    file: Annotated[Path | None, typer.Option("--file", help="Verify an exported log instead.")] = None,
) -> None:
    """Check every line of the log against the one before; names the first that is not as it was written."""
    if file is None:
        _open(home)
        from appliance.network.audit.selectors import log_verify

        verdict = log_verify()
    else:
        verdict = chain.verify(chain.read_file(file))
    if not verdict.is_whole:
        raise FedWardError(
            f"The audit log is altered at line {verdict.altered_line}: {verdict.reason}.", code=Code.AUDIT_ALTERED
        )
    typer.echo(f"{verdict.lines} lines, all as they were written. The last one's hash: {verdict.head}")


@audit_app.command("export")
@explained
def audit_export(
    home: Home,
    out: Annotated[Path | None, typer.Option(help="The file to write; standard output without it.")] = None,
) -> None:
    """Write the log as text: in each row a line's hash, then the line."""
    _open(home)
    from appliance.network.audit.selectors import line_stream

    rows = chain.export(line_stream())
    if out is None:
        sys.stdout.writelines(rows)
        return
    try:
        with out.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(rows)
    except OSError as error:
        raise ConfigurationError(f"{out}: {error.strerror}.") from error
    typer.echo(f"Written to {out}.")


def _mode(text: str) -> int:
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise FedWardError(f"'{text}' is no file mode.", code=Code.ARGUMENT_INVALID, remedy="Write it as 0660.")
    return mode


def _open(home: Path) -> None:
    from appliance.network.config import read_config
    from appliance.network.serve import migrate, prepare

    read_config(home)
    prepare(home)
    migrate()


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file}: {getattr(error, 'strerror', None) or 'not a text'}.") from error

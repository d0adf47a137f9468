"""Network hosts that really run, over SQLite and over a real PostgreSQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest
import requests

from appliance.embedded.ports import free_port
from tests.integration.network.hosts import File, Host, Line, wait_until

_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


def _as_nobody_special() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a private cluster; sockets alone, no port."""
    if not _POSTGRES:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))  # a socket's path is short
    bin_ = _POSTGRES[-1].parent
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    run = _as_nobody_special()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    data = str(folder / "data")
    subprocess.run([*run, str(bin_ / "initdb"), "-D", data, "-U", "fedward", "--auth=trust"], check=True, **quiet)
    server = subprocess.Popen(
        [*run, str(bin_ / "postgres"), "-D", data, "-k", str(folder), "-c", "listen_addresses="], **quiet
    )
    wait_until(
        lambda: subprocess.run([str(bin_ / "pg_isready"), "-h", str(folder)], check=False, **quiet).returncode == 0, 40
    )
    yield f"postgresql://fedward@/postgres?host={folder}"
    server.terminate()
    server.wait(timeout=20)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A running host; once over each database."""
    database = "sqlite" if request.param == "sqlite" else fresh_database(request.getfixturevalue("postgres"))
    host = Host(tmp_path_factory.mktemp("network"), database=database, workers=2, threads=8, reserve_bytes=0)
    host.start()
    yield host
    host.stop()


@pytest.fixture(scope="module")
def sqlite_host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A running host, for what does not depend on the database."""
    host = Host(tmp_path_factory.mktemp("network"), reserve_bytes=0, patience_s=2.0).start()
    yield host
    host.stop()


def fresh_database(url: str) -> str:
    """A database of its own in the private cluster."""
    with psycopg.connect(url, autocommit=True) as connection:
        count = connection.execute("SELECT count(*) FROM pg_database").fetchone()
        name = f"network{count[0] if count else 0}"
        connection.execute(f'CREATE DATABASE "{name}"')
    return url.replace("/postgres?", f"/{name}?")


@pytest.fixture
def new_file(tmp_path: Path) -> Callable[[int], File]:
    """Makes files of a size."""
    return lambda size: File(tmp_path, size)


@pytest.fixture
def new_line() -> Iterator[Callable[..., Line]]:
    """Makes lines that break; all are closed at the end."""
    lines: list[Line] = []

    def make(port: int, **cuts: tuple[int, ...]) -> Line:
        lines.append(Line(port, **cuts))
        return lines[-1]

    yield make
    for line in lines:
        line.close()


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real S3 server with a bucket ``uploads``; keys are ``a`` and ``b``."""
    weed = shutil.which("weed") or str(Path(sys.executable).parent / "weed")
    folder = tmp_path_factory.mktemp("s3")
    config = folder / "s3.json"
    config.write_text(
        '{"identities":[{"name":"n","credentials":[{"accessKey":"a","secretKey":"b"}],"actions":["Admin"]}]}'
    )
    ports: set[int] = set()
    while len(ports) < 8:
        ports.add(free_port())
    given = iter(ports)
    address = f"http://127.0.0.1:{next(given)}"
    flags = [
        f"-s3.port={address.rpartition(':')[2]}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-master.telemetry=false",
    ]
    flags += [f"-{part}.port={next(given)}" for part in ("master", "volume", "filer")]
    flags += [f"-{part}.port.grpc={next(given)}" for part in ("master", "volume", "filer", "s3")]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-s3", f"-s3.config={config}",
             "-volume.max=20", "-master.volumeSizeLimitMB=64", *flags],
            stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip

    def answers() -> bool:
        assert server.poll() is None, (folder / "log").read_text()[-2000:]
        with suppress(requests.ConnectionError):
            return requests.get(address, timeout=2).status_code in {200, 403}
        return False

    try:
        wait_until(answers, 60)
        yield address
    finally:
        server.kill()  # its own goodbye takes twenty seconds
        server.wait()

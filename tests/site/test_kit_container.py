"""The researcher kit's real container: who gets in, and how often."""

from __future__ import annotations

import http.client
import os
import re
import ssl
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from docker.models.containers import Container

from tests.integration.network.hosts import wait_until
from tests.site.containers import Containers, is_healthy

HOME = "/var/lib/fedward/researcher"
KIT = 10005
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The researcher's folder, as the role leaves it."""
    path = tmp_path_factory.mktemp("researcher")
    os.chown(path, KIT, KIT)
    return path


@pytest.fixture(scope="module")
def kit(home: Path) -> Iterator[Container]:
    """The notebook service, ready."""
    with Containers() as containers:
        folders = {HOME: str(home), "fdw-kit": "bridge", "8888:8888": "127.0.0.1::8888"}
        container = containers.start("kit", "researcher-kit", folders)
        wait_until(lambda: is_healthy(container), 120)
        container.reload()
        yield container


def get(
    kit: Container, path: str, cookie: str = "", *, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> tuple[int, str]:
    """What the service answers a browser: the status, and the cookies to send back."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = newest
    port = int(kit.ports["8888/tcp"][0]["HostPort"])
    with closing(http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)) as connection:
        connection.request("GET", path, headers={"Cookie": cookie} if cookie else {})
        with connection.getresponse() as answer:
            set_cookies = [value.split(";")[0] for name, value in answer.getheaders() if name.lower() == "set-cookie"]
            return answer.status, "; ".join(set_cookies)


def link(kit: Container) -> str:
    """The path of a fresh one-time link."""
    printed = kit.exec_run(["fedward", "kit", "invite"]).output.decode()
    found = re.search(r"/login\?token=\S+", printed)
    assert found is not None, printed
    return found[0]


def test_a_link_opens_the_notebooks_once(kit: Container) -> None:
    """Whoever finds it later in a mail or a browser's history is too late."""
    once = link(kit)
    sessions = [get(kit, once)[1], get(kit, once)[1]]

    assert [get(kit, "/api/contents", session)[0] for session in sessions] == [200, 403]


def test_a_newer_link_closes_the_one_before(kit: Container) -> None:
    """A link that went to the wrong person is taken back by making another."""
    old = link(kit)
    link(kit)

    assert get(kit, "/api/contents", get(kit, old)[1])[0] == 403


@pytest.mark.parametrize("path", ["/api/contents", "/api/kernels", "/api/terminals", "/lab/api/settings"])
def test_without_a_link_nothing_opens(kit: Container, path: str) -> None:
    """There is no password that could be a default one, and no token that stays."""
    assert [get(kit, path)[0], get(kit, f"{path}?token=")[0]] == [403, 403]


def test_the_curves_open_with_the_same_link(kit: Container) -> None:
    """TensorBoard is behind the one port; who is not signed in is sent to the sign-in page."""
    assert [get(kit, "/tensorboard/", cookie)[0] for cookie in ("", get(kit, link(kit))[1])] == [302, 200]


def test_no_older_tls_is_spoken(kit: Container) -> None:
    """As everywhere in the consortium."""
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        get(kit, "/api", newest=ssl.TLSVersion.TLSv1_2)


def test_only_the_links_hash_lies_on_the_disk(kit: Container, home: Path) -> None:
    """Who reads a backup must not get in with it."""
    token = link(kit).partition("=")[2]

    assert [path for path in home.rglob("*") if path.is_file() and token.encode() in path.read_bytes()] == []


def test_a_notebook_has_the_sdk(kit: Container) -> None:
    """What the service is for."""
    code = "import ipykernel, matplotlib.pyplot, researcher_kit; print(researcher_kit.Experiment)"
    done = kit.exec_run(["python", "-c", code])

    assert (done.exit_code, b"researcher_kit.experiment.Experiment" in done.output) == (0, True)

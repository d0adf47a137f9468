"""TensorBoard at ``/tensorboard/`` of the notebook service, behind its sign-in.

TensorBoard is called inside the service's own process: nothing listens beside the one port, and as nothing is fetched
from an address, none can be put in.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from jupyter_server.base.handlers import JupyterHandler
from tensorboard import program
from tensorboard.plugins.core import core_plugin
from tensorboard.plugins.metrics import metrics_plugin
from tensorboard.plugins.scalar import scalars_plugin
from tornado.httputil import HTTPServerRequest
from tornado.web import HTTPError, authenticated
from tornado.wsgi import WSGIContainer
from werkzeug.test import run_wsgi_app

PATH = "/tensorboard"
# Scalars are all that we write; what serves other things reads files that event files name.
_PLUGINS = (core_plugin.CorePluginLoader, metrics_plugin.MetricsPlugin, scalars_plugin.ScalarsPlugin)
_RELOAD_S = 10

Wsgi = Callable[..., Iterable[bytes]]


class _Inside(program.TensorBoardServer):  # type: ignore[misc] # the library is not typed
    """What TensorBoard takes for its server: it keeps the pages, and opens no port."""

    def __init__(self, wsgi_app: Wsgi, _flags: Any) -> None:
        self.pages = wsgi_app

    def serve_forever(self) -> None:
        """Nothing to wait for."""

    def get_url(self) -> str:
        """The pages' path."""
        return PATH


class Curves:
    """TensorBoard over some folders, begun when somebody first asks: it takes seconds and memory.

    Args:
        folders: Where event files lie, by the name that runs begin with.
    """

    def __init__(self, folders: dict[str, Path]) -> None:
        self._folders = folders
        self._beginning = threading.Lock()

    def answer(self, request: HTTPServerRequest) -> tuple[int, list[tuple[str, str]], bytes]:
        """Answer a request: status, headers, content."""
        with self._beginning:
            pages = self._pages
        parts, status, headers = run_wsgi_app(pages, WSGIContainer(pages).environ(request), buffered=True)
        return int(status.split()[0]), list(headers), b"".join(parts)

    @cached_property
    def _pages(self) -> Wsgi:
        begun: list[_Inside] = []

        def server(wsgi_app: Wsgi, flags: Any) -> _Inside:
            begun.append(_Inside(wsgi_app, flags))
            return begun[0]

        board = program.TensorBoard(_PLUGINS, server_class=server)
        where = ",".join(f"{name}:{folder}" for name, folder in self._folders.items())
        # load_fast would read by a program of its own, which listens on a port.
        options = {"logdir_spec": where, "path_prefix": PATH, "reload_interval": _RELOAD_S, "load_fast": "false"}
        board.configure(argv=["tensorboard", *(f"--{name}={value}" for name, value in options.items())])
        board.launch()
        return begun[0].pages


class TensorBoardHandler(JupyterHandler):  # type: ignore[misc] # the library is in the kit's image alone
    """Hands requests of whoever is signed in to TensorBoard."""

    def initialize(self, curves: Curves) -> None:
        """Called for each request."""
        self._curves = curves

    def check_xsrf_cookie(self) -> None:
        """Its pages send no such cookie back: ``post`` looks where they come from instead."""

    @authenticated  # type: ignore[untyped-decorator] # the library is in the kit's image alone
    async def get(self) -> None:
        """A page, or numbers for it."""
        await self._hand_over()

    @authenticated  # type: ignore[untyped-decorator]
    async def post(self) -> None:
        """Numbers, for many curves at once; another site's page gets none."""
        if not self.check_origin():
            raise HTTPError(403)
        await self._hand_over()

    async def _hand_over(self) -> None:
        status, headers, content = await asyncio.to_thread(self._curves.answer, self.request)
        self.set_status(status)
        for name, value in headers:
            # The service's own policy stays beside TensorBoard's: both must be kept.
            put = self.add_header if name.lower() == "content-security-policy" else self.set_header
            put(name, value)
        await self.finish(content)


def handlers(home: Path) -> list[tuple[Any, ...]]:
    """What the notebook service adds to its pages: the curves of all experiments, and of folders beside notebooks."""
    curves = Curves({name: home / name for name in ("experiments", "notebooks")})
    return [(rf"{PATH}(?:/.*)?", TensorBoardHandler, {"curves": curves})]

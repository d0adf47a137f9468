"""JupyterLab and TensorBoard over TLS 1.3, opened by one-time links alone; only the kit's image has the libraries."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

from jupyter_server.auth.identity import IdentityProvider, User
from jupyter_server.serverapp import ServerApp
from traitlets.config import Config

from researcher_kit import notebook_tensorboard
from researcher_kit.notebooks import KitConfig, OneTimeLink, place_tutorials


class LinkIdentity(IdentityProvider):  # type: ignore[misc] # the library is in the kit's image alone
    """Signs in whoever brings the link; from then on the session's cookie counts. There is no password and no token."""

    auth_enabled = True
    login_available = True
    home: Path

    async def get_user_token(self, handler: Any) -> User | None:
        """The researcher, if the request brings the one-time link."""
        return self._redeem(handler, handler.get_argument("token", ""))

    def process_login_form(self, handler: Any) -> User | None:
        """The researcher, if the link's token was pasted into the sign-in page."""
        return self._redeem(handler, handler.get_argument("password", ""))

    def _redeem(self, handler: Any, token: str) -> User | None:
        if not token or not OneTimeLink(self.home).redeem(token):
            return None
        return self.generate_anonymous_user(handler)


class NotebookServer(ServerApp):  # type: ignore[misc]
    """Jupyter's server, with our TLS and TensorBoard."""

    home: Path
    tls: ssl.SSLContext

    def init_webapp(self) -> None:
        """Add our pages to Jupyter's."""
        super().init_webapp()
        self.web_app.add_handlers(".*", notebook_tensorboard.handlers(self.home))

    def init_httpserver(self) -> None:
        """Serve TLS 1.3: Jupyter's own options cannot say so."""
        super().init_httpserver()
        self.http_server.ssl_options = self.tls


def serve(home: Path, settings: KitConfig, tls: ssl.SSLContext) -> None:
    """Serve until SIGTERM; does not return.

    Args:
        home: The researcher's folder.
        settings: The service's.
        tls: What browsers are shown.
    """
    LinkIdentity.home = home
    NotebookServer.home, NotebookServer.tls = home, tls
    notebooks = home / "notebooks"
    notebooks.mkdir(mode=0o700, exist_ok=True)
    place_tutorials(notebooks)
    config = Config()
    config.ServerApp.update(
        ip=settings.host, port=settings.port, port_retries=0, root_dir=str(notebooks), open_browser=False,
        default_url="/lab", jpserver_extensions={"jupyterlab": True}, identity_provider_class=LinkIdentity,
        allow_remote_access=True, quit_button=False, cookie_secret_file=str(home / "kit/cookies"), answer_yes=True,
    )  # fmt: skip
    config.LinkIdentity.update(
        token="", secure_cookie=True, cookie_options={"samesite": "Strict"},
        get_secure_cookie_kwargs={"max_age_days": settings.session_hours / 24},
    )  # fmt: skip
    # Nothing is fetched from elsewhere: no news, no extensions.
    config.LabApp.update(
        news_url=None, check_for_updates_class="jupyterlab.NeverCheckForUpdate", extension_manager="readonly"
    )
    NotebookServer.launch_instance(argv=[], config=config)

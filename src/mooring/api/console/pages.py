"""Pages as HTML. Every value is escaped by the template engine; no page may run a script or be framed."""

import secrets
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import Response
from fastapi.responses import HTMLResponse

from mooring.api.http.schemas import Workspace
from mooring.api.http.services import Services
from mooring.model.workspace import Phase

if TYPE_CHECKING:
    from jinja2 import Environment

_MOVING = (Phase.pending, Phase.starting, Phase.stopping)


class Pages:
    """The templates of `templates/`."""

    def workspaces(self, user: str, workspaces: Sequence[Workspace]) -> HTMLResponse:
        """The list of one's workspaces; it looks again by itself while one is on its way."""
        moving = any(workspace.phase in _MOVING for workspace in workspaces)
        return self._page("workspaces.html", 200, user=user, workspaces=workspaces, moving=moving)

    def sign_in(self, services: Services) -> HTMLResponse:
        """How to sign in."""
        return self._page("sign_in.html", 401, host=services.hosts.console)

    def sign_out(self, services: Services, host: str) -> HTMLResponse:
        """The button that signs out."""
        return self._page("sign_out.html", 200, host=host, console=services.listen.url(services.hosts.console))

    def message(self, services: Services, status: int, title: str, text: str) -> HTMLResponse:
        """One thing to say, and the way to the console."""
        console = services.listen.url(services.hosts.console)
        return self._page("message.html", status, title=title, text=text, console=console)

    def _page(self, template: str, status: int, **values: object) -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        html = _environment().get_template(template).render(nonce=nonce, **values)
        policy = (
            f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; "
            "base-uri 'none'; frame-ancestors 'none'"
        )
        return HTMLResponse(
            html,
            status,
            headers={
                "Content-Security-Policy": policy,
                "Cache-Control": "no-store",
                "Referrer-Policy": "same-origin",
            },
        )


@cache
def _environment() -> "Environment":
    # A tenth of a second and 6 MB, which a start need not wait for: most callers are programs.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def see_other(location: str) -> Response:
    """Go to `location` with a GET. It is one of our own making."""
    return Response(status_code=303, headers={"Location": location, "Referrer-Policy": "no-referrer"})

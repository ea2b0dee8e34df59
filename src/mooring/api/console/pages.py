"""Pages as HTML. Every value is escaped by the template engine; no page may run a script or be framed."""

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import HTMLResponse

from mooring.accounts.credentials import Caller
from mooring.api.http.module_schemas import Eviction, Module, ModuleDetail, ModuleProxy, ModulePull
from mooring.api.http.schemas import Page, Workspace
from mooring.api.http.services import Services
from mooring.model import shown
from mooring.model.workspace import Phase

if TYPE_CHECKING:
    from jinja2 import Environment

_NO_ERRORS = ("hit", "stale", "miss", "refreshed", "direct", "not_found", "forbidden", "unauthenticated")
_MOST_FAILURES = 20
_MOVING = (Phase.pending, Phase.starting, Phase.stopping)


class Pages:
    """The templates of `templates/`."""

    def workspaces(self, user: str, workspaces: Sequence[Workspace]) -> HTMLResponse:
        """The list of one's workspaces; it looks again by itself while one is on its way."""
        moving = any(workspace.phase in _MOVING for workspace in workspaces)
        return self._page("workspaces.html", 200, user=user, here="workspaces", workspaces=workspaces, moving=moving)

    def modules(self, user: str, seen: ModuleProxy, found: Page[Module], text: str) -> HTMLResponse:
        """The module proxy as a whole, and the modules whose path contains `text`."""
        by_number = sorted(seen.outcomes.items(), key=lambda item: -item[1])
        return self._page(
            "modules.html",
            200,
            user=user,
            here="modules",
            seen=seen,
            outcomes=[(name, count) for name, count in by_number if name in _NO_ERRORS],
            errors=[(name, count) for name, count in by_number if name not in _NO_ERRORS],
            modules=found.items,
            cursor=found.cursor,
            text=text,
            most_failures=_MOST_FAILURES,
        )

    def module(self, caller: Caller, module: ModuleDetail, pulls: Sequence[ModulePull]) -> HTMLResponse:
        """One module; with buttons for an administrator."""
        return self._page(
            "module.html",
            200,
            user=caller.user,
            here="modules",
            admin=caller.admin,
            module=module,
            pulls=pulls,
            here_path=f"/modules/{quote(module.module)}",
        )

    def evict(self, user: str, module: str, version: str, wanted: Eviction) -> HTMLResponse:
        """The question before an eviction."""
        path = f"/modules/{quote(module)}"
        return self._page(
            "evict.html",
            200,
            user=user,
            here="modules",
            module=module,
            version=version,
            wanted=wanted,
            here_path=path,
        )

    def modules_away(self, user: str, status: int, why: str) -> HTMLResponse:
        """The module proxy does not answer: why, and what to do."""
        return self._page("modules_away.html", status, user=user, here="modules", why=why, again="/modules")

    def sign_in(self, services: Services) -> HTMLResponse:
        """How to sign in."""
        console = services.listen.url(services.hosts.console).rstrip("/")
        return self._page("sign_in.html", 401, host=services.hosts.console, console=console)

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

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "ago": lambda moment: shown.span((datetime.now(UTC) - moment).total_seconds()),
        "bytes": shown.size,
        "day": lambda moment: moment.strftime("%Y-%m-%d"),
        "path": quote,
        "percent": lambda share: f"{100 * share:.1f} %",
        "sentence": _sentence,
        "plural": lambda count, noun: f"{count:,} {noun}{'' if count == 1 else 's'}",
    }
    return environment


def _sentence(text: str) -> str:
    """A finding, which the command line writes behind a colon, as it stands alone."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def is_for_a_person(request: Request) -> bool:
    """Whether a browser shows the answer."""
    return "text/html" in request.headers.get("accept", "") and not request.scope["path"].startswith("/api/")


def see_other(location: str) -> Response:
    """Go to `location` with a GET. It is one of our own making."""
    return Response(status_code=303, headers={"Location": location, "Referrer-Policy": "no-referrer"})

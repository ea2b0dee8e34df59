"""How a page says that it cannot be shown, or that its button did nothing: as a page."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from mooring.api.console.pages import Pages
from mooring.api.http.auth import services_of
from mooring.errors import MooringError, Unauthenticated, outcome


class PageRoute(APIRoute):
    """A route whose errors are pages: who is not signed in learns how, everybody else what is wrong."""

    pages = Pages()

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The view, with its errors answered."""
        view = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await view(request)
            except Unauthenticated:
                return self.pages.sign_in(services_of(request))
            except MooringError as error:
                return await self.refused(request, error)

        return answer

    async def refused(self, request: Request, error: MooringError) -> Response:
        """The page for an error of somebody who is signed in."""
        row = outcome(error)
        return self.pages.message(services_of(request), row.http, row.title, error.detail)

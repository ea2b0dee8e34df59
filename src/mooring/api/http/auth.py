"""Who calls: a bearer token, or the console's cookie with the console's own Origin. One dependency for every path."""

import hmac
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from mooring.accounts.credentials import Caller
from mooring.api.http.services import Services
from mooring.errors import Forbidden, Unauthenticated
from mooring.model.grants import COOKIE, SECURE_COOKIE
from mooring.settings import Listen
from mooring.workspaces.requests import Caller as WorkspaceCaller

_MOST_COOKIES = 8
"""Of our name that are looked at: each costs a look at the store only when its signature is good."""
_CALLER = "mooring.caller"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


def services_of(connection: HTTPConnection) -> Services:
    """The services of the application that answers."""
    services = connection.app.state.services
    assert isinstance(services, Services)  # noqa: S101 - tells the type checker what create_app put there
    return services


async def caller_of(connection: HTTPConnection) -> Caller:
    """Who calls; looked up once a request.

    Raises:
        Unauthenticated: without a valid credential.
        Forbidden: when another site makes the browser change something.
    """
    # In the scope, which is one request's, and not in its state, which a server may share.
    if _CALLER not in connection.scope:
        connection.scope[_CALLER] = await _caller(connection)
    caller: Caller = connection.scope[_CALLER]
    return caller


async def _caller(connection: HTTPConnection) -> Caller:
    services = services_of(connection)
    if "authorization" in connection.headers:
        return await services.accounts.authenticate_token(_bearer(connection))
    caller = await cookie_caller(connection, services.hosts.console)
    if connection.scope["type"] == "websocket" or connection.scope["method"] not in SAFE_METHODS:
        check_origin(connection, services.hosts.console)
    return caller


async def admin_of(caller: Annotated[Caller, Depends(caller_of)]) -> Caller:
    """Who calls, if it is an administrator.

    Raises:
        Forbidden: for everybody else.
    """
    if not caller.admin:
        raise Forbidden("this is for administrators")
    return caller


async def gateway_of(connection: HTTPConnection) -> None:
    """Let only gateways in.

    Raises:
        Unauthenticated: for anything but their credential.
    """
    expected = services_of(connection).gateway_token
    if not hmac.compare_digest(_bearer(connection).encode(), expected.encode()):
        raise Unauthenticated("this is for gateways")


async def cookie_caller(connection: HTTPConnection, host: str) -> Caller:
    """Whose session this browser has at `host`.

    Raises:
        Unauthenticated: when it has none.
    """
    services = services_of(connection)
    refused = Unauthenticated("sign in, or send a bearer token")
    # Without TLS a page below the same domain can put a cookie of our name beside ours: one that holds counts.
    for cookie in _cookies(connection, cookie_name(services.listen, host))[:_MOST_COOKIES]:
        try:
            return await services.accounts.authenticate_cookie(cookie, audience=host)
        except Unauthenticated as error:
            refused = error
    raise refused


def check_origin(connection: HTTPConnection, host: str) -> None:
    """Refuse what a page of another origin makes a browser send: cookies go along with it, `Origin` tells.

    Raises:
        Forbidden: when `Origin` is absent or not that of `host`.
    """
    expected = services_of(connection).listen.url(host, "")
    if connection.headers.getlist("origin") != [expected]:
        raise Forbidden(f"this must come from a page of {expected}")


def secure(listen: Listen, host: str) -> bool:
    """Whether browsers keep `Secure` cookies of this host: by TLS, or because they trust loopback names."""
    return listen.tls or host == "localhost" or host.endswith(".localhost")


def cookie_name(listen: Listen, host: str) -> str:
    """The one name that is read: where `__Host-` works, a plain one could have been put there by a neighbour."""
    return SECURE_COOKIE if secure(listen, host) else COOKIE


def as_subject(caller: Caller) -> WorkspaceCaller:
    """The caller as the workspaces know it."""
    return WorkspaceCaller(caller.user, caller.admin)


def _cookies(connection: HTTPConnection, name: str) -> list[str]:
    pairs = (pair.strip().partition("=") for line in connection.headers.getlist("cookie") for pair in line.split(";"))
    return [value for found, _, value in pairs if found == name]


def _bearer(connection: HTTPConnection) -> str:
    scheme, _, secret = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not secret:
        raise Unauthenticated("the Authorization header must be Bearer and a token")
    return secret.strip()


Calling = Annotated[Caller, Depends(caller_of)]
Admin = Annotated[Caller, Depends(admin_of)]
Wired = Annotated[Services, Depends(services_of)]

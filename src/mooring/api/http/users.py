"""`/users`: accounts, their bearer tokens and sessions."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from mooring.accounts import ports
from mooring.accounts.credentials import Caller
from mooring.api.http import paging
from mooring.api.http.auth import Admin, Calling, Wired, caller_of
from mooring.api.http.documents import DocumentRoute
from mooring.api.http.paging import Cursor, Limit
from mooring.api.http.problem import problems
from mooring.api.http.schemas import NewToken, Page, Token, TokenCreate, User, UserCreate, moment
from mooring.errors import NotFound

router = APIRouter(prefix="/users", tags=["users"], responses=problems(401, 403, 503), route_class=DocumentRoute)


async def self_or_admin(name: str, caller: Annotated[Caller, Depends(caller_of)]) -> str:
    """The user `name`, if the caller may manage it.

    Raises:
        NotFound: for everybody else: who has an account is not told.
    """
    if caller.user != name and not caller.admin:
        raise NotFound(f"there is no user {name}")
    return name


Managed = Annotated[str, Depends(self_or_admin)]


@router.get("", responses=problems(422))
async def page(caller: Admin, services: Wired, cursor: Cursor = None, limit: Limit = 100) -> Page[User]:  # noqa: ARG001
    """Accounts, by name."""
    users = await services.accounts.users(after=paging.decode(cursor) or "", limit=limit + 1)
    after = users[limit - 1].name if len(users) > limit else None
    return Page(items=tuple(map(user_document, users[:limit])), cursor=paging.encode(after))


@router.post("", status_code=201, responses=problems(409, 422, 429))
async def create(caller: Admin, services: Wired, body: UserCreate) -> User:  # noqa: ARG001
    """Make an account; it has no way in before a token is made for it."""
    return user_document(await services.accounts.create_user(body.name, body.role))


@router.get("/{name}", responses=problems(404))
async def show(name: Managed, services: Wired) -> User:
    """An account."""
    return user_document(await services.accounts.user(name))


@router.delete("/{name}", status_code=204, responses=problems(404, 409))
async def remove(caller: Admin, services: Wired, name: str) -> Response:  # noqa: ARG001
    """Remove an account with its tokens and sessions; refused while it has workspaces."""
    await services.accounts.remove_user(name)
    return Response(status_code=204)


@router.get("/{name}/tokens", responses=problems(404))
async def tokens(name: Managed, services: Wired) -> Page[Token]:
    """The bearer tokens of an account, oldest first, without their secrets."""
    return Page(items=tuple(map(token_document, await services.accounts.tokens(name))))


@router.post("/{name}/tokens", status_code=201, responses=problems(404, 422, 429))
async def create_token(name: Managed, caller: Calling, services: Wired, body: TokenCreate) -> NewToken:
    """Make a bearer token; the answer shows it this once."""
    lasts = _within(body.expires_in_s, caller, services.clock.now())
    token, secret = await services.accounts.create_token(name, label=body.label, expires_in_s=lasts)
    return NewToken(**token_document(token).model_dump(), token=secret)


@router.delete("/{name}/tokens/{token_id}", status_code=204, responses=problems(404))
async def revoke_token(name: Managed, services: Wired, token_id: str) -> Response:
    """Revoke a token and the sessions that came from it, within a second."""
    await services.accounts.revoke_token(name, token_id)
    return Response(status_code=204)


@router.delete("/{name}/sessions", status_code=204, responses=problems(404))
async def sign_out(name: Managed, services: Wired) -> Response:
    """Sign the account out of every browser, within a second."""
    await services.accounts.sign_out_everywhere(name)
    return Response(status_code=204)


def user_document(user: ports.User) -> User:
    """The account as JSON."""
    return User(name=user.name, role=user.role, created_at=moment(user.created_at))


def token_document(token: ports.Token) -> Token:
    """The token as JSON."""
    return Token(
        id=token.id,
        user=token.user,
        label=token.label,
        created_at=moment(token.created_at),
        expires_at=moment(token.expires_at) if token.expires_at else None,
    )


def _within(asked: int | None, caller: Caller, now: float) -> int | None:
    # A short-lived token must not make itself a longer one. A person who signed in may.
    if caller.credential == "session" or not caller.expires_at:
        return asked
    left = max(1, int(caller.expires_at - now))
    return left if asked is None else min(asked, left)

"""Sections as NDJSON: one document a line, as `docs/architecture.md` describes it. Pure encoding and decoding.

Decoding is strict: unknown keys, wrong types and values that the model refuses are `InvalidInput` with the dotted path
of the field. The last good table on disk and route files are read by the same code.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from mooring.errors import InvalidInput
from mooring.model.grants import Grants, SigningKey, TokenGrant
from mooring.model.routes import Document, Route
from mooring.model.wording import said
from mooring.routes.ports import Revision, SectionChange

SECRET_BYTES = 32
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Ping:
    """The publisher lives and sent everything up to `revision`; grants hold for `grants_for_s` seconds more."""

    revision: Revision
    grants_for_s: float


@dataclass(frozen=True, slots=True)
class Synced:
    """Every section has been sent once; what was not named does not exist."""


Line = SectionChange | Ping | Synced


def encode(line: Line) -> bytes:
    """One line of the stream, its newline included."""
    document: dict[str, Any] = {"type": "synced"}
    if isinstance(line, SectionChange):
        document = _change(line)
    elif isinstance(line, Ping):
        document = {"type": "ping", "revision": _revision(line.revision), "grants_for_s": line.grants_for_s}
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)


def decode(raw: bytes) -> Line:
    """The document on one line.

    Raises:
        InvalidInput: names the field and what is allowed there.
    """
    document = _validated(_LINE, raw)
    if isinstance(document, _Synced):
        return Synced()
    if isinstance(document, _Ping):
        return Ping(Revision(*document.revision), document.grants_for_s)
    return SectionChange(
        source=document.source,
        upserts=document.upserts,
        deletes=document.deletes,
        complete=document.complete,
        grants=document.grants.value() if document.grants else None,
        rank=document.rank,
        revision=Revision(*document.revision) if document.revision else None,
    )


def route_document(route: Route) -> dict[str, Any]:
    """`route` as JSON without defaults."""
    return route.model_dump(mode="json", exclude_defaults=True)


def decode_route(raw: bytes) -> Route:
    """A route from JSON.

    Raises:
        InvalidInput: names the field and what is allowed there.
    """
    return _validated(_ROUTE, raw)


def grants_document(grants: Grants) -> dict[str, Any]:
    """`grants` as JSON; secrets as base64url without padding."""
    return {
        "keys": [
            {
                "id": key.id,
                "secret": base64.urlsafe_b64encode(key.secret).decode().rstrip("="),
                "not_after": key.not_after,
            }
            for key in grants.keys
        ],
        "tokens": [
            {"sha256": t.sha256, "subject": t.subject, "session": t.session, "expires": t.expires}
            for t in grants.tokens
        ],
        "revoked": dict(grants.revoked),
    }


def _change(change: SectionChange) -> dict[str, Any]:
    return {
        "type": "change",
        "revision": change.revision and _revision(change.revision),
        "source": change.source,
        "rank": change.rank,
        "complete": change.complete,
        "upserts": [route_document(route) for route in change.upserts],
        "deletes": change.deletes,
        "grants": change.grants and grants_document(change.grants),
    }


def _revision(revision: Revision) -> list[str | int]:
    return [revision.epoch, revision.number]


def _secret(text: str) -> str:
    try:
        secret = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("must be base64url") from error
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"must hold {SECRET_BYTES} bytes")
    return text


Count = Annotated[int, Field(ge=0)]
RevisionPair = tuple[Annotated[str, Field(min_length=1, max_length=64)], Count]


class _Key(Document):
    id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    secret: Annotated[str, AfterValidator(_secret)]
    not_after: Count


class _Token(Document):
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    subject: str
    session: str
    expires: Count = 0


class _Grants(Document):
    keys: tuple[_Key, ...] = ()
    tokens: tuple[_Token, ...] = ()
    revoked: dict[str, Count] = Field(default_factory=dict)

    def value(self) -> Grants:
        return Grants(
            keys=tuple(SigningKey(k.id, base64.urlsafe_b64decode(k.secret + "=="), k.not_after) for k in self.keys),
            tokens=tuple(TokenGrant(t.sha256, t.subject, t.session, t.expires) for t in self.tokens),
            revoked=tuple(self.revoked.items()),
        )


class _Change(Document):
    type: Literal["change"]
    revision: RevisionPair | None = None
    source: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    rank: int | None = Field(default=None, ge=0, le=1000)
    complete: bool = False
    upserts: tuple[Route, ...] = ()
    deletes: tuple[str, ...] = ()
    grants: _Grants | None = None


class _Ping(Document):
    type: Literal["ping"]
    revision: RevisionPair
    grants_for_s: float = Field(ge=0, le=3600)


class _Synced(Document):
    type: Literal["synced"]


_LINE: TypeAdapter[_Change | _Ping | _Synced] = TypeAdapter(
    Annotated[_Change | _Ping | _Synced, Field(discriminator="type")]
)
_ROUTE = TypeAdapter(Route)


def _validated(adapter: TypeAdapter[_T], raw: bytes) -> _T:
    try:
        return adapter.validate_json(raw, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        # The union's tag is no part of the document; the input is left out because it may hold a secret.
        path = [str(part) for part in first["loc"]]
        if first["type"].startswith("union_tag"):
            path = ["type"]
        elif path and path[0] in ("change", "ping", "synced"):
            del path[0]
        field = ".".join(path)
        text = said(first)
        raise InvalidInput(f"{field}: {text}" if field else text, field=field or None) from error

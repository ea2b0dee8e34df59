"""Signatures of requests to S3 (AWS Signature Version 4, as its documentation describes it). Pure."""

import datetime as dt
import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Key:
    """Credentials; the secret is in no representation."""

    access: str
    secret: str
    region: str

    def __repr__(self) -> str:
        """Without the secret."""
        return f"Key({self.access!r}, {self.region!r})"


@dataclass(frozen=True, slots=True)
class Request:
    """What is signed: `path` is escaped, `query` is not, `payload` is the SHA-256 of the body in hex."""

    method: str
    host: str
    path: str
    query: Mapping[str, str]
    payload: str


def escaped(path: str) -> str:
    """A path as it is sent and signed."""
    return quote(path, safe="/-_.~")


def query_string(query: Mapping[str, str]) -> str:
    """A query as it is sent and signed."""
    return "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in sorted(query.items()))


def headers(request: Request, key: Key, now: dt.datetime) -> dict[str, str]:
    """The headers that make the request ours."""
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    signed = {"host": request.host, "x-amz-content-sha256": request.payload, "x-amz-date": stamp}
    names = ";".join(signed)
    lines = [request.method, request.path, query_string(request.query)]
    lines += [f"{name}:{value}" for name, value in signed.items()]
    canonical = "\n".join([*lines, "", names, request.payload])
    scope = f"{day}/{key.region}/s3/aws4_request"
    text = "\n".join([_ALGORITHM, stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    secret = f"AWS4{key.secret}".encode()
    for part in (day, key.region, "s3", "aws4_request"):
        secret = hmac.digest(secret, part.encode(), "sha256")
    signature = hmac.digest(secret, text.encode(), "sha256").hex()
    credential = f"{_ALGORITHM} Credential={key.access}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**signed, "authorization": credential}

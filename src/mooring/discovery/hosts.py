"""What the fields of the Redis hash mean. Pure: no I/O.

A field whose value is `ip:port` is served at `/ws/<field>/…`. A field whose value is a JSON object with `sid` and
`host` points to the field `<sid>` and is served by the same address.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import NamedTuple

import orjson

from mooring.model.routes import Backend, Filters, Route
from mooring.settings import RedisSource

# What both a path segment and the end of a route's name may hold.
_FIELD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")
_ADDRESS = re.compile(r"(?P<ip>\[[0-9a-fA-F:.]{2,45}\]|[0-9.]{7,15}):(?P<port>[1-9]\d{0,4})", re.ASCII)
_MAX_PORT = 65535


class Hosts(NamedTuple):
    """The address (`ip:port`) of each good field, and why each bad one is ignored."""

    addresses: dict[str, str]
    ignored: dict[str, str]


def resolve(fields: Mapping[bytes, bytes]) -> Hosts:
    """Every field of the hash: good ones with their addresses, bad ones with reasons."""
    hosts = Hosts({}, {})
    pointers: dict[str, str] = {}
    for raw_field, raw in fields.items():
        field = raw_field.decode(errors="backslashreplace")
        if _FIELD.fullmatch(field) is None:
            hosts.ignored[field] = "it must be 1 to 128 letters, digits and . _ -, with a letter or digit at its ends"
        elif raw.lstrip().startswith(b"{"):
            _point(field, raw, pointers, hosts)
        elif (address := _address(raw)) is not None:
            hosts.addresses[field] = address
        else:
            hosts.ignored[field] = 'the value must be ip:port or a JSON object {"sid","host"}'
    for field, sid in pointers.items():
        if sid in hosts.addresses and sid not in pointers:
            hosts.addresses[field] = hosts.addresses[sid]
        else:
            hosts.ignored[field] = f"its sid {sid[:80]!r} is no field with an ip:port"
    return hosts


def route(field: str, address: str, settings: RedisSource) -> Route:
    """The route of one good field."""
    return Route(
        name=field,
        host=settings.paths_host,
        path=f"/ws/{field}",
        backends=(Backend(address=address),),
        filters=Filters(strip_prefix=settings.strip_prefix),
        access=settings.access,
    )


def _point(field: str, raw: bytes, pointers: dict[str, str], hosts: Hosts) -> None:
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        hosts.ignored[field] = f"the value is not JSON: {error}"
        return
    if isinstance(document.get("sid"), str) and isinstance(document.get("host"), str):
        pointers[field] = document["sid"]
    else:
        hosts.ignored[field] = "the JSON object must have sid and host, both text"


def _address(raw: bytes) -> str | None:
    try:
        match = _ADDRESS.fullmatch(raw.decode())
        if match is None or int(match["port"]) > _MAX_PORT:
            return None
        ipaddress.ip_address(match["ip"].strip("[]"))
    except ValueError:
        return None
    return match[0]

"""nginx as the route sink and the source of telemetry."""

import base64
import gc
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from mooring.errors import Conflict, LimitExceeded, Unavailable
from mooring.gateway.admin import Admin
from mooring.gateway.buckets import Buckets, Change
from mooring.gateway.exposition import exposition
from mooring.gateway.ports import TelemetrySnapshot
from mooring.gateway.processes import process
from mooring.model.grants import Grants
from mooring.routes.ports import Delta, Revision

FRAME_BYTES = 256 * 1024
"""About what a worker decodes in 2 ms: a longer frame would hold up its requests."""


class Refused(Unavailable):
    """nginx answers, and could not do it this time; what it holds now is not known."""


class _Granted(NamedTuple):
    """What the dictionary of grants holds, and the name of just that."""

    entries: dict[str, Any]
    version: str


class NginxSink:
    """Applies the merged table to the nginx behind the administration socket at `socket`, and reads its counters."""

    def __init__(self, socket: Path) -> None:
        self._admin = Admin(socket)
        # Behind a whole table they would wait for a minute: who was thrown out would still be let in, and an nginx
        # that was started anew could shake no hands.
        self._grants = Admin(socket)
        self._certificates = Admin(socket)
        self._buckets = Buckets()
        self._granted: _Granted | None = None
        self._epoch: str | None = None
        self._workers: frozenset[int] = frozenset()
        self._replaced = 0

    async def apply(self, revision: Revision, delta: Delta) -> None:
        if not delta.complete and self._epoch != revision.epoch:
            raise Conflict("a delta needs the table that it changes: send a complete one")
        change = self._buckets.change(delta)
        try:
            await self._send(revision, change, complete=delta.complete)
        except BaseException:
            self._buckets.rollback()
            raise
        self._buckets.commit()
        self._epoch = revision.epoch
        if delta.complete:
            _settle()

    async def grant(self, grants: Grants) -> None:
        wanted = _granted(grants)
        # Until it has answered nobody knows what it holds.
        before, self._granted = self._granted, None
        answer = await self._grants.ask(_grant_frame(before, wanted))
        if before is not None and answer.get("error") == "stale":
            answer = await self._grants.ask(_grant_frame(None, wanted))
        error = answer.get("error")
        if error == "full":
            raise LimitExceeded("who may enter does not fit into nginx's shared memory: revoke tokens")
        if error is not None:
            raise Unavailable(f"nginx could not take who may enter: {error}")
        self._granted = wanted

    async def applied(self) -> Revision | None:
        answer = await self._admin.ask({"op": "applied"})
        text = answer.get("revision")
        if text is None:
            return None
        epoch, _, number = text.rpartition(" ")
        return Revision(epoch, int(number))

    async def certificate(self, pem: str) -> None:
        """Use this chain and key (one PEM text) from the next handshake on.

        Raises:
            LimitExceeded: when it is too large to be kept; the one before stays in use.
            Refused: it failed for another reason, which may pass.
            Unavailable: nginx does not answer.
        """
        answer = await self._certificates.ask({"op": "certificate", "pem": pem})
        error = answer.get("error")
        if error == "no memory":
            raise LimitExceeded("nginx cannot keep the certificate: no memory")
        if error is not None:
            raise Refused(f"nginx could not take the certificate: {error}")

    async def read(self) -> TelemetrySnapshot:
        answer = await self._admin.ask({"op": "telemetry"})
        connections: dict[str, int] = {}
        for each in answer["open"]:
            for workspace, count in dict(each["workspaces"]).items():
                connections[workspace] = connections.get(workspace, 0) + count
        return TelemetrySnapshot(
            activity=dict(answer["activity"]),
            connections=connections,
            workers=self._alive(each["pid"] for each in answer["open"]),
            restarts=self._replaced,
            metrics=exposition(answer),
        )

    async def close(self) -> None:
        """Close the connections."""
        for each in (self._admin, self._grants, self._certificates):
            await each.close()

    def _alive(self, pids: Iterator[int]) -> tuple[int, ...]:
        now = frozenset(pid for pid in pids if process(pid) is not None)
        self._replaced += len(self._workers - now)
        self._workers = now
        return tuple(sorted(now))

    async def _send(self, revision: Revision, change: Change, *, complete: bool) -> None:
        *first, last = _parts(change.sets)
        frame = {
            "op": "apply",
            "revision": f"{revision.epoch} {revision.number}",
            "epoch": revision.epoch,
            "complete": complete,
            "sets": last,
            "deletes": change.deletes,
            "gone": change.gone,
            "came": change.came,
        }
        answer = await self._admin.ask(*({"op": "begin", "sets": part} for part in first), frame)
        _check(answer)


def _settle() -> None:
    """Take the table out of the garbage collector's sight: to walk 10,000 routes holds a change up by 10 ms."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _check(answer: dict[str, Any]) -> None:
    error = answer.get("error")
    if error == "stale":
        raise Conflict("nginx has no table of this epoch: send a complete one")
    if error == "full":
        raise LimitExceeded("the route table does not fit into nginx's shared memory: raise table_bytes")
    if error is not None:
        raise Unavailable(f"nginx could not apply the change: {error}")


def _parts(sets: dict[str, str]) -> list[dict[str, str]]:
    """`sets` in parts of about FRAME_BYTES, at least one."""
    parts: list[dict[str, str]] = [{}]
    size = 0
    for key, text in sets.items():
        if size > FRAME_BYTES:
            parts.append({})
            size = 0
        parts[-1][key] = text
        size += len(key) + len(text)
    return parts


def _grant_entries(grants: Grants) -> dict[str, Any]:
    """What the dictionary of grants holds; without keys and tokens nothing, and access cannot be checked."""
    if not grants.keys and not grants.tokens:
        return {}
    keys = [
        {"id": key.id, "secret": base64.urlsafe_b64encode(key.secret).decode().rstrip("="), "not_after": key.not_after}
        for key in grants.keys
    ]
    entries: dict[str, Any] = {"keys": orjson.dumps(keys).decode()}
    for token in grants.tokens:
        text = {"subject": token.subject, "session": token.session, "expires": token.expires}
        entries[f"token {token.sha256}"] = orjson.dumps(text).decode()
    entries |= {f"revoked {session}": until for session, until in grants.revoked}
    return entries


def _granted(grants: Grants) -> _Granted:
    entries = _grant_entries(grants)
    return _Granted(entries, hashlib.sha256(orjson.dumps(entries, option=orjson.OPT_SORT_KEYS)).hexdigest())


def _grant_frame(before: _Granted | None, after: _Granted) -> dict[str, Any]:
    """The difference, with the version that it is one to; without `before` all of it."""
    old = before.entries if before else {}
    return {
        "op": "grant",
        "base": before and before.version,
        "version": after.version,
        "sets": {key: value for key, value in after.entries.items() if old.get(key) != value},
        "deletes": [key for key in old if key not in after.entries],
    }

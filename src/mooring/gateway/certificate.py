"""nginx's certificate: given again whenever it changes, and what is wrong with it told to whoever asks."""

import asyncio
import datetime as dt
import shlex
from dataclasses import dataclass

import structlog
from cryptography import x509

from mooring.errors import LimitExceeded, MooringError, Unavailable
from mooring.gateway.authority import Certificates, LocalAuthority
from mooring.gateway.nginx import NginxSink, Refused

log = structlog.get_logger(__name__)

_BEFORE = "The one before stays in use until Mooring is started again"
_NONE = "Until it is mended there is none that anybody trusts, unless this nginx was given one before"
_AGAIN = "it is offered again, and nginx's error.log may say why"
_LESS = "put no more there than the certificates that clients need: its own, and those that lead to one that they trust"


@dataclass(frozen=True, slots=True)
class _Certificate:
    """A chain with its key, and from when to when clients take it."""

    pem: str
    begin: dt.datetime
    end: dt.datetime


@dataclass(frozen=True, slots=True)
class _Refusal:
    """Why nginx does not keep a certificate, for a person; `lasting` until the files change, else worth another try."""

    reason: str
    lasting: bool


class CertificateKeeper:
    """Gives the certificate of `source` to the nginx behind `sink`: when it changes, and to an nginx that has lost it.

    While the files cannot be used, or nginx does not take what is in them, it is the last good one.
    """

    def __init__(self, source: Certificates, sink: NginxSink, *, look_every_s: float) -> None:
        self._source = source
        self._sink = sink
        self._look_every_s = look_every_s
        self._broken: str | None = None
        self._read: _Certificate | None = None
        self._refused: _Refusal | None = None
        """Of what was read; None as long as nothing says so."""
        self._kept: _Certificate | None = None
        self._taken = False

    def problems(self) -> tuple[str, ...]:
        """Why clients refuse what they are shown, or soon will; a line for a person, or none."""
        found = []
        if self._broken is not None:
            found.append(f"{self._broken}. {_BEFORE if self._taken else _NONE}")
        shown = self._shown
        if shown is not None:
            now = dt.datetime.now(tz=dt.UTC)
            if now > shown.end:
                over = f"ended on {shown.end:%Y-%m-%d %H:%M} UTC"
                found.append(f"certificate {self._source.chain}: {over}: put a renewed one there")
            elif now < shown.begin:
                found.append(_early(self._source, shown.begin))
        return tuple(f"TLS: {problem}" for problem in found)

    async def run(self) -> None:
        """Look and give, for ever."""
        while True:
            broken = await self._look()
            if broken is not None and broken != self._broken:
                log.error("certificate", reason=broken)
            self._broken = broken
            await asyncio.sleep(self._look_every_s)

    @property
    def _shown(self) -> _Certificate | None:
        """The one for nginx, None when there is none that it could keep."""
        return self._read if self._refused is None else self._kept

    async def _look(self) -> str | None:
        """What is wrong with the files, None when they are good."""
        broken = None
        try:
            pem = await asyncio.to_thread(self._source.pem)
            if self._read is None or pem != self._read.pem:
                self._read, self._refused = _certificate(self._source, pem), None
        except MooringError as error:
            broken = error.detail
        except Exception as error:  # noqa: BLE001 - whatever else a certificate has in it, the next one is to be looked at
            broken = f"certificate {self._source.chain}: {type(error).__name__}: {error}"
        await self._give()
        return broken or (self._refused.reason if self._refused else None)

    async def _give(self) -> None:
        # Of a certificate that does not fit nginx is asked once: each time it loses the one before for a moment.
        if self._read is not None and not (self._refused and self._refused.lasting):
            self._refused = await self._offer(self._read)
        if self._kept is not None and self._refused is not None:
            await self._offer(self._kept)

    async def _offer(self, offered: _Certificate) -> _Refusal | None:
        """Why nginx does not keep it, None when it does, or is away: whoever starts it again says that."""
        try:
            await self._sink.certificate(offered.pem)
        except LimitExceeded:
            size = -(-len(offered.pem.encode()) // 1024)
            reason = f"certificate {self._source.chain}: nginx has no room for its {size} KiB: {_LESS}"
            return _Refusal(reason, lasting=True)
        except Refused as error:
            # Of another one the one before is offered next, and that answer says what nginx has.
            if offered is self._kept:
                self._taken = False
            return _Refusal(f"certificate {self._source.chain}: {error.detail}: {_AGAIN}", lasting=False)
        except Unavailable:
            # Another one may take its place, which has none yet.
            self._taken = False
            return None
        self._kept, self._taken = offered, True
        return None


def _certificate(source: Certificates, pem: str) -> _Certificate:
    leaf = x509.load_pem_x509_certificate(pem.encode())
    begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if isinstance(source, LocalAuthority):
        # Its authority may have been made while the clock was ahead. Of a given chain clients may not need the rest.
        begin = max(each.not_valid_before_utc for each in x509.load_pem_x509_certificates(pem.encode()))
    return _Certificate(pem, begin, end)


def _early(source: Certificates, begin: dt.datetime) -> str:
    counts = f"counts from {begin:%Y-%m-%d %H:%M} UTC on: is the clock of this machine right?"
    if isinstance(source, LocalAuthority):
        # Not made anew by itself as the leaf is: a machine that begins in 1970 would lose one that browsers trust.
        remedy = f"type rm {shlex.quote(str(source.certificate))} for one that browsers must trust anew"
        return f"certificate {source.certificate}: {counts} If it is, {remedy}"
    return f"certificate {source.chain}: {counts}"

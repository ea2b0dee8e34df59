"""nginx's certificate: given again whenever it changes, and what is wrong with it told to whoever asks."""

import asyncio
import datetime as dt
import shlex

import structlog
from cryptography import x509

from mooring.errors import LimitExceeded, MooringError, Unavailable
from mooring.gateway.authority import Certificates, LocalAuthority
from mooring.gateway.nginx import NginxSink

log = structlog.get_logger(__name__)

_BEFORE = "The one before stays in use until Mooring is started again"
_NONE = "Until it is mended there is none that anybody trusts, unless this nginx was given one before"


class CertificateKeeper:
    """Gives the certificate of `source` to the nginx behind `sink`: when it changes, and to an nginx that has lost it.

    While the files cannot be used it is the last good one.
    """

    def __init__(self, source: Certificates, sink: NginxSink, *, look_every_s: float) -> None:
        self._source = source
        self._sink = sink
        self._look_every_s = look_every_s
        self._broken: str | None = None
        self._pem = ""
        self._taken = False
        self._counts: tuple[dt.datetime, dt.datetime] | None = None

    def problems(self) -> tuple[str, ...]:
        """Why clients refuse what they are shown, or soon will; a line for a person, or none."""
        found = []
        if self._broken is not None:
            found.append(f"{self._broken}. {_BEFORE if self._taken else _NONE}")
        if self._counts is not None:
            begin, end = self._counts
            now = dt.datetime.now(tz=dt.UTC)
            if now > end:
                found.append(
                    f"certificate {self._source.chain}: ended on {end:%Y-%m-%d %H:%M} UTC: put a renewed one there"
                )
            elif now < begin:
                found.append(_early(self._source, begin))
        return tuple(f"TLS: {problem}" for problem in found)

    async def run(self) -> None:
        """Look and give, for ever."""
        while True:
            broken = await self._look()
            if broken is not None and broken != self._broken:
                log.error("certificate", reason=broken)
            self._broken = broken
            await asyncio.sleep(self._look_every_s)

    async def _look(self) -> str | None:
        """What is wrong with the files, None when they are good."""
        broken = None
        try:
            pem = await asyncio.to_thread(self._source.pem)
            if pem != self._pem:
                self._counts = _counts(self._source, pem)
                self._pem = pem
        except MooringError as error:
            broken = error.detail
        except Exception as error:  # noqa: BLE001 - whatever else a certificate has in it, the next one is to be looked at
            broken = f"certificate {self._source.chain}: {type(error).__name__}: {error}"
        refused = await self._give() if self._pem else None
        return broken or refused

    async def _give(self) -> str | None:
        """Why nginx cannot keep it, None when it does, or is away: whoever starts it again says that."""
        try:
            await self._sink.certificate(self._pem)
        except LimitExceeded as error:
            return error.detail
        except Unavailable:
            # Another one may take its place, which has none yet.
            self._taken = False
            return None
        self._taken = True
        return None


def _counts(source: Certificates, pem: str) -> tuple[dt.datetime, dt.datetime]:
    """From when to when clients take it."""
    leaf = x509.load_pem_x509_certificate(pem.encode())
    begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
    if isinstance(source, LocalAuthority):
        # Its authority may have been made while the clock was ahead. Of a given chain clients may not need the rest.
        begin = max(each.not_valid_before_utc for each in x509.load_pem_x509_certificates(pem.encode()))
    return begin, end


def _early(source: Certificates, begin: dt.datetime) -> str:
    counts = f"counts from {begin:%Y-%m-%d %H:%M} UTC on: is the clock of this machine right?"
    if isinstance(source, LocalAuthority):
        # Not made anew by itself as the leaf is: a machine that begins in 1970 would lose one that browsers trust.
        remedy = f"type rm {shlex.quote(str(source.certificate))} for one that browsers must trust anew"
        return f"certificate {source.certificate}: {counts} If it is, {remedy}"
    return f"certificate {source.chain}: {counts}"

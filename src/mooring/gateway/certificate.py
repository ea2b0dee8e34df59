"""nginx's certificate: given again whenever it changes, and what is wrong with it told to whoever asks."""

import asyncio
import datetime as dt

import structlog
from cryptography import x509

from mooring.errors import LimitExceeded, MooringError, Unavailable
from mooring.gateway.authority import Certificates
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
        self._counts: tuple[dt.datetime, dt.datetime] | None = None

    def problems(self) -> tuple[str, ...]:
        """Why clients refuse what they are shown, or soon will; a line for a person, or none."""
        found = []
        if self._broken is not None:
            found.append(f"{self._broken}. {_BEFORE if self._pem else _NONE}")
        if self._counts is not None:
            begin, end = self._counts
            now = dt.datetime.now(tz=dt.UTC)
            if now > end:
                found.append(
                    f"certificate {self._source.chain}: ended on {end:%Y-%m-%d %H:%M} UTC: put a renewed one there"
                )
            elif now < begin:
                when = f"{begin:%Y-%m-%d %H:%M} UTC"
                found.append(
                    f"certificate {self._source.chain}: counts from {when} on: is the clock of this machine right?"
                )
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
                self._counts = _counts(pem)
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
            return None
        return None


def _counts(pem: str) -> tuple[dt.datetime, dt.datetime]:
    leaf = x509.load_pem_x509_certificate(pem.encode())
    return leaf.not_valid_before_utc, leaf.not_valid_after_utc

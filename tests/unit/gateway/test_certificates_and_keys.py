"""What nginx is given beside routes: which files of the authority cannot be used, how certificate and grants go."""

import asyncio
import datetime as dt
import os
import resource
import shutil
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from mooring.control.tasks import Tasks
from mooring.errors import LimitExceeded, Misconfigured, MooringError, Unavailable
from mooring.gateway.authority import GivenCertificate, LocalAuthority
from mooring.gateway.certificate import CertificateKeeper
from mooring.gateway.nginx import NginxSink
from mooring.model.grants import Grants
from mooring.routes.ports import Delta, Revision
from support.certificates import certificate_files, self_signed
from support.following import until
from support.waiting import WITHIN_S


def test_a_key_with_a_passphrase_is_refused_by_name(tmp_path: Path) -> None:
    """Whoever put one on the authority's key reads so; the gateway asks nobody for it."""
    source = LocalAuthority(tmp_path, "mooring.test")
    source.pem()
    file = tmp_path / "authority.key"
    key = serialization.load_pem_private_key(file.read_bytes(), None)
    lock = serialization.BestAvailableEncryption(b"secret")
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock))
    source.chain.unlink()
    with pytest.raises(Misconfigured, match="encrypted"):
        source.pem()


def test_a_key_of_another_authority_is_refused_by_name(tmp_path: Path) -> None:
    """A leaf that it signs would not be the certificate's: whoever put back half of an authority reads which files."""
    one, other = (LocalAuthority(tmp_path / name, "mooring.test") for name in ("one", "other"))
    for source in (one, other):
        source.pem()
    shutil.copy(other.folder / "authority.key", one.folder / "authority.key")
    one.chain.unlink()
    for asked in (one.check, one.pem):
        with pytest.raises(
            Misconfigured, match=r"authority\.key is not the key of authority\.crt: .* type rm /.*\.key "
        ):
            asked()
    (one.folder / "authority.key").unlink()
    made = one.pem()
    assert one.pem() == made


def test_an_authority_vouches_for_no_other_domain(tmp_path: Path) -> None:
    """With another `--domain` it is made anew, else no browser would take its certificates; below its own it stays."""
    made = {}
    for domain in ("mooring.test", "dev.mooring.test", "other.test"):
        leaf = LocalAuthority(tmp_path, domain).pem()
        made[domain] = (tmp_path / "authority.crt").read_bytes()
        (tmp_path / "leaf.pem").write_text(leaf)
        command = ["openssl", "verify", "-verify_hostname", f"a.{domain}", "-CAfile", tmp_path / "authority.crt"]
        subprocess.run([*command, tmp_path / "leaf.pem"], check=True, timeout=WITHIN_S)
        assert LocalAuthority(tmp_path, domain).pem() == leaf
    assert made["mooring.test"] == made["dev.mooring.test"] != made["other.test"]


def test_a_leaf_of_another_authority_is_replaced(tmp_path: Path) -> None:
    """Whoever put back the authority that browsers trust is served what it vouches for, and not the leaf between."""
    trusted, now = (
        LocalAuthority(tmp_path / "trusted", "mooring.test"),
        LocalAuthority(tmp_path / "now", "mooring.test"),
    )
    trusted.pem()
    before = now.pem()
    for name in ("authority.key", "authority.crt"):
        shutil.copy(trusted.folder / name, now.folder / name)
    after = now.pem()
    assert after != before
    leaf = x509.load_pem_x509_certificate(after.encode())
    leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(trusted.certificate.read_bytes()))
    assert now.pem() == after


def test_what_would_be_made_is_not_made_by_a_check(tmp_path: Path) -> None:
    """A start that is only tried changes no file; a damaged leaf or key is made anew, and ends none."""
    source = LocalAuthority(tmp_path / "tls", "mooring.test")
    source.check()
    assert not source.folder.exists()
    made = source.pem()
    for cut in ("cut off", made[:-60]):
        source.chain.write_text(cut)
        source.check()
        assert source.chain.read_text() == cut
        anew = source.pem()
        assert anew not in {cut, made}
        assert source.pem() == anew


def test_an_authority_of_a_clock_that_was_wrong(tmp_path: Path) -> None:
    """A machine may begin years behind: what it made then is over, and made anew; as is a leaf made months ahead."""
    now = dt.datetime.now(tz=dt.UTC)
    source = LocalAuthority(tmp_path, "mooring.test")
    LocalAuthority(tmp_path, "mooring.test", lambda: dt.datetime(1970, 2, 1, tzinfo=dt.UTC)).pem()
    first = source.certificate.read_bytes()
    source.pem()
    made = source.certificate.read_bytes()
    assert made != first
    LocalAuthority(tmp_path, "mooring.test", lambda: now + dt.timedelta(days=300)).pem()
    leaf = x509.load_pem_x509_certificate(source.pem().encode())
    assert leaf.not_valid_before_utc < now < leaf.not_valid_after_utc
    assert source.certificate.read_bytes() == made


def test_what_openssl_refuses_is_refused_by_name(tmp_path: Path) -> None:
    """A key that is too short for it would end every handshake, where the good certificate before it ended none."""
    chain, key = tmp_path / "c.pem", tmp_path / "k.pem"
    make = ["openssl", "req", "-x509", "-nodes", "-subj", "/CN=w", "-newkey", "rsa:1024", "-keyout", key, "-out", chain]
    subprocess.run(make, check=True, capture_output=True, timeout=WITHIN_S)
    with pytest.raises(Misconfigured, match=r"c\.pem, key .*k\.pem: OpenSSL refuses them: ee key too small"):
        GivenCertificate(chain, key).pem()


def test_a_moment_without_descriptors_is_no_verdict(tmp_path: Path) -> None:
    """What fails when the certificate is tried is told, and forgotten when the next look finds room."""
    source = GivenCertificate(*certificate_files(tmp_path, "w.mooring.test"))
    free = os.open(tmp_path, os.O_RDONLY)
    os.close(free)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    # The files can be read one after the other, and what OpenSSL is given cannot be opened beside itself.
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, before[1]))
    try:
        with pytest.raises(Misconfigured, match="Too many open files"):
            source.pem()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert source.pem()


async def test_a_certificate_that_was_renewed_badly_is_a_problem_until_it_is_mended(tmp_path: Path) -> None:
    """It is told, and an nginx that was killed gets the last good one again; one that is over is used, and told."""
    given: list[object] = []

    async def answer(frame: dict[str, object]) -> dict[str, object]:
        given.append(frame["pem"])
        return {"ok": True}

    chain, key = certificate_files(tmp_path, "w.mooring.test")
    good = chain.read_text()
    over, over_key = self_signed("w.mooring.test", ended=True)
    sink = NginxSink(tmp_path / "admin.sock")
    keeper = CertificateKeeper(GivenCertificate(chain, key), sink, look_every_s=0.01)
    assert keeper.problems() == ()
    async with asyncio.timeout(WITHIN_S), administration(tmp_path / "admin.sock", answer), Tasks("test") as tasks:
        tasks.forever("certificate", keeper.run())
        await until(lambda: given)
        assert keeper.problems() == ()
        chain.write_text("nothing")
        await until(keeper.problems)
        seen = len(given)
        assert str(chain) in keeper.problems()[0]
        await until(lambda: len(given) > seen)
        chain.write_text(good)
        await until(lambda: not keeper.problems())
        chain.write_bytes(over)
        key.write_bytes(over_key)
        await until(lambda: "ended on" in "".join(keeper.problems()))
        await tasks.stop()
        await sink.close()
    assert "nothing" not in "".join(map(str, given))


async def test_a_first_certificate_that_nginx_cannot_keep_has_none_before_it(tmp_path: Path) -> None:
    """Nobody is told that another one is in use."""

    async def answer(_frame: dict[str, object]) -> dict[str, object]:
        return {"error": "no memory"}

    sink = NginxSink(tmp_path / "admin.sock")
    source = GivenCertificate(*certificate_files(tmp_path, "w.mooring.test"))
    keeper = CertificateKeeper(source, sink, look_every_s=0.01)
    async with asyncio.timeout(WITHIN_S), administration(tmp_path / "admin.sock", answer), Tasks("test") as tasks:
        tasks.forever("certificate", keeper.run())
        await until(keeper.problems)
        assert (
            "clients need: its own, and those that lead to one that they trust. Until it is mended there is none"
            in keeper.problems()[0]
        )
        await tasks.stop()
        await sink.close()


async def test_a_certificate_that_nginx_could_not_take_is_offered_until_it_does(tmp_path: Path) -> None:
    """A moment without memory is told as what it is; until it is over nginx is given the one before."""
    given: list[object] = []
    failing = ""

    async def answer(frame: dict[str, object]) -> dict[str, object]:
        given.append(frame["pem"])
        return {"error": "internal"} if failing and failing in str(frame["pem"]) else {"ok": True}

    chain, key = certificate_files(tmp_path, "w.mooring.test")
    sink = NginxSink(tmp_path / "admin.sock")
    keeper = CertificateKeeper(GivenCertificate(chain, key), sink, look_every_s=0.01)
    async with asyncio.timeout(WITHIN_S), administration(tmp_path / "admin.sock", answer), Tasks("test") as tasks:
        tasks.forever("certificate", keeper.run())
        await until(lambda: given)
        before = given[0]
        failing = renewed = certificate_files(tmp_path, "w.mooring.test")[0].read_text()
        await until(lambda: "could not take" in "".join(keeper.problems()))
        (told,) = keeper.problems()
        assert told.startswith(f"TLS: certificate {chain}: nginx could not take the certificate: internal: ")
        assert "The one before stays in use" in told
        assert before in given[-2:]
        failing = ""
        await until(lambda: not keeper.problems())
        assert renewed in str(given[-1])
        await tasks.stop()
        await sink.close()


async def test_an_authority_made_while_the_clock_was_ahead_is_told(tmp_path: Path) -> None:
    """Browsers that trust it refuse all the same, and it stays until a person takes it away; the next one counts."""
    ahead = dt.datetime.now(tz=dt.UTC) + dt.timedelta(days=300)
    LocalAuthority(tmp_path / "tls", "mooring.test", lambda: ahead).pem()
    source = LocalAuthority(tmp_path / "tls", "mooring.test")
    sink = NginxSink(tmp_path / "admin.sock")
    keeper = CertificateKeeper(source, sink, look_every_s=0.01)
    async with asyncio.timeout(WITHIN_S), Tasks("test") as tasks:
        tasks.forever("certificate", keeper.run())
        await until(keeper.problems)
        (told,) = keeper.problems()
        remedy = f"If it is, type rm {source.certificate} for one"
        assert told.startswith(f"TLS: certificate {source.certificate}: counts from ")
        assert remedy in told
        source.certificate.unlink()
        await until(lambda: not keeper.problems())


async def test_an_nginx_that_is_away_is_no_fault_of_the_certificate(tmp_path: Path) -> None:
    """Whoever is to mend something is not sent to files that are good."""
    chain, key = certificate_files(tmp_path, "w.mooring.test")
    sink = NginxSink(tmp_path / "admin.sock")
    keeper = CertificateKeeper(GivenCertificate(chain, key), sink, look_every_s=0.01)
    async with asyncio.timeout(WITHIN_S), Tasks("test") as tasks:
        tasks.forever("certificate", keeper.run())
        await asyncio.sleep(0.1)
        assert keeper.problems() == ()


Answer = Callable[[dict[str, object]], Awaitable[dict[str, object]]]


@asynccontextmanager
async def administration(path: Path, answer: Answer) -> AsyncIterator[None]:
    """What answers each frame so as nginx; its connections are to be closed before the end."""
    served: list[asyncio.Future[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended = asyncio.get_running_loop().create_future()
        served.append(ended)
        # Whoever asks may be gone before it hears the answer: the end of a test cuts the last one off.
        with suppress(ConnectionError, EOFError):
            await reader.readuntil(b"\r\n\r\n")
            while head := await reader.read(4):
                frame = orjson.loads(await reader.readexactly(*struct.unpack(">I", head)))
                told = orjson.dumps(await answer(frame))
                writer.write(struct.pack(">I", len(told)) + told)
        writer.close()
        ended.set_result(None)

    async with await asyncio.start_unix_server(serve, path):
        yield
        for ended in served:
            await ended


async def test_certificates_and_grants_wait_for_no_table(tmp_path: Path) -> None:
    """While nginx takes a large table it can shake hands already, and whoever is thrown out stays out."""
    taken = asyncio.Event()
    begun = asyncio.Event()

    async def answer(frame: dict[str, object]) -> dict[str, object]:
        if frame["op"] == "apply":
            begun.set()
            await taken.wait()
        return {"ok": True}

    sink = NginxSink(tmp_path / "admin.sock")
    async with asyncio.timeout(10), administration(tmp_path / "admin.sock", answer), Tasks("test") as tasks:
        table = tasks.spawn("table", sink.apply(Revision("e", 1), Delta(complete=True)))
        await begun.wait()
        await sink.certificate("a chain and its key")
        await sink.grant(Grants(revoked=(("s1", 2**31),)))
        assert not table.done()
        taken.set()
        await table
        await sink.close()


@asynccontextmanager
async def refusing(place: Path, error: str) -> AsyncIterator[NginxSink]:
    """A sink whose nginx answers everything with this error."""

    async def answer(_frame: dict[str, object]) -> dict[str, object]:
        return {"error": error}

    async with asyncio.timeout(10), administration(place, answer):
        sink = NginxSink(place)
        yield sink
        await sink.close()


@pytest.mark.parametrize(
    ("error", "raised"), [("no memory", LimitExceeded), ("internal", Unavailable), ("unknown operation", Unavailable)]
)
async def test_only_a_certificate_that_does_not_fit_is_called_so(
    tmp_path: Path, error: str, raised: type[MooringError]
) -> None:
    """Whoever is to mend something reads what nginx said."""
    async with refusing(tmp_path / "admin.sock", error) as sink:
        with pytest.raises(raised, match=error):
            await sink.certificate("a chain and its key")


@pytest.mark.parametrize(("error", "raised"), [("full", LimitExceeded), ("internal", Unavailable)])
async def test_only_grants_that_do_not_fit_are_called_so(
    tmp_path: Path, error: str, raised: type[MooringError]
) -> None:
    """Those are not sent again; after any other failure they are."""
    async with refusing(tmp_path / "admin.sock", error) as sink:
        with pytest.raises(raised):
            await sink.grant(Grants())

"""What nginx is given beside routes: which files of the authority cannot be used, how certificate and grants go."""

import asyncio
import shutil
import struct
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from mooring.control.tasks import Tasks
from mooring.errors import LimitExceeded, Misconfigured, MooringError, Unavailable
from mooring.gateway.authority import LocalAuthority
from mooring.gateway.nginx import NginxSink
from mooring.model.grants import Grants
from mooring.routes.ports import Delta, Revision
from support.waiting import WITHIN_S


def test_a_key_with_a_passphrase_is_refused_by_name(tmp_path: Path) -> None:
    """Whoever put one on the authority's key reads so; the gateway asks nobody for it."""
    source = LocalAuthority(tmp_path, "mooring.test")
    source.pem()
    file = tmp_path / "authority.key"
    key = serialization.load_pem_private_key(file.read_bytes(), None)
    lock = serialization.BestAvailableEncryption(b"secret")
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock))
    source.leaf.unlink()
    with pytest.raises(Misconfigured, match="encrypted"):
        source.pem()


def test_a_key_of_another_authority_is_refused_by_name(tmp_path: Path) -> None:
    """A leaf that it signs would not be the certificate's: whoever put back half of an authority reads which files."""
    one, other = (LocalAuthority(tmp_path / name, "mooring.test") for name in ("one", "other"))
    for source in (one, other):
        source.pem()
    shutil.copy(other.folder / "authority.key", one.folder / "authority.key")
    one.leaf.unlink()
    with pytest.raises(Misconfigured, match=r"authority\.key is not that of the certificate in .*authority\.crt"):
        one.pem()
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


Answer = Callable[[dict[str, object]], Awaitable[dict[str, object]]]


@asynccontextmanager
async def administration(path: Path, answer: Answer) -> AsyncIterator[None]:
    """What answers each frame so as nginx; its connections are to be closed before the end."""
    served: list[asyncio.Future[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended = asyncio.get_running_loop().create_future()
        served.append(ended)
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


@pytest.mark.parametrize(("error", "raised"), [("full", LimitExceeded), ("internal", Unavailable)])
async def test_only_grants_that_do_not_fit_are_called_so(
    tmp_path: Path, error: str, raised: type[MooringError]
) -> None:
    """Those are not sent again; after any other failure they are."""

    async def answer(_frame: dict[str, object]) -> dict[str, object]:
        return {"error": error}

    sink = NginxSink(tmp_path / "admin.sock")
    async with asyncio.timeout(10), administration(tmp_path / "admin.sock", answer):
        with pytest.raises(raised):
            await sink.grant(Grants())
        await sink.close()

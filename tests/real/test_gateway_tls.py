"""TLS at the gateway: a given certificate or the local authority's, changed without a reload, HTTP/2."""

import asyncio
import os
import signal
import ssl
import subprocess
import time
from pathlib import Path

import pytest
from cryptography import x509
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from mooring.control.tasks import Tasks
from mooring.errors import LimitExceeded, Misconfigured
from mooring.gateway.authority import GivenCertificate, LocalAuthority
from mooring.gateway.certificate import CertificateKeeper
from mooring.model.routes import Access, Backend, Route
from support.certificates import self_signed
from support.following import until
from support.grants import GRANTS, cookie
from support.nginx import Gateway, backend, gateway, parse
from support.waiting import WITHIN_S


@pytest.fixture
async def edge(tmp_path: Path):  # noqa: ANN201 - an async fixture
    """A gateway that speaks TLS."""
    async with gateway(tmp_path / "g", tls=True) as started:
        yield started


async def served(edge: Gateway, name: str = "w.mooring.test", authority: Path | None = None) -> x509.Certificate:
    """The certificate of a handshake; with an authority it must be valid for the name."""
    context = ssl.create_default_context(cafile=authority) if authority else ssl.create_default_context()
    if authority is None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", edge.port, ssl=context, server_hostname=name)
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return x509.load_der_x509_certificate(der)


async def test_the_local_authority_is_trusted_for_the_domain_and_its_hosts(edge: Gateway, tmp_path: Path) -> None:
    """A client that trusts the authority accepts the console's and every workspace's host, and no other name."""
    source = LocalAuthority(tmp_path / "tls", "mooring.test")
    await edge.sink.certificate(source.pem())
    for name in ("mooring.test", "a--b.mooring.test"):
        await served(edge, name, source.certificate)
    with pytest.raises(ssl.SSLCertVerificationError):
        await served(edge, "other.test", source.certificate)
    assert source.chain.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "tls/authority.key").stat().st_mode & 0o777 == 0o600
    assert source.pem() == source.chain.read_text()


async def test_a_changed_certificate_is_used_without_a_reload(edge: Gateway, tmp_path: Path) -> None:
    """The next handshake after the files changed has the new certificate; the workers and open connections stay."""
    chain, key = tmp_path / "c.pem", tmp_path / "k.pem"
    first, second = self_signed("a.test"), self_signed("b.test")
    chain.write_bytes(first[0])
    key.write_bytes(first[1])
    workers = (await edge.sink.read()).workers
    async with Tasks("test") as tasks:
        keeper = CertificateKeeper(GivenCertificate(chain, key), edge.sink, look_every_s=0.1)
        tasks.forever("certificate", keeper.run())
        assert await eventually(edge, "a.test")
        key.write_bytes(second[1])
        await asyncio.sleep(0.3)
        assert (await served(edge)).subject.rfc4514_string() == "CN=a.test"
        chain.write_bytes(second[0])
        assert await eventually(edge, "b.test")
    assert set(workers) <= set((await edge.sink.read()).workers)


async def test_a_renewed_certificate_that_is_too_large_takes_the_last_one_from_nobody(
    edge: Gateway, tmp_path: Path
) -> None:
    """It is told with what to do; handshakes, those of an nginx started anew too, have the last one that fitted."""
    chain, key = tmp_path / "c.pem", tmp_path / "k.pem"
    first, second = self_signed("a.test"), self_signed("b.test")
    chain.write_bytes(first[0])
    key.write_bytes(first[1])
    async with Tasks("test") as tasks:
        keeper = CertificateKeeper(GivenCertificate(chain, key), edge.sink, look_every_s=0.1)
        tasks.forever("certificate", keeper.run())
        assert await eventually(edge, "a.test")
        key.write_bytes(second[1])
        # Written in place, half of it could be read: a good certificate that fits.
        renewed = tmp_path / "renewed.pem"
        renewed.write_bytes(second[0] + b"# what no client needs\n" * 150_000)
        renewed.replace(chain)
        async with asyncio.timeout(WITHIN_S):
            await until(lambda: "no room" in "".join(keeper.problems()))
            (told,) = keeper.problems()
            assert told.startswith(f"TLS: certificate {chain}: nginx has no room for its 3")
            assert "put no more there than the certificates that clients need" in told
            assert "The one before stays in use until Mooring is started again" in told
            # Each worker has its own copy of what it showed last; which of them takes a connection is the kernel's.
            for _ in range(20):
                assert (await served(edge)).subject.rfc4514_string() == "CN=a.test"
            await edge.killed()
        assert await eventually(edge, "a.test")
        await until(lambda: keeper.problems() == (told,))
        chain.write_bytes(second[0])
        assert await eventually(edge, "b.test")
        await until(lambda: keeper.problems() == ())


async def test_a_certificate_that_does_not_fit_leaves_the_one_before(edge: Gateway) -> None:
    """Whoever asked may be killed just then, and the next agent finds files that do not fit: nginx kept its own."""
    await edge.sink.certificate("\n".join(part.decode() for part in self_signed("a.test")))
    with pytest.raises(LimitExceeded, match="no memory"):
        await edge.sink.certificate("\n".join(part.decode() for part in self_signed("b.test")) + "#" * (3 << 20))
    for pid in (before := (await edge.sink.read()).workers):
        os.kill(pid, signal.SIGKILL)
    async with asyncio.timeout(WITHIN_S):
        while set(before) & set((await edge.sink.read()).workers):
            await asyncio.sleep(0.05)
    for _ in range(20):
        assert (await served(edge)).subject.rfc4514_string() == "CN=a.test"


async def eventually(edge: Gateway, name: str) -> bool:
    """Whether handshakes come to have that certificate."""
    deadline = time.monotonic() + 10
    while (await served(edge)).subject.rfc4514_string() != f"CN={name}":
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True


async def test_a_key_of_another_certificate_is_refused_by_name(tmp_path: Path) -> None:
    """The operator reads which file does not fit, and a missing one is named."""
    chain, key = tmp_path / "c.pem", tmp_path / "k.pem"
    chain.write_bytes(self_signed("a.test")[0])
    with pytest.raises(Misconfigured, match=r"k\.pem"):
        GivenCertificate(chain, key).pem()
    key.write_bytes(self_signed("b.test")[1])
    with pytest.raises(Misconfigured, match="is not that of the certificate"):
        GivenCertificate(chain, key).pem()


async def test_names_beside_a_certificate_may_be_in_any_encoding(edge: Gateway, tmp_path: Path) -> None:
    """Programs that convert certificates write a person's own name for them in front."""
    chain, key = tmp_path / "c.pem", tmp_path / "k.pem"
    made = self_signed("a.test")
    chain.write_bytes("Bag Attributes\n    friendlyName: Schlüssel\n".encode("latin1") + made[0])
    key.write_bytes(made[1])
    await edge.sink.certificate(GivenCertificate(chain, key).pem())
    assert (await served(edge)).subject.rfc4514_string() == "CN=a.test"


async def test_a_key_that_nobody_can_use_is_refused_by_name(tmp_path: Path) -> None:
    """A curve that is not supported is the operator's mistake, and not the end of looking at the files."""
    chain, key = tmp_path / "c.pem", tmp_path / "k.pem"
    chain.write_bytes(self_signed("a.test")[0])
    subprocess.run(["openssl", "ecparam", "-name", "secp224k1", "-genkey", "-noout", "-out", key], check=True)
    with pytest.raises(Misconfigured, match=r"k\.pem"):
        GivenCertificate(chain, key).pem()


async def test_a_link_without_tls_leads_to_the_same_page_with_it(edge: Gateway) -> None:
    """Path and query are kept, and the browser asks again by the method that it used."""
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    authority = edge.authority("a.test")
    writer.write(f"POST /some/%2e/page?x=1&y HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 0\r\n\r\n".encode())
    reply = parse(await reader.readuntil(b"\r\n\r\n"))
    writer.transport.abort()
    assert (reply.status, reply.headers["location"]) == (307, f"https://{authority}/some/%2e/page?x=1&y")


async def test_http2_and_websockets_work_over_tls(edge: Gateway, tmp_path: Path) -> None:
    """Browsers speak HTTP/2; a WebSocket takes HTTP/1.1; both know their scheme and the secure cookie."""
    source = LocalAuthority(tmp_path / "tls", "mooring.test")
    await edge.sink.certificate(source.pem())
    host = "a--b.mooring.test"

    async def echo(socket: ServerConnection) -> None:
        async for message in socket:
            await socket.send(message)

    async with backend() as running, serve(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        access = Access(kind="subjects", subjects=("ann",))
        await edge.publish(
            Route(name="http", host=host, backends=(Backend(address=running.address),), access=access),
            Route(name="ws", host=host, path="/ws", backends=(Backend(address=f"127.0.0.1:{port}"),), access=access),
            grants=GRANTS,
        )
        secure = "__Host-" + cookie(host).removeprefix("__Host-")
        command = (
            *("curl", "-sS", "--http2", "--cacert", str(source.certificate), "-H", f"Cookie: {secure}; x=1"),
            *("--resolve", f"{host}:{edge.port}:127.0.0.1", "-w", "%{http_version}", f"https://{host}:{edge.port}/h2"),
        )
        done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=True, timeout=20)
        assert done.stdout.endswith("}2")
        seen = dict(running.seen[0].headers)
        assert (seen["x-forwarded-proto"], seen["cookie"]) == ("https", "x=1")
        assert seen["host"] == edge.authority(host)
        context = ssl.create_default_context(cafile=source.certificate)
        async with connect(
            f"wss://{edge.authority(host)}/ws",
            host="127.0.0.1",
            port=edge.port,
            ssl=context,
            proxy=None,
            additional_headers={"Cookie": secure, "Origin": f"https://{edge.authority(host)}"},
        ) as socket:
            await socket.send("over TLS")
            assert await socket.recv() == "over TLS"

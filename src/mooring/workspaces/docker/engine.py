"""The Docker engine's API as the docker runtime needs it: a deadline on every call, and errors of our own tree.

Source: the Docker Engine API 1.41 and newer (what Debian 12 carries).
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import aiohttp
import orjson
from aiodocker import Docker, DockerError
from aiodocker.containers import DockerContainer

from mooring.errors import Conflict, DeadlineExceeded, Misconfigured, MooringError, NotFound, Unavailable

USUAL_SOCKET = "unix:///var/run/docker.sock"
_WITHIN_S = 30.0
_PULL_WITHIN_S = 900.0
_UNREACHABLE = 900  # aiodocker's own status for an engine that it cannot connect to
_KINDS: dict[int, type[MooringError]] = {
    400: Misconfigured,
    403: Conflict,
    404: NotFound,
    409: Conflict,
}


def translate(error: DockerError, what: str) -> MooringError:
    """The error of our tree for one of the engine's; what a retry may mend is `Unavailable`."""
    if error.status == _UNREACHABLE:
        return Unavailable(f"the Docker engine does not answer{_because(error.__context__)}")
    return _KINDS.get(error.status, Unavailable)(f"{what}: {error.message}")


def _because(error: BaseException | None) -> str:
    # The client's own text names the socket twice and the reason last, in brackets.
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error or "")
    return f": {reason}" if reason else ""


@asynccontextmanager
async def asking(what: str, within_s: float = _WITHIN_S) -> AsyncIterator[None]:
    """Bound what is awaited inside and translate its errors; `what` begins their text."""
    try:
        async with asyncio.timeout(within_s):
            yield
    except DockerError as error:
        raise translate(error, what) from error
    except TimeoutError as error:
        raise DeadlineExceeded(f"{what}: the Docker engine did not answer within {within_s:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unavailable(f"{what}: the connection to the Docker engine broke: {error}") from error


class DockerEngine:
    """One engine. `host` is its address (`unix:///…`, `tcp://…`), None its usual socket."""

    def __init__(self, host: str | None = None) -> None:
        self.host = host or USUAL_SOCKET
        self._docker: Docker | None = None

    async def __aenter__(self) -> Self:
        # aiohttp's own limit is 100 connections: with more workspaces, whose output is followed on one each, every
        # other call would wait for ever.
        connector: aiohttp.BaseConnector
        if self.host.startswith("unix://"):
            connector = aiohttp.UnixConnector(self.host.removeprefix("unix://"), limit=0)
        else:
            connector = aiohttp.TCPConnector(limit=0)
        session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout())
        self._docker = Docker(self.host, connector=connector, session=session)
        # Given a connector, the client leaves the host name of its URLs to us.
        if self.host.startswith("unix://"):
            self._docker.docker_host = "unix://localhost"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        docker = self.docker
        await docker.close()
        await docker.session.close()

    @property
    def docker(self) -> Docker:
        """The client, for calls inside `asking`."""
        if self._docker is None:
            raise RuntimeError("the engine is used outside its `async with`")
        return self._docker

    def container(self, name: str) -> DockerContainer:
        """A handle; nothing is asked."""
        return self.docker.containers.container(name)

    async def inspect(self, name: str) -> dict[str, Any] | None:
        """Everything about a container, None when there is none."""
        try:
            async with asking(f"container {name}"):
                return await self.container(name).show()
        except NotFound:
            return None

    async def labelled(self, label: str) -> list[Mapping[str, str]]:
        """The labels of every container that has `label` (`name=value`), stopped ones included."""
        filters = orjson.dumps({"label": [label]}).decode()
        async with asking("the list of containers"):
            return [found["Labels"] for found in await self.docker.containers.list(all="true", filters=filters)]

    async def image(self, name: str) -> dict[str, Any]:
        """The image's document. One that is here is never pulled; one that is not is, if it can be.

        Raises:
            Misconfigured: it is neither here nor to be had.
        """
        try:
            async with asking(f"image {name}"):
                return await self.docker.images.inspect(name)
        except NotFound:
            pass
        try:
            async with asking(f"pulling the image {name}", _PULL_WITHIN_S):
                await self.docker.images.pull(name)
                return await self.docker.images.inspect(name)
        except (NotFound, Conflict, Misconfigured, Unavailable) as error:
            # A dead engine is not a missing image; asking it again tells the two apart.
            await self.ping()
            raise Misconfigured(
                f"the image {name} is not here and cannot be pulled ({error.detail}); "
                "Mooring's own is built by: make images",
                field="template.image",
            ) from error

    async def remove(self, name: str) -> None:
        """End a container at once and remove it with its unnamed volumes. Absence is no error."""
        try:
            async with asking(f"removing the container {name}"):
                await self.container(name).delete(force=True, v=True)
        except NotFound:
            return
        except Conflict as error:
            # "removal is already in progress": somebody's earlier call will end it.
            raise Unavailable(error.detail) from error

    async def info(self) -> Mapping[str, Any]:
        """What the engine says of itself and its machine."""
        async with asking("the engine's description"):
            return await self.docker.system.info()

    async def ping(self) -> None:
        """Raises `Unavailable` when the engine does not answer."""
        async with asking("the engine's version", 5.0):
            await self.docker.version()

    @asynccontextmanager
    async def stream(self, path: str, params: Mapping[str, str]) -> AsyncIterator[aiohttp.StreamReader]:
        """The body of an answer that goes on for as long as the engine likes, as bytes."""
        await self.ping()
        url = f"{self.docker.docker_host}/{self.docker.api_version}/{path}"
        try:
            async with self.docker.session.get(url, params=dict(params)) as answer:
                if answer.status != 200:  # noqa: PLR2004 - RFC 9110
                    raise translate(DockerError(answer.status, (await answer.text()).strip()), path)
                yield answer.content
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{path}: the connection to the Docker engine broke: {error}") from error

    async def hijack(self, path: str, document: Mapping[str, Any]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """POST `document` and keep the connection as a stream both ways, whose ends close apart from each other.

        aiodocker's own stream cannot end its input without ending its output.
        """
        body = orjson.dumps(document)
        head = (
            f"POST /{self.docker.api_version}/{path} HTTP/1.1\r\nHost: docker\r\n"
            f"Connection: Upgrade\r\nUpgrade: tcp\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        async with asking(path):
            reader, writer = await self._connect()
            try:
                writer.write(head.encode() + body)
                await _upgraded(reader)
            except BaseException:
                writer.close()
                raise
        return reader, writer

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.host.startswith("unix://"):
            return await asyncio.open_unix_connection(self.host.removeprefix("unix://"))
        host, _, port = self.host.partition("://")[2].rstrip("/").rpartition(":")
        return await asyncio.open_connection(host, int(port))

    async def document(self, path: str, params: Mapping[str, str]) -> Any:  # noqa: ANN401 - the API's JSON
        """An answer of the API that aiodocker has no method with these parameters for."""
        async with asking(path), self.stream(path, params) as body:
            return orjson.loads(await body.read())


async def _upgraded(reader: asyncio.StreamReader) -> None:
    try:
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError("closed before its answer") from error
    status = int(answer.split(" ", 2)[1])
    if status not in (101, 200):  # RFC 9110; engines answered 200 before they knew how to upgrade
        raise DockerError(status, (await reader.read(4096)).decode(errors="replace").strip())

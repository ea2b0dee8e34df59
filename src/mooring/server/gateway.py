"""The gateway role: nginx under its agent, fed from the server's stream and from the sources of the settings."""

import socket
from collections.abc import Callable, Sequence

from mooring.control.tasks import Tasks
from mooring.errors import Misconfigured
from mooring.gateway.authority import certificates
from mooring.gateway.certificate import CertificateKeeper
from mooring.gateway.config import Listener, Modules, NginxSettings
from mooring.gateway.nginx import NginxSink
from mooring.gateway.report import Reporter
from mooring.gateway.service import Agent
from mooring.gateway.snapshot import Snapshot
from mooring.gateway.stream import StreamSource
from mooring.gateway.supervise import Nginx
from mooring.routes.ports import RouteSource
from mooring.routes.rules import Rules
from mooring.server.files import gateway_credential, make_folders
from mooring.server.lifetime import Lifetime
from mooring.server.loopback import remember
from mooring.settings import FileSource as FileSettings
from mooring.settings import Installation, ServerLink

GATEWAY_ID = "local"
_CERTIFICATE_S = 0.5
"""Between looks: an nginx that was killed has no certificate until the next one."""


async def run(installation: Installation, listener: int, lifetime: Lifetime, *, modules: int | None = None) -> None:
    """Serve on the inherited socket `listener` until this process should end; nginx ends with it, however it ends.

    Only a kill leaves nginx running, for the next agent to adopt. `modules` is the socket of
    `installation.modules_port`.
    """
    home = installation.home
    make_folders(home)
    if installation.modules_port is not None:
        remember(home, installation.modules_port)
    # nginx reads the credential once, at its start.
    gateway_credential(home)
    listeners = [socket.socket(fileno=fd) for fd in (listener, modules) if fd is not None]
    nginx = Nginx(_nginx_settings(installation), listeners)
    sink = NginxSink(home.gateway_socket)
    snapshot = Snapshot(home.gateway / "table.ndjson")
    link = ServerLink(home.keys / "gateway-token", socket=home.api_socket)
    async with Tasks("gateway") as tasks:
        try:
            await _start(nginx)
            tasks.forever("nginx", nginx.run())
            certificate = _keep_certificate(installation, sink, tasks)
            restored = snapshot.load()
            sources = _sources(installation, link, known=[change.source for change in restored])
            rules = Rules(home.root, installation.listen.address, installation.listen.port)
            agent = Agent(sources, sink, snapshot=snapshot, restored=restored, rules=rules)
            agent.start(tasks)
            reporter = Reporter(
                link, agent, sink, gateway_id=GATEWAY_ID, problems=lambda: (*nginx.problems(), *certificate())
            )
            tasks.forever("report", reporter.run())
            await lifetime.ended()
        finally:
            await tasks.stop()
            await nginx.stop()
            await sink.close()


async def _start(nginx: Nginx) -> None:
    try:
        await nginx.start()
    except (FileNotFoundError, PermissionError) as error:
        raise Misconfigured(
            f"nginx cannot be run: {error.strerror or error}; mooring doctor says what is missing"
        ) from error


def _nginx_settings(installation: Installation) -> NginxSettings:
    listen = installation.listen
    return NginxSettings(
        home=installation.home,
        console=listen.domain,
        listeners=(Listener("main", listen.address, listen.port, tls=listen.tls),),
        workers=installation.workers,
        modules=Modules.of(installation.home),
        modules_socket=installation.home.containers_socket,
        modules_port=installation.modules_port,
    )


def _keep_certificate(installation: Installation, sink: NginxSink, tasks: Tasks) -> Callable[[], tuple[str, ...]]:
    """With TLS give nginx its certificate, for ever. Returns what says what is wrong with it."""
    if not installation.listen.tls:
        return tuple
    source = certificates(installation.listen, installation.home.tls)
    keeper = CertificateKeeper(source, sink, look_every_s=_CERTIFICATE_S)
    tasks.forever("certificate", keeper.run())
    return keeper.problems


def _sources(installation: Installation, link: ServerLink, known: Sequence[str]) -> tuple[RouteSource, ...]:
    sources: list[RouteSource] = []
    # Their libraries are a tenth of a second of every start that has no such source.
    if installation.routes_file is not None:
        from mooring.discovery.file import FileSource  # noqa: PLC0415

        sources.append(FileSource(FileSettings(installation.routes_file)))
    if installation.redis is not None:
        from mooring.discovery.redis import RedisSource  # noqa: PLC0415

        sources.append(RedisSource(installation.redis))
    # A kept section of a source that is configured no more falls to the server, which has none such, and goes.
    others = {source.name for source in sources}
    return (StreamSource(link, known=[name for name in known if name not in others]), *sources)

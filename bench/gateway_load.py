"""What the gateway's benchmarks share: routes, signed cookies, wrk, plain nginx, a process's own CPU time."""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mooring.gateway.processes import process, processes
from mooring.model.grants import Claims, SigningKey, sign
from mooring.model.routes import Access, Backend, Route
from support.nginx import listening

HOSTS = 10_000
CONNECTIONS = 64
KEY = SigningKey("k1", b"0123456789abcdef0123456789abcdef", 2**31)

_PLAIN = """
{user}
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    keepalive_requests 1000000;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
    {upstream}
    server {{
        listen 127.0.0.1:{port};
        proxy_http_version 1.1;
        proxy_set_header Host $host;
        location / {{
            proxy_set_header Connection "";
            {body}
        }}
        location /tunnel {{
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_read_timeout 1d;
            {tunnel}
        }}
    }}
}}
"""

_WRK = """
local file = io.open("{cookies}")
local cookies = {{}}
for line in file:lines() do cookies[#cookies + 1] = line end
local headers = {{{headers}}}
function request()
    local i = math.random(0, {active} - 1)
    headers["Host"] = "{host}:{port}"
    headers["Cookie"] = cookies[i + 1]
    return wrk.format("{method}", "{path}", headers, {body})
end
{pause}
"""


@dataclass(frozen=True)
class Asked:
    """What the requests of a load are; `#` is the number of a route."""

    method: str = "GET"
    host: str = "h#.test"
    path: str = "/some/path?q=1"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    pause_ms: int = 0
    """Between an answer and its connection's next request; 0 keeps who answers busy."""


USUAL = Asked()


def route(number: int, address: str) -> Route:
    """One of many: a host of its own, one subject."""
    return Route(
        name=f"workspace-{number}",
        host=f"h{number}.test",
        workspace=f"w{number:09d}",
        backends=(Backend(address=address),),
        access=Access(kind="subjects", subjects=("someone",)),
    )


def many_routes(address: str, count: int = HOSTS) -> list[Route]:
    """`count` hosts."""
    return [route(number, address) for number in range(count)]


def cookie(number: int, host: str = USUAL.host) -> str:
    """The Cookie header for the host with that number."""
    claims = Claims(f"s{number}", "someone", host.replace("#", str(number)), int(time.time()) + 86400)
    return f"mooring={sign(claims, KEY)}"


def cpu_seconds(pid: int) -> float:
    """User and system time of the process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def workers(master: int | None) -> list[int]:
    """The worker processes of an nginx."""
    found = process(master) if master else None
    return [each.pid for each in processes() if found and each.group == found.group and each.pid != master]


async def load(port: int, folder: Path, *, seconds: int, active: int = HOSTS, asked: Asked = USUAL) -> int:
    """Requests that wrk got answered with 200 in that time, each for a random one of `active` routes, with cookies."""
    cookies = folder / f"cookies-{asked.host}"
    if not cookies.exists():
        cookies.write_text("".join(f"{cookie(number, asked.host)}\n" for number in range(HOSTS)))
    headers = ", ".join(f'["{name}"] = "{value}"' for name, value in asked.headers.items())
    # Lua joins what Python has cut: its `gsub` would keep wrk busier than what it measures.
    host, path = (text.replace("#", '" .. i .. "') for text in (asked.host, asked.path))
    # For an empty text wrk would send a Content-Length, which no browser's GET has.
    body = f'"{asked.body}"' if asked.body else "nil"
    pause = f"function delay() return {asked.pause_ms} end" if asked.pause_ms else ""
    values = {"method": asked.method, "host": host, "path": path, "body": body, "headers": headers, "pause": pause}
    script = folder / "load.lua"
    script.write_text(_WRK.format(cookies=cookies, port=port, active=active, **values))
    child = await asyncio.create_subprocess_exec(
        *("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "-s", str(script), f"http://127.0.0.1:{port}/"),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        output = (await child.communicate())[0].decode()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    assert "Non-2xx" not in output, output
    match = re.search(r"(\d+) requests in", output)
    assert match, output
    return int(match[1])


@asynccontextmanager
async def running(*command: str) -> AsyncIterator[int]:
    """The pid of a program with a process group of its own, which ends afterwards."""
    child = await asyncio.create_subprocess_exec(*command, start_new_session=True)
    try:
        yield child.pid
    finally:
        child.terminate()
        await child.wait()


@asynccontextmanager
async def plain_nginx(
    folder: Path, body: str, *, upstream: int | None = None, under: tuple[str, ...] = ()
) -> AsyncIterator[tuple[int, int]]:
    """(worker's pid, port) of an nginx with one location; `upstream` is a port, kept alive, called `backend`.

    `under` is the command that runs it, none as a rule.
    """
    with listening() as free:
        port = free.getsockname()[1]
    folder.mkdir()
    block = f"upstream backend {{ server 127.0.0.1:{upstream}; keepalive 256; }}" if upstream else ""
    text = _PLAIN.format(
        user="user root;" if os.geteuid() == 0 else "",
        port=port,
        body=body,
        upstream=block,
        tunnel="proxy_pass http://backend;" if upstream else "return 404;",
    )
    (folder / "nginx.conf").write_text(text)
    async with running(*under, "/usr/sbin/nginx", "-p", f"{folder}/", "-c", "nginx.conf", "-e", "error.log") as pid:
        async with asyncio.timeout(10):
            while not (found := workers(pid)):
                await asyncio.sleep(0.02)
        yield found[0], port

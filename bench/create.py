"""What Mooring adds to an editor's own first answer, from the request to create until the URL answers.

Both ends are watched from outside: the editor's own socket and the public URL. The editor's own time runs from the
start of its process (as the kernel knows it) to the first answer on its socket; the rest is Mooring's.
"""

import asyncio
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import httpx2

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.mooring import Mooring, installation

RUNS = 15
_TICKS = 100  # sysconf(_SC_CLK_TCK) on Linux
_LIMIT_MS = 100.0


async def run() -> list[dict[str, Any]]:
    """Rows for the table."""
    with installation() as mooring:
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{mooring.port}",
            headers={"Host": "localhost", "Authorization": f"Bearer {mooring.token}"},
            timeout=60,
        ) as client:
            samples = [await _sample(mooring, client, number) for number in range(RUNS + 1)][1:]
    total, own = ([sample[i] * 1000 for sample in samples] for i in (0, 1))
    added = [t - o for t, o in zip(total, own, strict=True)]
    note = f"median of {RUNS}; worst {max(added):.0f}"
    return [
        {"name": "create until the URL answers", "value": statistics.median(total), "unit": "ms", "limit": None},
        {"name": "  the editor's own first answer", "value": statistics.median(own), "unit": "ms", "limit": None},
        {
            "name": "  what Mooring adds",
            "value": statistics.median(added),
            "unit": "ms",
            "limit": _LIMIT_MS,
            "note": note,
        },
    ]


async def _sample(mooring: Mooring, client: httpx2.AsyncClient, number: int) -> tuple[float, float]:
    """Seconds until the public URL answered, and the editor's own of them."""
    name = f"bench-{number}"
    asked = time.monotonic()
    answer = await client.post("/api/v1/workspaces", json={"name": name, "template": "code-server"})
    answer.raise_for_status()
    workspace = answer.json()["id"]
    host = f"{name}--{answer.json()['owner']}.localhost"
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        editor = group.create_task(_editor_answers(mooring, workspace))
        public = group.create_task(_url_answers(client, host))
    started = _started(mooring, workspace)
    (await client.delete(f"/api/v1/workspaces/{workspace}")).raise_for_status()
    await asyncio.sleep(0.5)
    return public.result() - asked, editor.result() - started


async def _editor_answers(mooring: Mooring, workspace: str) -> float:
    path = mooring.home / "run/w" / workspace / "editor.sock"
    while True:
        try:
            reader, writer = await asyncio.open_unix_connection(str(path))
            writer.write(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
            line = await reader.readline()
            writer.close()
            if b" 200 " in line:
                return time.monotonic()
        except OSError:
            pass
        await asyncio.sleep(0.002)


async def _url_answers(client: httpx2.AsyncClient, host: str) -> float:
    while True:
        answer = await client.get("/healthz", headers={"Host": host}, follow_redirects=False)
        if answer.status_code == httpx2.codes.OK:
            return time.monotonic()
        await asyncio.sleep(0.002)


def _started(mooring: Mooring, workspace: str) -> float:
    """When the editor's process began, on the monotonic clock: the oldest one that listens for this workspace."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if f"{mooring.home}/run/w/{workspace}/editor.sock" in command and "entry.js" in command:
            found.append(int(fields[19]) / _TICKS)
    # CLOCK_BOOTTIME counts from the same instant as a process's start time.
    return min(found) - time.clock_gettime(time.CLOCK_BOOTTIME) + time.monotonic()

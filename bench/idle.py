"""What the server process costs when 200 workspaces run and nobody does anything."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import httpx2

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from support.mooring import Mooring, installation

WORKSPACES = 200
WATCHED_S = 60.0


async def run() -> list[dict[str, Any]]:
    """Rows for the table."""
    with installation() as mooring:
        mooring.add_light_template()
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{mooring.port}",
            headers={"Host": "localhost", "Authorization": f"Bearer {mooring.token}"},
            timeout=60,
        ) as client:
            await _create_all(client)
            pid = _server_pid(mooring)
            await asyncio.sleep(20)
            before = _cpu_s(pid)
            await asyncio.sleep(WATCHED_S)
            used = (_cpu_s(pid) - before) / WATCHED_S * 100
            resident = _resident_mb(pid)
    name = f"server with {WORKSPACES} idle workspaces"
    return [
        {"name": f"{name}, CPU", "value": used, "unit": "% of a core", "limit": 3.0},
        {"name": f"{name}, memory", "value": resident, "unit": "MB", "limit": 150.0},
    ]


async def _create_all(client: httpx2.AsyncClient) -> None:
    for number in range(WORKSPACES):
        answer = await client.post("/api/v1/workspaces", json={"name": f"w{number:03}", "template": "light"})
        answer.raise_for_status()
    async with asyncio.timeout(600):
        while await _running(client) < WORKSPACES:
            await asyncio.sleep(2)


async def _running(client: httpx2.AsyncClient) -> int:
    answer = await client.get("/api/v1/workspaces", params={"limit": 500})
    answer.raise_for_status()
    return sum(item["phase"] == "running" for item in answer.json()["items"])


def _server_pid(mooring: Mooring) -> int:
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        try:
            command = (entry / "cmdline").read_bytes().decode(errors="replace")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == mooring.pid and "\0server\0" in command:
            return int(entry.name)
    raise AssertionError("no server process")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")

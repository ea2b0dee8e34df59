"""The editor as the set-up leaves it: a real code-server sends what was compressed beforehand, the rest as ever."""

import asyncio
import gzip
import json
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest

from mooring.settings import cache

_SETUP = Path(__file__).parents[2] / "tools/setup/code-server"
_WITHIN_S = 60
_UNZSTD = """
const { readFileSync, writeFileSync } = require("fs");
writeFileSync(process.argv[2], require("zlib").zstdDecompressSync(readFileSync(process.argv[1])));
"""


def program() -> Path:
    """code-server's folder in the cache."""
    return cache() / "editor/node_modules/code-server"


def run_node(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The editor's own Node."""
    command = [cache() / "editor/bin/node", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_WITHIN_S)


@pytest.fixture
async def editor(tmp_path: Path) -> AsyncIterator[httpx2.AsyncClient]:
    """A code-server on a socket, with a client that asks it for static files."""
    socket = tmp_path / "editor.sock"
    process = await asyncio.create_subprocess_exec(
        cache() / "editor/bin/code-server", "--socket", socket, "--auth", "none", "--disable-telemetry",
        "--user-data-dir", tmp_path / "data", tmp_path, stdout=asyncio.subprocess.DEVNULL, env={"HOME": str(tmp_path)},
    )  # fmt: skip
    commit = json.loads((program() / "lib/vscode/product.json").read_text())["commit"]
    transport = httpx2.AsyncHTTPTransport(uds=str(socket))
    base = f"http://editor/stable-{commit}/static/"
    try:
        async with httpx2.AsyncClient(transport=transport, base_url=base, timeout=_WITHIN_S) as client:
            async with asyncio.timeout(_WITHIN_S):
                while not socket.exists():
                    await asyncio.sleep(0.05)
            yield client
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def fetched(client: httpx2.AsyncClient, path: str, taken: str) -> tuple[httpx2.Response, bytes]:
    """An answer and its bytes as they came."""
    async with client.stream("GET", path, headers={"Accept-Encoding": taken}) as answer:
        return answer, b"".join([part async for part in answer.aiter_raw()])


async def test_what_is_sent_is_the_file_in_a_form_that_the_browser_takes(
    editor: httpx2.AsyncClient, tmp_path: Path
) -> None:
    """Zstd where it is taken, gzip where that is, else the file as it is."""
    name = "out/nls.messages.js"
    path = program() / "lib/vscode" / name
    answer, body = await fetched(editor, name, "gzip, deflate, br, zstd")
    assert (answer.headers["Content-Encoding"], answer.headers["Vary"]) == ("zstd", "Accept-Encoding")
    assert answer.headers["Cache-Control"] == "public, max-age=31536000"
    assert answer.headers["Content-Type"].startswith("text/javascript")
    (tmp_path / "sent").write_bytes(body)
    assert run_node("-e", _UNZSTD, tmp_path / "sent", tmp_path / "read").returncode == 0
    assert (tmp_path / "read").read_bytes() == path.read_bytes()

    for taken in ("gzip, deflate", "GZIP;q=0.5, zstd;q=0", "zstd;q=0.0, gzip"):
        answer, body = await fetched(editor, name, taken)
        assert answer.headers["Content-Encoding"] == "gzip", taken
        assert body == Path(f"{path}.gz").read_bytes()
        assert gzip.decompress(body) == path.read_bytes()

    answer, body = await fetched(editor, name, "identity")
    assert "Content-Encoding" not in answer.headers
    assert body == path.read_bytes()


async def test_a_file_without_a_made_form_is_sent_as_ever(editor: httpx2.AsyncClient) -> None:
    """What the set-up did not compress, and what does not exist, is answered as code-server always did."""
    name = "out/vs/workbench/services/extensions/worker/webWorkerExtensionHostIframe.html"
    answer, body = await fetched(editor, name, "zstd")
    assert (answer.status_code, body) == (200, (program() / "lib/vscode" / name).read_bytes())
    assert "Content-Encoding" not in answer.headers
    answer, _ = await fetched(editor, "out/nothing.js", "zstd, gzip")
    assert answer.status_code == httpx2.codes.NOT_FOUND


def test_a_release_that_looks_otherwise_ends_the_set_up_and_changes_nothing(tmp_path: Path) -> None:
    """A place that is not found exactly once is named, and no other file has been changed by then."""
    root = tmp_path / "code-server/lib/vscode"
    for name in (
        "server-main.js",
        "vs/platform/terminal/node/ptyHostMain.js",
        "vs/code/browser/workbench/workbench.js",
    ):
        (root / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(program() / "lib/vscode/out" / name, root / "out" / name)
    server = root / "out/server-main.js"
    before = server.read_bytes()
    # The copies are changed ones: that is a release in which the second place cannot be found.
    done = run_node(_SETUP / "hasten.mjs", tmp_path / "code-server")
    assert done.returncode != 0
    assert "ptyHostMain.js" in done.stderr
    assert "is there 0 times, not once" in done.stderr
    assert server.read_bytes() == before

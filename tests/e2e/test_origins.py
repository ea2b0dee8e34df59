"""Where a workspace can be opened besides its own host: below a path, and over TLS of the local authority."""

import asyncio
import subprocess
import tempfile
from pathlib import Path

from support.browser import Editor, chromium
from support.journeys import appears, cli, create
from support.meanwhile import Done, waits_for
from support.mooring import Mooring, installation


async def test_a_workspace_works_below_a_path(mooring: Mooring) -> None:
    """Where no wildcard name works, the editor with its sockets is at /ws/<id>/ on an origin of its own."""
    _, folder = await create(mooring, "by-path")
    link = mooring.cli("workspace", "open", "by-path", "--by-path", "--print").stdout.strip()
    async with chromium() as browser:
        editor = Editor(await browser.new_page())
        await editor.open(link)
        assert "//ws.localhost" in editor.page.url
        await editor.open_terminal()
        await editor.type("echo below > below.txt\n")
        assert await appears(folder / "below.txt") == "below\n"
    mooring.cli("workspace", "delete", "by-path", "--yes")


async def over_tls() -> None:
    """Trust the local authority as `mooring up --tls` says, and open an editor."""
    with installation("--tls") as mooring, tempfile.TemporaryDirectory(prefix="mrg-") as person:
        mooring.add_readable_template()
        _, folder = await create(mooring, "secure")
        link = (await cli(mooring, "workspace", "open", "secure", "--print")).strip()
        assert link.startswith("https://secure--admin.mooring.localhost:")
        await trust(Path(person), mooring.home / "keys/tls/authority.crt")
        async with chromium(home=Path(person)) as browser:
            editor = Editor(await browser.new_page())
            await editor.open(link)
            await editor.open_terminal()
            await editor.type("echo encrypted > tls.txt\n")
            assert await appears(folder / "tls.txt") == "encrypted\n"


async def trust(person: Path, authority: Path) -> None:
    """What the printed `certutil` line does."""
    database = person / ".pki/nssdb"
    database.mkdir(parents=True)
    certutil = ["certutil", "-d", f"sql:{database}"]
    for words in (["-N", "--empty-password"], ["-A", "-t", "C,,", "-n", "mooring", "-i", authority]):
        await asyncio.to_thread(subprocess.run, [*certutil, *words], check=True)


@waits_for(over_tls)
def test_a_browser_that_trusts_the_local_authority_opens_an_editor_over_tls(done: Done) -> None:
    """`mooring up --tls` and the printed `certutil` line are enough for Chromium to trust every workspace's host."""
    done(over_tls)

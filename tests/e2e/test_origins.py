"""Where a workspace can be opened besides its own host: below a path, and over TLS of the local authority."""

import subprocess
from pathlib import Path

from support.browser import Editor, chromium
from support.journeys import appears, create
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


async def test_a_browser_that_trusts_the_local_authority_opens_an_editor_over_tls(tmp_path: Path) -> None:
    """`mooring up --tls` and the printed `certutil` line are enough for Chromium to trust every workspace's host."""
    with installation("--tls") as mooring:
        mooring.add_readable_template()
        _, folder = await create(mooring, "secure")
        link = mooring.cli("workspace", "open", "secure", "--print").stdout.strip()
        assert link.startswith("https://secure--admin.mooring.localhost:")
        database = tmp_path / ".pki/nssdb"
        database.mkdir(parents=True)
        certutil = ["certutil", "-d", f"sql:{database}"]
        subprocess.run([*certutil, "-N", "--empty-password"], check=True)
        authority = mooring.home / "keys/tls/authority.crt"
        subprocess.run([*certutil, "-A", "-t", "C,,", "-n", "mooring", "-i", authority], check=True)
        async with chromium(home=tmp_path) as browser:
            editor = Editor(await browser.new_page())
            await editor.open(link)
            await editor.open_terminal()
            await editor.type("echo encrypted > tls.txt\n")
            assert await appears(folder / "tls.txt") == "encrypted\n"

"""Makes docs/screenshot.png: a Go workspace in Chromium, through a Mooring of its own that is gone afterwards.

Usage: .venv/bin/python tools/screenshot.py (after `make test` has installed the browser and the product)
"""

import asyncio
import json
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.browser import Editor, chromium  # noqa: E402 - found below the line above
from support.mooring import Mooring, installation  # noqa: E402

PICTURE = ROOT / "docs/screenshot.png"
LARGEST_BYTES = 300_000
PROGRAM = """package main

import (
\t"fmt"
\t"log"
\t"net/http"
)

// Served at p3000--shop--<you>.localhost as soon as it listens.
func main() {
\thttp.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
\t\tfmt.Fprintf(w, "Hello from %s\\n", r.Host)
\t})
\tlog.Println("listening on port 3000")
\tlog.Fatal(http.ListenAndServe("127.0.0.1:3000", nil))
}
"""

SETTINGS = {
    "workbench.colorTheme": "Default Dark Modern",
    "workbench.startupEditor": "none",
    "workbench.secondarySideBar.defaultVisibility": "hidden",
    "chat.disableAIFeatures": True,
    "security.workspace.trust.enabled": False,
    "editor.minimap.enabled": False,
    "files.exclude": {"**/.*": True},
}


def _workspace(mooring: Mooring) -> str:
    mooring.cli("workspace", "create", "shop", "--template", "go", "--wait")
    shown = json.loads(mooring.cli("workspace", "show", "shop", "-o", "json").stdout)
    settings = mooring.home / "workspaces" / shown["id"] / "data/User/settings.json"
    settings.write_text(json.dumps(SETTINGS))
    write = "cat >main.go && printf 'module shop\\n\\ngo 1.24\\n' >go.mod && printf '# Shop\\n' >README.md"
    mooring.cli("workspace", "exec", "shop", "--", "sh", "-c", write, stdin=PROGRAM)
    return mooring.cli("workspace", "open", "shop", "--print").stdout.strip()


async def _picture(mooring: Mooring, url: str) -> None:
    async with chromium() as browser:
        page = await browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="dark")
        editor = Editor(page)
        await editor.open(url)
        await editor.open_file("main.go")
        await page.keyboard.press("Control+Backquote")
        await page.wait_for_selector(".xterm-helper-textarea")
        await asyncio.sleep(3)
        await page.locator(".xterm-helper-textarea").first.focus()
        await page.keyboard.type("PS1='$ '; clear; go run . & sleep 5; curl -s localhost:3000\n")
        await asyncio.sleep(12)
        await page.screenshot(path=PICTURE)
    print(mooring.cli("workspace", "list").stdout)


def main() -> None:
    """Write the picture; refuse one that would make the repository heavy."""
    with installation() as mooring:
        asyncio.run(_picture(mooring, _workspace(mooring)))
    size = PICTURE.stat().st_size
    if size > LARGEST_BYTES:
        sys.exit(f"{PICTURE} has {size} bytes, at most {LARGEST_BYTES} are wanted")
    print(f"{PICTURE}: {size} bytes")


if __name__ == "__main__":
    main()

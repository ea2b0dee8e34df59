"""A go command that does not say what it is set to is a mistake of the settings, which names it."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from mooring.errors import InvalidInput, Misconfigured
from mooring.goproxy import goenv


async def until_ended(process: int) -> None:
    """Whoever inherits the child of one that was killed may take a while to look at it, or never do."""
    async with asyncio.timeout(20):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            while Path(f"/proc/{process}/stat").read_text().rpartition(") ")[2][0] not in "ZX":
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'go: cannot find GOROOT' >&2; exit 2", "go env fails: go: cannot find GOROOT"),
        ("echo '{}'", "go env does not say GOPROXY, GOSUMDB, GOROOT: is it a go command"),
        ("echo '[1]'", "go env does not say GOPROXY"),
        ("echo hello", "go env does not say GOPROXY"),
        ("echo $$ > PID; exec sleep 3600", "go env does not answer: install Go"),
        ("sleep 3600 & echo $! > PID; wait", "go env does not answer: install Go"),
        ("echo $$ > PID; exec yes", "go env does not answer: install Go"),
    ],
)
async def test_what_is_no_go_command_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    """With its own words where it has some; one that hangs, or never stops talking, is ended with its children."""
    monkeypatch.setattr(goenv, "_WITHIN_S", 1.0 if "sleep" in script else 30.0)
    go, pid = tmp_path / "go", tmp_path / "pid"
    go.write_text(f"#!/bin/sh\n{script.replace('PID', str(pid))}\n")
    go.chmod(0o755)
    with pytest.raises(Misconfigured, match=said):
        await goenv.read(go, {"PATH": "/usr/bin:/bin"})
    if pid.exists():
        await until_ended(int(pid.read_text()))


async def test_a_command_that_is_not_there_is_said(tmp_path: Path) -> None:
    """Nothing is waited for."""
    async with asyncio.timeout(20):
        with pytest.raises(Misconfigured, match="install Go"):
            await goenv.read(tmp_path / "go", {})


@pytest.mark.parametrize("text", ["", " ", "a b c", "a+b+c", "name+00000000+AAAA"])
def test_only_off_is_no_database(text: str) -> None:
    """An empty value would leave public modules unverified without anybody having said so."""
    assert goenv.database("off", Path("/nowhere")) is None
    with pytest.raises(InvalidInput):
        goenv.database(text, Path("/nowhere"))

"""`mooring module` against the real application."""

import dataclasses
from pathlib import Path

import pytest

from mooring.goproxy.remote import RemoteOperations
from support.cli import Cli

LIB = "example.com/Big/lib"


@pytest.fixture
async def cli(cli: Cli) -> Cli:
    """With two modules in the proxy."""
    modules = cli.api.modules
    await modules.keep(LIB, "v1.0.0", size=5_000_000)
    await modules.keep(LIB, "v1.1.0")
    await modules.keep("git.corp.example/team/x", "v0.1.0")
    modules.tallies.pulled(LIB, "workspace:bob/one", missed=True, times=3)
    modules.tallies.ended("hit", 3)
    modules.tallies.ended("miss")
    modules.tallies.failed(LIB, f"{LIB}@list", "unavailable", "no\nanswer \x1b[2J")
    return cli


async def test_list_and_show(cli: Cli) -> None:
    """The catalog, a part of it, one module with versions, pulls and failures; as tables and as documents."""
    listed = (await cli.good("module", "list")).out.splitlines()
    assert [line.split()[0] for line in listed] == ["MODULE", LIB, "git.corp.example/team/x"]
    assert "4.8 MiB" in listed[1]
    found = (await cli.good("module", "list", "big", "-o", "json")).json
    assert isinstance(found, list)
    assert [(item["module"], item["versions"], item["requests"]) for item in found] == [(LIB, 2, 3)]
    shown = (await cli.good("module", "show", LIB)).out
    assert "workspace:bob/one (3)" in shown
    assert "3, of which 3 were not kept yet" in shown
    assert "no answer" in shown
    assert "\x1b" not in shown
    document = (await cli.good("module", "show", LIB, "-o", "json")).json
    assert isinstance(document, dict)
    assert [item["version"] for item in document["items"]] == ["v1.1.0", "v1.0.0"]
    assert document["pulls"] == [{"subject": "workspace:bob/one", "requests": 3}]
    assert (await cli("module", "show", "example.com/none")).status == 4
    assert (await cli.good("module", "list", "nothing")).err == "No module that is kept has nothing in its path.\n"


async def test_status(cli: Cli) -> None:
    """Sizes, the hit rate, the last failures, and what belongs into GOPROXY."""
    shown = (await cli.good("module", "status")).out
    assert "75.0 %" in shown
    assert "goproxy/t-TOKEN" in shown
    assert "modules: 2, versions: 3, files: 12" in shown
    document = (await cli.good("module", "status", "-o", "yaml")).out
    assert "hit_rate: 0.75" in document


async def test_pin_and_evict(cli: Cli) -> None:
    """A pinned version stays and says so, the rest goes, and nobody is asked with --yes or --dry-run."""
    done = await cli.good("module", "pin", f"{LIB}@v1.1.0", "-o", "json")
    assert done.json == {"module": LIB, "version": "v1.1.0", "pinned": True}
    asked = await cli("module", "evict", LIB)
    assert (asked.status, asked.err) == (2, "mooring: nobody can be asked here: say --yes\n")
    dry = await cli.good("module", "evict", LIB, "--dry-run")
    assert dry.out.splitlines()[1].split() == ["v1.0.0", "4.8", "MiB"]
    assert f"v1.1.0 stays: pinned by {LIB}@v1.1.0" in dry.err
    assert await cli.api.modules.has(LIB, "v1.0.0")
    gone = (await cli.good("module", "evict", LIB, "--yes", "-o", "json")).json
    assert isinstance(gone, dict)
    assert gone["removed"] == [{"version": "v1.0.0", "size": 5_000_000}]
    assert not await cli.api.modules.has(LIB, "v1.0.0")
    refused = await cli("module", "evict", f"{LIB}@v1.1.0", "--yes")
    assert (refused.status, "stays: pinned by" in refused.err) == (5, True)
    await cli.good("module", "unpin", f"{LIB}@v1.1.0")
    assert await cli.api.modules.pins.all() == []
    assert (await cli("module", "pin", "no-dot")).status == 2
    for command in ("pin", "unpin", "evict"):
        half = await cli("module", command, f"{LIB}@")
        assert (half.status, half.err) == (2, f"mooring: {LIB}@ has no version behind its @\n")


async def test_completion(cli: Cli) -> None:
    """Paths of modules, and behind an @ the versions."""
    completing = {"_MOORING_COMPLETE": "complete_bash"}
    for words, wanted in (
        ("mooring module show exam", [LIB]),
        (f"mooring module pin {LIB}@v1.1", [f"{LIB}@v1.1.0"]),
    ):
        number = str(len(words.split()) - 1)
        done = await cli(**completing, COMP_WORDS=words, COMP_CWORD=number)
        assert [line for line in done.out.split() if line] == wanted


async def test_a_proxy_that_is_away(cli: Cli, tmp_path: Path) -> None:
    """One line that says what to do, and the exit status of something that is not there now."""
    api = cli.api
    async with RemoteOperations(tmp_path / "none.sock", where="look there") as away:
        modules = dataclasses.replace(api.services.modules, administration=away)
        api.app.state.services = dataclasses.replace(api.services, modules=modules)
        done = await cli("module", "list")
        assert (done.status, done.err) == (9, "mooring: the module proxy does not answer: look there\n")

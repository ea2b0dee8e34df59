"""`mooring console` and `mooring status` against the real application."""

import pytest

from mooring.accounts.memory import MemoryAccounts
from mooring.api.http.services import WatchAge
from mooring.errors import Unavailable
from mooring.routes.reports import Report, SectionSize
from support.api import ticket_of
from support.cli import Cli


async def test_a_link_into_the_console_is_printed(cli: Cli) -> None:
    """`console --print` prints a link that signs one browser in at the console."""
    link = (await cli.good("console", "--print")).out.strip()
    host, secret = ticket_of(link)
    assert host == "localhost"
    redeemed = await cli.api.services.accounts.redeem(secret, host=host)
    assert redeemed.next == "/"


async def test_what_is_wrong_at_a_gateway_is_shown(cli: Cli) -> None:
    """`status` shows a gateway's problems to an administrator, `route sections` what only that gateway has."""
    size = SectionSize(30, 4, 1)
    cli.api.services.reports.take(
        Report("gw-1", None, {}, {}, {}, (), 0, "", problems=("redis: does not answer",), sections={"redis": size})
    )
    status = await cli("status")
    assert "problem" in status.out
    assert status.out.count("redis: does not answer") == 1
    assert "gateway/gw-1: redis: does not answer" in status.out
    listed = (await cli.good("route", "sections")).out.splitlines()
    assert listed[1].split() == ["redis", "30", "4", "1", "at", "the", "gateway", "gw-1"]


async def test_what_starts_is_not_called_stale(cli: Cli) -> None:
    """In its first seconds a part that was never seen is starting; it still is not ok, as `/readyz` says too."""
    cli.api.watched.append(WatchAge("goproxy", None, 30.0, required=False, starting=True))
    cli.api.watched.append(WatchAge("runtime/docker", None, 30.0, required=False))
    lines = [line.split() for line in (await cli.good("status")).out.splitlines()]
    assert ["goproxy", "starting", "not", "heard", "of", "yet"] in lines
    assert ["runtime/docker", "stale", "never", "heard", "of"] in lines
    watches = (await cli.api.client().get("/readyz")).json()["watches"]
    assert [(each["ok"], each["starting"]) for each in watches if each["age_s"] is None] == [
        (False, True),
        (False, False),
    ]


async def test_without_a_database_the_rest_is_shown(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks in that hour reads what is away and what is not, and not only that the workspaces cannot be counted."""

    async def away(*_: object, **__: object) -> None:
        raise Unavailable("the database does not answer")

    monkeypatch.setattr(MemoryAccounts, "token", away)
    monkeypatch.setattr(MemoryAccounts, "users", away)
    done = await cli("status")
    assert done.status == 1, done
    lines = done.out.splitlines()
    assert lines[1].startswith("server")
    assert "not ready" in lines[1]
    assert lines[2].split() == ["workspaces", "unknown", "the", "database", "does", "not", "answer"]
    assert any(line.startswith("database") and "stale" in line for line in lines)

"""A Go workspace builds with public and private modules, with nothing configured by hand in it."""

import os
import signal
import socket
import time
from collections.abc import Iterator

import httpx2
import pytest

from support.mooring import Mooring, installation
from support.team import PUBLIC, Team
from support.team import team as a_team
from support.waiting import until

_WITHIN_S = 60.0


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    """Where the modules come from."""
    with a_team() as served:
        yield served


@pytest.fixture(scope="module", params=[(), ("--tls",)], ids=["plain", "tls"])
def mooring(team: Team, request: pytest.FixtureRequest) -> Iterator[Mooring]:
    """A Mooring whose administrator may have the private module, and a workspace `demo` of the template go."""
    with installation(*request.param) as running:
        team.settle(running, owner(running))
        running.cli("workspace", "create", "demo", "--template", "go", "--wait")
        healthy(running)
        yield running


def owner(mooring: Mooring) -> str:
    """The administrator's name."""
    users = mooring.json("user", "list")
    listed = users["items"] if isinstance(users, dict) else users
    assert isinstance(listed, list)
    return str(listed[0]["name"])


def healthy(mooring: Mooring) -> None:
    """Return once the module proxy says that all is well."""
    deadline = time.monotonic() + _WITHIN_S
    while b" 200 " not in (said := health(mooring)):
        assert time.monotonic() < deadline, said.decode() + mooring.logs()
        time.sleep(0.1)  # noqa: TID251 - no event loop here


def health(mooring: Mooring) -> bytes:
    """What the role answers at its own socket; nothing while there is none."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(_WITHIN_S)
        try:
            client.connect(str(mooring.home / "run/goproxy.sock"))
            client.sendall(b"GET /-/healthz HTTP/1.1\r\nHost: goproxy\r\nConnection: close\r\n\r\n")
            return client.recv(4096)
        except OSError:
            return b""


def shell(mooring: Mooring, text: str, *, workspace: str = "demo", check: bool = True) -> str:
    """What a shell in the workspace prints."""
    return mooring.cli("workspace", "exec", workspace, "--", "sh", "-c", text, check=check).stdout


def asked(address: str) -> int:
    """The status of an address below a workspace's GOPROXY, asked from this machine."""
    with httpx2.Client(timeout=30) as client:
        return client.get(address).status_code


def test_a_build_fetches_public_and_private_modules(mooring: Mooring, team: Team) -> None:
    """`go build` finds both through the proxy, verified by its notary, and the upstream never hears of the private."""
    assert "v1.2.0 of the team" in shell(mooring, team.build("first"))
    assert team.private not in " ".join(team.upstream.asked)
    assert "git.test.example" not in " ".join(team.upstream.asked)
    assert shell(mooring, "go env GOFLAGS GONOSUMDB GONOPROXY GOPRIVATE").split() == ["-modcacherw"]
    assert shell(mooring, "go env GOSUMDB").startswith("sum.mooring.internal+")


def test_the_token_is_secret(mooring: Mooring, team: Team) -> None:
    """It stands in no log, no event and no argument of a process."""
    shell(mooring, team.build("quiet"))
    token = shell(mooring, "go env GOPROXY").strip().rpartition("/t-")[2]
    assert len(token) >= 40
    for log in [*(mooring.home / "log").glob("*"), *(mooring.home / "gateway").rglob("*.log")]:
        assert token not in log.read_text(errors="replace"), log
    assert token not in mooring.cli("workspace", "events", "demo", "-o", "json").stdout
    assert mooring.processes(token) == []
    assert token not in (mooring.home / "goproxy/tokens").read_text()


def test_what_is_kept_needs_no_role(mooring: Mooring, team: Team) -> None:
    """A workspace gets what is kept from the gateway, whichever way it comes: also while the role does nothing."""
    shell(mooring, team.build("kept"))
    (pid,) = mooring.processes("mooring.server.role goproxy")
    os.kill(pid, signal.SIGSTOP)
    try:
        again = "cd kept && go clean -modcache && timeout 60 go mod download && go build -o again . && ./again 2>&1"
        assert "v1.2.0 of the team" in shell(mooring, again)
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_killed_role_comes_back(mooring: Mooring, team: Team) -> None:
    """Killed at any moment it is started again, and the next build goes through."""
    (pid,) = mooring.processes("mooring.server.role goproxy")
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + _WITHIN_S
    while (found := mooring.processes("mooring.server.role goproxy")) in ([], [pid]):
        assert time.monotonic() < deadline
        time.sleep(0.1)  # noqa: TID251 - no event loop here
    assert len(found) == 1
    healthy(mooring)
    assert "v1.2.0 of the team" in shell(mooring, "go clean -modcache\n" + team.build("again"))


def test_permission_follows_the_settings(mooring: Mooring, team: Team) -> None:
    """Who is no longer named is refused the private module within seconds, and still has the public ones."""
    proxy = shell(mooring, "go env GOPROXY").strip()
    private = f"{proxy}/{team.private}/@v/list"
    assert asked(private) == 200
    team.settle(mooring, "somebody-else")
    try:
        deadline = time.monotonic() + _WITHIN_S
        while asked(private) != 403:
            assert time.monotonic() < deadline
            time.sleep(0.2)  # noqa: TID251 - no event loop here
        assert asked(f"{proxy}/{PUBLIC}/@v/list") in (200, 503)
        said = shell(mooring, f"cd; GOFLAGS=-mod=mod go list -m {team.private}@latest 2>&1 || true")
        assert "is private" in said
    finally:
        team.settle(mooring, owner(mooring))
    while asked(private) != 200:
        assert time.monotonic() < deadline + _WITHIN_S
        time.sleep(0.2)  # noqa: TID251 - no event loop here


def test_a_token_ends_with_its_start_and_its_workspace(mooring: Mooring) -> None:
    """A restart brings another one; the old one, and that of a deleted workspace, are soon refused and forgotten."""
    mooring.cli("workspace", "create", "short", "--template", "go", "--wait")
    first = shell(mooring, "go env GOPROXY", workspace="short").strip()
    assert asked(f"{first}/{PUBLIC}/@v/list") == 200
    mooring.cli("workspace", "restart", "short", "--wait")
    second = shell(mooring, "go env GOPROXY", workspace="short").strip()
    assert second != first
    until(lambda: asked(f"{first}/{PUBLIC}/@v/list") == 401)
    assert asked(f"{second}/{PUBLIC}/@v/list") == 200
    mooring.cli("workspace", "delete", "short", "--yes", "--wait")
    # Who waits hears of the end at once; the file of tokens is made anew beside it.
    until(lambda: asked(f"{second}/{PUBLIC}/@v/list") == 401)
    assert len((mooring.home / "goproxy/tokens").read_text().splitlines()) == 1


def test_an_own_setting_wins(mooring: Mooring) -> None:
    """A workspace whose environment says where modules come from is left alone."""
    mooring.cli("workspace", "create", "own", "--template", "go", "--env", "GOPROXY=off", "--wait")
    assert shell(mooring, "go env GOPROXY GOSUMDB", workspace="own").split() == ["off", "sum.golang.org"]
    mooring.cli("workspace", "delete", "own", "--yes", "--wait")


def test_trouble_is_told_and_stops_nothing(mooring: Mooring) -> None:
    """A mistake in the settings shows in `status` and `doctor` with its line; Mooring is as ready as before."""
    file = mooring.home / "goproxy.toml"
    before = file.read_text()
    file.write_text("\nprivat = []\n")
    try:
        deadline = time.monotonic() + _WITHIN_S
        while "goproxy.toml:2: privat: there is no such key" not in (said := mooring.cli("status").stdout):
            assert time.monotonic() < deadline, said
            time.sleep(0.2)  # noqa: TID251 - no event loop here
        assert mooring.cli("doctor", "-o", "json", check=False).stdout.count("goproxy.toml:2: privat") == 1
    finally:
        file.write_text(before)


def test_who_has_just_started_it_reads_of_no_fault() -> None:
    """The module proxy begins after all others: its own lines of `status` never call it stale or wrong meanwhile."""
    with installation() as mooring:
        deadline = time.monotonic() + _WITHIN_S
        state = ""
        while state != "ok":
            assert time.monotonic() < deadline, mooring.logs()
            said = mooring.cli("status").stdout
            state = next(line.split()[1] for line in said.splitlines() if line.startswith("goproxy"))
            assert state != "stale", said
            assert not [line for line in said.splitlines() if line.startswith("problem") and "goproxy: " in line], said
        assert '"what": "modules"' in (found := mooring.cli("doctor", "-o", "json", check=False).stdout)
        assert '"problem"' not in found


def test_a_workspace_that_outlives_a_kill_keeps_its_way(team: Team) -> None:
    """After a kill of everything but the workspaces, theirs is the address and the token that they have had."""
    with installation("--tls") as mooring:
        team.settle(mooring, owner(mooring))
        mooring.cli("workspace", "create", "demo", "--template", "go", "--wait")
        healthy(mooring)
        shell(mooring, team.build("before"))
        proxy = shell(mooring, "go env GOPROXY").strip()
        mooring.kill()
        mooring.start()
        healthy(mooring)
        assert asked(f"{proxy}/{PUBLIC}/@v/v1.2.0.info") == 200

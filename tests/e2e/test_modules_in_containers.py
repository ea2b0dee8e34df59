"""A container's go command reaches the module proxy, and through that way nothing else of the machine."""

import subprocess
import time
from collections.abc import Iterator

import pytest

from support import docker
from support.mooring import Mooring, installation
from support.team import PUBLIC, Team
from support.team import team as a_team

_WITHIN_S = 240.0
_TRY = """
for address in "$@"; do
  timeout 5 bash -c 'exec 3<>"/dev/tcp/${1%:*}/${1##*:}"' try "$address" 2>/dev/null && echo "$address open" &
done
wait
"""
_ASK = """
path=$1; shift
for host in "$@"; do
  curl -s --path-as-is -o /dev/null -w '%{http_code} ' --unix-socket /run/mooring/goproxy.sock -H "Host: $host" "http://x$path"
done
"""


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    """Where the modules come from."""
    with a_team() as served:
        yield served


@pytest.fixture(scope="module")
def mooring(team: Team) -> Iterator[Mooring]:
    """A Mooring that listens on every address, with a workspace of ann, who may have the private module, and of bob."""
    engine = docker.shared()
    engine.build_workspace_image()
    with installation("--bind", "0.0.0.0", DOCKER_HOST=engine.host) as running:  # noqa: S104 - refused all the same
        team.settle(running, "ann")
        for name in ("ann", "bob"):
            running.cli("user", "create", name)
            running.cli("workspace", "create", "demo", "--owner", name, "--template", "go-docker", "--wait")
        yield running
        for name in ("ann", "bob"):
            running.cli("workspace", "delete", f"{name}/demo", "--yes", "--wait")


def shell(mooring: Mooring, owner: str, text: str, *arguments: str) -> str:
    """What a shell in somebody's container prints."""
    engine = docker.shared()
    container = f"mooring-{identity(mooring, owner)}"
    inside = ["docker", "--host", engine.host, "exec", "-w", "/home/coder", container, "bash", "-c"]
    done = subprocess.run(
        [*inside, text, "shell", *arguments], capture_output=True, text=True, check=False, timeout=_WITHIN_S
    )
    return done.stdout + done.stderr


def identity(mooring: Mooring, owner: str) -> str:
    """The id of somebody's workspace."""
    found = mooring.json("workspace", "show", f"{owner}/demo")
    assert isinstance(found, dict)
    return str(found["id"])


def test_a_build_in_a_container(mooring: Mooring, team: Team) -> None:
    """`go build` finds public and private modules with nothing configured by hand."""
    assert shell(mooring, "ann", "go env GOPROXY").startswith("http://127.0.0.1:")
    said = shell(mooring, "ann", team.build("first"))
    assert "v1.2.0 of the team" in said


def test_a_private_module_is_for_its_people(mooring: Mooring, team: Team) -> None:
    """Another owner's container gets public modules, and a reason instead of the private one."""
    said = shell(mooring, "bob", f"go mod init example.com/b; go get {PUBLIC}@v1.2.0 {team.private}@v1.0.0")
    assert f"{team.private} is private, and workspace:bob/demo may not have it" in said
    assert "v1.2.0" in shell(mooring, "bob", f"go get {PUBLIC}@v1.2.0; grep example.com/hello go.mod")


def test_the_way_leads_nowhere_else(mooring: Mooring) -> None:
    """Every address of the machine stays refused, and over the socket there is no console, no API and no workspace."""
    rows = subprocess.run(["ip", "-o", "-4", "address"], capture_output=True, text=True, check=True).stdout.splitlines()
    hosts = [row.split()[3].partition("/")[0] for row in rows if row.split()[1] != "lo"]
    assert hosts
    assert "open" not in shell(mooring, "ann", _TRY, *(f"{host}:{mooring.port}" for host in hosts))
    assert "127.0.0.1:9998 open" in shell(mooring, "ann", _TRY, "127.0.0.1:9998")
    assert shell(mooring, "ann", "ls -A /run/mooring").split() == ["goproxy.sock"]
    assert "Read-only" in shell(mooring, "ann", "touch /run/mooring/x")
    for path in ("/", "/api/v1/workspaces", "/.mooring/ticket", "/readyz", "/goproxy/../api/v1/workspaces"):
        statuses = shell(mooring, "ann", _ASK, path, "localhost", "demo--bob.localhost", "x").split()
        assert len(statuses) == 3
        assert set(statuses) <= {"400", "404"}, path
    assert shell(mooring, "ann", _ASK, f"/goproxy/{PUBLIC}/@v/list", "x").strip() == "401"


def test_a_container_that_crashed_builds_again(mooring: Mooring, team: Team) -> None:
    """The forwarder comes back with the container."""
    docker.shared().cli("kill", f"mooring-{identity(mooring, 'ann')}")
    build = "go clean -modcache\n" + team.build("again")
    deadline = time.monotonic() + _WITHIN_S
    while "v1.2.0 of the team" not in (said := shell(mooring, "ann", build)):
        assert time.monotonic() < deadline, said
        time.sleep(0.5)  # noqa: TID251 - no event loop here

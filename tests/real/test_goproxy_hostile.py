"""Repositories, settings and requests that would make the go command or git do something else than fetch."""

import os
import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from mooring.control.tasks import Tasks
from mooring.goproxy.config import Config
from mooring.goproxy.flight import Once
from mooring.goproxy.gocommand import GoCommand, Limits
from mooring.goproxy.names import Kind, ask
from mooring.goproxy.vcs import VersionControl
from support import goproxies
from support.gitserver import HOST, GitServer
from support.goproxies import reading, running
from support.goupstream import GoUser, Upstream, go
from support.replicas import Replica

upstream, bare = goproxies.bystander, goproxies.git


@pytest.fixture
def git(bare: GitServer) -> GitServer:
    """A private git server with a repository."""
    bare.publish("lib", "v1.0.0")
    return bare


def config(tmp_path: Path, git: GitServer, upstream: Upstream, gitconfig: str = "") -> Config:
    """A proxy that may read the git server, with more in its git configuration."""
    found = reading(tmp_path, git, upstream)
    with (git.folder / "gitconfig").open("a") as rules:
        rules.write(gitconfig)
    return found


def test_nothing_in_the_settings_of_git_runs(tmp_path: Path, git: GitServer, upstream: Upstream) -> None:
    """Hooks, monitors, helpers and askers that a git configuration names are overruled; the module is fetched."""
    canary = tmp_path / "canary"
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "reference-transaction", "post-index-change", "pre-auto-gc", "post-merge"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {canary}\n")
        (hooks / name).chmod(0o755)
    rules = (
        f"[core]\n\thooksPath = {hooks}\n\tfsmonitor = touch {canary}\n\taskPass = touch {canary}\n"
        f"\tsshCommand = touch {canary}\n[credential]\n\thelper = !touch {canary}\n[gc]\n\tauto = 1\n"
        "[protocol]\n\tallow = always\n[submodule]\n\trecurse = true\n[fetch]\n\trecurseSubmodules = true\n"
    )
    submodule = f'[submodule "s"]\n\tpath = s\n\turl = ext::sh -c touch% {canary}\n\tupdate = !touch {canary}\n'
    git.publish("evil", "v1.0.0", {".gitmodules": submodule, ".gitattributes": "* export-subst\n"})
    with running(config(tmp_path, git, upstream, rules)) as proxy:
        ann = GoUser(tmp_path / "ann", proxy.url)
        assert ann.download(git.module("evil") + "@v1.0.0")["Sum"]
        assert ann.go("list", "-m", git.module("evil") + "@main").stdout
    assert not canary.exists()


@pytest.mark.parametrize("address", ["https://127.0.0.1:{port}/", "ssh://127.0.0.1:9/"])
def test_nothing_is_run_to_get_in(tmp_path: Path, git: GitServer, upstream: Upstream, address: str) -> None:
    """Who has no password asks no helper that a git configuration names, and reaches ssh by no program of its."""
    canary = tmp_path / "canary"
    rules = (
        f'[url "{address.format(port=git.port)}team/"]\n\tinsteadOf = https://{HOST}/team/\n'
        f"[credential]\n\thelper = !touch {canary};\n"
        f"[core]\n\tsshCommand = touch {canary};\n\taskPass = touch {canary}\n"
    )
    found = config(tmp_path, git, upstream, rules)
    with running(replace(found, credentials=replace(found.credentials, netrc=None))) as proxy:
        answer = GoUser(tmp_path / "ann", proxy.url).download(git.module("lib") + "@v1.0.0", check=False)
    assert "Error" in answer
    assert not canary.exists()


@pytest.mark.parametrize(
    "scheme", ["ext::sh -c touch% {canary}% ", "file://{folder}/", "{folder}/", "git://127.0.0.1/"]
)
def test_a_rewritten_address_reaches_no_other_protocol(
    tmp_path: Path, git: GitServer, upstream: Upstream, scheme: str
) -> None:
    """`insteadOf` leads to https and ssh only: never to a command, to a file of this machine or to clear text."""
    canary = tmp_path / "canary"
    address = scheme.format(canary=canary, folder=git.folder / "served/team")
    rules = f'[url "{address}"]\n\tinsteadOf = https://{HOST}/team/\n[protocol]\n\tallow = always\n'
    rules += "".join(f'[protocol "{name}"]\n\tallow = always\n' for name in ("ext", "file", "git"))
    with running(config(tmp_path, git, upstream, rules)) as proxy:
        found = GoUser(tmp_path / "ann", proxy.url).download(git.module("lib") + "@v1.0.0", check=False)
    assert "not allowed" in found["Error"]
    assert not canary.exists()
    assert not list((tmp_path / "store/cache").rglob("*.zip"))


@pytest.mark.parametrize(
    "version",
    [
        "--upload-pack=touch canary",
        "-c",
        "--output=canary",
        "none",
        "upgrade",
        "main --force",
        "v1.0.0^{}",
        "@{-1}",
        "HEAD~1",
    ],
)
def test_a_version_is_never_an_option(tmp_path: Path, git: GitServer, upstream: Upstream, version: str) -> None:
    """What stands in a version's place names a revision, or there is none."""
    with running(config(tmp_path, git, upstream)) as proxy:
        answer = httpx2.get(f"{proxy.url}/{git.module('lib')}/@v/{version}.info".replace(" ", "%20"), timeout=60)
        assert answer.status_code in (404, 502, 503), answer.text
    assert not list(tmp_path.rglob("canary"))


def hostile(tmp_path: Path, canary: Path) -> Mapping[str, str]:
    """An environment that would have the go command and git do as it says."""
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f'[core]\n\tfsmonitor = touch {canary}\n[url "ext::"]\n\tinsteadOf = https://\n')
    return {
        **os.environ,  # noqa: TID251 - of a real program that is started
        "HOME": str(home),
        "GOFLAGS": "-mod=vendor -nonsense",
        "GOENV": str(home / "nowhere"),
        "GOWORK": "/nowhere/go.work",
        "GOINSECURE": "*",
        "GOVCS": "*:all",
        "GONOPROXY": "none",
        "GIT_DIR": str(home),
        "GIT_SSH_COMMAND": f"touch {canary}",
        "GIT_PROXY_COMMAND": f"touch {canary}",
        "GIT_EXTERNAL_DIFF": f"touch {canary}",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.fsmonitor",
        "GIT_CONFIG_VALUE_0": f"touch {canary}",
    }


def test_nothing_of_the_servers_environment_counts(tmp_path: Path, git: GitServer, upstream: Upstream) -> None:
    """GOFLAGS, git's variables and a home's settings that the server was started with change nothing."""
    canary = tmp_path / "canary"
    own = config(tmp_path, git, upstream)
    files = own.credentials
    assert files.netrc is not None
    options: list[str | Path] = ["--upstream", upstream.url, "--sumdb", upstream.sumdb, "--private", HOST]
    for option in ("netrc", "gitconfig", "certificates"):
        options += [f"--{option}", getattr(files, option)]
    replica = Replica(tmp_path / "store", options, hostile(tmp_path, canary))
    try:
        assert GoUser(tmp_path / "ann", replica.url).download(git.module("lib") + "@v1.0.0")["Sum"]
    finally:
        replica.stop()
    assert not canary.exists()


def test_a_force_push_is_refused_and_reported(tmp_path: Path, git: GitServer, upstream: Upstream) -> None:
    """What was served stays as it was; the other content is refused with both hashes, and an administrator reads it."""
    module = git.module("lib")
    own = config(tmp_path, git, upstream)
    with running(own) as proxy:
        first = GoUser(tmp_path / "ann", proxy.url).download(f"{module}@v1.0.0")["Sum"]
        git.publish("lib", "v1.0.0", {"x.go": "package x // changed\n"})
        assert GoUser(tmp_path / "bob", proxy.url).download(f"{module}@v1.0.0")["Sum"] == first
    kept = own.root / "cache/download" / module / "@v"
    for file in (kept / "v1.0.0.zip", kept / "v1.0.0.ziphash"):
        file.unlink()
    subprocess.run(["rm", "-rf", own.root / "vcs/modcache"], check=True)
    with running(own) as proxy:
        found = GoUser(tmp_path / "eve", proxy.url).download(f"{module}@v1.0.0", check=False)
        assert first in found["Error"]
        assert "Somebody changed a published version" in found["Error"]
        assert not (kept / "v1.0.0.zip").exists()
        assert proxy.goproxy.notary.refused
        assert "Somebody changed a published version" in httpx2.get(f"{proxy.url}/-/pulls").text
        assert 'outcome="mismatch"' in httpx2.get(f"{proxy.url}/-/metrics").text


def test_a_huge_repository_is_cut_off(tmp_path: Path, git: GitServer, upstream: Upstream) -> None:
    """Beyond the limit it is refused each time, whatever of it had arrived, and does not fill the disk."""
    git.publish("huge", "v1.0.0", {"data": secrets.token_hex(1_000_000)})
    own = replace(config(tmp_path, git, upstream), limits=Limits(file_bytes=100_000))
    with running(own) as proxy:
        for kind in ("info", "mod", "info", "mod"):
            answer = httpx2.get(f"{proxy.url}/{git.module('huge')}/@v/v1.0.0.{kind}", timeout=60)
            assert answer.status_code == 503, answer.text
        sizes = [file.lstat().st_size for file in (own.root / "vcs").rglob("*") if file.is_file()]
        assert sum(sizes) < 1_500_000
        assert GoUser(tmp_path / "ann", proxy.url).download(git.module("lib") + "@v1.0.0")["Sum"]
    with running(config(tmp_path, git, upstream)) as proxy:
        assert GoUser(tmp_path / "bob", proxy.url).download(git.module("huge") + "@v1.0.0")["Sum"]
        mod = httpx2.get(f"{proxy.url}/{git.module('huge')}/@v/v1.0.0.mod").text
    assert mod == f"module {git.module('huge')}\n\ngo 1.21\n"


async def test_only_so_many_runs_at_once(tmp_path: Path, git: GitServer) -> None:
    """However many modules are asked for at the same time, so many runs of the go command are under way."""
    for name in "abcde":
        git.publish(name, "v1.0.0")
    counts = tmp_path / "counts"
    wrapper = tmp_path / "go"
    runs = tmp_path / "runs"
    runs.mkdir()
    wrapper.write_text(
        f'#!/bin/sh\ntouch {runs}/$$\nls {runs} | wc -l >> {counts}\n{go()} "$@"\nended=$?\nrm {runs}/$$\nexit $ended\n'
    )
    wrapper.chmod(0o755)
    credentials = git.credentials()
    path = os.environ["PATH"]  # noqa: TID251 - of a real program
    command = GoCommand(wrapper, tmp_path / "vcs", path, credentials, Limits(at_once=2))
    command.prepare()
    async with Tasks("test") as tasks:
        control = VersionControl(command, Once(tasks))
        infos = [control.small(ask(git.module(name), "v1.0.0", Kind.info)) for name in "abcde"]
        waiting = [tasks.spawn(str(number), info) for number, info in enumerate(infos)]
        for task in waiting:
            assert b"v1.0.0" in await task
    assert max(int(line) for line in counts.read_text().split()) == 2

"""Private modules come from a real git server over HTTPS with a password, by the real go command."""

import getpass
import io
import os
import secrets
import shutil
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

from mooring.goproxy import access
from mooring.goproxy.gocommand import Credentials, Limits
from mooring.goproxy.ledger import Ledger
from mooring.server.goproxy import Served
from support import goproxies
from support.gitserver import HOST, GitServer
from support.goproxies import came_long_ago, get, reading, running, wait_for
from support.goupstream import GoUser, Upstream
from support.sshd import ssh_server

upstream, git = goproxies.bystander, goproxies.git


@pytest.fixture
def proxy(tmp_path: Path, git: GitServer, upstream: Upstream) -> Iterator[Served]:
    """Our proxy in front of both."""
    with running(reading(tmp_path, git, upstream)) as served:
        yield served


def user(tmp_path: Path, proxy: Served, name: str = "ann", sumdb: str = "off") -> GoUser:
    """A person who has no access to the git server."""
    return GoUser(tmp_path / name, proxy.url, sumdb)


def test_a_private_module_comes_from_its_repository(
    tmp_path: Path, git: GitServer, upstream: Upstream, proxy: Served
) -> None:
    """A person without any credentials gets it, and no upstream ever hears its name."""
    git.publish("lib", "v1.0.0")
    found = user(tmp_path, proxy).download(git.module("lib") + "@v1.0.0")
    assert found["Version"] == "v1.0.0"
    wait_for(tmp_path / "store/cache/download" / git.module("lib") / "@v/v1.0.0.zip")
    careless = user(tmp_path, proxy, "bob", upstream.sumdb).download(git.module("lib") + "@v1.0.0", check=False)
    assert f"is private: set GOSUMDB={proxy.goproxy.notary.key}" in careless["Error"]
    assert not any("git.test" in path for path in upstream.asked)


def test_lists_branches_and_commits_resolve(tmp_path: Path, git: GitServer, proxy: Served) -> None:
    """Tags are listed, `@latest` is the highest, and a branch becomes a pseudo-version."""
    git.publish("lib", "v1.0.0")
    git.publish("lib", "v1.1.0")
    git.publish("lib", "")
    ann = user(tmp_path, proxy)
    assert ann.go("list", "-m", "-versions", git.module("lib")).stdout.split()[1:] == ["v1.0.0", "v1.1.0"]
    assert ann.go("list", "-m", git.module("lib") + "@latest").stdout.split()[1] == "v1.1.0"
    assert ann.go("list", "-m", git.module("lib") + "@main").stdout.split()[1].startswith("v1.1.1-0.")


def test_a_retracted_version_is_listed(tmp_path: Path, git: GitServer, proxy: Served) -> None:
    """Whoever uses one is warned, also where the version that says so retracts itself; new users get none of them."""
    module = git.module("lib")
    git.publish("lib", "v1.0.0")
    git.publish("lib", "v1.1.0")
    git.publish(
        "lib", "v1.1.1", {"go.mod": f"module {module}\n\ngo 1.21\n\nretract [v1.1.0, v1.1.1] // It loses data.\n"}
    )
    ann = user(tmp_path, proxy)
    assert get(proxy, f"{module}/@v/list").text.split() == ["v1.0.0", "v1.1.0", "v1.1.1"]
    why = ann.go("list", "-m", "-retracted", "-f", "{{.Retracted}}", f"{module}@v1.1.0").stdout
    assert why == "[It loses data.]\n"
    assert ann.go("list", "-m", f"{module}@latest").stdout.split()[1] == "v1.0.0"
    assert ann.go("list", "-m", "-versions", module).stdout.split()[1:] == ["v1.0.0"]


def test_the_server_is_asked_once_for_a_version(git: GitServer, proxy: Served) -> None:
    """A go.mod comes from what its info had fetched, whether or not the repository still answers."""
    git.publish("lib", "v1.0.0")
    assert get(proxy, f"{git.module('lib')}/@v/v1.0.0.info").status_code == 200
    git.delete("lib")
    asked = git.asked.total()
    assert get(proxy, f"{git.module('lib')}/@v/v1.0.0.mod").status_code == 200
    assert git.asked.total() == asked


def test_info_and_mod_do_not_build_a_zip(tmp_path: Path, git: GitServer, proxy: Served) -> None:
    """Asking about a version makes nobody build its zip, here or in the go command's own cache."""
    git.publish("lib", "v1.0.0")
    user(tmp_path, proxy).go("list", "-m", "-json", git.module("lib") + "@v1.0.0")
    assert not list((tmp_path / "store").rglob("*.zip"))


@pytest.mark.parametrize(
    ("password", "means"),
    [("wrong", "which asks with what its netrc has for 127.0.0.1"), (None, "whose netrc has nothing for 127.0.0.1")],
)
def test_wrong_credentials_are_no_absence(
    tmp_path: Path, git: GitServer, upstream: Upstream, password: str | None, means: str
) -> None:
    """A repository that refuses us is an error that says who was asked with what, never a 404 that leads elsewhere."""
    git.publish("lib", "v1.0.0")
    credentials = git.credentials(password) if password else replace(git.credentials(), netrc=None)
    wanted = replace(reading(tmp_path, git, upstream), credentials=credentials)
    with running(wanted) as proxy:
        found = user(tmp_path, proxy).download(git.module("lib") + "@v1.0.0", check=False)
    assert "503" in found["Error"]
    assert f"127.0.0.1 does not let the module proxy read this repository, {means}" in found["Error"]
    assert "git: fatal: could not read Username" in found["Error"]
    assert "wrong" not in found["Error"]
    assert git.refused


@pytest.mark.parametrize("kind", ["info", "zip"])
def test_a_repository_that_is_not_shown_may_be_there(git: GitServer, proxy: Served, kind: str) -> None:
    """No absence is proved: it is a 503 that says which server was asked with what, and what git said."""
    answer = httpx2.get(f"{proxy.url}/{git.module('none')}/@v/v1.0.0.{kind}", timeout=60)
    assert answer.status_code == 503
    problem = "127.0.0.1 has no such repository, or does not show it to the module proxy"
    assert answer.text.splitlines() == [
        f"{git.module('none')}@v1.0.0: {problem}, which asks with what its netrc has for 127.0.0.1",
        f"git: fatal: repository 'https://127.0.0.1:{git.port}/team/none.git/' not found",
    ]


def test_a_build_survives_the_repository(tmp_path: Path, git: GitServer, proxy: Served) -> None:
    """When the repository is deleted, versions that were fetched once are served as before."""
    git.publish("lib", "v1.0.0")
    user(tmp_path, proxy).download(git.module("lib") + "@v1.0.0")
    git.delete("lib")
    bob = user(tmp_path, proxy, "bob")
    assert bob.download(git.module("lib") + "@v1.0.0")["Version"] == "v1.0.0"
    assert bob.go("list", "-m", "-versions", git.module("lib")).stdout.split()[1:] == ["v1.0.0"]


def test_a_moved_tag_is_refused(tmp_path: Path, git: GitServer, proxy: Served) -> None:
    """A version whose content changed after it was first seen is refused by the notary, with the reason."""
    git.publish("lib", "v1.0.0")
    user(tmp_path, proxy).download(git.module("lib") + "@v1.0.0")
    kept = tmp_path / "store/cache/download" / git.module("lib") / "@v/v1.0.0.zip"
    wait_for(kept)
    kept.unlink()
    shutil.rmtree(tmp_path / "store/vcs/modcache")
    git.publish("lib", "v1.0.0", {"x.go": "package x // changed\n"})
    found = user(tmp_path, proxy, "bob").download(git.module("lib") + "@v1.0.0", check=False)
    assert "Somebody changed a published version" in found["Error"]


def test_a_tag_that_moves_between_go_mod_and_zip_is_refused(tmp_path: Path, git: GitServer, proxy: Served) -> None:
    """The notary does not sign the go.mod of one commit and the zip of another as one version."""
    git.publish("lib", "v1.0.0")
    module = git.module("lib")
    assert get(proxy, f"{module}/@v/v1.0.0.mod").status_code == 200
    shutil.rmtree(tmp_path / "store/vcs/modcache")
    git.publish("lib", "v1.0.0", {"go.mod": f"module {module}\n\ngo 1.20\n"})
    answer = get(proxy, f"{module}/@v/v1.0.0.zip")
    assert answer.status_code == 502
    assert "the go.mod in its zip is not the one that came before it" in answer.text
    assert proxy.goproxy.notary.recorded(module, "v1.0.0") is None


def test_ends_of_lines_make_no_other_commit(git: GitServer, proxy: Served) -> None:
    """A go.mod whose ends of lines git changes in the zip, as the repository asks for, is the same one."""
    git.publish("lib", "v1.0.0", {".gitattributes": "* text eol=crlf\n"})
    name = f"{git.module('lib')}/@v/v1.0.0"
    mod = get(proxy, f"{name}.mod").content
    content = get(proxy, f"{name}.zip").content
    in_zip = zipfile.ZipFile(io.BytesIO(content)).read(f"{git.module('lib')}@v1.0.0/go.mod")
    assert in_zip == mod.replace(b"\n", b"\r\n")


@pytest.mark.parametrize("attribute", ["ident", "export-subst", "export-ignore"])
def test_what_git_fills_in_makes_no_other_commit(git: GitServer, proxy: Served, attribute: str) -> None:
    """Nor does a go.mod with `$Id$`, which git fills in in the zip; the go command switches the other two off."""
    module = git.module("lib")
    go_mod = f"module {module}\n\ngo 1.21 // $Id: as committed $ $Format:%H$\n"
    git.publish("lib", "v1.0.0", {".gitattributes": f"* {attribute}\n", "go.mod": go_mod})
    assert get(proxy, f"{module}/@v/v1.0.0.mod").text.partition("//")[0] == go_mod.partition("//")[0]
    content = get(proxy, f"{module}/@v/v1.0.0.zip").content
    in_zip = zipfile.ZipFile(io.BytesIO(content)).read(f"{module}@v1.0.0/go.mod").decode()
    assert in_zip.endswith(" $ $Format:%H$\n")
    assert ("$Id$" in in_zip or "as committed" in in_zip) is (attribute != "ident")


def test_a_go_mod_that_git_encodes_anew_is_refused(git: GitServer, proxy: Served) -> None:
    """From the zip alone nobody could tell that it is the same; the reason names the attribute."""
    module = git.module("lib")
    files = {".gitattributes": "go.mod working-tree-encoding=ISO-8859-1\n", "go.mod": f"module {module} // grün\n"}
    git.publish("lib", "v1.0.0", files)
    assert get(proxy, f"{module}/@v/v1.0.0.mod").status_code == 200
    answer = get(proxy, f"{module}/@v/v1.0.0.zip")
    assert (answer.status_code, "working-tree-encoding" in answer.text) == (502, True)


def test_a_repository_without_go_mod_is_a_module(git: GitServer, proxy: Served) -> None:
    """Its go.mod is made up, and its zip has none."""
    git.publish("lib", "v1.0.0")
    (git.folder / "work/lib/go.mod").unlink()
    git.git("lib", "commit", "-q", "-a", "-m", "as before Go had modules")
    git.git("lib", "tag", "v1.1.0")
    git.git("lib", "push", "-q", "--tags", "origin", "main")
    assert get(proxy, f"{git.module('lib')}/@v/v1.1.0.mod").text == f"module {git.module('lib')}\n"
    assert get(proxy, f"{git.module('lib')}/@v/v1.1.0.zip").status_code == 200


def test_the_notary_is_a_checksum_database(tmp_path: Path, git: GitServer, upstream: Upstream, proxy: Served) -> None:
    """With GOSUMDB set to our key, the go command itself checks private and public modules against the notary."""
    git.publish("lib", "v1.0.0")
    upstream.publish("example.com/Public", "v1.2.3")
    ann = user(tmp_path, proxy, sumdb=proxy.goproxy.notary.key)
    assert ann.download(git.module("lib") + "@v1.0.0")["Sum"]
    assert ann.download("example.com/Public@v1.2.3")["Sum"]
    assert (tmp_path / "ann/go/pkg/sumdb/sum.mooring.internal/latest").read_bytes().startswith(b"go.sum database")


def test_the_go_command_reads_a_long_log(tmp_path: Path, git: GitServer, upstream: Upstream) -> None:
    """A log of several tiles and levels is the one that the go command proves its records in, while it grows."""
    ledger = Ledger(tmp_path / "store/notary", "sum.mooring.internal")
    with ledger.exclusive():
        ledger.append([f"{HOST}/old v1.{n}.0 h1:x\n{HOST}/old v1.{n}.0/go.mod h1:x\n".encode() for n in range(66_000)])
    with running(reading(tmp_path, git, upstream)) as proxy:
        for number in range(3):
            git.publish("lib", f"v1.{number}.0")
            ann = user(tmp_path, proxy, sumdb=proxy.goproxy.notary.key)
            assert ann.download(f"{git.module('lib')}@v1.{number}.0")["Sum"]
        bob = user(tmp_path, proxy, "bob", sumdb=proxy.goproxy.notary.key)
        assert bob.download(f"{git.module('lib')}@v1.1.0")["Sum"]


def test_a_hostile_repository_runs_nothing(tmp_path: Path, git: GitServer, proxy: Served) -> None:
    """Submodules that would run a command, attributes with filters and hooks in the tree are content and no more."""
    canary = tmp_path / "canary"
    git.publish(
        "evil",
        "v1.0.0",
        {
            ".gitmodules": f'[submodule "s"]\n\tpath = s\n\turl = ext::sh -c touch% {canary}\n',
            ".gitattributes": "* filter=run\n*.go export-subst\n",
            ".gitconfig": f"[core]\n\tfsmonitor = touch {canary}\n",
            "hooks/post-checkout": f"#!/bin/sh\ntouch {canary}\n",
            "gen.go": f"package x\n\n//go:generate touch {canary}\n",
        },
    )
    assert user(tmp_path, proxy).download(git.module("evil") + "@v1.0.0")["Version"] == "v1.0.0"
    assert not canary.exists()


@pytest.mark.parametrize("limits", [Limits(file_bytes=100_000), Limits(within_s=0.05)])
def test_a_huge_or_slow_repository_is_cut_off(
    tmp_path: Path, git: GitServer, upstream: Upstream, limits: Limits
) -> None:
    """What exceeds the limits of size and time is an error with a reason, leaves no process, and is no absence."""
    git.publish("huge", "v1.0.0", {"data": secrets.token_hex(1_000_000)})
    abandoned = tmp_path / "store/vcs/modcache/cache/vcs/old/objects/pack/tmp_pack_x"
    abandoned.parent.mkdir(parents=True)
    abandoned.touch()
    os.utime(abandoned, (1, 1))
    with running(replace(reading(tmp_path, git, upstream), limits=limits)) as proxy:
        found = user(tmp_path, proxy).download(git.module("huge") + "@v1.0.0", check=False)
    assert "503" in found["Error"]
    assert not abandoned.exists()


def test_a_private_module_is_not_for_everybody(tmp_path: Path, git: GitServer, upstream: Upstream) -> None:
    """Who may not have it is refused, also when it is kept, by name or by a look-up at the notary."""
    git.publish("lib", "v1.0.0")
    tokens = tmp_path / "tokens"
    ann, bob = access.make(tokens, "ann", (HOST,)), access.make(tokens, "bob", ("git.other.example",))
    with running(replace(reading(tmp_path, git, upstream), tokens=tokens)) as proxy:
        module = git.module("lib") + "@v1.0.0"
        assert GoUser(tmp_path / "ann", f"{proxy.url}/t-{ann}").download(module)["Sum"]
        refused = GoUser(tmp_path / "bob", f"{proxy.url}/t-{bob}").download(module, check=False)["Error"]
        assert "is private, and bob may not have it" in refused
        assert httpx2.get(f"{proxy.url}/t-{bob}/sumdb/sum.mooring.internal/lookup/{module}").status_code == 403
        tile = f"{proxy.url}/t-{{}}/sumdb/sum.mooring.internal/tile/8/data/000.p/1"
        assert httpx2.get(tile.format(bob)).status_code == 403
        came_long_ago(tmp_path / "store")
        for page in ("index", "-/catalog", "-/pulls"):
            assert HOST in httpx2.get(f"{proxy.url}/t-{ann}/{page}").text
            assert HOST not in httpx2.get(f"{proxy.url}/t-{bob}/{page}").text


def test_a_repository_over_ssh(tmp_path: Path, git: GitServer, upstream: Upstream) -> None:
    """With a key and known hosts a repository is read over ssh; a host that is not known is not believed."""
    git.publish("lib", "v1.0.0")
    with ssh_server(tmp_path / "ssh") as ssh:
        rules = tmp_path / "ssh-gitconfig"
        served = f"ssh://{getpass.getuser()}@127.0.0.1:{ssh.port}{git.folder}/served/"
        rules.write_text(f'[url "{served}"]\n\tinsteadOf = https://{HOST}/\n[safe]\n\tdirectory = *\n')
        nobody = tmp_path / "nobody"
        nobody.touch()
        for known, ok in ((nobody, False), (ssh.known_hosts, True)):
            credentials = Credentials(gitconfig=rules, ssh_key=ssh.key, known_hosts=known)
            own = replace(reading(tmp_path, git, upstream), credentials=credentials, root=tmp_path / f"ssh-{ok}")
            with running(own) as proxy:
                found = GoUser(tmp_path / f"user-{ok}", proxy.url).download(git.module("lib") + "@v1.0.0", check=False)
            assert ("Error" not in found) is ok, found

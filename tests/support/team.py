"""A team with a public and a private module: a local upstream, a checksum database and a git server."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.gitserver import HOST, GitServer
from support.goupstream import Upstream
from support.mooring import Mooring

PUBLIC = "example.com/hello"
_PROGRAM = """
package main

import (
	"%(public)s"
	"%(private)s"
)

func main() { println(x.Version, team.Secret) }
"""


@dataclass
class Team:
    """What the team's modules come from."""

    upstream: Upstream
    git: GitServer
    compiled: Path
    """What the go commands of workspaces on this machine have compiled: the standard library takes 5 s each time."""

    @property
    def private(self) -> str:
        """The private module's path."""
        return self.git.module("secret")

    def settle(self, mooring: Mooring, *users: str) -> None:
        """Write `goproxy.toml`: these users may have the private module."""
        folder = mooring.home
        files = {"netrc": self.git.netrc(), "gitconfig": self.git.gitconfig(), "certificates": self.git.certificate}
        for name, file in files.items():
            _give(folder, folder / name, file.read_bytes())
        credentials = "".join(f'{name} = "{name}"\n' for name in files)
        allowed = ", ".join(f'"{user}"' for user in users)
        text = (
            f'upstream = "{self.upstream.url}"\nsumdb = "{self.upstream.sumdb}"\nprivate = ["{HOST}"]\n'
            f'[credentials]\n{credentials}[[allow]]\nusers = [{allowed}]\nmodules = ["{HOST}/team"]\n'
        )
        _give(folder, folder / "goproxy.toml.new", text.encode())
        (folder / "goproxy.toml.new").replace(folder / "goproxy.toml")

    def build(self, folder: str) -> str:
        """A shell's text that writes the program into `folder` of a workspace, builds and runs it."""
        program = _PROGRAM % {"public": PUBLIC, "private": self.private}
        return (
            f"[ ! -w {self.compiled} ] || export GOCACHE={self.compiled}\n"
            f"set -eu; rm -rf {folder}; mkdir {folder}; cd {folder}\n"
            f"cat > main.go <<'END'\n{program}\nEND\n"
            "go mod init example.com/main 2>/dev/null\n"
            "go mod tidy 2>&1\n"
            "go build -o program . 2>&1\n"
            "./program 2>&1\n"
        )


def _give(folder: Path, file: Path, content: bytes) -> None:
    """A file of the user that Mooring runs as."""
    file.write_bytes(content)
    file.chmod(0o600)
    owner = folder.stat()
    shutil.chown(file, owner.st_uid, owner.st_gid)


@contextmanager
def team() -> Iterator[Team]:
    """Serve both modules until the end of the block."""
    with tempfile.TemporaryDirectory(prefix="mrg-team-") as folder:
        git = GitServer(Path(folder) / "git")
        with Upstream(Path(folder) / "upstream").serving() as upstream, git.serving():
            upstream.publish(PUBLIC, "v1.2.0")
            git.publish("secret", "v1.0.0", {"x.go": 'package team\n\nconst Secret = "of the team"\n'})
            compiled = Path(folder) / "compiled"
            compiled.mkdir()
            for path, mode in ((Path(folder), 0o711), (compiled, 0o777)):
                path.chmod(mode)
            yield Team(upstream, git, compiled)

"""A private git server: repositories over HTTPS with a password, by git's own http-backend."""

import base64
import os
import shutil
import ssl
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from mooring.goproxy.gocommand import Credentials
from support.certificates import certificate_files
from support.loopback import serving

HOST = "git.test.example"
USER, PASSWORD = "builder", "correct-horse"


class GitServer:
    """Repositories below `folder`; module paths are `git.test.example/team/NAME.git`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "served/team").mkdir(parents=True)
        (folder / "work").mkdir()
        self.certificate, self._key = certificate_files(folder, "127.0.0.1")
        self.asked: Counter[str] = Counter()
        self.refused = 0
        self.public = False
        self.port = 0

    def module(self, name: str) -> str:
        """The module path of a repository."""
        return f"{HOST}/team/{name}.git"

    def netrc(self, password: str = PASSWORD) -> Path:
        """A file with the password."""
        file = self.folder / f"netrc-{password}"
        file.write_text(f"machine 127.0.0.1 login {USER} password {password}\n")
        file.chmod(0o600)
        return file

    def gitconfig(self) -> Path:
        """What leads the host's name to this server."""
        file = self.folder / "gitconfig"
        file.write_text(f'[url "https://127.0.0.1:{self.port}/"]\n\tinsteadOf = https://{HOST}/\n')
        return file

    def credentials(self, password: str = PASSWORD) -> Credentials:
        """What a proxy reads this server with."""
        return Credentials(netrc=self.netrc(password), gitconfig=self.gitconfig(), certificates=self.certificate)

    def git(self, name: str, *arguments: str) -> str:
        """Run git in a repository's work tree."""
        environment = {
            "PATH": os.environ["PATH"],  # noqa: TID251 - a test starts a real program
            "HOME": str(self.folder),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            **{
                f"GIT_{who}_{what}": "test@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
            },
        }
        done = subprocess.run(
            ["git", "-c", "protocol.file.allow=always", *arguments],
            cwd=self.folder / "work" / name,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def publish(self, name: str, version: str, files: Mapping[str, str] | None = None) -> None:
        """Commit files, tag them (again, if the tag exists) and push."""
        work = self.folder / "work" / name
        if not work.exists():
            work.mkdir()
            self.git(name, "init", "-q", "-b", "main", ".")
            self.git(name, "init", "-q", "-b", "main", "--bare", str(self.folder / "served/team" / f"{name}.git"))
            self.git(name, "remote", "add", "origin", str(self.folder / "served/team" / f"{name}.git"))
        content = {"go.mod": f"module {self.module(name)}\n\ngo 1.21\n", "x.go": f"package x // {version}\n"}
        for path, text in {**content, **(files or {})}.items():
            (work / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).write_text(text)
        self.git(name, "add", "-A")
        self.git(name, "commit", "-q", "--allow-empty", "-m", version or "work")
        if version:
            self.git(name, "tag", "-f", version)
        self.git(name, "push", "-q", "-f", "--tags", "origin", "main")

    def delete(self, name: str) -> None:
        """The repository is gone."""
        shutil.rmtree(self.folder / "served/team" / f"{name}.git")

    @contextmanager
    def serving(self) -> Iterator["GitServer"]:
        """Serve until the end of the block."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate, self._key)
        with serving(self._serve, tls=context) as self.port:
            yield self

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        path, _, query = request.path.partition("?")
        body = self._body(request)
        self.asked[path] += 1
        wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if not self.public and request.headers.get("Authorization") != wanted:
            self.refused += 1
            _answer(request, 401, {"WWW-Authenticate": 'Basic realm="git"'}, b"")
            return
        done = subprocess.run(
            ["git", "http-backend"],
            input=body,
            capture_output=True,
            check=False,
            env={
                "PATH": os.environ["PATH"],  # noqa: TID251 - a test starts a real program
                "GIT_PROJECT_ROOT": str(self.folder / "served"),
                "GIT_HTTP_EXPORT_ALL": "1",
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "REQUEST_METHOD": request.command,
                "CONTENT_TYPE": request.headers.get("Content-Type", ""),
                "HTTP_CONTENT_ENCODING": request.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": request.headers.get("Git-Protocol", ""),
                "REMOTE_USER": USER,
            },
        )
        head, _, rest = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
        _answer(request, int(headers.pop("Status", "200")[:3]), headers, rest)

    @staticmethod
    def _body(request: BaseHTTPRequestHandler) -> bytes:
        if request.headers.get("Transfer-Encoding") != "chunked":
            return request.rfile.read(int(request.headers.get("Content-Length", "0")))
        body = b""
        while size := int(request.rfile.readline(), 16):
            body += request.rfile.read(size)
            request.rfile.readline()
        request.rfile.readline()
        return body


def _answer(request: BaseHTTPRequestHandler, status: int, headers: Mapping[str, str], body: bytes) -> None:
    request.send_response(status)
    for name, value in headers.items():
        request.send_header(name, value)
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    request.wfile.write(body)

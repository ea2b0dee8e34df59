"""The folders of a workspace that runs as processes: made, given to its user, removed. Blocking: run it in a thread."""

import os
import pwd
import subprocess
from contextlib import suppress
from pathlib import Path

from mooring.errors import Misconfigured
from mooring.settings import Home

_OWNER_FILE = "owner"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Folders:
    """Where the workspaces of one home are. `owner` (uid, gid) gets them where this process is another user."""

    def __init__(self, home: Home, owner: tuple[int, int] | None) -> None:
        self.home = home
        self.owner = owner

    @property
    def instance(self) -> str:
        """Tells two installations on one machine apart."""
        return self.home.instance

    def place(self, workspace_id: str) -> Path:
        """What only lives while the machine does: sockets, the state file, the lock. 0700."""
        return self.home.editor_socket(workspace_id).parent

    def home_of(self, workspace_id: str) -> Path:
        return self.home.workspace(workspace_id) / "home"

    def data_of(self, workspace_id: str) -> Path:
        return self.home.workspace(workspace_id) / "data"

    def log_of(self, workspace_id: str) -> Path:
        return self.home.workspace(workspace_id) / "log"

    def known(self) -> tuple[str, ...]:
        """The ids of workspaces that were started here."""
        try:
            return tuple(sorted(entry.name for entry in self.home.editor_socket("x").parent.parent.iterdir()))
        except FileNotFoundError:
            return ()

    def make(self, workspace_id: str) -> None:
        """Everything that a start needs. Raises OSError."""
        for folder in (
            self.home.run,
            self.place(workspace_id).parent,
            self.place(workspace_id),
            self.home.workspaces,
            self.home.workspace(workspace_id),
            self.home_of(workspace_id),
            self.data_of(workspace_id),
            self.log_of(workspace_id),
        ):
            self._make(folder)

    def _make(self, folder: Path) -> None:
        if folder.is_dir():
            if folder.stat().st_mode & 0o077:
                folder.chmod(0o700)  # somebody opened it: everybody could talk to the sockets in it
            return
        folder.mkdir(mode=0o700, parents=True)
        if self.owner is not None:
            os.chown(folder, *self.owner)

    def claim(self, owner: str) -> None:
        """Make `owner` the one person of this runtime.

        Raises:
            Misconfigured: when it serves somebody else. Processes of one system user are not kept apart.
        """
        self._make(self.home.workspaces)
        path = self.home.workspaces / _OWNER_FILE
        if path.exists() and not path.read_text():
            path.unlink()  # what a power cut left of it; nobody is called that
        if not path.exists():
            # Whole or not at all: an empty file of a full disk would be an owner without a name.
            written = path.with_suffix(".new")
            with written.open("w") as file:
                file.write(owner)
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                path.hardlink_to(written)
            written.unlink()
        if (present := path.read_text()) != owner:
            raise Misconfigured(
                f"the process runtime serves one person, {present}: a template with runtime docker serves a team"
            )

    def remove(self, workspace_id: str) -> None:
        """Remove the workspace's files; the last one frees the runtime for another person. Absence is no error."""
        for folder in (self.home.workspace(workspace_id), self.place(workspace_id)):
            if folder.exists():
                _remove(folder)
        if not self.known():
            (self.home.workspaces / _OWNER_FILE).unlink(missing_ok=True)

    def base_environment(self, workspace_id: str) -> dict[str, str]:
        """What a login would give; nothing of the server's own environment."""
        uid = self.owner[0] if self.owner else os.geteuid()
        try:
            user = pwd.getpwuid(uid)
            name, shell = user.pw_name, user.pw_shell
        except KeyError:
            name, shell = str(uid), ""
        if not shell or Path(shell).name in ("nologin", "false"):
            shell = "/bin/bash" if Path("/bin/bash").exists() else "/bin/sh"
        return {
            "PATH": _PATH,
            "HOME": str(self.home_of(workspace_id)),
            "USER": name,
            "LOGNAME": name,
            "SHELL": shell,
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
        }


def _remove(folder: Path) -> None:
    # Not rmtree: folders that a program nests by the thousand exceed its recursion, a path's length, our descriptors.
    remove = ["/bin/rm", "-rf", "--", str(folder)]
    if subprocess.run(remove, stderr=subprocess.DEVNULL, check=False).returncode == 0:
        return
    # Go's module cache is made of read-only folders, which nobody can empty.
    own = ["/bin/chmod", "-R", "u+rwX", "--", str(folder)]
    subprocess.run(own, stderr=subprocess.DEVNULL, check=False)
    done = subprocess.run(remove, stderr=subprocess.PIPE, errors="replace", check=False)
    if done.returncode != 0:
        raise OSError(done.stderr.strip().rpartition("\n")[2])

"""The home of `mooring up`: whose it is, who holds it, and how it is stopped. With real users and real processes."""

import json
import os
import pwd
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mooring.errors import Conflict, Misconfigured
from mooring.server.doctor.examination import examine
from mooring.server.embedded import down, locked, make_home, running
from mooring.server.files import make_folders, remove_endpoint, write_endpoint
from mooring.server.supervisor import Account, account, bind
from mooring.settings import Home, Installation, Listen
from support.small_disk import small_disk
from support.waiting import WITHIN_S, pause, until

HOLDER = """
import signal, sys
from pathlib import Path
from mooring.server.embedded import locked
from mooring.settings import Home
with locked(Home(Path(sys.argv[1]))):
    print("held", flush=True)
    signal.sigwait([signal.SIGTERM])
"""

LOOKER = """
import sys
from pathlib import Path
from mooring.server.embedded import running
from mooring.settings import Home
print("looks", flush=True)
while True:
    running(Home(Path(sys.argv[1])))
"""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home that does not exist yet."""
    return Home(tmp_path / "home")


@pytest.fixture
def holder(home: Home) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    home.root.mkdir()
    command = [sys.executable, "-c", HOLDER, str(home.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def _nobody() -> Account:
    entry = pwd.getpwnam("nobody")
    return Account("nobody", entry.pw_uid, entry.pw_gid, (), entry.pw_dir)


def test_a_new_home_belongs_to_who_runs_it(home: Home) -> None:
    """Root makes it, and gives it away: nobody else may look inside."""
    make_home(home, _nobody())
    make_home(home, _nobody())
    found = home.root.stat()
    assert found.st_uid == _nobody().uid
    assert found.st_mode & 0o777 == 0o700


def test_an_empty_folder_of_root_is_taken(home: Home) -> None:
    """A fresh volume, with what its file system puts there, becomes a home that is closed to others."""
    (home.root / "lost+found").mkdir(parents=True)
    home.root.chmod(0o755)
    make_home(home, _nobody())
    assert home.root.stat().st_uid == _nobody().uid
    assert home.root.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_is_in_use_is_not_given_away(home: Home) -> None:
    """With MOORING_HOME=/etc, root would give away the machine."""
    home.root.mkdir()
    (home.root / "passwd").touch()
    with pytest.raises(Misconfigured, match=r"belongs to root: name an empty folder$") as caught:
        make_home(home, _nobody())
    (home.root / "lock").touch()
    with pytest.raises(Misconfigured, match=f"belongs to root: chown -R nobody: {home.root}$"):
        make_home(home, _nobody())
    assert caught.value.field == "MOORING_HOME"
    assert home.root.stat().st_uid == 0


def test_a_home_of_another_user_is_refused(home: Home) -> None:
    """Two users' server would write into one database; what to type is named."""
    home.root.mkdir()
    (home.root / "mooring.db").touch()
    os.chown(home.root, _nobody().uid, _nobody().gid)
    with pytest.raises(Misconfigured, match="belongs to nobody: start with --user nobody"):
        make_home(home, Account("daemon", 1, 1, (), "/"))


def test_a_file_where_home_should_be(home: Home) -> None:
    """The path and the reason are named."""
    home.root.touch()
    with pytest.raises(Misconfigured, match="File exists"):
        make_home(home, _nobody())


def test_a_user_without_a_name() -> None:
    """A container may be started as a number that no account has: that is said, and what helps."""
    os.seteuid(54321)
    try:
        with pytest.raises(Misconfigured, match="54321 has no name on this machine"):
            account(None)
    finally:
        os.seteuid(0)


def test_one_supervisor_a_home(home: Home, holder: subprocess.Popen[str]) -> None:
    """The second one is told who is first; when that one was killed, the lock is free."""
    assert running(home) is not None
    with pytest.raises(Conflict, match=f"pid {holder.pid}.*mooring down"), locked(home):
        pass
    holder.kill()
    holder.wait(WITHIN_S)
    assert running(home) is None
    with locked(home):
        assert running(home) is not None


def test_who_only_looks_keeps_nobody_from_starting(home: Home) -> None:
    """`mooring doctor` has a share of the lock for an instant, in which a start must not take it for a supervisor."""
    home.root.mkdir()
    with locked(home):
        pass
    with subprocess.Popen([sys.executable, "-c", LOOKER, str(home.root)], stdout=subprocess.PIPE) as looker:
        assert looker.stdout is not None
        looker.stdout.readline()
        try:
            for _ in range(300):
                with locked(home):
                    pause(0.001)
        finally:
            looker.kill()


def test_no_umask_hides_the_lock(home: Home) -> None:
    """Root may start it with one that closes files to all others: the user whose home it is may look all the same."""
    home.root.mkdir()
    lock = home.root / "lock"
    before = os.umask(0o077)
    try:
        with locked(home):
            assert lock.stat().st_mode & 0o777 == 0o644
        lock.chmod(0o600)
        with locked(home):
            assert lock.stat().st_mode & 0o777 == 0o644
    finally:
        os.umask(before)


def test_the_mode_of_what_is_a_file_elsewhere_too_is_left(home: Home, tmp_path: Path) -> None:
    """Who owns the home cannot have root open a file of its own to everybody by linking it there."""
    home.root.mkdir()
    other = tmp_path / "other"
    other.touch(mode=0o600)
    (home.root / "lock").hardlink_to(other)
    with locked(home):
        assert other.stat().st_mode & 0o777 == 0o600


def test_the_mode_of_what_holds_more_than_the_lock_is_left(home: Home, tmp_path: Path) -> None:
    """Nor by moving it there."""
    home.root.mkdir()
    other = tmp_path / "other"
    other.touch(mode=0o600)
    other.write_bytes(b"x" * 1000)
    other.rename(home.root / "lock")
    with locked(home):
        assert (home.root / "lock").stat().st_mode & 0o777 == 0o600


def test_a_full_disk_has_room_for_the_lock(tmp_path: Path) -> None:
    """A Mooring that ran on a disk that is full by now starts again; a home that has no lock yet says what is wrong."""
    with small_disk(tmp_path / "disk", 1) as disk:
        homes = [Home(disk.folder / name) for name in ("old", "new")]
        for home in homes:
            home.root.mkdir()
        with locked(homes[0]):
            pass
        (homes[1].root / "lock").touch()
        disk.fill()
        with locked(homes[0]):
            assert running(homes[0]) is not None
        with pytest.raises(Misconfigured, match="lock: No space left"), locked(homes[1]):
            pass


def test_a_lock_is_never_followed_elsewhere(home: Home, tmp_path: Path) -> None:
    """Who owns the home cannot make root write to a file of its choice."""
    home.root.mkdir()
    (tmp_path / "victim").write_text("as it was")
    (home.root / "lock").symlink_to(tmp_path / "victim")
    with pytest.raises(Misconfigured, match=r"lock: .*symbolic links"), locked(home):
        pass
    assert (tmp_path / "victim").read_text() == "as it was"


def test_a_home_that_cannot_be_written(home: Home) -> None:
    """A disk that the kernel has made read-only is named, and doctor names it too."""
    home.root.mkdir(mode=0o700)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,size=64k,mode=700", "tmpfs", home.root], check=True)
    try:
        with pytest.raises(Misconfigured, match="lock: Read-only file system"), locked(home):
            pass
        found = next(finding for finding in examine(home) if finding.what == "home")
        assert "read-only" in found.detail
        assert found.remedy == ""
    finally:
        subprocess.run(["umount", home.root], check=True)


def test_down_ends_it_and_waits(home: Home, holder: subprocess.Popen[str]) -> None:
    """After `down` the supervisor is gone; a second one finds nothing to stop."""
    assert down(home)
    assert until(lambda: holder.poll() is not None)
    assert not down(home)


def test_a_home_that_is_closed_to_who_asks() -> None:
    """Whether Mooring runs there they cannot know: `down` says so, and not that there is nothing to stop."""
    # Nobody but root gets below tmp_path.
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "lock").touch()
        os.seteuid(_nobody().uid)
        try:
            with pytest.raises(Misconfigured, match="is closed to you: run this as the user that started Mooring"):
                down(Home(Path(folder)))
        finally:
            os.seteuid(0)


@pytest.mark.parametrize("old_port", [1, None])
def test_what_cannot_have_its_port_replaces_nobody(
    home: Home, holder: subprocess.Popen[str], old_port: int | None
) -> None:
    """A port that is another program's, or an address that is none of ours: the Mooring that runs is left alone."""
    os.chown(home.root, _nobody().uid, _nobody().gid)
    address = "127.0.0.1" if old_port else "192.0.2.1"
    if old_port:
        home.run.mkdir()
        (home.run / "endpoint.json").write_text(f'{{"port": {old_port}}}')
    with bind("127.0.0.1", 0) as taken:
        where = ["--bind", address, "--port", str(taken.getsockname()[1])]
        command = [sys.executable, "-m", "mooring", "up", "--replace", "--home", str(home.root), "--user", "nobody"]
        done = subprocess.run([*command, *where], capture_output=True, text=True, timeout=WITHIN_S, check=False)
    assert (done.returncode, f"cannot listen on {address}" in done.stderr) == (3, True), done.stderr
    assert holder.poll() is None


def test_down_ends_no_process_that_only_has_the_number(home: Home) -> None:
    """A pid that a killed supervisor left may be another program's by now."""
    home.root.mkdir()
    with subprocess.Popen(["sleep", "1000"]) as other:
        try:
            (home.root / "lock").write_text(f'{{"pid": {other.pid}}}')
            assert not down(home)
            assert other.poll() is None
        finally:
            other.kill()


def test_a_lock_with_anything_in_it(home: Home) -> None:
    """What is not a record of ours is no reason to fail."""
    home.root.mkdir()
    for text in ("", "[]", "{", '{"pid": "x"}', "null"):
        (home.root / "lock").write_text(text)
        assert running(home) is None
        assert not down(home)


def test_who_everything_runs_as() -> None:
    """Never root, and never somebody who does not exist."""
    with pytest.raises(Misconfigured, match="never run as root"):
        account("root")
    with pytest.raises(Misconfigured, match="no user nosuchuser: useradd"):
        account("nosuchuser")
    assert account("nobody").uid == _nobody().uid


def test_a_port_that_is_taken_or_not_ours() -> None:
    """The address, the reason and what to type."""
    with bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(Misconfigured, match=f"127.0.0.1:{port}: Address already in use.*--port N"):
            bind("127.0.0.1", port)
    with pytest.raises(Misconfigured, match=r"Cannot assign requested address\. ip addr"):
        bind("192.0.2.1", 0)
    with bind("::1", 0) as listener:
        assert listener.getsockname()[1] > 0


def test_where_the_server_is_goes_with_it(home: Home) -> None:
    """After a stop the command line says that nothing runs, not that nothing answers."""
    make_folders(home)
    write_endpoint(Installation(home, Listen(), Path("editor")))
    assert (home.run / "endpoint.json").stat().st_mode & 0o777 == 0o600
    workspaces = [home.run / "w" / name for name in ("stopped", "running")]
    with (
        socket.socket(socket.AF_UNIX) as server,
        socket.socket(socket.AF_UNIX) as dead,
        socket.socket(socket.AF_UNIX) as alive,
    ):
        server.bind(str(home.api_socket))
        # As a module proxy leaves it that was killed.
        home.modules_admin_socket.hardlink_to(home.api_socket)
        for listener, folder in zip((dead, alive), workspaces, strict=True):
            folder.mkdir()
            listener.bind(str(folder / "keeper.sock"))
        alive.listen()
        dead.close()
        remove_endpoint(home)
        remove_endpoint(home)
    assert {entry.name for entry in home.run.iterdir()} == {"c", "w"}
    assert [list(folder.iterdir()) for folder in workspaces] == [[], [workspaces[1] / "keeper.sock"]]
    assert home.keys.stat().st_mode & 0o777 == 0o700


def test_the_command_line_trusts_the_authority_that_is_used(home: Home) -> None:
    """One that an earlier `--tls` made would refuse the certificate that is given now."""
    make_folders(home)
    given = Listen(tls_certificate=Path("chain"), tls_key=Path("key"), tls=True)
    for listen, authority in ((Listen(tls=True), str(home.authority)), (given, None), (Listen(), None)):
        write_endpoint(Installation(home, listen, Path("editor")))
        assert json.loads((home.run / "endpoint.json").read_text())["authority"] == authority

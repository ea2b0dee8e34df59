"""`mooring goproxy` on the store of `mooring up`, typed by root; and by a user who has no name."""

import os
import pwd
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.cli import run


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of the user `nobody`, where that user gets to: below tmp_path nobody but root does."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        made = Path(folder) / "home"
        for each in (made, made / "goproxy"):
            each.mkdir()
            os.chown(each, pwd.getpwnam("nobody").pw_uid, pwd.getpwnam("nobody").pw_gid)
        yield made


async def test_what_root_does_there_belongs_to_who_serves_it(home: Path) -> None:
    """Everything that the commands make is the owner's, who could not add a version to a folder of root's."""
    environment = {"HOME": "/root", "MOORING_HOME": str(home), "PATH": os.defpath}
    for arguments in (["pin", "example.com/x"], ["key"], ["token", "ci"], ["unpin", "example.com/x"]):
        done = await run(sys.executable, "-m", "mooring", "goproxy", *arguments, environment=environment)
        assert done.status == 0, done
    made = [path for path in home.rglob("*") if path.name in ("pins", "notary", "key", "lock", "tokens")]
    assert len(made) == 5
    assert {path.owner() for path in home.rglob("*")} == {"nobody"}


async def test_a_file_that_the_owner_may_not_have_is_told(home: Path, tmp_path: Path) -> None:
    """Root's command is the owner's by then: it names that user, to whom what is root's own is denied."""
    environment = {"HOME": "/root", "MOORING_HOME": str(home), "PATH": os.defpath}
    tmp_path.chmod(0o700)
    archive = tmp_path / "modules.tar"
    archive.write_bytes(b"")
    read = f"{archive} cannot be read: the user nobody may not read it"
    for arguments, said in {
        ("export", str(archive)): f"cannot be written: the user nobody may not write in {tmp_path}",
        ("import", str(archive)): read,
        ("warm", str(archive)): read,
    }.items():
        command = [sys.executable, "-m", "mooring", "goproxy", *arguments]
        done = await run(*command, environment=environment)
        assert done.status == 2, done
        assert said in " ".join(done.err.split()), done


async def test_what_is_closed_beside_or_below_is_told_too(home: Path) -> None:
    """A go.sum of root's, a folder of a module cache that root made: left out, they would be missed much later."""
    environment = {"HOME": "/root", "MOORING_HOME": str(home), "PATH": os.defpath}
    project, cache = home.parent / "project", home.parent / "mod"
    project.mkdir()
    (project / "go.mod").write_text("module example.com/x\n")
    (project / "go.sum").touch(mode=0o600)
    module = cache / "cache/download/example.com/m"
    module.mkdir(parents=True, mode=0o700)
    for arguments, closed in ((("warm", project / "go.mod"), project / "go.sum"), (("import", cache), module)):
        command = [sys.executable, "-m", "mooring", "goproxy", *map(str, arguments)]
        done = await run(*command, environment=environment)
        assert done.status == 2, done
        assert f"{closed} cannot be read: the user nobody may not read it" in " ".join(done.err.split()), done


async def test_root_leaves_a_home_of_nobody_known_alone(home: Path) -> None:
    """On a volume from another machine root would make files that its owner could not change: what to type is said."""
    os.chown(home, 54321, 54321)
    environment = {"HOME": "/root", "MOORING_HOME": str(home), "PATH": os.defpath}
    done = await run(sys.executable, "-m", "mooring", "goproxy", "pin", "example.com/x", environment=environment)
    assert done.status == 3, done
    assert f"{home} belongs to 54321" in done.err
    assert "chown -R USER:" in done.err
    assert not list((home / "goproxy").iterdir())


async def test_a_user_without_a_name_has_a_store_too(home: Path) -> None:
    """A container's process may be a number: it has no home, and asks for none where the store is named."""
    for each in (home, home / "goproxy"):
        os.chown(each, 54321, 54321)
    number = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
    options = ["--store", str(home / "goproxy"), "--go", "go"]
    command = [*number, sys.executable, "-m", "mooring", "goproxy", *options, "pin", "example.com/x"]
    done = await run(*command, environment={"HOME": "/", "PATH": os.defpath})
    assert done.status == 0, done
    assert (home / "goproxy/pins").stat().st_uid == 54321

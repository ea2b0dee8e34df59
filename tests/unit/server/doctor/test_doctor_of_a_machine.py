"""What `mooring doctor` finds on a machine as it is, whether a Mooring runs there or not."""

import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mooring.cli.doctor import _text
from mooring.server.doctor.examination import examine
from mooring.server.doctor.findings import Finding, Verdict
from mooring.server.doctor.limits import _possible
from mooring.server.doctor.machine import EDITOR_VERSION, examine_port, examine_terminals
from mooring.server.embedded import locked
from mooring.settings import Home, Listen
from support.doctor import answering, found_by_doctor

ROOT = Path(__file__).parents[4]


def test_a_machine_without_a_home(tmp_path: Path) -> None:
    """Before the first start there is nothing wrong: it says what to type."""
    home = Home(tmp_path / "none")
    found = list(examine(home))
    assert Finding(Verdict.notice, "mooring", "does not run", "make up") in found
    assert "made at the first start" in next(f for f in found if f.what == "home").detail
    assert not home.root.exists()


def test_a_home_that_others_can_read(home: Home) -> None:
    """The command that closes it can be pasted, whatever the path; of a folder that is none nothing is said."""
    home.root.chmod(0o755)
    found = found_by_doctor(home, "home")
    assert found is not None
    assert found.verdict is Verdict.good
    with locked(home):
        pass
    found = found_by_doctor(home, "home")
    assert found is not None
    assert found.verdict is Verdict.wrong
    subprocess.run(found.remedy, shell=True, check=True)  # noqa: S602 - as a person would paste it
    assert home.root.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_no_mooring_would_begin_in(home: Home) -> None:
    """What `mooring up` would answer is said here already, as of /etc; an empty folder of root's is taken."""
    shutil.chown(home.root, "root", "root")
    found = found_by_doctor(home, "home")
    assert found is not None
    refusal = f"{home.root} belongs to root: name an empty folder"
    assert (found.verdict, found.detail, found.remedy) == (Verdict.wrong, refusal, "")
    shutil.rmtree(home.root)
    home.root.mkdir()
    found = found_by_doctor(home, "home")
    assert found is not None
    assert found.verdict is Verdict.good


def test_a_home_that_is_no_folder() -> None:
    """Nothing is to be typed that would change what is there."""
    found = found_by_doctor(Home(Path("/dev/null")), "home")
    assert found is not None
    assert (found.verdict, found.remedy) == (Verdict.wrong, "")
    assert found.detail.startswith("/dev/null is no folder")


@pytest.mark.parametrize("closed", ["home", "above"])
def test_a_home_of_another_user(closed: str) -> None:
    """Who asks about the machine's Mooring is told to ask as root, and not to take its folder away from it."""
    # Nobody but root gets below tmp_path, so there the home itself would never be looked at.
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "a home")
        home.root.mkdir()
        home.root.chmod(0o700 if closed == "home" else 0o755)
        Path(folder).chmod(0o700 if closed == "above" else 0o755)
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
        try:
            found = found_by_doctor(home, "home")
        finally:
            os.seteuid(0)
    assert found is not None
    assert found.verdict is Verdict.wrong
    assert "is closed to you" in found.detail
    assert found.remedy == f"sudo mooring doctor --home '{home.root}'"


def test_a_lock_of_another_user() -> None:
    """Whether Mooring runs cannot be known then: it is a finding below the others, with the file that is closed."""
    # Nobody but root gets below tmp_path.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        home = Home(Path(folder) / "home")
        home.root.mkdir(mode=0o700)
        (home.root / "lock").touch(mode=0o600)
        shutil.chown(home.root, "nobody")
        os.seteuid(pwd.getpwnam("nobody").pw_uid)
        try:
            *_, found = examine(home)
        finally:
            os.seteuid(0)
    assert (found.verdict, found.what) == (Verdict.wrong, "home")
    assert found.detail.startswith(f"{home.root / 'lock'} is closed to you")
    assert found.remedy == f"sudo mooring doctor --home {home.root}"


def test_a_disk_that_is_nearly_full(home: Home) -> None:
    """The free space is named, and what takes it can be asked for."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m,mode=700", "tmpfs", home.root], check=True)
    try:
        found = found_by_doctor(home, "disk")
        assert found is not None
        assert found.verdict is Verdict.wrong
        assert found.detail.startswith("64 MiB free")
    finally:
        subprocess.run(["umount", home.root], check=True)


def test_a_port_that_another_program_has() -> None:
    """The default port is looked at as long as Mooring does not run."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        found = list(examine_port(Listen(port=other.getsockname()[1])))
        assert [finding.what for finding in found] == ["port"]
        assert "--port" in found[0].remedy
    assert list(examine_port(Listen(port=0))) == []


def test_a_template_of_the_team_with_a_mistake(home: Home) -> None:
    """File, line and key are named."""
    (home.templates / "good.toml").write_text('version = 1\nruntime = "process"\n[editor]\ncommand = ["x"]\n')
    (home.templates / "bad.toml").write_text('version = 1\nruntime = "proces"\n[editor]\ncommand = ["x"]\n')
    (home.templates / "worse.toml").write_bytes(b"\xff")
    found = [finding for finding in examine(home) if finding.what == "template"]
    assert [finding.verdict for finding in found] == [Verdict.wrong] * 2
    assert found[0].detail.startswith("bad.toml:2: runtime")
    assert "worse.toml" in found[1].detail


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A socket as Docker's, for root and the group docker."""
    path = tmp_path / "docker.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    with answering(path, "200 OK", [{"RepoTags": ["localhost/mooring-workspace:latest"]}]):
        path.chmod(0o660)
        shutil.chown(path, "root", "docker")
        yield path


def test_the_user_that_mooring_runs_as_may_not_use_docker(home: Home, engine: Path) -> None:
    """Root may, but what root starts runs as `mooring`: the group and the command are told, and what that grants."""
    shutil.chown(home.root, "mooring", "mooring")
    found = found_by_doctor(home, "docker")
    assert found is not None
    assert found.verdict is Verdict.notice
    assert "user mooring" in found.detail
    assert "as much as root" in found.detail
    assert found.remedy == "sudo usermod -aG docker mooring && mooring down && make up"
    shutil.chown(engine, group="mooring")
    found = found_by_doctor(home, "docker")
    assert found is not None
    assert found.verdict is Verdict.good


def test_before_the_first_start_the_user_is_the_one_that_would_be_taken(tmp_path: Path, engine: Path) -> None:
    """As root that is `mooring`, for whom others' sockets may be open."""
    home = Home(tmp_path / "none")
    found = found_by_doctor(home, "docker")
    assert found is not None
    assert "usermod -aG docker mooring" in found.remedy
    engine.chmod(0o666)
    found = found_by_doctor(home, "docker")
    assert found is not None
    assert found.verdict is Verdict.good


def test_limits_are_looked_for_where_the_server_does(home: Home) -> None:
    """A Mooring that runs without its cgroup limits nothing, whatever this process could do itself."""
    with locked(home):
        found = found_by_doctor(home, "limits")
    assert found is not None
    assert found.verdict is Verdict.notice
    assert found.detail.startswith("memory, cpu, pids: not limited")
    assert found.detail.endswith("with the same options and --replace")


def test_limits_in_a_terminal(tmp_path: Path) -> None:
    """With v2 a terminal's cgroup, where the shell is, takes none; who may write above it, as root may, has them."""
    terminal = tmp_path / "scope"
    terminal.mkdir()
    (terminal / "cgroup.type").write_text("domain\n")
    (terminal / "cgroup.procs").write_text("1\n")
    assert "not Mooring's own" in _possible({"": terminal}).detail
    (tmp_path / "cgroup.procs").write_text("")
    (tmp_path / "cgroup.controllers").write_text("memory pids\n")
    assert _possible({"": terminal}).detail.startswith("cpu: not to be limited")
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    assert _possible({"": terminal}).verdict is Verdict.good


def test_cgroups_that_cannot_be_written(tmp_path: Path) -> None:
    """With v2 the cgroup must be Mooring's own; without any there are no limits."""
    assert _possible({}).verdict is Verdict.notice
    assert "not Mooring's own" in _possible({"": tmp_path / "none"}).detail
    assert "root alone" in _possible({"memory": tmp_path / "none"}).detail


@pytest.mark.parametrize(
    ("options", "named"), [("rw,mode=600,ptmxmode=000", True), ("rw,nosuid,gid=5,mode=620,ptmxmode=000", False)]
)
def test_terminals_that_ssh_cannot_give(options: str, *, named: bool) -> None:
    """The mount that counts is the last one at that place."""
    mounts = f"proc /proc proc rw 0 0\ndevpts /dev/pts devpts rw,gid=5 0 0\ndevpts /dev/pts devpts {options} 0 0\n"
    found = list(examine_terminals(mounts))
    assert [finding.what for finding in found] == (["terminals"] if named else [])


def test_the_editor_that_is_wanted_is_the_one_that_is_installed() -> None:
    """Doctor calls stale what the set-up would replace, and nothing else."""
    package = json.loads((ROOT / "tools/setup/code-server/package.json").read_text())
    assert package["dependencies"]["code-server"] == EDITOR_VERSION


def test_the_editor_is_asked_without_a_trace(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real code-server says its version behind other lines in a new home, where it would leave a configuration."""
    monkeypatch.setenv("HOME", str(tmp_path))
    found = found_by_doctor(home, "code-server")
    assert found is not None
    assert (found.verdict, found.detail) == (Verdict.good, EDITOR_VERSION)
    assert [entry.name for entry in tmp_path.iterdir()] == [home.root.name]


@pytest.mark.parametrize("made", [None, "4.100.3 abc with Code 1.100"])
def test_an_editor_that_is_missing_or_stale(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: str | None
) -> None:
    """Both are mended by the same command."""
    monkeypatch.setenv("MOORING_CACHE", str(tmp_path))
    if made is not None:
        program = tmp_path / "editor/bin/code-server"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\necho '{made}'\n")
        program.chmod(0o755)
    found = found_by_doctor(home, "code-server")
    assert found is not None
    assert found.verdict is (Verdict.missing if made is None else Verdict.wrong)
    assert found.remedy == "make up"


def test_what_to_type_is_never_broken() -> None:
    """At any width a remedy is a line that can be copied, and details go on below themselves."""
    remedy = "sudo mount -o remount,gid=5,mode=620 /dev/pts"
    text = _text([Finding(Verdict.notice, "terminals", "word " * 30, remedy), Finding(Verdict.good, "home", "x")], 60)
    lines = text.splitlines()
    assert f"$ {remedy}" in [line.strip() for line in lines]
    assert all(len(line) <= 60 for line in lines if remedy not in line)
    assert lines[-1].split() == ["ok", "home", "x"]

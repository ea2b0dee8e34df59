"""What `mooring doctor` finds, on a machine as it is."""

import json
import os
import pwd
import re
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from mooring.cli.doctor import _text
from mooring.server import doctor
from mooring.server.doctor import EDITOR_VERSION, Finding, Verdict, examine
from mooring.server.embedded import locked
from mooring.server.files import make_folders
from mooring.server.logs import last_words
from mooring.server.modules_health import STARTING
from mooring.server.supervisor import PYTHON, settings_file
from mooring.settings import Home, Installation, Listen
from support.waiting import WITHIN_S

ROOT = Path(__file__).parents[3]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A home as the set-up makes it."""
    home = Home(tmp_path / "a home")
    home.root.mkdir(mode=0o700)
    make_folders(home)
    if os.geteuid() == 0:
        shutil.chown(home.root, "mooring", "mooring")
    return home


def _found(home: Home, what: str) -> Finding | None:
    return next((finding for finding in examine(home) if finding.what == what), None)


@contextmanager
def _answering(path: Path, status: str, document: object, heard: list[bytes] | None = None) -> Iterator[None]:
    """A server at a unix socket that answers every request so, a text as it is; what it is asked goes to `heard`."""
    body = document if isinstance(document, str) else json.dumps(document)
    answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}".encode()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    asked = connection.recv(65536)
                    if heard is not None:
                        heard.append(asked)
                    connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            path.unlink()


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
    found = _found(home, "home")
    assert found is not None
    assert found.verdict is Verdict.good
    with locked(home):
        pass
    found = _found(home, "home")
    assert found is not None
    assert found.verdict is Verdict.wrong
    subprocess.run(found.remedy, shell=True, check=True)  # noqa: S602 - as a person would paste it
    assert home.root.stat().st_mode & 0o777 == 0o700


def test_a_folder_that_no_mooring_would_begin_in(home: Home) -> None:
    """What `mooring up` would answer is said here already, as of /etc; an empty folder of root's is taken."""
    shutil.chown(home.root, "root", "root")
    found = _found(home, "home")
    assert found is not None
    refusal = f"{home.root} belongs to root: name an empty folder"
    assert (found.verdict, found.detail, found.remedy) == (Verdict.wrong, refusal, "")
    shutil.rmtree(home.root)
    home.root.mkdir()
    found = _found(home, "home")
    assert found is not None
    assert found.verdict is Verdict.good


def test_a_home_that_is_no_folder() -> None:
    """Nothing is to be typed that would change what is there."""
    found = _found(Home(Path("/dev/null")), "home")
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
            found = _found(home, "home")
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
        found = _found(home, "disk")
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
        found = list(doctor._port(Listen(port=other.getsockname()[1])))
        assert [finding.what for finding in found] == ["port"]
        assert "--port" in found[0].remedy
    assert list(doctor._port(Listen(port=0))) == []


def test_a_server_that_does_not_answer(home: Home) -> None:
    """A supervisor without a server is wrong, with where to read why."""
    with locked(home):
        found = _found(home, "mooring")
    assert found is not None
    assert found.verdict is Verdict.wrong
    assert "does not answer" in found.detail
    assert found.remedy == f"tail '{home.logs}'/*.log"


def test_a_server_that_waits_says_for_what(home: Home) -> None:
    """Before its database is there a server answers nobody: its log has why, among lines that say nothing of it."""
    (home.logs / "server.log").write_text(
        'of a cut-off line"}\n'
        '{"event": "task failed", "level": "error", "error": "of earlier"}\n'
        '{"event": "something is away", "level": "warning", "reason": "the database does not answer: wrong password"}\n'
        '{"event": "user created", "level": "info"}\n'
    )
    with locked(home):
        found = _found(home, "mooring")
    assert found is not None
    assert found.detail.endswith("does not answer. It said last: the database does not answer: wrong password")


def test_a_server_that_ended_says_why(home: Home) -> None:
    """What it ended for counts, as a process of its own writes it, and not what it waited for an hour ago."""
    (home.logs / "server.log").write_text('{"error": "the disk is full", "level": "warning"}\n')
    home.keys.rmdir()
    home.keys.touch()
    with settings_file(Installation(home, Listen(), home.root / "editor")) as settings:
        command = [*PYTHON, "-m", "mooring.server.role", "server", f"--settings={settings}"]
        subprocess.run(command, pass_fds=(settings,), capture_output=True, timeout=WITHIN_S, check=False)
    assert last_words(home.logs / "server.log") == f"{home.keys}: File exists"
    found = _found(home, "mooring")
    assert found is not None
    assert found.verdict is Verdict.wrong
    moment = r"\d{4}-\d\d-\d\dT[\d:]{8}"
    said = rf"does not run; its server ended last at {moment} UTC: {re.escape(str(home.keys))}: File exists"
    assert re.fullmatch(said, found.detail), found.detail
    with (home.logs / "server.log").open("a") as log:
        log.write('{"event": "begun again", "level": "info"}\n')
    found = _found(home, "mooring")
    assert found is not None
    assert (found.verdict, found.detail) == (Verdict.notice, "does not run")


def test_a_server_that_is_not_ready(home: Home) -> None:
    """What the server has not seen for too long is named."""
    watches = [
        {"name": "runtime/docker", "age_s": 80.0, "ok": False, "most_s": 30},
        {"name": "database", "ok": True},
        {"name": "goproxy", "age_s": None, "ok": False, "most_s": 30, "starting": True},
    ]
    with locked(home), _answering(home.api_socket, "503 Not ready", {"ready": False, "watches": watches}):
        found = _found(home, "mooring")
    assert found is not None
    assert found.verdict is Verdict.wrong
    assert found.detail == "not ready: runtime/docker"


def test_a_server_that_is_ready(home: Home) -> None:
    """Nothing is to be typed then."""
    with locked(home), _answering(home.api_socket, "200 OK", {"ready": True, "watches": []}):
        found = _found(home, "mooring")
    assert found is not None
    assert (found.verdict, found.remedy) == (Verdict.good, "")


def test_what_a_ready_mooring_no_longer_sees(home: Home) -> None:
    """An engine or a source that is away is named with the time; the module proxy is asked itself."""
    watches = [
        {"name": "runtime/docker", "age_s": 80.4, "ok": False, "most_s": 30},
        {"name": "gateway/local/redis", "age_s": None, "ok": False, "most_s": 30},
        {"name": "database", "age_s": 0.1, "ok": True, "most_s": 5},
        {"name": "goproxy", "age_s": None, "ok": False, "most_s": 30},
    ]
    with locked(home), _answering(home.api_socket, "200 OK", {"ready": True, "watches": watches}):
        found = _found(home, "stale")
    assert found is not None
    assert found.detail == "runtime/docker was last seen 80 s ago; gateway/local/redis was never seen"
    assert found.remedy.startswith("tail ")


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
    with _answering(path, "200 OK", [{"RepoTags": ["localhost/mooring-workspace:latest"]}]):
        path.chmod(0o660)
        shutil.chown(path, "root", "docker")
        yield path


def test_the_user_that_mooring_runs_as_may_not_use_docker(home: Home, engine: Path) -> None:
    """Root may, but what root starts runs as `mooring`: the group and the command are told, and what that grants."""
    shutil.chown(home.root, "mooring", "mooring")
    found = _found(home, "docker")
    assert found is not None
    assert found.verdict is Verdict.notice
    assert "user mooring" in found.detail
    assert "as much as root" in found.detail
    assert found.remedy == "sudo usermod -aG docker mooring && mooring down && make up"
    shutil.chown(engine, group="mooring")
    found = _found(home, "docker")
    assert found is not None
    assert found.verdict is Verdict.good


def test_before_the_first_start_the_user_is_the_one_that_would_be_taken(tmp_path: Path, engine: Path) -> None:
    """As root that is `mooring`, for whom others' sockets may be open."""
    home = Home(tmp_path / "none")
    found = _found(home, "docker")
    assert found is not None
    assert "usermod -aG docker mooring" in found.remedy
    engine.chmod(0o666)
    found = _found(home, "docker")
    assert found is not None
    assert found.verdict is Verdict.good


def test_what_mooring_says_is_wrong(home: Home) -> None:
    """Each is told, ready or not, as `mooring status` may come less far; of many the first, and where the rest is."""
    document = {"ready": True, "watches": [], "problem_count": 7, "problems": [f"route {n}" for n in range(7)]}
    for status in ("200 OK", "503 Service Unavailable"):
        with locked(home), _answering(home.api_socket, status, document):
            found = [finding for finding in examine(home) if finding.what == "problem"]
        assert [(finding.detail, finding.remedy) for finding in found] == [
            *((f"route {n}", "") for n in range(5)),
            ("2 more of them", "mooring status"),
        ]
        assert {finding.verdict for finding in found} == {Verdict.wrong}


def test_what_is_wrong_is_asked_for_with_the_administrators_token(home: Home) -> None:
    """Nobody else is told; without it there is a number, and where they are told is named."""
    told = {"ready": True, "watches": [], "problem_count": 2}
    home.admin_token.touch(0o600)
    for token in ("", "mrg_x"):
        home.admin_token.write_text(token)
        heard: list[bytes] = []
        with locked(home), _answering(home.api_socket, "200 OK", told, heard):
            found = _found(home, "problem")
        assert (b"Authorization: Bearer mrg_x" in b"".join(heard)) is bool(token)
        assert found is not None
        assert (found.verdict, found.remedy) == (Verdict.wrong, "mooring status")
        assert "modules: 2" in found.detail


def test_limits_are_looked_for_where_the_server_does(home: Home) -> None:
    """A Mooring that runs without its cgroup limits nothing, whatever this process could do itself."""
    with locked(home):
        found = _found(home, "limits")
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
    assert "not Mooring's own" in doctor._possible({"": terminal}).detail
    (tmp_path / "cgroup.procs").write_text("")
    (tmp_path / "cgroup.controllers").write_text("memory pids\n")
    assert doctor._possible({"": terminal}).detail.startswith("cpu: not to be limited")
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    assert doctor._possible({"": terminal}).verdict is Verdict.good


def test_cgroups_that_cannot_be_written(tmp_path: Path) -> None:
    """With v2 the cgroup must be Mooring's own; without any there are no limits."""
    assert doctor._possible({}).verdict is Verdict.notice
    assert "not Mooring's own" in doctor._possible({"": tmp_path / "none"}).detail
    assert "root alone" in doctor._possible({"memory": tmp_path / "none"}).detail


@pytest.mark.parametrize(
    ("options", "named"), [("rw,mode=600,ptmxmode=000", True), ("rw,nosuid,gid=5,mode=620,ptmxmode=000", False)]
)
def test_terminals_that_ssh_cannot_give(options: str, *, named: bool) -> None:
    """The mount that counts is the last one at that place."""
    mounts = f"proc /proc proc rw 0 0\ndevpts /dev/pts devpts rw,gid=5 0 0\ndevpts /dev/pts devpts {options} 0 0\n"
    found = list(doctor._terminals(mounts))
    assert [finding.what for finding in found] == (["terminals"] if named else [])


def test_the_editor_that_is_wanted_is_the_one_that_is_installed() -> None:
    """Doctor calls stale what the set-up would replace, and nothing else."""
    package = json.loads((ROOT / "tools/setup/code-server/package.json").read_text())
    assert package["dependencies"]["code-server"] == EDITOR_VERSION


def test_the_editor_is_asked_without_a_trace(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real code-server says its version behind other lines in a new home, where it would leave a configuration."""
    monkeypatch.setenv("HOME", str(tmp_path))
    found = _found(home, "code-server")
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
    found = _found(home, "code-server")
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


def test_a_mistake_in_the_settings_of_modules(home: Home) -> None:
    """It is named with its line, and the file that is to be edited, whether Mooring runs or not."""
    home.modules_settings.write_text("private = ['a b']\n")
    found = _found(home, "modules")
    assert found is not None
    assert found.verdict is Verdict.wrong
    assert found.detail.startswith("goproxy.toml:1: private.0: must be a pattern of module paths")
    assert found.remedy == f"${{EDITOR:-nano}} '{home.modules_settings}'"


@pytest.mark.parametrize(
    ("status", "verdict", "detail"),
    [
        ("200 OK", Verdict.good, "the module proxy serves"),
        ("503 Service Unavailable", Verdict.wrong, "the disk takes no more"),
    ],
)
def test_how_the_module_proxy_is(home: Home, status: str, verdict: Verdict, detail: str) -> None:
    """What it says of itself is what doctor says."""
    with locked(home), _answering(home.modules_socket, status, "the disk takes no more"):
        found = _found(home, "modules")
    assert found is not None
    assert found.verdict is verdict
    assert detail in found.detail


def test_a_problem_of_the_module_proxy_is_told_once(home: Home) -> None:
    """Where there is something to type about it, and in the words that it has for it now; of others none is lost."""
    problems = ["goproxy: the disk takes no more", "goproxy: and another", *(f"route {n}" for n in range(6))]
    document = {"ready": True, "watches": [], "problem_count": 8, "problems": problems}
    with (
        locked(home),
        _answering(home.api_socket, "200 OK", document),
        _answering(home.modules_socket, "503 Service Unavailable", "the disk takes no more"),
    ):
        found = [finding for finding in examine(home) if finding.what in ("problem", "modules")]
    assert [finding.detail for finding in found if finding.what == "problem"] == [
        *(f"route {n}" for n in range(5)),
        "1 more of them",
    ]
    (modules,) = (finding for finding in found if finding.what == "modules")
    assert "the disk takes no more" in modules.detail
    assert "goproxy.log" in modules.remedy


@pytest.mark.parametrize("silent", [True, False])
@pytest.mark.parametrize("starting", [True, False])
def test_a_module_proxy_that_starts_is_no_fault(home: Home, *, silent: bool, starting: bool) -> None:
    """Within the time that the server gives it, silent or not, it is worth knowing; afterwards it is wrong."""
    watches = [{"name": "goproxy", "age_s": None, "ok": False, "most_s": 30, "starting": starting}]
    with ExitStack() as stack:
        stack.enter_context(locked(home))
        stack.enter_context(_answering(home.api_socket, "200 OK", {"ready": True, "watches": watches}))
        if not silent:
            stack.enter_context(_answering(home.modules_socket, "503 Service Unavailable", STARTING))
        found = _found(home, "modules")
    assert found is not None
    assert found.verdict is (Verdict.notice if starting else Verdict.wrong)
    assert (found.remedy == "") is starting
    assert (STARTING in found.detail) is (starting or not silent)


def test_what_is_wrong_at_the_start_of_the_module_proxy_is_told(home: Home) -> None:
    """The server may have looked a moment before it said so."""
    watches = [{"name": "goproxy", "age_s": None, "ok": False, "most_s": 30, "starting": True}]
    with (
        locked(home),
        _answering(home.api_socket, "200 OK", {"ready": True, "watches": watches}),
        _answering(home.modules_socket, "503 Service Unavailable", "the disk takes no more"),
    ):
        found = _found(home, "modules")
    assert found is not None
    assert found.verdict is Verdict.wrong


def test_a_module_proxy_that_does_not_answer(home: Home) -> None:
    """Its log is where to look, unless it is switched off."""
    with locked(home):
        found = _found(home, "modules")
        assert found is not None
        assert (found.verdict, found.detail) == (Verdict.wrong, "the module proxy does not answer")
        assert "goproxy.log" in found.remedy
        home.modules_settings.write_text("enabled = false\n")
        found = _found(home, "modules")
    assert found is not None
    assert found.verdict is Verdict.notice

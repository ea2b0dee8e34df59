"""Another build takes the place of a Mooring that runs: people's editors live through it, in both runtimes."""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.certificates import certificate_files
from support.docker import LIGHT_TEMPLATE, Dockerd
from support.mooring import MOORING, Mooring, installation
from support.waiting import until

REPLACE = ("--replace",)


@pytest.fixture
def older(engine: Dockerd) -> Iterator[Mooring]:
    """A Mooring that runs from a folder of its own, as the build of another checkout does."""
    with tempfile.TemporaryDirectory(prefix="mrg-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        build, installed = Path(folder) / "venv-older", MOORING.parents[1].resolve()
        shutil.copytree(installed, build, symlinks=True)
        program = build / "bin/mooring"
        program.write_text(program.read_text().replace(str(installed), str(build)))
        # Where nothing runs there is nothing to replace.
        with installation(*REPLACE, program=program, DOCKER_HOST=engine.host) as mooring:
            yield mooring


def shown(mooring: Mooring, name: str) -> dict[str, Any]:
    """The workspace as the API shows it."""
    document = mooring.json("workspace", "show", name)
    assert isinstance(document, dict)
    return document


def said(mooring: Mooring, name: str, script: str) -> str:
    """What a shell in the workspace prints."""
    return mooring.cli("workspace", "exec", name, "--", "sh", "-c", script).stdout.strip()


def kinds(mooring: Mooring, name: str) -> list[str]:
    """The kinds of the workspace's events."""
    lines = mooring.cli("workspace", "events", name, "-o", "json").stdout.splitlines()
    return [json.loads(line)["kind"] for line in lines]


def is_back(mooring: Mooring, name: str) -> bool:
    """Whether its editor answers at its URL, and it is called running."""
    return mooring.answers(name) and shown(mooring, name)["phase"] == "running"


def test_workspaces_run_on_while_mooring_is_replaced(older: Mooring) -> None:
    """The old one ends with 0; the new one has every editor as it was, leads it on, and its own stop ends it."""
    older.add_light_template()
    older.add_template("boxed", LIGHT_TEMPLATE)
    for name, template in (("hall", "light"), ("dock", "boxed"), ("rest", "light")):
        older.cli("workspace", "create", name, "--template", template, "--wait")
        said(older, name, "sleep 1000 >/dev/null 2>&1 & echo $! > lasting")
    older.cli("workspace", "stop", "rest", "--wait")
    before = {name: kinds(older, name) for name in ("hall", "dock", "rest")}
    (editor,) = older.processes("light_editor.py", f"/run/w/{shown(older, 'hall')['id']}/")

    newer = Mooring(older.home, older.port, REPLACE, older.variables)
    try:
        newer.start()
        assert older.stop() == 0
        assert any("workspaces run on" in line for line in older.output)
        # The set-up keeps a build that still runs; its keepers need nothing of it.
        shutil.rmtree(older.program.parents[1])

        until(lambda: is_back(newer, "hall") and is_back(newer, "dock"))
        assert {name: kinds(newer, name) for name in before} == before
        for name in ("hall", "dock"):
            assert said(newer, name, "kill -0 $(cat lasting) && echo alive") == "alive"
        assert newer.processes("light_editor.py", f"/run/w/{shown(newer, 'hall')['id']}/") == [editor]
        os.kill(editor, signal.SIGKILL)
        until(lambda: "crashed" in kinds(newer, "hall") and is_back(newer, "hall"))
        newer.cli("workspace", "restart", "dock", "--wait")
        newer.cli("workspace", "start", "rest", "--wait")
        for name in before:
            newer.cli("workspace", "delete", name, "--yes", "--wait")
    finally:
        status = newer.stop()
    assert status == 0
    assert newer.processes() == []


def test_what_cannot_start_replaces_nobody(tmp_path: Path) -> None:
    """A key that only root may read, as certbot leaves it, or a database that is away: the old one is not ended."""
    chain, key = certificate_files(tmp_path, "mooring.test")
    key.chmod(0o600)
    with installation() as mooring:
        chain = shutil.move(chain, mooring.home.parent / "chain.pem")
        key = shutil.move(key, mooring.home.parent / "key.pem")
        up = ("up", *REPLACE, "--port", str(mooring.port))
        refused = {
            f"Permission denied: '{key}'. Tried as the user mooring": ("--tls-certificate", chain, "--tls-key", key),
            "the database does not answer": ("--database", "postgresql://nobody@127.0.0.1:1/none"),
        }
        for said, options in refused.items():
            done = mooring.cli(*up, *map(str, options), check=False)
            assert (done.returncode, said in done.stderr) == (3, True), done.stderr
        assert mooring.runs()
        assert mooring.ask("GET", "/readyz").status_code == 200

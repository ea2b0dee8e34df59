"""What a workspace is started with, from its template."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from mooring.errors import Misconfigured
from mooring.model.template import Editor, Template
from mooring.model.workspace import Desired, Phase, Spec, Workspace
from mooring.settings import Listen
from mooring.workspaces.launch import Places, health_path, launch, prefix, repository_folder
from mooring.workspaces.templates import BUILTIN, parse

LISTEN = Listen()
PLACES = Places(home="/h", data="/d", editor="/e/code-server", socket="/s/editor.sock", go="/cache/go")


def workspace(**spec: object) -> Workspace:
    """A workspace called one of ada."""
    return Workspace(
        id="0123456789",
        owner="ada",
        name="one",
        spec=Spec.model_validate({"template": "light", **spec}),
        desired=Desired.running,
        phase=Phase.pending,
    )


def template(*command: str, **more: object) -> Template:
    """A template with that command."""
    return Template.model_validate({"name": "light", "editor": {"command": command, **more}})


def test_words_in_braces_are_replaced_once() -> None:
    """Each word stands for its value; braces in a value, and words that are not known, stay as they are."""
    made = launch(
        workspace(), template("{editor}", "{home}:{data}", "{port_url}", "{other}", "{{name}}"), PLACES, LISTEN
    )
    assert made.argv == (
        "/e/code-server",
        "/h:/d",
        "http://p{{port}}--one--ada.localhost:8080/",
        "{other}",
        "{one}",
    )
    assert (made.socket, made.port, made.cwd) == ("/s/editor.sock", None, "/h")


def test_a_typed_value_is_never_looked_at() -> None:
    """Variables of a workspace go as they are: no word in braces, no shell, goes before the template's."""
    made = launch(
        workspace(environment={"A": "{home} $(id) `id`", "B": "mine"}),
        template("x").model_copy(update={"environment": {"B": "theirs", "C": "{home}"}}),
        PLACES,
        LISTEN,
    )
    assert made.environment["A"] == "{home} $(id) `id`"
    assert (made.environment["B"], made.environment["C"]) == ("mine", "/h")
    assert made.environment["MOORING_WORKSPACE"] == "0123456789"


def test_a_socket_that_the_runtime_lacks_is_a_mistake_of_the_template() -> None:
    """A template that listens on a socket cannot run in a container, and the message says what to change."""
    with pytest.raises(Misconfigured, match=r"editor\.listen must be port"):
        launch(workspace(), template("x"), Places("/h", "/d", "code-server"), LISTEN)


def test_the_shipped_templates_start_code_server() -> None:
    """The flags that switch code-server's own login, updates and port proxy off are there, and the port URL is ours."""
    for path in BUILTIN.glob("*.toml"):
        made = launch(workspace(), parse(path.read_text(), path.name), PLACES, LISTEN)
        command = made.argv[made.argv.index("--") + 1 :]
        assert command[0] == "/e/code-server"
        assert {"--disable-proxy", "--disable-update-check", "--disable-telemetry"} <= set(command)
        assert command[-3:] == ("--user-data-dir", "/d", "/h")
        assert made.environment["VSCODE_PROXY_URI"] == "http://p{{port}}--one--ada.localhost:8080/"
        assert made.environment["VSCODE_CLI"] == "1"


def test_first_settings_are_the_persons_afterwards(tmp_path: Path) -> None:
    """A seed is written where nothing is, with the very text of the template, and never over what a person changed."""
    text = '{"a": "it\'s $HOME"}\n'
    seeded = template("true", seed={"{data}/User/settings.json": text})
    made = launch(workspace(), seeded, Places(str(tmp_path), str(tmp_path / "d"), "e", "/s"), LISTEN)
    subprocess.run(made.argv, check=True)
    file = tmp_path / "d/User/settings.json"
    assert file.read_text() == text
    file.write_text("mine")
    subprocess.run(made.argv, check=True)
    assert file.read_text() == "mine"


def test_first_settings_of_a_full_disk_are_written_once_there_is_room(tmp_path: Path) -> None:
    """Half a file is not taken for what a person wrote, and no editor begins without its settings."""
    seeded = template("touch", str(tmp_path / "begun"), seed={"{data}/settings.json": "{}"})
    made = launch(workspace(), seeded, Places(str(tmp_path), str(tmp_path), "e", "/s"), LISTEN)
    (tmp_path / "settings.json.part").symlink_to("/dev/full")
    assert subprocess.run(made.argv, stderr=subprocess.DEVNULL, check=False).returncode != 0
    assert not (tmp_path / "settings.json").exists()
    assert not (tmp_path / "begun").exists()
    (tmp_path / "settings.json.part").unlink()
    subprocess.run(made.argv, check=True)
    assert (tmp_path / "settings.json").read_text() == "{}"
    assert (tmp_path / "begun").exists()


def test_the_shipped_settings_are_json() -> None:
    """What is written for the editor can be read by it."""
    for path in BUILTIN.glob("*.toml"):
        for text in parse(path.read_text(), path.name).editor.seed.values():
            assert json.loads(text)["security.workspace.trust.enabled"] is False


def clone(tmp_path: Path, url: str) -> "subprocess.CompletedProcess[str]":
    """Run the first start's step with a repository on this disk in the place of the URL."""
    made = launch(
        workspace(repository="https://example.com/a/b.git"),
        template("x"),
        Places(str(tmp_path / "home"), str(tmp_path / "data"), "e", "/s"),
        LISTEN,
    )
    (step,) = made.first_start
    argv = [url if word == "https://example.com/a/b.git" else word for word in step.argv]
    environment = {"PATH": os.defpath, "HOME": str(tmp_path)}
    return subprocess.run(argv, check=False, capture_output=True, text=True, env=environment, timeout=60)


def test_a_repository_is_cloned_once(tmp_path: Path) -> None:
    """The clone is there after the first start, and is not repeated when the person removed it."""
    for folder in ("home", "data"):
        (tmp_path / folder).mkdir()
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "origin"], check=True)
    assert clone(tmp_path, str(tmp_path / "origin")).returncode == 0
    cloned = tmp_path / "home/b"
    assert (cloned / ".git").is_dir()
    assert clone(tmp_path, str(tmp_path / "origin")).returncode == 0
    subprocess.run(["rm", "-rf", cloned], check=True)
    assert clone(tmp_path, str(tmp_path / "origin")).returncode == 0
    assert not cloned.exists()


def test_a_clone_that_failed_is_tried_at_the_next_start(tmp_path: Path) -> None:
    """A failure has a status and words, leaves nothing half-done, and does not count as done."""
    for folder in ("home", "data"):
        (tmp_path / folder).mkdir()
    (tmp_path / "home/b.part").mkdir()
    failed = clone(tmp_path, str(tmp_path / "origin"))
    assert failed.returncode == 128
    assert "does not exist" in failed.stderr
    assert not (tmp_path / "home/b").exists()
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "origin"], check=True)
    assert clone(tmp_path, str(tmp_path / "origin")).returncode == 0
    assert (tmp_path / "home/b/.git").is_dir()


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("https://example.com/a/b.git", "b"),
        ("https://example.com/a/b/", "b"),
        ("https://example.com/a/.git", "repository"),
        ("https://example.com/a/...", "repository"),
    ],
)
def test_the_folder_of_a_repository(url: str, folder: str) -> None:
    """It is called like the repository, and never hidden nor above."""
    assert repository_folder(url) == folder


def test_the_health_path_is_below_the_prefix_of_an_editor_that_wants_one() -> None:
    """The probe asks where the editor really is."""
    assert prefix(workspace()) == "/ws/0123456789/"
    assert health_path(workspace(), template("x")) == "/healthz"
    assert health_path(workspace(), template("x", path_prefix=True)) == "/ws/0123456789/healthz"
    assert Editor(command=("x",)).path_prefix is False

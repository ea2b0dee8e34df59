"""Templates: files that a team writes, their mistakes, and the versions that workspaces remember."""

import os
from pathlib import Path

import pytest

from mooring.errors import Conflict, InvalidInput, NotFound
from mooring.workspaces.memory import MemoryTemplates
from mooring.workspaces.templates import BUILTIN, BadTemplate, Catalogue, parse

GOOD = 'version = {version}\ndescription = "{text}"\n[editor]\ncommand = ["run", "{{socket}}"]\n'


def write(folder: Path, name: str, text: str) -> None:
    """Write a file whose change can be seen, however coarse the file system's clock is."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.toml"
    before = path.stat().st_mtime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(before + 10**9, before + 10**9))


@pytest.fixture
def team(tmp_path: Path) -> Path:
    """The team's folder, which does not exist yet."""
    return tmp_path / "templates"


@pytest.fixture
def history() -> MemoryTemplates:
    """What is kept in the database."""
    return MemoryTemplates()


@pytest.fixture
def catalogue(team: Path, history: MemoryTemplates) -> Catalogue:
    """The shipped templates and the team's."""
    return Catalogue(team, history)


async def test_the_shipped_templates_are_good(catalogue: Catalogue) -> None:
    """Each file that is shipped is a template; process ones listen on a socket, docker ones on a port."""
    shipped = {template.name: template for template in await catalogue.newest()}
    assert set(shipped) == {"code-server", "code-server-docker", "go", "go-docker"}
    assert {path.stem for path in BUILTIN.glob("*.toml")} == set(shipped)
    assert await catalogue.mistakes() == ()
    for template in shipped.values():
        assert (template.runtime, template.editor.listen) in {("process", "socket"), ("docker", "port")}


async def test_a_template_of_the_team_appears_and_changes(catalogue: Catalogue, team: Path) -> None:
    """A new file is there at once, an edited one is read again, a removed one is gone."""
    write(team, "rust", GOOD.format(version=1, text="first"))
    assert (await catalogue.get("rust")).description == "first"
    write(team, "rust", GOOD.format(version=1, text="second"))
    assert (await catalogue.get("rust")).description == "second"
    (team / "rust.toml").unlink()
    with pytest.raises(NotFound, match="template rust"):
        await catalogue.get("rust")


async def test_the_teams_file_goes_before_the_shipped_one(catalogue: Catalogue, team: Path) -> None:
    """A team replaces a shipped template by one of the same name; a broken one does not bring the shipped one back."""
    write(team, "go", GOOD.format(version=7, text="ours"))
    assert (await catalogue.get("go")).version == 7
    write(team, "go", "version = 8\n[editor]\ncommand = 3\n")
    with pytest.raises(BadTemplate, match=r"go\.toml:3: editor\.command"):
        await catalogue.get("go")


async def test_a_bad_file_hides_no_other(catalogue: Catalogue, team: Path) -> None:
    """The others are listed, and the mistake is told with file, line and key."""
    write(team, "bad", 'version = 1\n\n[editor]\ncommand = ["x"]\nport = 80\n')
    write(team, "rust", GOOD.format(version=1, text="good"))
    assert "rust" in {template.name for template in await catalogue.newest()}
    (mistake,) = await catalogue.mistakes()
    assert (mistake.file, mistake.line, mistake.key) == ("bad.toml", 5, "editor.port")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("version = \n", "t1.toml:1: "),
        ("a = 1\na = 2\n", "t1.toml:2: "),
        ('[editor]\ncommand = ["x"]\n\ncolour = 1\n', "t1.toml:4: editor.colour: there is no such key"),
        ('[editor]\ncommand = ["x"]\n[limits]\nmemory = "lots"\n', "t1.toml:4: limits.memory: must be a quantity"),
        ('[editor]\ncommand = ["x"]\n[environment]\n"A-B" = "x"\n', "t1.toml:3: environment: 'A-B': names are"),
        (
            '[editor]\ncommand = ["x"]\n[environment]\nA = "a\\u0007"\n',
            "t1.toml:3: environment: A: the value must",
        ),
        ('[editor]\ncommand = ["x", "a\\u0000"]\n', "t1.toml:2: editor.command.1: "),
        ('runtime = "podman"\n', "t1.toml:1: runtime: must be 'process' or 'docker'"),
        ("version = 2\n", "t1.toml:1: runtime process needs editor.command"),
        ('runtime = "docker"\n', "t1.toml:1: runtime docker needs image"),
        ('name = "other"\n', "t1.toml:1: name: must be t1, as the file is called"),
        ('[editor]\ncommand = ["x"]\nhealth_path = "/a?b\\nc"\n', "t1.toml:3: editor.health_path: "),
        ('repository = "file:///etc"\n[editor]\ncommand = ["x"]\n', "t1.toml:1: repository: must be an https://"),
        ('[editor]\ncommand = ["x"]\n[idle]\nafter_s = -1\n', "t1.toml:4: idle.after_s: "),
    ],
)
def test_a_mistake_names_file_line_and_key(text: str, expected: str) -> None:
    """Whatever is wrong, the message leads to the place."""
    with pytest.raises(BadTemplate) as caught:
        parse(text, "t1.toml")
    assert expected in caught.value.detail


@pytest.mark.parametrize("stem", ["A", "x", "a--b", "xn-a", "a b", "-a"])
def test_a_file_is_called_like_a_template(stem: str) -> None:
    """The file's name is the template's, and follows its rule."""
    with pytest.raises(BadTemplate, match="lower-case"):
        parse(GOOD.format(version=1, text=""), f"{stem}.toml")


def test_the_reference_shows_a_good_template() -> None:
    """The example of the reference can be copied, and names every key that there is."""
    page = (Path(__file__).parents[3] / "docs/reference/templates.md").read_text()
    example = page.split("```toml\n")[1].split("```")[0]
    template = parse(example, "tools.toml")
    left_out = {"name", "repository"} | {"storage"}
    for part in (template, template.editor, template.limits, template.idle):
        assert set(type(part).model_fields) - part.model_fields_set <= left_out


async def test_files_that_cannot_be_read_are_mistakes(catalogue: Catalogue, team: Path) -> None:
    """Bytes that are no text and a file that is too large are told, and hide nothing."""
    team.mkdir()
    (team / "noise.toml").write_bytes(b"\xff\xfe")
    (team / "large.toml").write_text("#" * 300_000)
    assert {mistake.file for mistake in await catalogue.mistakes()} == {"noise.toml", "large.toml"}
    assert len(await catalogue.newest()) == 4


async def test_a_used_version_still_starts_when_its_file_has_gone(catalogue: Catalogue, team: Path) -> None:
    """A workspace's version is found for good, beside the newest."""
    write(team, "rust", GOOD.format(version=1, text="first"))
    first = await catalogue.get("rust")
    await catalogue.keep(first)
    write(team, "rust", GOOD.format(version=2, text="second"))
    assert (await catalogue.get("rust")).version == 2
    assert await catalogue.get("rust", 1) == first
    (team / "rust.toml").unlink()
    assert await catalogue.get("rust", 1) == first
    with pytest.raises(NotFound, match="version 2 of template rust"):
        await catalogue.get("rust", 2)


async def test_an_edit_without_a_new_version_is_named_once_it_matters(
    catalogue: Catalogue, team: Path, history: MemoryTemplates
) -> None:
    """A used version does not change under its workspaces: what was kept counts, and the file is told to count up."""
    write(team, "rust", GOOD.format(version=1, text="first"))
    first = await catalogue.get("rust")
    await catalogue.keep(first)
    write(team, "rust", GOOD.format(version=1, text="edited"))
    assert await catalogue.get("rust") == first
    (mistake,) = await catalogue.mistakes()
    assert "give the file version 2" in str(mistake)
    with pytest.raises(Conflict, match="give the file version 2"):
        await Catalogue(team, history).keep(first.model_copy(update={"description": "edited"}))


async def test_a_bad_template_is_bad_input(catalogue: Catalogue, team: Path) -> None:
    """Whoever creates a workspace from a broken template is told what is wrong with it."""
    write(team, "rust", "version = 0\n")
    with pytest.raises(InvalidInput, match=r"rust\.toml:1: version"):
        await catalogue.get("rust")

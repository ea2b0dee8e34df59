"""`mooring template`, `route` and `user` against the real application."""

import json
from pathlib import Path

from support.cli import Cli, runs

SECTION = """
rank: 200
routes:
  - name: docs
    host: docs.localhost
    access: {kind: public}
    backends: [{address: "127.0.0.1:9000"}, {address: "127.0.0.1:9001"}]
  - name: lost
    host: docs.localhost
    order: 5
    backends: [{address: "127.0.0.1:9002"}]
"""


async def test_templates(cli: Cli) -> None:
    """`list` has the shipped templates, `show` one of them, and an unknown one is not found."""
    names = [line.split()[0] for line in (await cli.good("template", "list")).out.splitlines()[1:]]
    assert {"code-server", "go"} <= set(names)
    document = (await cli.good("template", "show", "go", "-o", "json")).json
    assert isinstance(document, dict)
    assert document["name"] == "go"
    assert (await cli("template", "show", "none/../such")).status == 4


async def test_a_broken_template_is_named_with_its_line(cli: Cli) -> None:
    """`list` says what is wrong with a file of the team, and so does whoever makes a workspace from it."""
    (cli.home / "templates").mkdir()
    (cli.home / "templates/ours.toml").write_text('description = "Ours"\n[editor]\ncommand = ["x"]\nfoo = 1\n')
    listed = await cli.good("template", "list")
    assert "ours.toml:4: editor.foo: there is no such key" in listed.err
    assert "code-server" in listed.out
    document = (await cli.good("template", "list", "-o", "json")).json
    assert isinstance(document, list)
    assert "ours" not in {item["name"] for item in document}
    made = await cli("workspace", "create", "one", "--template", "ours")
    assert made.status == 2
    assert "ours.toml:4: editor.foo: there is no such key" in made.err


async def test_checking_a_template_needs_no_server(cli: Cli, tmp_path: Path) -> None:
    """`check` names file, line and key of each mistake, one a line, with status 2; a good file is shown."""
    good = tmp_path / "mine.toml"
    good.write_text('description = "Mine"\n[editor]\ncommand = ["edit"]\n')
    nowhere = {"MOORING_HOME": str(tmp_path / "nowhere")}
    done = await cli("template", "check", str(good), **nowhere)
    assert (done.status, done.out.splitlines()[0].split()) == (0, ["Name", "mine"])
    good.write_text('version = "x"\n[editor]\ncommand = ["edit"]\nfoo = 1\n')
    done = await cli("template", "check", str(good), **nowhere)
    assert done.status == 2
    assert [line.split(": ")[:3] for line in done.err.splitlines()] == [
        ["mooring", f"{good}:1", "version"],
        ["mooring", f"{good}:4", "editor.foo"],
    ]
    done = await cli("template", "check", str(tmp_path / "absent.toml"), **nowhere)
    assert (done.status, done.err) == (2, f"mooring: {tmp_path}/absent.toml: No such file or directory\n")


async def test_publishing_routes(cli: Cli, tmp_path: Path) -> None:
    """A file becomes a section, its routes are listed with who lost, and withdrawing takes them away."""
    file = tmp_path / "team.yaml"
    file.write_text(SECTION)
    made = (await cli.good("route", "publish", str(file), "-o", "json")).json
    assert isinstance(made, dict)
    assert (made["source"], made["routes"]) == ("team", 2)
    listed = (await cli.good("route", "list", "--source", "team", "-o", "json")).json
    assert isinstance(listed, list)
    assert [(item["name"], item["lost_to"]) for item in listed] == [
        ("docs", None),
        ("lost", {"source": "team", "name": "docs"}),
    ]
    table = (await cli.good("route", "list")).out
    assert "127.0.0.1:9000 +1" in table
    assert "lost to team/docs" in table
    assert (await cli.good("route", "sections")).out.splitlines()[1].split()[:3] == ["team", "200", "2"]
    withdrawn = await cli.good("route", "withdraw", "team")
    assert withdrawn.err == "The section team is withdrawn, with all its routes.\n"
    assert (await cli.good("route", "list", "-o", "json")).json == []
    assert (await cli("route", "withdraw", "team")).status == 4


async def test_the_route_of_a_workspace_says_whose_it_is(cli: Cli) -> None:
    """An editor's socket and its ports are told by the workspace's name, not by folders or an id."""
    await runs(cli, "demo")
    table = (await cli.good("route", "list")).out
    assert "editor of ada/demo" in table
    assert "port of ada/demo" in table
    assert "unix:" not in table


async def test_a_token_for_no_time_at_all_is_refused(cli: Cli) -> None:
    """The option is named, with what it allows."""
    for given, said in (("10s", "at least 1m"), ("5000d", "at most 3650d"), ("soon", "like 90s, 30m, 2h or 1d")):
        done = await cli("user", "token", "create", "--expires", given)
        assert (done.status, done.out, done.err) == (2, "", f"mooring: --expires: must be {said}\n")


async def test_a_bad_route_is_named(cli: Cli, tmp_path: Path) -> None:
    """What is wrong with a file of routes is one line that names the route and the key, before anything is sent."""
    file = tmp_path / "team.yaml"
    for text, said in (
        ("routes:\n  - name: a\n    host: a..b\n", "mooring: routes.0.host: must be a lower-case host name"),
        ("- name: a\n", f"mooring: {file}: must be a mapping with routes: […]"),
        ("routes:\n- name: [", f"mooring: {file}:2: expected the node content"),
        ("[" * 3000, f"mooring: {file}: must not be nested so deep"),
        ("hosts: []\n", "mooring: hosts: "),
    ):
        file.write_text(text)
        done = await cli("route", "publish", str(file))
        assert (done.status, done.out, done.err.count("\n")) == (2, "", 1), done
        assert done.err.startswith(said), done.err


async def test_two_people(cli: Cli) -> None:
    """A user is made, gets a token that works until it is revoked, and is removed after being asked about."""
    assert (
        await cli.good("user", "create", "carl")
    ).err == "They get in with a token: mooring user token create carl\n"
    assert (await cli("user", "create", "carl")).status == 5
    made = await cli.good("user", "token", "create", "carl", "--label", "laptop", "--expires", "30d")
    token = made.out.strip()
    assert token not in made.err
    mine = await cli("workspace", "list", "-o", "json", MOORING_TOKEN=token)
    assert (mine.status, mine.out) == (0, "[]\n")
    assert (await cli("user", "list", MOORING_TOKEN=token)).status == 7
    tokens = json.loads((await cli.good("user", "token", "list", "carl", "-o", "json")).out)
    assert [(item["label"], "token" in item) for item in tokens] == [("laptop", False)]
    revoked = await cli.good("user", "token", "revoke", tokens[0]["id"], "carl")
    assert revoked.err == f"Token {tokens[0]['id']} of carl is revoked.\n"
    assert (await cli("workspace", "list", MOORING_TOKEN=token)).status == 6
    assert (await cli("user", "remove", "carl")).status == 2
    assert (await cli("user", "remove", "nobody")).err == "mooring: there is no user nobody\n"
    assert (await cli.good("user", "remove", "carl", "--yes")).err == "carl is removed.\n"
    names = [line.split()[0] for line in (await cli.good("user", "list")).out.splitlines()[1:]]
    assert names == ["ada", "bob", "eve"]


async def test_ones_own_tokens_need_no_name(cli: Cli) -> None:
    """Without a user the token is one's own."""
    done = await cli("user", "token", "create", "-o", "json", MOORING_TOKEN=cli.api.tokens["bob"])
    assert json.loads(done.out)["user"] == "bob"

"""`mooring workspace` against the real application."""

import asyncio
import contextlib
import dataclasses
import json
import sys
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import yaml

from mooring.api.http.schemas import Workspace
from mooring.cli.output import Format
from mooring.cli.workspace_view import shown
from mooring.model.workspace import Phase
from mooring.settings import Home
from mooring.workspaces.docker.late import LateDocker
from mooring.workspaces.output import Log
from mooring.workspaces.ports import Engine
from support.cli import Cli, command_line, runs
from support.pseudo_terminal import terminal

NEW = ("workspace", "create", "demo", "--template", "light")


async def test_create_and_wait_ends_when_it_runs(cli: Cli) -> None:
    """`create --wait` ends with the running workspace on standard output."""
    done = await cli(*NEW, "--env", "A=b c", "--env", "URL=x=y", "--wait", "-o", "json")
    assert done.status == 0, done
    document = json.loads(done.out)
    assert (document["phase"], document["environment"]) == ("running", {"A": "b c", "URL": "x=y"})


async def test_waiting_shows_what_happens(cli: Cli) -> None:
    """While a start takes its time, each event is a plain line on standard error; too long is said, with a status."""
    cli.api.stage.probe.silent = True
    done = await cli(*NEW, "--wait", "--timeout", "3")
    assert done.status == 9, done
    assert done.err.splitlines()[0] == "demo: created from light version 1"
    assert done.err.splitlines()[-1].startswith("mooring: demo: not done after 3 s, and goes on")
    cli.api.stage.probe.silent = False
    assert (await cli.good("workspace", "start", "demo", "--wait")).out.splitlines()[1].split()[:2] == [
        "demo",
        "running",
    ]


async def test_a_start_that_fails_says_why(cli: Cli) -> None:
    """Waiting for a workspace that fails ends with its reason on one line, and a status."""
    made = await runs(cli, "demo")
    cli.api.stage.runtime.fail(made, "no space left")  # type: ignore[attr-defined]
    await cli.api.stage.until(made, Phase.failed)
    cli.api.stage.probe.silent = True
    async with terminal(
        sys.executable, "-m", "mooring", "workspace", "start", "demo", "--wait", environment=cli.environment()
    ) as screen:
        await cli.api.stage.until(made, Phase.starting)
        await screen.shows("demo: ")
        await cli.api.stage.events.append(made, "note", "[/red] [bold]brackets")
        await screen.shows("demo: [/red] [bold]brackets")
        cli.api.stage.runtime.fail(made, "no space left")  # type: ignore[attr-defined]
        await screen.shows("mooring: demo failed: ")
        await screen.shows("no space left")
        assert await screen.ends() == 1


async def test_the_life_of_a_workspace(cli: Cli) -> None:
    """Stop, start, restart, rename and delete do what they say, and are true when they return with `--wait`."""
    await cli.good(*NEW, "--wait")
    for verb, phase in (("stop", "stopped"), ("start", "running"), ("restart", "running")):
        done = await cli.good("workspace", verb, "demo", "--wait", "-o", "json")
        assert json.loads(done.out)["phase"] == phase, verb
    assert (await cli.good("workspace", "rename", "demo", "other", "-o", "json")).json["name"] == "other"  # type: ignore[call-overload,index]
    assert (await cli.good("workspace", "url", "other")).out == "http://other--ada.localhost:8080/\n"
    deleted = await cli.good("workspace", "delete", "other", "--yes", "--wait")
    assert (deleted.out, deleted.err) == ("", "ada/other and its files are deleted.\n")
    done = await cli("workspace", "show", "other")
    assert (done.status, done.err) == (4, "mooring: there is no workspace 'other' (see: mooring workspace list)\n")


async def test_deleting_asks(cli: Cli) -> None:
    """Without `--yes` a person is asked and may say no; where nobody can be asked it is an error."""
    made = await runs(cli, "demo")
    done = await cli("workspace", "delete", "demo")
    assert (done.status, done.err) == (2, "mooring: nobody can be asked here: say --yes\n")
    command = (sys.executable, "-m", "mooring", "workspace", "delete", "demo")
    for answer, status, left in (("n\n", 1, True), ("\x03", 130, True), ("y\n", 0, False)):
        async with terminal(*command, environment=cli.environment()) as screen:
            await screen.shows("Delete ada/demo and all its files?")
            screen.type(answer)
            for _again in range(2 if answer == "\x03" else 0):
                # Python does not see one that comes in the moment before it begins to read.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(10):
                        await screen.process.wait()
                        break
                screen.type(answer)
            assert await screen.ends() == status, answer
        if left:
            assert (await cli.api.stage.store.get(made)).desired == "running"
    assert (await cli.good("workspace", "list", "-o", "json")).json == []


async def test_names_ids_and_owners(cli: Cli) -> None:
    """A workspace is named by its name, `owner/name` or id; another's only by its owner or id."""
    mine = await cli.api.workspace("ada", "same")
    theirs = await cli.api.workspace("bob", "same")
    only = await cli.api.workspace("bob", "only")
    for reference, found in (
        ("same", mine),
        ("ada/same", mine),
        (mine.id, mine),
        ("bob/same", theirs),
        (theirs.id, theirs),
        ("bob/only", only),
    ):
        document = (await cli.good("workspace", "show", reference, "-o", "json")).json
        assert isinstance(document, dict)
        assert document["id"] == found.id, reference
    assert (await cli("workspace", "show", "only")).status == 4


async def test_every_format(cli: Cli) -> None:
    """`-o` stands behind the sub-command; JSON and YAML say the same, an empty table says nothing to a pipe."""
    empty = await cli.good("workspace", "list")
    assert (empty.out, empty.err) == ("", "No workspaces yet. Make one: mooring workspace create NAME\n")
    assert (await cli.good("workspace", "list", "-o", "json")).json == []
    await cli.api.workspace("ada", "demo")
    as_json = (await cli.good("workspace", "list", "-o", "json")).json
    assert yaml.safe_load((await cli.good("workspace", "list", "--output", "yaml")).out) == as_json
    table = (await cli.good("workspace", "list")).out.splitlines()
    assert table[0].split() == ["NAME", "PHASE", "TEMPLATE", "URL"]
    assert table[1].split() == ["demo", "stopped", "light", "http://demo--ada.localhost:8080/"]
    bad = await cli("workspace", "list", "-o", "xml")
    assert bad.status == 2
    assert "table" in bad.err


async def test_a_table_is_never_wider_than_the_terminal(cli: Cli) -> None:
    """What does not fit is left out by rank; a pipe without a width gets everything."""
    for owner in ("ada", "bob"):
        await cli.api.workspace(owner, "a-name-of-thirty-two-characters1")
    for columns in ("60", "80", "100", "140"):
        done = await cli("workspace", "list", COLUMNS=columns)
        assert max(map(len, done.out.splitlines())) <= int(columns), done.out
        assert all("a-name-of-thirty-two-characters1" in line for line in done.out.splitlines()[1:])
    done = await cli("workspace", "list", COLUMNS="")
    assert done.out.splitlines()[1].split()[2:] == [
        "ada",
        "light",
        "http://a-name-of-thirty-two-characters1--ada.localhost:8080/",
    ]


async def test_changes_keep_what_is_not_named(cli: Cli) -> None:
    """`set` merges limits and environment; `none` takes a limit away; nothing to change is an error."""
    await cli.good(*NEW, "--no-start", "--cpu", "1.5", "--memory", "2Gi", "--env", "A=1", "--env", "B=2")
    done = await cli.good(
        "workspace",
        "set",
        "demo",
        "--cpu",
        "none",
        "--pids",
        "100",
        "--env",
        "B=3",
        "--unset-env",
        "A",
        "--idle-after",
        "45m",
        "-o",
        "json",
    )
    document = json.loads(done.out)
    limits = {name: value for name, value in document["limits"].items() if value is not None}
    assert limits == {"memory": "2Gi", "pids": 100}
    assert document["environment"] == {"B": "3"}
    assert document["idle"]["after_s"] == 2700
    assert (await cli("workspace", "set", "demo")).status == 2


async def test_what_is_wrong_is_named_before_anything_is_sent(cli: Cli) -> None:
    """Bad values are one line that names the field, with status 2; nothing was made."""
    for arguments, text in (
        (["--memory", "lots"], "memory: must be a quantity such as 512Mi, 2Gi or 1.5G"),
        (["--cpu", "many"], "cpu: "),
        (["--env", "A"], "--env must be KEY=VALUE, not 'A'"),
        (["--env", "=secret"], "--env must be KEY=VALUE, not '=…'"),
        (["--env", "1A=b"], "environment: "),
        (["--repo", "file:///etc"], "repository: must be an https:// URL"),
        (["--idle-after", "soon"], "--idle-after: must be like 90s, 30m, 2h or 1d"),
        (["--idle-after", "9" * 5000], "--idle-after: must be like 90s, 30m, 2h or 1d"),
    ):
        done = await cli(*NEW, *arguments)
        assert (done.status, done.out) == (2, ""), done
        assert done.err.startswith(f"mooring: {text}"), done.err
        assert done.err.count("\n") == 1
    bad = await cli("workspace", "create", "Not-A-Name", "--template", "light")
    assert (bad.status, bad.err.startswith("mooring: name must be 2 to 32")) == (2, True)
    assert (await cli.good("workspace", "list", "-o", "json")).json == []


async def test_keep_awake(cli: Cli) -> None:
    """The idle rule is off for as long as was said, and on again with `--off`."""
    await runs(cli, "demo")
    document = (await cli.good("workspace", "keep-awake", "demo", "--for", "2h", "-o", "json")).json
    assert isinstance(document, dict)
    assert document["idle_status"]["awake_until"] is not None
    assert "--for: must be at most 7d" in (await cli("workspace", "keep-awake", "demo", "--for", "8d")).err
    document = (await cli.good("workspace", "keep-awake", "demo", "--off", "-o", "json")).json
    assert isinstance(document, dict)
    assert document["idle_status"]["awake_until"] is None


async def test_history_of_one_and_of_all(cli: Cli) -> None:
    """`events` lists in the order in which things happened; of all workspaces with their names."""
    await runs(cli, "one")
    await runs(cli, "two")
    of_one = (await cli.good("workspace", "events", "one")).out.splitlines()
    assert of_one[0].endswith("  created from light version 1")
    of_all = (await cli.good("workspace", "events")).out.splitlines()
    assert {line.split()[2] for line in of_all} == {"one", "two"}
    documents = [json.loads(line) for line in (await cli.good("workspace", "events", "-o", "json")).out.splitlines()]
    assert [item["id"] for item in documents] == sorted(item["id"] for item in documents)


async def test_following_goes_on_until_interrupted(cli: Cli) -> None:
    """`events -f` shows what happens as it happens; Ctrl-C ends it with 130 and a line for the shell's prompt."""
    made = await runs(cli, "demo")
    command = (sys.executable, "-m", "mooring", "workspace", "events", "-f", "demo")
    async with terminal(*command, environment=cli.environment()) as screen:
        await screen.shows("created from light version 1")
        await cli.api.stage.events.append(made, "note", "something \x1b[31mnew")
        await screen.shows("something \\x1b[31mnew\r\n")
        screen.type("\x03")
        assert await screen.ends() == 130
        await screen.until(b"\n")
        assert screen.shown.removeprefix(b"^C") == b"\r\n"


async def test_the_output_of_the_editor(cli: Cli) -> None:
    """`logs` prints what is there and ends; to a pipe every byte of it."""
    made = await runs(cli, "demo")
    cli.api.stage.runtime.world.output[made] = "grün\n\x1b[31mred\x1b[0m\x1b[2J\n".encode()  # type: ignore[attr-defined]
    assert (await cli.good("workspace", "logs", "demo")).out == "grün\n\x1b[31mred\x1b[0m\x1b[2J\n"
    command = (sys.executable, "-m", "mooring", "workspace", "logs", "demo")
    async with terminal(*command, environment=cli.environment()) as screen:
        await screen.shows("\x1b[31mred\x1b[0m[2J")


async def test_the_output_without_an_engine(tmp_path: Path) -> None:
    """Where the engine is gone `logs` prints what it has, and ends."""
    home = Home(tmp_path / "docker")

    async def never() -> AbstractAsyncContextManager[Engine]:
        raise AssertionError("there is no engine")

    async with (
        LateDocker(home, tmp_path / "docker.sock", never) as docker,
        command_line(tmp_path / "person", runtime=docker) as cli,
    ):
        made = await cli.api.workspace("ada", "demo")
        Log(str(home.workspace(made.id) / "log")).append(b"its last words\n")
        assert (await cli.good("workspace", "logs", "demo")).out == "its last words\n"


async def test_urls_and_links(cli: Cli) -> None:
    """`url` prints the editor's, a port's and the path form; `open --print` a link that signs a browser in."""
    made = await runs(cli, "demo")
    for options, url in (
        ([], "http://demo--ada.localhost:8080/"),
        (["--port", "3000"], "http://p3000--demo--ada.localhost:8080/"),
        (["--by-path"], f"http://ws.localhost:8080/ws/{made}/"),
        (["--by-path", "--port", "3000"], f"http://ws.localhost:8080/ws/{made}/ports/3000/"),
    ):
        assert (await cli.good("workspace", "url", "demo", *options)).out == f"{url}\n"
        link = (await cli.good("workspace", "open", "demo", "--print", *options)).out
        assert link.startswith(url.split("/", 3)[0] + "//" + url.split("/")[2] + "/.mooring/ticket?ticket="), link
    assert (await cli("workspace", "url", "demo", "--port", "0")).status == 2


async def test_a_change_that_waits_says_so(cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    """Until the restart nobody knows whether a limit can hold; a template without a newer version is no change."""
    await runs(cli, "demo")
    assert "already" in (await cli.good("workspace", "upgrade", "demo")).err
    document = (await cli.good("workspace", "set", "demo", "--cpu", "2", "-o", "json")).json
    assert isinstance(document, dict)
    none = dict.fromkeys(document["limits_in_force"], "not limited")
    for waits, restart, limit in ((True, True, "cpu 2\n"), (False, False, "cpu 2 (not limited here)\n")):
        item = document | {"limits_in_force": none, "restart_needed": waits}
        shown(Workspace.model_validate(item), Format.table)
        text = capsys.readouterr().out
        assert ("mooring workspace restart demo" in text) is restart
        assert limit in text


async def test_last_words_stand_below_their_event(cli: Cli) -> None:
    """An event with a program's output is as many lines; what controls a terminal in them is made visible."""
    made = await runs(cli, "demo")
    await cli.api.stage.events.append(made, "failed", "the editor ended\nno licence\n\x1b[2J")
    told = (await cli.good("workspace", "events", "demo")).out
    assert told.endswith("  the editor ended\n  no licence\n  \\x1b[2J\n")


async def test_what_went_wrong_beside_an_editor_stands_where_one_looks(cli: Cli) -> None:
    """A failed clone is a problem of `show` and a line below the list; as a document it is the reason."""
    made = await runs(cli, "demo")
    world = cli.api.stage.runtime.world  # type: ignore[attr-defined]
    words = "git clone failed: a restart tries again\nfatal: no \x1b[2J"
    world.put(dataclasses.replace(world.seen[made], notices=(words,)))
    await cli.api.stage.until(made, lambda now: bool(now.reason))
    seen = (await cli.good("workspace", "show", "demo")).out.splitlines()
    assert [line.split() for line in seen if "Phase" in line] == [["Phase", "running"]]
    at = next(number for number, line in enumerate(seen) if line.startswith("Problem"))
    assert seen[at].endswith("  git clone failed: a restart tries again")
    assert seen[at + 1].strip().startswith("fatal: no ")
    listed = await cli.good("workspace", "list")
    assert listed.err.startswith("demo: git clone failed: a restart tries again\n  fatal: no ")
    assert "\x1b" not in listed.err + "".join(seen)
    (document,) = json.loads((await cli.good("workspace", "list", "-o", "json")).out)
    assert document["reason"].startswith("git clone failed: a restart tries again\nfatal: no ")

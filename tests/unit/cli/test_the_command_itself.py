"""`mooring` before it talks to anybody: what it imports, helps with, completes, and how it fails."""

import json
import shlex
import sys
from pathlib import Path

import yaml

from mooring.cli.main import REGISTRATIONS
from support.cli import Cli, run, runs
from support.pseudo_terminal import terminal

SERVERS = ("structlog", "fastapi", "sqlalchemy", "uvicorn", "aiodocker", "redis", "mooring.server", "mooring.gateway")


def person(folder: Path, **more: str) -> dict[str, str]:
    """Nobody's environment."""
    return {"HOME": str(folder), "MOORING_HOME": str(folder / "home"), "PATH": "/usr/bin:/bin", "COLUMNS": "80", **more}


async def test_help_loads_nothing(tmp_path: Path) -> None:
    """`mooring --help` is quick because it loads no command, no client and no table."""
    code = (
        "import sys, mooring.cli.main as m\n"
        "assert m.run(['--help']) == 0\n"
        "print([n for n in ('pydantic', 'httpx2', 'rich', 'asyncio', 'yaml') if n in sys.modules], file=sys.stderr)"
    )
    done = await run(sys.executable, "-c", code, environment=person(tmp_path))
    assert (done.status, done.err) == (0, "[]\n")
    assert all(item.name in done.out for item in REGISTRATIONS if not item.hidden)


async def test_a_client_loads_no_server(cli: Cli) -> None:
    """The commands of a person load no part of the server, not even one that ends in an error."""
    code = (
        "import sys, mooring.cli.main as m\n"
        "assert m.run(sys.argv[1:]) == 0\n"
        f"print([n for n in {SERVERS!r} if n in sys.modules], file=sys.stderr)"
    )
    for arguments in (["workspace", "list", "-o", "json"], ["template", "list"], ["user", "list"], ["route", "list"]):
        done = await run(sys.executable, "-c", code, *arguments, environment=cli.environment())
        assert (done.status, done.err.splitlines()[-1]) == (0, "[]"), done


async def test_a_mistyped_command_is_one_line(tmp_path: Path) -> None:
    """Unknown commands, options and values are one line on standard error, with status 2."""
    for arguments, text in (
        (["worspace"], "No such command 'worspace'. Did you mean 'workspace'? (see: mooring --help)"),
        (["workspace", "lits"], "No such command 'lits'. Did you mean 'list'? (see: mooring workspace --help)"),
        (["workspace", "list", "--bogus"], "No such option: --bogus (see: mooring workspace list --help)"),
        (["workspace", "show"], "Missing argument 'NAME'. (see: mooring workspace show --help)"),
    ):
        done = await run(sys.executable, "-m", "mooring", *arguments, environment=person(tmp_path))
        assert (done.status, done.out, done.err) == (2, "", f"mooring: {text}\n")


async def test_a_noun_alone_shows_its_verbs(tmp_path: Path) -> None:
    """`mooring workspace` is its help, with the status of a mistake."""
    done = await run(sys.executable, "-m", "mooring", "workspace", environment=person(tmp_path))
    assert (done.status, done.err.startswith("Usage: mooring workspace")) == (2, True)


async def test_colours_are_for_terminals(cli: Cli) -> None:
    """A terminal gets colours, unless NO_COLOR or `--no-color` says otherwise; a pipe never does."""
    await runs(cli, "demo")
    listing = ("workspace", "list")
    assert "\x1b" not in (await cli.good(*listing)).out
    for options, environment, coloured in (
        ([], {}, True),
        (["--no-color"], {}, False),
        ([], {"NO_COLOR": "1"}, False),
        ([], {"TERM": "dumb"}, False),
    ):
        command = (sys.executable, "-m", "mooring", *options, *listing)
        async with terminal(*command, environment=cli.environment(**environment)) as screen:
            assert await screen.ends() == 0
            await screen.shows("demo")
            assert ("\x1b[32mrunning" in screen.shown.decode()) is coloured, (options, environment, screen.shown)


async def test_names_are_completed(cli: Cli) -> None:
    """The shell completes commands, options and the names of workspaces; without a server it stays silent."""
    await cli.api.workspace("ada", "alpha")
    await cli.api.workspace("bob", "beta")
    await cli.api.workspace("ada", "beta")

    async def completed(line: str, **more: str) -> list[str]:
        words = {"_MOORING_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        done = await cli(**words, **more)
        assert done.err == "", done
        return done.out.split()

    assert await completed("mooring work") == ["workspace"]
    assert await completed("mooring workspace sto") == ["stop"]
    assert await completed("mooring workspace stop a") == ["alpha"]
    assert sorted(await completed("mooring workspace stop ")) == ["alpha", "beta", "bob/beta"]
    assert await completed("mooring workspace list -o j") == ["json"]
    assert await completed("mooring workspace stop a", MOORING_URL="http://127.0.0.1:9", MOORING_TOKEN="x") == []


async def test_an_unexpected_error_is_one_line_too(tmp_path: Path) -> None:
    """A mistake of ours shows no stack, and says how to see it."""
    code = (
        "import sys, mooring.cli.main as m, mooring.cli.workspace as w\n"
        "def broken(): raise RuntimeError('what\\x1b[2J')\n"
        "w.connect = broken\n"
        "sys.exit(m.run(sys.argv[1:]))"
    )
    done = await run(sys.executable, "-c", code, "workspace", "list", environment=person(tmp_path))
    text = "mooring: unexpected error: RuntimeError: what\\x1b[2J (mooring --traceback … shows where)\n"
    assert (done.status, done.err) == (1, text)
    done = await run(sys.executable, "-c", code, "--traceback", "workspace", "list", environment=person(tmp_path))
    assert "Traceback" in done.err


async def test_arguments_that_no_request_can_carry_are_one_line(cli: Cli) -> None:
    """Bytes that are no text, a name longer than a request, a token that no header takes: each says what is wrong."""
    rule = "2 to 32 lower-case letters, digits and single hyphens"
    for arguments, status, text in (
        (["workspace", "show", "\udcff"], 2, "mooring: text must be UTF-8, and '\\udcff' is not\n"),
        (["workspace", "show", "a" * 100_000], 4, f"mooring: there is no workspace '{'a' * 64}…' (see: "),
        (["workspace", "create", "a" * 100_000], 2, f"mooring: name must be {rule}"),
    ):
        done = await cli(*arguments)
        assert (done.status, done.err[: len(text)], done.err.count("\n")) == (status, text, 1)
    done = await cli("workspace", "list", MOORING_TOKEN="é")
    assert (done.status, done.err) == (6, "mooring: the token is not valid: those of Mooring begin with mrg_\n")


async def test_output_that_nobody_takes_shows_no_stack(cli: Cli) -> None:
    """A full disk behind standard output is one line, a closed stream nothing at all."""
    await cli.api.workspace("ada", "demo")
    command = shlex.join([sys.executable, "-m", "mooring", "workspace", "show", "demo"])
    for redirected, status, text in (
        (">/dev/full", 1, "mooring: nothing more can be written: No space left on device\n"),
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
        ("-o json >/dev/null <&-", 0, ""),
    ):
        done = await run("/bin/sh", "-c", f"exec {command} {redirected}", environment=cli.environment())
        assert (done.status, done.out, done.err) == (status, "", text), redirected


async def test_a_full_disk_is_one_line_however_much_is_written(tmp_path: Path) -> None:
    """More than a buffer holds, or flushed by the command itself: the same line, and only once."""
    for written in ("'x' * 100_000", "'x', flush=True"):
        code = (
            f"import mooring.cli.main as m, mooring.cli.workspace as w\nw.connect = lambda: print({written})\nm.main()"
        )
        command = shlex.join([sys.executable, "-c", code, "workspace", "list"])
        done = await run("/bin/sh", "-c", f"exec {command} >/dev/full", environment=person(tmp_path))
        text = "mooring: nothing more can be written: No space left on device\n"
        assert (done.status, done.err) == (1, text), written


async def test_what_doctor_finds_as_documents(tmp_path: Path) -> None:
    """`-o json` and `-o yaml` say the same of this machine, but for what other programs may change in between."""
    outs = []
    for form in ("json", "yaml"):
        done = await run(sys.executable, "-m", "mooring", "doctor", "-o", form, environment=person(tmp_path))
        assert (done.status in (0, 1), done.err) == (True, ""), done
        outs.append(done.out)
    both = (json.loads(outs[0]), yaml.safe_load(outs[1]))
    assert all(set(item) == {"verdict", "what", "detail", "type"} for found in both for item in found)
    lasting, again = ([item for item in found if item["what"] not in {"docker", "port"}] for found in both)
    assert lasting == again

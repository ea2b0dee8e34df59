"""Where the command line finds its server, and what it says when there is none."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from support.certificates import certificate_files
from support.cli import Cli, announce, command_line, run, runs

LIST = (sys.executable, "-m", "mooring", "workspace", "list", "-o", "json")


def environment(folder: Path, **more: str) -> dict[str, str]:
    """A person whose home is empty."""
    return {"HOME": str(folder), "MOORING_HOME": str(folder / "home"), "PATH": os.defpath, "LANG": "C.UTF-8", **more}


def configured(person: Path, text: str) -> Path:
    """The person, with that `config.toml`."""
    config = person / ".config" / "mooring" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(text)
    config.chmod(0o600)
    return person


async def test_nothing_runs_here(tmp_path: Path) -> None:
    """Without a server and without a setting the answer is what to type."""
    done = await run(*LIST, environment=environment(tmp_path))
    assert (done.status, done.out) == (9, "")
    home = tmp_path / "home"
    assert (
        done.err == f"mooring: no Mooring runs here ({home}). Start it: mooring up; or name a server with MOORING_URL\n"
    )


async def test_a_server_that_is_gone(tmp_path: Path) -> None:
    """An address where nothing listens any more is said to be silent, with the reason."""
    announce(tmp_path / "home", 9, "token")
    done = await run(*LIST, environment=environment(tmp_path))
    text = "mooring: Mooring does not answer at http://localhost:9 (connection refused). Start it: mooring up\n"
    assert (done.status, done.err) == (9, text)


async def test_what_the_server_left_is_broken(tmp_path: Path) -> None:
    """A file that a full disk cut short is named, with what to do."""
    announce(tmp_path / "home", 9, "token")
    path = tmp_path / "home" / "run" / "endpoint.json"
    for text in ("", "{", "[]", "{}", '{"url": "http://localhost:9", "address": "here", "port": 9}'):
        path.write_text(text)
        done = await run(*LIST, environment=environment(tmp_path))
        assert (done.status, done.err.count("\n"), str(path) in done.err) == (3, 1, True), (text, done)


async def test_a_proxy_is_not_asked_about_this_machine(cli: Cli) -> None:
    """A proxy of the environment cannot know a loopback address."""
    proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    assert (await cli("workspace", "list", "-o", "json", **proxies)).out == "[]\n"


async def test_a_server_elsewhere(cli: Cli, tmp_path: Path) -> None:
    """MOORING_URL with MOORING_TOKEN goes before everything; a `.localhost` name needs no resolver."""
    for host in ("localhost", "mooring.localhost", "127.0.0.1"):
        at = {"MOORING_URL": f"http://{host}:{cli.port}/", "MOORING_TOKEN": cli.api.tokens["bob"]}
        done = await run(*LIST, environment=environment(tmp_path / "person", **at))
        assert (done.status, done.out) == (0, "[]\n"), done


async def test_a_configuration_file(cli: Cli, tmp_path: Path) -> None:
    """`config.toml` names server and token; it must be one's own, and its token goes to its server only."""
    person = tmp_path / "person"
    config = person / ".config" / "mooring" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'url = "http://localhost:{cli.port}"\ntoken = "{cli.api.tokens["bob"]}"\n')
    config.chmod(0o644)
    open_to_all = await run(*LIST, environment=environment(person))
    assert (open_to_all.status, open_to_all.err) == (
        3,
        f"mooring: {config} holds a token that others can read: chmod 600 {config}\n",
    )
    config.chmod(0o600)
    assert (await run(*LIST, environment=environment(person))).out == "[]\n"
    elsewhere = await run(*LIST, environment=environment(person, MOORING_URL="http://127.0.0.2:9"))
    assert (elsewhere.status, elsewhere.err) == (6, "mooring: no token for http://127.0.0.2:9: set MOORING_TOKEN\n")


@pytest.mark.parametrize("text", ["url = 1", 'url = "x', 'uri = "http://a"', 'url = "ftp://a"', 'url = "http://a/b"'])
async def test_a_bad_configuration_file(tmp_path: Path, text: str) -> None:
    """What cannot be read is named, with the file or the key."""
    done = await run(*LIST, environment=environment(configured(tmp_path, text)))
    assert (done.status, done.err.count("\n")) == (3, 1), done
    assert "config.toml: " in done.err or done.err.startswith("mooring: url must be like https://")


async def test_a_token_that_is_not_valid(cli: Cli) -> None:
    """A wrong token is the server's own answer."""
    done = await cli("workspace", "list", MOORING_TOKEN="mrg_wrong")
    assert done.status == 6
    assert done.err.startswith("mooring: ")
    assert done.err.count("\n") == 1


async def test_another_server_answers(tmp_path: Path) -> None:
    """What answers but is not Mooring is named as that."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        announce(tmp_path / "home", port, "token")
        done = await run(*LIST, environment=environment(tmp_path))
    text = f"mooring: http://localhost:{port} answered something that is not Mooring's"
    assert (done.status, done.err[: len(text)]) == (1, text)


async def test_tls(tmp_path: Path) -> None:
    """A certificate is checked against the console's name, by the authority that is named; streams and exec too."""
    async with command_line(tmp_path, tls=True) as cli:
        await runs(cli, "demo")
        assert (await cli.good("workspace", "list")).out.splitlines()[1].startswith("demo")
        assert (
            "created from light"
            in (await cli.good("workspace", "logs", "demo")).out + (await cli.good("workspace", "events", "demo")).out
        )
        done = await cli("workspace", "exec", "demo", "--", "cat", data=b"through TLS")
        assert (done.status, done.out) == (0, "through TLS"), done
        at = {"MOORING_URL": f"https://localhost:{cli.port}", "MOORING_TOKEN": cli.api.tokens["ada"]}
        stranger = await run(*LIST, environment=environment(tmp_path / "person", **at))
        text = f"mooring: the certificate of https://localhost:{cli.port} is not trusted (self-signed certificate). "
        assert (stranger.status, stranger.err) == (9, f"{text}SSL_CERT_FILE names the file of its authority\n")
        other, _ = certificate_files(tmp_path, "localhost")
        announce(cli.home, cli.port, "token", other)
        assert (await cli("workspace", "list")).err == f"{text}{other} does not vouch for it. See: mooring doctor\n"
        person = configured(
            tmp_path / "other", f'url = "{at["MOORING_URL"]}"\ntoken = "mrg_x"\nauthority = "{other}"\n'
        )
        stranger = await run(*LIST, environment=environment(person))
        assert stranger.err.startswith(f"{text}{other} does not vouch for it; that of --tls is ")


async def test_a_certificate_for_another_name(tmp_path: Path) -> None:
    """Of its authority nothing is said, which is trusted."""
    async with command_line(tmp_path, tls=True) as cli:
        at = {"MOORING_URL": f"https://127.0.0.1:{cli.port}", "MOORING_TOKEN": "mrg_x"}
        trusting = environment(tmp_path / "person", **at, SSL_CERT_FILE=str(cli.home / "cert.pem"))
        done = await run(*LIST, environment=trusting)
    why = "IP address mismatch, certificate is not valid for '127.0.0.1'"
    text = f"mooring: the certificate of https://127.0.0.1:{cli.port} is not trusted ({why})\n"
    assert (done.status, done.err) == (9, text)


async def test_an_authority_that_is_not_to_be_had(tmp_path: Path) -> None:
    """A file that is not there and one that is no certificate are named, on this machine and in `config.toml`."""
    file = tmp_path / "ca.pem"
    announce(tmp_path / "home", 9, "token", file)
    person = configured(tmp_path, f'url = "https://localhost:9"\ntoken = "mrg_x"\nauthority = "{file}"\n')
    here = environment(tmp_path, XDG_CONFIG_HOME=str(tmp_path / "none"))
    for asked in (here, environment(person)):
        file.unlink(missing_ok=True)
        done = await run(*LIST, environment=asked)
        text = f"mooring: authority: cannot read {file}: No such file or directory\n"
        assert (done.status, done.err) == (3, text)
        file.write_text("nothing\n")
        done = await run(*LIST, environment=asked)
        assert (done.status, done.err) == (3, f"mooring: authority: there is no certificate in {file}\n")

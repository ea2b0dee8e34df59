"""What is tried before a start, or before a Mooring that runs is ended: in a process of its own, as it is then."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from mooring.errors import Misconfigured
from mooring.gateway.authority import LocalAuthority
from mooring.server.embedded import rehearse
from mooring.server.supervisor import Account
from mooring.settings import Home, Installation, Listen
from support import databases
from support.certificates import certificate_files

ME = Account("root", os.geteuid(), os.getegid(), (), "/")


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """One that has nothing yet."""
    home = Home(tmp_path / "home")
    home.root.mkdir(mode=0o700)
    return Installation(home, Listen(), tmp_path / "editor")


def test_what_would_start_is_let_be(installation: Installation) -> None:
    """A first start and a later one, with no database made by the question."""
    rehearse(installation, ME, "all")
    rehearse(installation, ME, "all")
    assert not installation.home.database.exists()


def test_a_certificate_that_nobody_would_take(installation: Installation, tmp_path: Path) -> None:
    """The gateway would serve a placeholder, and Mooring call itself ready: a key of another one, a file of nothing."""
    (tmp_path / "other").mkdir()
    chain, key = certificate_files(tmp_path, "w.mooring.test")
    _, other = certificate_files(tmp_path / "other", "w.mooring.test")
    listen = Listen(tls=True, tls_certificate=chain, tls_key=key)
    rehearse(replace(installation, listen=listen), ME)
    with pytest.raises(Misconfigured, match=r"is not that of the certificate.* Tried as the user root; nothing was"):
        rehearse(replace(installation, listen=replace(listen, tls_key=other)), ME)
    chain.write_text("nothing\n")
    with pytest.raises(Misconfigured, match=f"certificate {chain}"):
        rehearse(replace(installation, listen=listen), ME)


def test_half_of_a_local_authority(installation: Installation, tmp_path: Path) -> None:
    """Whoever put back its certificate without the key reads what to type, instead of a Mooring that nobody trusts."""
    installation = replace(installation, listen=Listen(tls=True, domain="mooring.test"))
    rehearse(installation, ME)
    assert not installation.home.tls.exists()
    one, other = (LocalAuthority(folder, "mooring.test") for folder in (installation.home.tls, tmp_path / "other"))
    one.pem()
    other.pem()
    one.certificate.write_bytes(other.certificate.read_bytes())
    with pytest.raises(Misconfigured, match=r"authority\.key is not the key of authority\.crt.* nothing was started"):
        rehearse(installation, ME)


def test_what_lies_in_the_folder_is_no_module(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever starts Mooring in a checkout of theirs has none of its files run, whatever they are called."""
    (tmp_path / "structlog.py").write_text("raise SystemExit('run')")
    monkeypatch.chdir(tmp_path)
    rehearse(installation, ME)


async def test_a_database_that_this_build_cannot_use(installation: Installation) -> None:
    """One that a newer Mooring wrote, one that is damaged and one that is away; the one that fits is left as it was."""
    file = installation.home.database
    async with databases.opened(f"sqlite:///{file}"):
        rehearse(installation, ME, "all")
    async with databases.opened(f"sqlite:///{file}") as database, database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(Misconfigured, match=r"has schema 9999.*install the newer version"):
        rehearse(installation, ME, "all")
    file.write_bytes(b"noise" * 1000)
    with pytest.raises(Misconfigured, match="the database is damaged"):
        rehearse(installation, ME, "all")
    away = replace(installation, database_url="postgresql://nobody:secret@127.0.0.1:1/none")
    with pytest.raises(Misconfigured, match="the database does not answer") as caught:
        rehearse(away, ME, "all")
    assert "secret" not in caught.value.detail


def test_files_that_a_start_would_refuse(installation: Installation) -> None:
    """A secret that others can read, damaged keys, and what is no folder: each is named with what to do."""
    home = installation.home
    rehearse(installation, ME, "all")
    home.admin_token.touch(mode=0o644)
    with pytest.raises(Misconfigured, match=f"type chmod 600 {home.admin_token}"):
        rehearse(installation, ME, "all")
    home.admin_token.unlink()
    (home.keys / "signing.json").touch(mode=0o600)
    with pytest.raises(Misconfigured, match=r"signing.json is damaged: remove it"):
        rehearse(installation, ME, "all")
    home.templates.rmdir()
    home.templates.touch()
    with pytest.raises(Misconfigured, match=f"{home.templates}: File exists"):
        rehearse(installation, ME, "all")

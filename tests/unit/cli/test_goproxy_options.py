"""Which store and which settings `mooring goproxy` works with."""

import sys
from pathlib import Path

from mooring.goproxy.ledger import Ledger
from support.cli import run as execute

_SETTINGS = 'notary = "sum.team.example"\nprivate = ["git.example.com"]\n'


async def key(home: Path, *options: str) -> str:
    """What `mooring goproxy OPTIONS key` prints or complains about."""
    environment = {"MOORING_HOME": str(home), "HOME": str(home), "PATH": "/usr/bin:/bin"}
    done = await execute(sys.executable, "-m", "mooring", "goproxy", *options, "key", environment=environment)
    return done.out + done.err


async def test_without_a_store_it_is_the_one_of_mooring_up(tmp_path: Path) -> None:
    """With its settings: `verify` must not name its private modules to the public database."""
    (tmp_path / "goproxy.toml").write_text(_SETTINGS)
    assert (await key(tmp_path)).startswith("sum.team.example+")
    assert Ledger(tmp_path / "goproxy/notary", "x").signer.name == "sum.team.example"


async def test_options_go_before_the_settings(tmp_path: Path) -> None:
    """And a store of its own has none of them."""
    (tmp_path / "goproxy.toml").write_text(_SETTINGS)
    assert (await key(tmp_path, "--notary", "sum.option.example")).startswith("sum.option.example+")
    assert (await key(tmp_path, "--store", str(tmp_path / "own"))).startswith("sum.mooring.internal+")


async def test_settings_with_a_mistake_are_refused(tmp_path: Path) -> None:
    """By line and key, before anything is done."""
    (tmp_path / "goproxy.toml").write_text("privat = []\n")
    assert "goproxy.toml:1: privat: there is no such key" in await key(tmp_path)
    assert not (tmp_path / "goproxy").exists()

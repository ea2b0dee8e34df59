"""nginx.conf with a module proxy: settings go in, data does not."""

from pathlib import Path

import pytest

from mooring.errors import Misconfigured
from mooring.gateway.config import Listener, Modules, NginxSettings, render
from mooring.goproxy import access
from mooring.settings import Home


def test_the_configuration_does_not_depend_on_modules(tmp_path: Path) -> None:
    """nginx.conf names folders and sockets; no module, no token and no rule changes a byte of it."""
    home = Home(tmp_path)
    settings = NginxSettings(home, "console.test", (Listener("main", "127.0.0.1", 1),), modules=Modules.of(home))
    before = render(settings)
    access.make(home.modules_tokens, "ann", ("example.com",))
    (home.modules / "cache/download/example.com").mkdir(parents=True)
    assert render(settings) == before
    assert "goproxy" not in render(NginxSettings(home, "console.test", settings.listeners))
    odd = Home(Path('/srv/a"; evil'))
    with pytest.raises(Misconfigured, match="folder"):
        render(NginxSettings(odd, "console.test", settings.listeners, modules=Modules.of(odd)))
    with pytest.raises(Misconfigured, match="modules_store"):
        render(NginxSettings(home, "console.test", settings.listeners, modules=Modules.of(odd)))

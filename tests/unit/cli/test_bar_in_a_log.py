"""The bar of long work where there is no terminal."""

import pytest

from mooring.cli import bar


def test_long_work_says_how_far_it_is(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A line after some seconds, none for what is quicker, and no line that an upstream could have written for us."""
    with bar.Bar("beginning") as quick:
        quick.at(1, 2, "example.com/x@v1.0.0")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(bar, "SAY_S", -1.0)
    with bar.Bar("beginning") as slow:
        slow.at(1, 2, "example.com/x@v1.0.0\n\x1b[2J")
    assert capsys.readouterr().err == "1 of 2: example.com/x@v1.0.0\\n\\x1b[2J\n"

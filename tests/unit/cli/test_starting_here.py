"""What `mooring up` refuses before anything is started."""

import subprocess
import sys
from pathlib import Path

import pytest

from mooring.cli.main import run


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--domain", "a b"], "--domain"),
        (["--domain", 'x"; include /etc/passwd; "'], "--domain"),
        (["--domain", "dev.example.org;"], "--domain"),
        (["--domain", "a..b"], "--domain"),
        (["--domain", "192.0.2.7"], "--domain"),
        (["--domain", "a." * 96 + "b"], "--domain"),
        (["--domain", "$host"], "--domain"),
        (["--bind", "nonsense"], "--bind"),
        (["--bind", "127.0.0.1 ssl"], "--bind"),
        (["--port", "0"], "--port"),
        (["--workers", "0"], "--workers"),
        (["--tls-certificate", "/etc/hostname"], "--tls-key"),
        (["--redis", "redis://localhost", "--redis-access", "A B"], "--redis-access"),
        (["--redis", "localhost:6379"], "--redis"),
        (["--redis", "redis://localhost\nx"], "--redis"),
        (["--redis", "redis://localhost", "--redis-file", "/etc/hostname"], "--redis-file"),
        (["--redis-file", "/nonexistent"], "/nonexistent"),
        (["--redis-file", "/etc/passwd"], "--redis-file"),
        (["--database", "mysql://localhost/x"], "--database"),
        (["--database-file", "/etc"], "--database-file"),
    ],
)
def test_a_bad_option_is_named(arguments: list[str], names: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing that a person types becomes configuration before it was found to be what it should be."""
    assert run(["up", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert names in error


def test_a_password_in_a_file_is_never_repeated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not even where the URL around it is wrong; one among the arguments is warned of."""
    file = tmp_path / "url"
    file.write_text("http://:secret@localhost\n")
    assert run(["up", "--redis-file", str(file)]) == 2
    assert "secret" not in capsys.readouterr().err
    file.write_text(" redis://:secret@localhost/0\n")
    # A name that is wrong ends the start behind the look at the file.
    assert run(["up", "--redis-file", str(file), "--redis-access", "A B"]) == 2
    assert "secret" not in capsys.readouterr().err


def test_a_password_among_the_arguments_is_warned_of() -> None:
    """Every user of the machine sees them."""
    words = [sys.executable, "-m", "mooring", "up", "--redis", "redis://:secret@localhost", "--redis-access", "A B"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--redis-file" in done.stderr
    assert "secret" not in done.stderr

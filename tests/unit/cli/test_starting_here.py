"""What `mooring up` refuses before anything is started."""

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
    ],
)
def test_a_bad_option_is_named(arguments: list[str], names: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing that a person types becomes configuration before it was found to be what it should be."""
    assert run(["up", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert names in error

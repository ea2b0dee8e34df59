"""The rules that every test is under do bite."""

import socket

import pytest

pytest_plugins = ["pytester"]


def test_a_test_cannot_talk_to_another_machine() -> None:
    """A connection to an address that no test opened is refused before a packet leaves."""
    with socket.socket() as client, pytest.raises(PermissionError, match=r"192\.0\.2\.1"):
        client.connect(("192.0.2.1", 80))

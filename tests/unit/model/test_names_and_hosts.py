"""Names, and the host labels made of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.errors import InvalidInput
from mooring.model.names import Hosts, check_name, check_owner, is_id, new_id

LABEL = 63


@given(st.from_regex(r"[a-z]([a-z0-9]|-(?!-)){0,30}[a-z0-9]", fullmatch=True).filter(lambda n: not n.startswith("xn")))
def test_the_longest_host_label_fits(name: str) -> None:
    """Every valid name makes labels of at most 63 characters, also for the highest port."""
    owner = "a" * 20
    host = Hosts("localhost").port(check_name(name), check_owner(owner), 65535)
    assert len(host.split(".")[0]) <= LABEL


@pytest.mark.parametrize(
    "name", ["", "a", "A", "1a", "-a", "a-", "a--b", "xn-a", "a_b", "a.b", "a" * 33, "é", "a\n", "ab\n"]
)
def test_a_bad_name_is_refused_with_the_rule(name: str) -> None:
    """The error names the field and says what is allowed."""
    with pytest.raises(InvalidInput, match="name must be 2 to 32 lower-case letters") as caught:
        check_name(name)
    assert caught.value.field == "name"


def test_an_owner_is_shorter() -> None:
    """Owners have at most 20 characters, so that labels fit."""
    with pytest.raises(InvalidInput, match="2 to 20"):
        check_owner("a" * 21)


def test_ids_are_ids() -> None:
    """A new id has the form of one, and two are different."""
    assert is_id(new_id())
    assert new_id() != new_id()


def test_no_workspace_has_the_host_of_the_console_or_of_the_paths() -> None:
    """Each origin is apart from every workspace's."""
    hosts = Hosts("dev.example")
    assert len({hosts.console, hosts.paths, hosts.workspace("ws", "ab"), hosts.port("ws", "ab", 1)}) == 4

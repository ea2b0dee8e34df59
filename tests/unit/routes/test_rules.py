"""What no source may name."""

from pathlib import Path

import pytest

from mooring.errors import InvalidInput
from mooring.model.names import Hosts
from mooring.model.routes import Backend, Filters, Mirror, Route
from mooring.routes.published import MemorySections, PublishedSection, Publisher
from mooring.routes.rules import Rules
from mooring.routes.table import RouteTable


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    """Those of a Mooring below `home`, with a link to its keys and a harmless folder beside."""
    (tmp_path / "home/keys").mkdir(parents=True)
    (tmp_path / "site").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "home/keys")
    return Rules(tmp_path / "home", "192.0.2.7", 8080)


def route(**backend: str) -> Route:
    """A route with one backend."""
    return Route(name="r", host="r.test", backends=(Backend(**backend),))  # type: ignore[arg-type]


@pytest.mark.parametrize("source", ["file", "redis", "published"])
@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:8080",
        "127.9.9.9:8080",
        "localhost:8080",
        "LocalHost:8080",
        "0.0.0.0:8080",
        "[::1]:8080",
        "[::]:8080",
        "[::ffff:127.0.0.1]:8080",
        "192.0.2.7:8080",
    ],
)
def test_no_route_leads_to_our_own_listener(rules: Rules, source: str, address: str) -> None:
    """It would go in a circle until no connection is left."""
    assert rules.refusal(source, route(address=address)) == "the address is Mooring's own"
    assert rules.refusal(source, route(address=address.replace("8080", "8081"))) is None


def test_no_route_opens_every_port_of_the_machine(rules: Rules) -> None:
    """A port of the request's choice at this machine would be Redis, PostgreSQL and all the others."""
    chosen = Route(name="r", host="p{port}--r.test", backends=(Backend(address="127.0.0.1:{port}"),))
    for source in ("file", "published"):
        assert "every service" in (rules.refusal(source, chosen) or "")
    elsewhere = Route(name="r", host="p{port}--r.test", backends=(Backend(address="192.0.2.99:{port}"),))
    assert rules.refusal("published", elsewhere) is None


def test_a_link_in_a_circle_is_nobodys(rules: Rules, tmp_path: Path) -> None:
    """It leads nowhere, so it is not refused; and it ends nobody's stream of sections."""
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for source in ("file", "published"):
        assert rules.refusal(source, route(unix=str(tmp_path / "circle/s.sock"))) is None
    assert rules.refusal("file", route(files=str(tmp_path / "circle"))) is None


def test_files_are_the_operators_and_never_ours(rules: Rules) -> None:
    """Nobody but the operator names a folder, and not even the operator one with the keys in it or around it."""
    beside = str(rules.home.parent)
    assert rules.refusal("file", route(files=f"{beside}/site")) is None
    for source in ("published", "redis"):
        assert "operator" in (rules.refusal(source, route(files=f"{beside}/site")) or "")
    for folder in (rules.home, rules.home / "keys", f"{beside}/link", beside, "/", f"{beside}/site/../home"):
        assert "below" in (rules.refusal("file", route(files=str(folder))) or ""), folder


def test_sockets_of_ours_and_of_the_system_are_refused(rules: Rules) -> None:
    """The API's and Docker's sockets would hand over the whole machine."""
    for path in (rules.home / "run/api.sock", rules.home.parent / "link/x.sock"):
        assert rules.refusal("file", route(unix=str(path))) is not None
    for path in ("/run/docker.sock", "/var/run/docker.sock", "/run/postgresql/.s.PGSQL.5432"):
        assert rules.refusal("published", route(unix=path)) is not None
    assert rules.refusal("published", route(unix=f"{rules.home.parent}/app.sock")) is None


def test_metadata_and_identities_are_refused(rules: Rules) -> None:
    """The cloud's metadata address, and routes that claim to be a workspace's."""
    for address in ("169.254.169.254:80", "[fe80::1]:80", "[::ffff:169.254.169.254]:80", "224.0.0.1:80"):
        assert "metadata" in (rules.refusal("redis", route(address=address)) or "")
    assert rules.refusal("redis", route(address="192.0.2.9:80", identity="abcdefghij")) is not None
    assert rules.refusal("workspaces", route(address="127.0.0.1:8080", identity="abcdefghij")) is None


def test_copies_go_no_further_than_requests(rules: Rules) -> None:
    """Who gets copies of requests is refused for the same reasons as who gets the requests."""
    for backend, why in (
        (Backend(address="localhost:8080"), "own"),
        (Backend(unix=str(rules.home / "run/api.sock")), "own"),
        (Backend(unix="/run/docker.sock"), "service"),
        (Backend(address="169.254.169.254:80"), "metadata"),
    ):
        mirrored = Filters(mirror=Mirror(backend=backend))
        copying = Route(name="r", host="r.test", backends=(Backend(address="192.0.2.9:80"),), filters=mirrored)
        assert why in (rules.refusal("published", copying) or "")


async def test_a_publisher_is_told_which_route_and_why(rules: Rules) -> None:
    """Nothing of a section with a refused route is kept or served."""
    table, store = RouteTable(), MemorySections()
    publisher = Publisher(table, store, Hosts("localhost"), ("workspaces",), rules)
    with pytest.raises(InvalidInput, match="operator") as caught:
        await publisher.publish(PublishedSection("mine", 100, (route(files="/srv"),)))
    assert caught.value.field == "routes.0.backends"
    assert await store.sections() == ()
    assert not table.routes()

"""Several backends of one route: weights, load, affinity, and what happens when one does not answer."""

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from mooring.model.routes import (
    Access,
    Backend,
    BackendTls,
    Balancing,
    Cors,
    Filters,
    HeaderFilter,
    Redirect,
    Route,
    Timeouts,
)
from support.certificates import server_context
from support.nginx import Backend as Running
from support.nginx import Gateway, Request, backend, gateway, ok

PUBLIC = Access(kind="public")


@pytest.fixture
async def edge(tmp_path: Path):  # noqa: ANN201 - an async fixture
    """A gateway of one worker, so that its counts are all of them."""
    async with gateway(tmp_path, workers=1) as started:
        yield started


def route(*backends: Backend, **more: object) -> Route:
    """A public route."""
    return Route(**{"name": "one", "host": "a.test", "backends": backends, "access": PUBLIC} | more)


async def named(stack: AsyncExitStack, *names: str) -> list[Running]:
    """Backends that answer with their names."""
    return [await stack.enter_async_context(backend(ok(name.encode()))) for name in names]


def refusing() -> str:
    """An address where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


async def test_round_robin_respects_weights_and_mixes(edge: Gateway) -> None:
    """Three to one is three to one in every four, and weight 0 is never asked."""
    async with AsyncExitStack() as stack:
        a, b, c = await named(stack, "a", "b", "c")
        await edge.publish(
            route(
                Backend(address=a.address, weight=3), Backend(address=b.address), Backend(address=c.address, weight=0)
            )
        )
        seen = [(await edge.get("a.test")).body.decode() for _ in range(40)]
        assert Counter(seen) == {"a": 30, "b": 10}
        assert all("b" in seen[i : i + 4] for i in range(0, 40, 4))


@asynccontextmanager
async def one_busy(edge: Gateway) -> AsyncIterator[tuple[Backend, Backend]]:
    """The backends of a published route: the first one is busy with a request, and answers it at the end."""
    release = asyncio.Event()

    async def slow(_request: Request) -> bytes:
        await release.wait()
        return ok(b"slow")

    async with AsyncExitStack() as stack:
        (quick,) = await named(stack, "quick")
        busy = await stack.enter_async_context(backend(slow))
        both = (Backend(address=busy.address), Backend(address=quick.address))
        await edge.publish(route(*both, balancing=Balancing.least_connections))
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(edge.get("a.test"))
            while not busy.seen:
                await asyncio.sleep(0.01)
            yield both
            release.set()
        assert waiting.result().body == b"slow"


async def test_least_connections_spares_the_busy_one(edge: Gateway) -> None:
    """While one backend is busy the other takes what comes."""
    async with one_busy(edge):
        assert {(await edge.get("a.test")).body for _ in range(6)} == {b"quick"}


async def test_a_change_of_the_route_keeps_what_is_under_way(edge: Gateway) -> None:
    """A backend that was busy before the route changed is busy after it."""
    async with one_busy(edge) as both:
        await edge.publish(route(*both, balancing=Balancing.least_connections, timeouts=Timeouts(read_s=20)))
        assert {(await edge.get("a.test")).body for _ in range(3)} == {b"quick"}


async def test_a_backend_that_failed_is_not_busy(edge: Gateway) -> None:
    """What it did not answer is over: counted as open for ever, it would never be asked again."""
    fails = True

    async def sometimes(_request: Request) -> bytes | None:
        return None if fails else ok(b"back")

    async with AsyncExitStack() as stack:
        back = await stack.enter_async_context(backend(sometimes))
        (other,) = await named(stack, "other")
        both = (Backend(address=back.address), Backend(address=other.address))
        await edge.publish(route(*both, balancing=Balancing.least_connections))
        assert {(await edge.ask("POST", "a.test", body=b"x")).status for _ in range(4)} == {502}
        fails = False
        assert {(await edge.ask("POST", "a.test", body=b"x")).body for _ in range(4)} == {b"back"}


async def test_a_folder_is_never_busy(edge: Gateway, tmp_path: Path) -> None:
    """A request that nginx itself refuses leaves no count: that folder would be asked less for ever."""
    folders = [tmp_path / name for name in ("a", "b")]
    for folder in folders:
        folder.mkdir()
        (folder / "x").write_text(folder.name)
    both = (Backend(files=str(folder)) for folder in folders)
    await edge.publish(route(*both, balancing=Balancing.least_connections))
    before = (await edge.get("a.test", "/x")).body
    assert {(await edge.get("a.test", "/x", If_Match='"no"')).status for _ in range(3)} == {412}
    assert {(await edge.get("a.test", "/x")).body for _ in range(3)} == {before}


async def test_a_backend_that_refuses_is_passed_over(edge: Gateway) -> None:
    """A request that reached nobody goes to another backend, whatever its method: it was never sent."""
    async with AsyncExitStack() as stack:
        (good,) = await named(stack, "good")
        await edge.publish(route(Backend(address=refusing()), Backend(address=good.address)))
        for method in ("GET", "POST", "PUT"):
            replies = [await edge.ask(method, "a.test", "/", {}, b"body" if method != "GET" else b"") for _ in range(4)]
            assert {reply.status for reply in replies} == {200}


async def test_the_next_backend_is_asked_at_its_own_address(edge: Gateway) -> None:
    """The port in the request's host is for the backend that asks for it, not for whoever takes over."""
    port = refusing().rpartition(":")[2]
    async with AsyncExitStack() as stack:
        (good,) = await named(stack, "good")
        both = (Backend(address="127.0.0.1:{port}"), Backend(address=good.address))
        await edge.publish(route(*both, host="p{port}--a.test"))
        assert {(await edge.get(f"p{port}--a.test")).status for _ in range(4)} == {200}


async def test_a_backend_to_verify_takes_over_from_none_that_is_not_verified(edge: Gateway, tmp_path: Path) -> None:
    """Whoever refuses one backend's connections would else have the other one's requests without its certificate."""
    context, _ = server_context(tmp_path, "backend.test")
    lax, strict = (BackendTls(server_name="backend.test", verify=verify) for verify in (False, True))
    async with backend(tls=context) as untrusted:
        await edge.publish(
            route(
                Backend(address=refusing(), protocol="https", tls=lax),
                Backend(address=untrusted.address, protocol="https", tls=strict),
            )
        )
        assert {(await edge.get("a.test")).status for _ in range(4)} == {502}
        assert untrusted.seen == []


async def test_what_was_sent_is_sent_again_only_when_that_is_safe(edge: Gateway) -> None:
    """A connection that breaks before the answer repeats a GET elsewhere; a POST may have had its effect and is not."""

    async def hang_up(_request: Request) -> None:
        return None

    async with AsyncExitStack() as stack:
        (good,) = await named(stack, "good")
        bad = await stack.enter_async_context(backend(hang_up))
        await edge.publish(route(Backend(address=bad.address), Backend(address=good.address)))
        assert {(await edge.get("a.test")).status for _ in range(4)} == {200}
        statuses = sorted([(await edge.ask("POST", "a.test", "/", {}, b"x")).status for _ in range(4)])
        assert statuses == [200, 200, 502, 502]


async def test_a_body_meets_no_connection_that_was_just_closed(edge: Gateway) -> None:
    """A backend that ends a kept connection with its second request loses none: what has a body opens its own."""
    requests: Counter[asyncio.StreamWriter] = Counter()

    async def once(request: Request) -> bytes | None:
        requests[request.writer] += 1
        return ok() if requests[request.writer] == 1 else None

    async with backend(once) as running:
        await edge.publish(route(Backend(address=running.address)))
        for method in ("PUT", "DELETE", "PROPFIND", "GET", "HEAD", "OPTIONS"):
            asked = [await edge.ask(method, "a.test", "/", {}, b"x" * 100_000) for _ in range(4)]
            assert [reply.status for reply in asked] == [200] * 4
        assert [(await edge.get("a.test")).status for _ in range(4)] == [200] * 4


async def test_a_slow_answer_times_out_and_is_not_repeated(edge: Gateway) -> None:
    """The read time-out of the route holds; the backend may still be at work, so nobody else is asked."""

    async def never(_request: Request) -> bytes:
        await asyncio.sleep(30)
        return ok()

    async with backend(never) as slow:
        both = (Backend(address=slow.address), Backend(address=slow.address, weight=2))
        await edge.publish(route(*both, timeouts=Timeouts(read_s=0.3)))
        reply = await edge.get("a.test")
        assert (reply.status, reply.json()["code"]) == (504, "deadline_exceeded")
        assert len(slow.seen) == 1


@pytest.mark.parametrize("affinity", ["client_address", "cookie"])
async def test_affinity_keeps_a_client_with_its_backend(edge: Gateway, affinity: str) -> None:
    """The same client meets the same backend, and another one when that is gone."""
    async with AsyncExitStack() as stack:
        names = {running.address: running for running in await named(stack, "a", "b", "c")}
        await edge.publish(route(*(Backend(address=address) for address in names), affinity=affinity))
        first = await edge.get("a.test")
        sent = {"Cookie": first.headers["set-cookie"].split(";")[0]} if affinity == "cookie" else {}
        assert {(await edge.get("a.test", **sent)).body for _ in range(6)} == {first.body}
        left = [address for address in names if names[address].seen == []]
        await edge.publish(route(*(Backend(address=address) for address in left), affinity=affinity))
        assert (await edge.get("a.test", **sent)).body != first.body


async def test_two_routes_of_a_host_keep_a_client_each(edge: Gateway) -> None:
    """A browser that goes from one to the other stays with its backend at both."""
    async with AsyncExitStack() as stack:
        targets = [Backend(address=running.address) for running in await named(stack, "a", "b", "c")]
        more = {"affinity": "cookie"}
        await edge.publish(route(*targets, path="/x", **more), route(*targets, name="two", path="/y", **more))
        jar: dict[str, str] = {}
        seen: dict[str, set[bytes]] = {"/x": set(), "/y": set()}
        for path in ("/x", "/x/z", "/y", "/x", "/y/z", "/y", "/x"):
            reply = await edge.get("a.test", path, Cookie="; ".join(f"{name}={value}" for name, value in jar.items()))
            seen[path[:2]].add(reply.body)
            if "set-cookie" in reply.headers:
                name, _, value = reply.headers["set-cookie"].split(";")[0].partition("=")
                jar[name] = value
        assert [len(bodies) for bodies in seen.values()] == [1, 1]


async def test_filters_leave_the_ends_of_messages_alone(edge: Gateway) -> None:
    """A length that a route sets would have the client take the answer's rest for the next one's beginning."""
    lengths = {"content-length": "2", "transfer-encoding": "chunked", "connection": "x", "upgrade": "h2c"}
    filters = Filters(response_headers=HeaderFilter(set=lengths, remove=("content-length",)))
    async with backend(ok(b"0123456789")) as running:
        await edge.publish(route(Backend(address=running.address), filters=filters))
        reply = await edge.get("a.test")
        assert (reply.body, reply.headers["content-length"], reply.headers["connection"]) == (
            b"0123456789",
            "10",
            "close",
        )
        assert not {"transfer-encoding", "upgrade"} & reply.headers.keys()


async def test_a_cookie_that_a_route_adds_stands_beside_the_clients(edge: Gateway) -> None:
    """`add` takes nothing away; what the route sets replaces."""
    added, both = HeaderFilter(add={"cookie": "x=1"}), HeaderFilter(set={"cookie": "y=2"}, add={"cookie": "x=1"})
    async with backend() as running:
        target = Backend(address=running.address)
        await edge.publish(
            route(target, filters=Filters(request_headers=added)),
            route(target, name="two", path="/set", filters=Filters(request_headers=both)),
        )
        sent = [("/", {"Cookie": "mine=2"}), ("/", {}), ("/set", {"Cookie": "mine=2"})]
        told = [dict((await edge.ask("GET", "a.test", p, h)).json()["headers"])["cookie"] for p, h in sent]  # type: ignore[call-overload]
        assert told == ["mine=2; x=1", "x=1", "y=2; x=1"]


async def test_filters_change_path_headers_and_cookies(edge: Gateway) -> None:
    """Prefixes are stripped or rewritten by whole segments; headers are set, added and removed."""
    request = HeaderFilter(set={"x-set": "s", "host": "evil"}, add={"x-many": "2"}, remove=("x-gone", "cookie"))
    response = HeaderFilter(set={"x-out": "o"}, add={"x-more": "m"}, remove=("x-secret",))
    async with backend() as running:
        target = Backend(address=running.address)
        strip = Filters(strip_prefix=True, request_headers=request, response_headers=response)
        await edge.publish(
            route(target, path="/strip", filters=strip),
            route(target, name="two", path="/from", filters=Filters(rewrite_prefix="/to/there")),
        )
        sent = {"X-Set": "old", "X-Many": "1", "X-Gone": "g", "Cookie": "a=b"}
        reply = await edge.ask("GET", "a.test", "/strip/x?q=1", sent)
        asked = reply.json()
        headers = [tuple(pair) for pair in asked["headers"]]  # type: ignore[attr-defined]
        assert asked["target"] == "/x?q=1"
        assert {("x-set", "s"), ("x-many", "1"), ("x-many", "2"), ("host", edge.authority("a.test"))} <= set(headers)
        assert not {"x-gone", "cookie"} & {name for name, _ in headers}
        assert (reply.headers["x-out"], reply.headers["x-more"]) == ("o", "m")
        targets = {p: (await edge.get("a.test", p)).json()["target"] for p in ("/strip", "/from", "/from/a//b?c")}
        assert targets == {"/strip": "/", "/from": "/to/there", "/from/a//b?c": "/to/there/a//b?c"}


async def test_redirects_keep_what_they_do_not_name(edge: Gateway) -> None:
    """Absent parts of a redirect are those of the request."""

    def to(name: str, **redirect: object) -> Route:
        filters = Filters(redirect=Redirect(**redirect))
        return Route(name=name, host=f"{name}.test", access=PUBLIC, filters=filters)

    await edge.publish(
        to("tls", scheme="https", status=308), to("path", path="/new"), to("host", host="b.test", port=8443, status=301)
    )
    seen = {}
    for name in ("tls", "path", "host"):
        reply = await edge.get(f"{name}.test", "/a?b=c")
        seen[name] = (reply.status, reply.headers["location"])
    assert seen == {
        "tls": (308, "https://tls.test/a?b=c"),
        "path": (302, f"http://path.test:{edge.port}/new?b=c"),
        "host": (301, "http://b.test:8443/a?b=c"),
    }


async def test_cors_is_answered_for_the_origins_of_the_route_alone(edge: Gateway) -> None:
    """A preflight of an allowed origin is answered without the backend; another origin learns nothing."""
    cors = Cors(origins=("https://app.test",), methods=("GET", "PUT"), headers=("x-a",), credentials=True)
    async with backend() as running:
        await edge.publish(route(Backend(address=running.address), filters=Filters(cors=cors), access=Access()))
        preflight = {"Origin": "https://app.test", "Access-Control-Request-Method": "PUT"}
        reply = await edge.ask("OPTIONS", "a.test", "/", preflight)
        assert reply.status == 204
        assert reply.headers["access-control-allow-origin"] == "https://app.test"
        assert reply.headers["access-control-allow-methods"] == "GET, PUT"
        assert reply.headers["access-control-allow-credentials"] == "true"
        other = await edge.ask("OPTIONS", "a.test", "/", preflight | {"Origin": "https://evil.test"})
        assert "access-control-allow-origin" not in other.headers
        assert {reply.headers["vary"], other.headers["vary"]} == {"Origin"}
        assert running.seen == []


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_port_of_a_workspace_is_asked_of_the_server(edge: Gateway, host: str) -> None:
    """A port is served at the address that the server names for that workspace's own listener, and nowhere else."""
    async with backend(ok(b"the port"), host=host) as running:

        async def api(request: Request) -> bytes:
            if request.target == "/api/v1/gateway/listeners/abcdefghij/3000":
                assert request.header("authorization") == "Bearer gateway-secret"
                return ok(b'{"address":"%s"}' % running.address.encode())
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"

        edge.home.keys.mkdir()
        (edge.home.keys / "gateway-token").write_text("gateway-secret\n")
        async with backend(api, unix=edge.home.api_socket):
            await edge.publish(route(Backend(listener_of="abcdefghij"), host="p{port}--w--a.test"))
            for _ in range(3):
                assert (await edge.get("p3000--w--a.test")).body == b"the port"
            assert (await edge.get("p6379--w--a.test")).status == 502
        # Behind one that was kept could be whoever listened there before.
        assert running.connections == len(running.seen) == 3
        assert running.seen[0].header("host") == edge.authority("p3000--w--a.test")

"""Which route a request meets, and what reaches its backend."""

import socket
from pathlib import Path

import pytest

from mooring.gateway.config import Modules
from mooring.model.routes import Access, Backend, BackendTls, Filters, HeaderFilter, Match, PathMatch, Route
from mooring.settings import Home
from support.certificates import server_context
from support.nginx import CONSOLE, Gateway, Request, backend, gateway, ok, settings
from support.nginx import Backend as Running

PUBLIC = Access(kind="public")


def route(name: str, running: Running | None = None, **more: object) -> Route:
    """A public route to a running backend."""
    targets = (Backend(address=running.address),) if running else ()
    return Route(**{"name": name, "access": PUBLIC, "backends": targets} | more)


@pytest.fixture
async def edge(tmp_path: Path):  # noqa: ANN201 - an async fixture
    """A gateway without routes."""
    async with gateway(tmp_path) as started:
        yield started


async def named(name: str):  # noqa: ANN201 - an answer function
    """Answers with a name."""
    return lambda _: ok(name.encode())


async def test_the_raw_path_and_query_and_the_routed_host_reach_the_backend(edge: Gateway) -> None:
    """What is matched is what is forwarded, byte for byte, and the backend sees the host that was routed."""
    async with backend() as running:
        await edge.publish(route("one", running, host="a.test"))
        asked = (await edge.get("a.test", "/x//y/%41%C3%A4;p=1?q=%2e%2e/&r")).json()
        assert asked["target"] == "/x//y/%41%C3%A4;p=1?q=%2e%2e/&r"
        headers = dict(map(tuple, asked["headers"]))  # type: ignore[arg-type,call-overload]
        assert headers["host"] == headers["x-forwarded-host"] == edge.authority("a.test")
        assert headers["x-forwarded-for"] == "127.0.0.1"
        assert headers["x-forwarded-proto"] == "http"


async def test_forwarded_headers_of_a_client_are_never_believed(edge: Gateway) -> None:
    """A client cannot tell a backend where it comes from."""
    async with backend() as running:
        await edge.publish(route("one", running, host="a.test"))
        forged = {
            "X-Forwarded-For": "6.6.6.6",
            "X-Forwarded-Proto": "https",
            "X-Forwarded-Host": "evil",
            "Forwarded": "x",
        }
        forged |= {"X-Real-IP": "6.6.6.6", "X-Forwarded-Port": "1", "X-Forwarded-Prefix": "/e", "Upgrade": "h2c"}
        asked = (await edge.ask("GET", "a.test", "/", forged)).json()
        headers = dict(map(tuple, asked["headers"]))  # type: ignore[arg-type,call-overload]
        assert "6.6.6.6" not in str(headers)
        assert "evil" not in str(headers)
        assert not {"forwarded", "x-real-ip", "x-forwarded-port", "x-forwarded-prefix", "upgrade"} & set(headers)


async def test_ports_are_told_from_the_host_or_the_path(edge: Gateway) -> None:
    """`p<port>--name` and `/ports/<port>` reach that port, and nothing that is no port matches."""
    async with backend() as running:
        port = running.address.split(":")[1]
        target = Backend(address="127.0.0.1:{port}")
        await edge.publish(
            route("host", host="p{port}--a--b.test", backends=(target,)),
            route("path", host="ws.test", path="/ws/abcdefghij/ports/{port}", backends=(target,)),
        )
        assert (await edge.get(f"p{port}--a--b.test", "/x")).status == 200
        assert (await edge.get("ws.test", f"/ws/abcdefghij/ports/{port}/x")).json()["target"].endswith("/x")  # type: ignore[attr-defined]
        for host in ("p0--a--b.test", "p99999--a--b.test", "p--a--b.test", "px--a--b.test"):
            assert (await edge.get(host)).status == 404
        for path in (
            "/ws/abcdefghij/ports/0",
            "/ws/abcdefghij/ports/99999/",
            "/ws/abcdefghij/ports/80x",
            "/ws/abcdefghij",
        ):
            assert (await edge.get("ws.test", path)).status == 404


async def test_conditions_on_headers_query_and_method_choose_between_routes(edge: Gateway) -> None:
    """The route with the most conditions that hold wins."""

    def to(name: str, *matches: Match) -> Route:
        filters = Filters(response_headers=HeaderFilter(set={"x-route": name}))
        return route(name, running, host="a.test", matches=matches, filters=filters)

    async with backend() as running:
        await edge.publish(
            to("any"),
            to("head", Match(kind="header", name="X-Kind", value="b")),
            to("both", Match(kind="header", name="x-kind", value="b"), Match(kind="query", name="v", value="2")),
            to("post", Match(kind="method", value="POST")),
            to("present", Match(kind="query", name="debug")),
        )
        seen = [
            (await edge.get("a.test", "/")).headers["x-route"],
            (await edge.get("a.test", "/", X_Kind="b")).headers["x-route"],
            (await edge.get("a.test", "/?v=%32", X_Kind="b")).headers["x-route"],
            (await edge.ask("POST", "a.test", "/")).headers["x-route"],
            (await edge.get("a.test", "/?debug")).headers["x-route"],
        ]
        assert seen == ["any", "head", "both", "post", "present"]


async def test_the_host_decides_before_the_path_and_falls_through_when_no_path_matches(edge: Gateway) -> None:
    """A more specific host without a matching path leaves the request to the less specific one."""
    async with backend() as running:
        mark = {name: Filters(response_headers=HeaderFilter(set={"x-route": name})) for name in ("deep", "wide", "all")}
        await edge.publish(
            route("deep", running, host="a.b.test", path="/only", filters=mark["deep"]),
            route("wide", running, host="*.b.test", filters=mark["wide"]),
            route("all", running, host="*", path="/x/y/z", filters=mark["all"]),
        )
        seen = [(await edge.get("a.b.test", p)).headers["x-route"] for p in ("/only", "/only/x", "/x/y/z", "/onlyx")]
        assert seen == ["deep", "deep", "wide", "wide"]
        assert (await edge.get("c.test", "/x/y/z/1")).headers["x-route"] == "all"
        assert (await edge.get("c.test", "/x/y/")).status == 404
        assert (await edge.get("A.B.Test", "/only")).headers["x-route"] == "deep"


async def test_unix_sockets_and_tls_backends_are_reached(edge: Gateway, tmp_path: Path) -> None:
    """A backend may be a unix socket; one behind TLS is verified unless the route says otherwise."""
    context, _ = server_context(tmp_path, "backend.test")
    async with backend(unix=tmp_path / "b.sock") as local, backend(tls=context) as secure:
        lax, strict = BackendTls(server_name="backend.test", verify=False), BackendTls(server_name="backend.test")
        await edge.publish(
            route("unix", host="u.test", backends=(Backend(unix=local.address),)),
            route("lax", host="l.test", backends=(Backend(address=secure.address, protocol="https", tls=lax),)),
            route("strict", host="s.test", backends=(Backend(address=secure.address, protocol="https", tls=strict),)),
        )
        assert (await edge.get("u.test")).status == 200
        reply = await edge.get("l.test", "/q?x", Cookie="mooring=forged; b=1")
        assert reply.status == 200
        assert ["cookie", "b=1"] in reply.json()["headers"]  # type: ignore[operator]
        assert (await edge.get("s.test")).status == 502


async def test_ipv6_backends_are_reached(edge: Gateway, tmp_path: Path) -> None:
    """An address in brackets is one like any other: alone, among several, behind TLS, for a WebSocket."""
    context, _ = server_context(tmp_path, "backend.test")
    async with backend(host="::1") as running, backend(tls=context, host="::1") as secure, backend() as other:
        here = Backend(address=running.address)
        there = Backend(address=secure.address, protocol="https", tls=BackendTls(verify=False))
        await edge.publish(
            route("alone", running, host="one.test"),
            route("rewritten", running, host="re.test", filters=Filters(rewrite_prefix="/x")),
            route("several", host="two.test", backends=(here, Backend(address=other.address))),
            route("secure", host="tls.test", backends=(there,)),
            route("port", host="p{port}--w.test", backends=(Backend(address="[::1]:{port}"),)),
        )
        port = running.address.rpartition(":")[2]
        for host in ("one.test", "re.test", "two.test", "two.test", "tls.test", f"p{port}--w.test"):
            assert (await edge.get(host)).status == 200, host
            assert (await edge.ask("POST", host, body=b"a body")).status == 200, host
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
        before = len(running.seen)
        await edge.get("one.test", **upgrade | {"Sec-WebSocket-Version": "13"})
        assert len(running.seen) == before + 1


async def test_a_verified_tls_backend_must_have_the_name_that_the_route_expects(tmp_path: Path) -> None:
    """The certificate's authority and name are both checked, at the module proxy's path too."""
    context, authority = server_context(tmp_path, "backend.test")
    modules = Modules.of(Home(tmp_path / "g"))
    async with gateway(tmp_path / "g", trusted_ca=authority, modules=modules) as edge, backend(tls=context) as secure:
        await edge.publish(
            *(
                route(
                    name[0],
                    host=f"{name[0]}.test",
                    backends=(Backend(address=secure.address, protocol="https", tls=BackendTls(server_name=name)),),
                )
                for name in ("backend.test", "other.test")
            )
        )
        for path in ("/", "/goproxy/x"):
            assert (await edge.get("b.test", path)).status == 200
            assert (await edge.get("o.test", path)).status == 502
        # A WebSocket goes another way: what answers here is no 101 of the backend's, but it was asked.
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
        assert (await edge.ask("GET", "b.test", "/", upgrade)).status == 200
        assert (await edge.ask("GET", "o.test", "/", upgrade)).status == 502


async def test_files_are_served_and_nothing_outside_their_folder(edge: Gateway, tmp_path: Path) -> None:
    """A folder is served with its index pages; no spelling of a path leaves it."""
    folder = tmp_path / "site"
    (folder / "sub").mkdir(parents=True)
    (folder / "index.html").write_text("root")
    (folder / "sub/index.html").write_text("sub")
    (folder / "a b$x.txt").write_text("odd")
    (folder / "c++.html").write_text("plus")
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    await edge.publish(
        route("site", host="s.test", backends=(Backend(files=str(folder)),)),
        route(
            "below",
            host="p.test",
            path="/docs",
            backends=(Backend(files=str(folder)),),
            filters=Filters(strip_prefix=True),
        ),
    )
    assert (await edge.get("s.test", "/")).body == b"root"
    assert (await edge.get("s.test", "/sub/")).body == b"sub"
    for method, status, length in (("GET", 206, "2"), ("HEAD", 200, "3")):
        reply = await edge.ask(method, "s.test", "/sub/", {"Range": "bytes=1-2"})
        assert (reply.status, reply.headers["content-length"]) == (status, length)
    assert (await edge.get("s.test", "/a%20b$x.txt?q")).body == b"odd"
    assert {(await edge.get("s.test", f"/c{plus}.html?a+b")).body for plus in ("++", "%2B+")} == {b"plus"}
    assert (await edge.get("p.test", "/docs/sub/")).body == b"sub"
    assert (await edge.get("p.test", "/docs/")).body == b"root"
    for path in ("/nothing", "/../secret", "/%2e%2e/secret", "/..%2fsecret", "/sub/..;/../secret", "/link"):
        reply = await edge.get("s.test", path)
        assert reply.status in (400, 403, 404)
        assert reply.body != b"secret"


async def test_a_folder_without_a_slash_is_sent_to_the_one_with(edge: Gateway, tmp_path: Path) -> None:
    """The relative links of its page would lead beside it; the browser stays at its host, path and query."""
    folder, outside = tmp_path / "site", tmp_path / "outside"
    for made in (folder / "sub", folder / "sub/c d", outside / "sub"):
        made.mkdir(parents=True, exist_ok=True)
        (made / "index.html").write_text("page")
    (folder / "file").write_text("file")
    (folder / "link").symlink_to(outside)
    backends = (Backend(files=str(folder)),)
    await edge.publish(
        route("site", host="s.test", backends=backends),
        route("below", host="p.test", path="/ws/x", backends=backends, filters=Filters(strip_prefix=True)),
        route("moved", host="m.test", path="/a", backends=backends, filters=Filters(rewrite_prefix="/sub")),
        route("exact", host="e.test", path="/sub", path_match=PathMatch.exact, backends=backends),
    )
    for host, path, where in (
        ("s.test", "/sub?a=1&b", "/sub/?a=1&b"),
        ("s.test", "/sub/c%20d", "/sub/c%20d/"),
        ("s.test", "//sub", "//sub/"),
        ("p.test", "/ws/x", "/ws/x/"),
        ("p.test", "/ws/x/sub", "/ws/x/sub/"),
        ("p.test", "/ws/x//sub", "/ws/x//sub/"),
        ("m.test", "/a", "/a/"),
    ):
        for method in ("GET", "HEAD"):
            reply = await edge.ask(method, host, path)
            assert (reply.status, reply.headers["location"]) == (302, f"http://{edge.authority(host)}{where}")
    assert (await edge.get("m.test", "/a/c%20d/")).body == b"page"
    assert (await edge.get("e.test", "/sub")).body == b"page"
    assert (await edge.get("s.test", "/file")).body == b"file"
    # Nothing is said of what lies behind a link.
    assert {(await edge.get("s.test", path)).status for path in ("/link/sub", "/link/none", "/link")} <= {403, 404}
    assert (await edge.ask("POST", "s.test", "/sub")).status == 405


async def test_pages_and_problems_say_why_nothing_is_served(edge: Gateway) -> None:
    """A browser gets a page, a program problem+json, for an unknown, a stopped, a starting and a dead address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"127.0.0.1:{free.getsockname()[1]}"
        await edge.publish(
            route("stopped", host="stopped.test", state="stopped"),
            route("starting", host="starting.test", state="starting"),
            route("dead", host="dead.test", backends=(Backend(address=dead),)),
        )
        expected = {"unknown": (404, "not_found"), "stopped": (503, "stopped"), "starting": (503, "starting")}
        for name, (status, code) in (expected | {"dead": (502, "unavailable")}).items():
            problem = await edge.get(f"{name}.test", Accept="application/json")
            assert (problem.status, problem.json()["code"]) == (status, code)
            assert problem.headers["content-type"] == "application/problem+json"
            page = await edge.get(f"{name}.test", Accept="text/html,*/*")
            assert (page.status, page.headers["content-type"]) == (status, "text/html; charset=utf-8")
            assert f"{name}.test".encode() in page.body
            assert b"{{" not in page.body
            assert f'href="http://{edge.authority(CONSOLE)}/"'.encode() in page.body
            assert (b"Nothing answers at this address just now.</p>" in page.body) == (name == "dead")
            assert page.headers["cache-control"] == "no-store"


async def test_an_address_that_cannot_be_read_is_a_page_too(edge: Gateway) -> None:
    """A browser gets a page with the way out, a program the problem; nothing of the address becomes markup."""
    program = await edge.get("a.test", "/a%2fb", Accept="*/*")
    assert (program.status, program.json()["code"]) == (400, "invalid_input")
    hostile = await edge.get('a"><b>.test', "/a%2fb", Accept="text/html,*/*")
    assert b"&lt;b&gt;.test" in hostile.body
    page = await edge.get("a.test", "/a%2fb", Accept="text/html,*/*")
    assert page.status == 400
    assert b"This address cannot be read" in page.body
    assert f'href="http://{edge.authority(CONSOLE)}/"'.encode() in page.body


async def test_large_bodies_pass_both_ways_without_being_kept(edge: Gateway) -> None:
    """An upload and a download of many megabytes pass, chunked or with a length."""
    size = 20 * 2**20

    async def answer(request: Request) -> bytes:
        return ok(b"x" * (len(request.body) + 1))

    async with backend(answer) as running:
        await edge.publish(route("one", running, host="a.test"))
        reply = await edge.ask("POST", "a.test", "/", {}, b"y" * size)
        assert (reply.status, len(reply.body)) == (200, size + 1)


async def test_the_configuration_holds_no_word_of_any_route(edge: Gateway) -> None:
    """Whatever is published, nginx.conf stays byte for byte the same, and nginx keeps its workers."""
    before = (edge.home.gateway / "nginx.conf").read_bytes(), (await edge.sink.read()).workers
    hostile = "a;} return 200 pwned; server { $host ${x} \"'` \\ os.execute('x') ]] --"
    async with backend() as running:
        filters = Filters(
            response_headers=HeaderFilter(set={"x-hostile": hostile}),
            request_headers=HeaderFilter(add={"x-in": hostile}),
        )
        await edge.publish(route("one", running, host="a.test", path="/$host;'(x)", filters=filters))
        reply = await edge.get("a.test", "/$host;'(x)/y")
        assert reply.headers["x-hostile"] == hostile
        assert ["x-in", hostile] in reply.json()["headers"]  # type: ignore[operator]
    after = (edge.home.gateway / "nginx.conf").read_bytes(), (await edge.sink.read()).workers
    assert before == after
    assert settings(edge.home.root, edge.port).console.encode() in before[0]

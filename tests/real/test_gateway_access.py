"""Who is let in, what is said to the others, and what of a credential reaches the backend."""

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from mooring.errors import LimitExceeded
from mooring.model.grants import Grants, SigningKey, TokenGrant
from mooring.model.routes import Access, Backend, BackendTls, Route
from support.certificates import server_context
from support.grants import GRANTS, KEY, PROBE, PROBE_GRANT, TOKEN, cookie
from support.nginx import CONSOLE, Gateway, Reply, Request, anew, backend, gateway, lasting, ok
from support.nginx import Backend as Running


def guarded(running: Running, name: str = "one", **more: object) -> Route:
    """A route that only ann may enter."""
    access = Access(kind="subjects", subjects=("ann",))
    return Route(
        **{"name": name, "host": "a.test", "backends": (Backend(address=running.address),), "access": access} | more
    )


def headers(reply: Reply) -> dict[str, str]:
    """The headers that the backend was sent."""
    return dict(map(tuple, reply.json()["headers"]))  # type: ignore[arg-type,call-overload]


@pytest.fixture
async def running():  # noqa: ANN201 - an async fixture
    """A backend that tells what it was asked."""
    async with backend() as started:
        yield started


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One nginx."""
    with lasting(tmp_path_factory.mktemp("g")) as started:
        yield started


@pytest.fixture
async def edge(shared: Gateway, running: Running):  # noqa: ANN201 - an async fixture
    """A gateway with one guarded route."""
    async with anew(shared) as started:
        await started.publish(guarded(running), grants=GRANTS)
        yield started


@pytest.fixture
async def unused(tmp_path: Path, running: Running):  # noqa: ANN201 - an async fixture
    """The same, which has counted nothing yet."""
    async with gateway(tmp_path) as started:
        await started.publish(guarded(running), grants=GRANTS)
        yield started


async def test_a_session_or_a_token_of_the_right_person_enters(edge: Gateway) -> None:
    """Both kinds of credential open the route, and neither reaches the backend."""
    by_cookie = await edge.get("a.test", Cookie=f"x=1; {cookie()}; y=2", Authorization="Basic eHg=")
    assert by_cookie.status == 200
    assert headers(by_cookie)["cookie"] == "x=1; y=2"
    assert headers(by_cookie)["authorization"] == "Basic eHg="
    other = await edge.get("a.test", Cookie=f"__Host-mooring=tossed; {cookie()}")
    assert "cookie" not in headers(other)
    by_token = await edge.get("a.test", Authorization=f"Bearer {TOKEN}", Cookie="mooring=old; z=1")
    assert headers(by_token)["cookie"] == "z=1"
    assert "authorization" not in headers(by_token)


async def test_where_everybody_enters_a_token_goes_to_no_backend_either(edge: Gateway, running: Running) -> None:
    """Whoever sends theirs with every request does not hand it to who serves a public route; a stranger's passes."""
    await edge.publish(guarded(running, "open", host="p.test", access=Access(kind="public")))
    ours = await edge.get("p.test", Authorization=f"Bearer {TOKEN}", Cookie=f"{cookie('p.test')}; k=v")
    assert (ours.status, headers(ours)["cookie"], "authorization" in headers(ours)) == (200, "k=v", False)
    assert headers(await edge.get("p.test", Authorization="Bearer other"))["authorization"] == "Bearer other"


def other_digit(text: str, at: int) -> str:
    """The text with another character of base64url there."""
    changed = list(text)
    changed[at] = "A" if text[at] != "A" else "E"
    return "".join(changed)


@pytest.mark.parametrize(
    "bad",
    [
        "mooring=nonsense",
        cookie(seconds=-1),
        cookie(host="b.test"),
        cookie(key=SigningKey("k1", b"x" * 32, 2**31)),
        cookie(key=SigningKey("k2", KEY.secret, 2**31)),
        cookie(key=SigningKey("k1", KEY.secret, 2**31)).replace(".ann.", ".bob."),
        other_digit(cookie(), -1),
        other_digit(cookie(), -43),
        cookie()[:-1],
        cookie() + ".x",
        "mooring=" + "v1." * 400,
    ],
    ids=[
        *("nonsense", "expired", "other-host", "other-key", "unknown-key", "changed", "last-digit", "first-digit"),
        *("cut", "longer", "huge"),
    ],
)
async def test_a_forged_or_expired_session_is_no_session(edge: Gateway, bad: str) -> None:
    """Whatever is not signed for this host, by a known key, and still valid, is nobody."""
    reply = await edge.get("a.test", Cookie=bad)
    assert reply.status == 401
    assert reply.headers["www-authenticate"].startswith("Bearer")
    assert reply.json()["code"] == "unauthenticated"


@pytest.mark.parametrize(("left_s", "status"), [(-1, 401), (60, 200)])
async def test_a_token_past_its_end_is_no_token(edge: Gateway, left_s: int, status: int) -> None:
    """The server tells of an end only when something else changes: until then the gateway itself knows it."""
    sha256 = hashlib.sha256(b"short-lived").hexdigest()
    short = TokenGrant(sha256, "ann", "session-s", int(time.time()) + left_s)
    await edge.publish(grants=Grants(keys=GRANTS.keys, tokens=(short,)))
    assert (await edge.get("a.test", Authorization="Bearer short-lived")).status == status


async def test_a_key_past_its_end_signs_nothing(edge: Gateway, running: Running) -> None:
    """A session lives no longer than the key that signed it."""
    old = SigningKey("k1", KEY.secret, int(time.time()) - 1)
    await edge.publish(guarded(running), grants=Grants(keys=(old,)))
    assert (await edge.get("a.test", Cookie=cookie())).status == 401


async def test_a_browser_is_sent_to_sign_in_and_comes_back_to_the_same_address(edge: Gateway) -> None:
    """A navigation is redirected to the console with the address it asked for; a script gets 401."""
    reply = await edge.get("a.test", "/deep?x=1&y", Sec_Fetch_Mode="navigate", Accept="text/html")
    back = quote(f"http://{edge.authority('a.test')}/deep?x=1&y", safe="")
    assert reply.status == 302
    assert reply.headers["location"] == f"http://{edge.authority(CONSOLE)}/open?url={back}"
    assert (await edge.get("a.test", Accept="text/html")).status == 302
    assert (await edge.get("a.test", Accept="text/html", Sec_Fetch_Mode="cors")).status == 401
    assert (await edge.ask("POST", "a.test", "/", {"Accept": "text/html"})).status == 401


async def test_another_person_is_refused_and_counted(unused: Gateway) -> None:
    """A valid session of somebody else gets 403, and the refusal is a metric."""
    assert (await unused.get("a.test", Cookie=cookie(subject="bob"))).status == 403
    page = await unused.get("a.test", Cookie=cookie(subject="bob"), Accept="text/html")
    assert (page.status, page.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert b"ask who runs this Mooring" in page.body
    text = await metrics(unused, 'mooring_gateway_refused_total{reason="forbidden"} 2')
    assert "bob" not in text


async def test_authenticated_means_anybody_with_a_session(edge: Gateway, running: Running) -> None:
    """A route for the signed-in lets every subject in, and nobody else."""
    await edge.publish(guarded(running, access=Access(kind="authenticated")))
    assert (await edge.get("a.test", Cookie=cookie(subject="bob"))).status == 200
    assert (await edge.get("a.test")).status == 401


async def test_subjects_without_any_lets_nobody_in(edge: Gateway, running: Running) -> None:
    """An empty list is not an open door."""
    await edge.publish(guarded(running, access=Access(kind="subjects")))
    assert (await edge.get("a.test", Cookie=cookie())).status == 403


async def test_a_revoked_session_is_refused_at_the_next_request(edge: Gateway) -> None:
    """Revocation works at once, for cookies and for tokens, also one that was remembered as good."""
    assert (await edge.get("a.test", Cookie=cookie())).status == 200
    assert (await edge.get("a.test", Authorization=f"Bearer {TOKEN}")).status == 200
    later = int(time.time()) + 60
    revoked = Grants(keys=GRANTS.keys, tokens=GRANTS.tokens, revoked=(("s1", later), ("session-t", later)))
    await edge.publish(grants=revoked)
    assert (await edge.get("a.test", Cookie=cookie())).status == 401
    assert (await edge.get("a.test", Authorization=f"Bearer {TOKEN}")).status == 401
    assert (await edge.get("a.test", Cookie=cookie(session="s2"))).status == 200


async def test_what_is_withdrawn_makes_room_first(unused: Gateway) -> None:
    """As many other tokens fit in the place of those before; where they do not, none of those before holds any more."""

    def tokens(first: int, count: int) -> Grants:
        made = (str(number) for number in range(first, first + count))
        return Grants((KEY,), tuple(TokenGrant(hashlib.sha256(name.encode()).hexdigest(), "ann", "s") for name in made))

    async def enters(number: int) -> bool:
        return (await unused.get("a.test", Authorization=f"Bearer {number}")).status == 200

    await unused.publish(grants=tokens(0, 20_000))
    await unused.publish(grants=tokens(20_000, 20_000))
    assert [await enters(number) for number in (0, 19_999, 20_000, 39_999)] == [False, False, True, True]
    with pytest.raises(LimitExceeded):
        await unused.publish(grants=tokens(39_999, 60_000))
    assert [await enters(number) for number in (20_000, 39_999, 40_000)] == [False, True, False]
    await unused.publish(grants=tokens(40_000, 3))
    assert [await enters(number) for number in (39_999, 40_000)] == [False, True]


async def test_a_session_ends_though_the_tokens_beside_it_do_not_fit(unused: Gateway) -> None:
    """Whoever signs out is out at once, also while one change after the other grants more than there is room for."""
    names = (f"{number:064x}" for number in range(60_000))
    tokens = (*GRANTS.tokens, *(TokenGrant(name, "ann", "s") for name in names))
    later = int(time.time()) + 60
    for ended in (("s1",), ("s1", "s2")):
        assert (await unused.get("a.test", Cookie=cookie(session=ended[-1]))).status == 200
        with pytest.raises(LimitExceeded):
            await unused.publish(grants=Grants((KEY,), tokens, tuple((name, later) for name in ended)))
        assert (await unused.get("a.test", Cookie=cookie(session=ended[-1]))).status == 401
    assert (await unused.get("a.test", Authorization=f"Bearer {TOKEN}")).status == 200
    assert (await unused.get("a.test", Cookie=cookie(session="s3"))).status == 200


async def test_without_grants_access_cannot_be_checked(edge: Gateway, running: Running) -> None:
    """A gateway that has lost its grants answers 503 where access needs them, and serves public routes on."""
    await edge.publish(guarded(running, "open", host="p.test", access=Access(kind="public")), grants=Grants())
    reply = await edge.get("a.test", Cookie=cookie())
    assert (reply.status, reply.json()["code"]) == (503, "unavailable")
    public = await edge.get("p.test", Cookie=f"{cookie('p.test')}; k=v", Authorization="Bearer foreign")
    assert public.status == 200
    assert headers(public)["cookie"] == "k=v"
    assert headers(public)["authorization"] == "Bearer foreign"
    perhaps_ours = await edge.get("p.test", Authorization="Bearer mrg_a-Token_of9")
    assert (perhaps_ours.status, "authorization" in headers(perhaps_ours)) == (200, False)
    await edge.publish(grants=GRANTS)
    another_moorings = await edge.get("p.test", Authorization="Bearer mrg_a-Token_of9")
    assert headers(another_moorings)["authorization"] == "Bearer mrg_a-Token_of9"


@pytest.mark.parametrize(
    ("method", "sent", "status"),
    [
        ("POST", {}, 403),
        ("POST", {"Origin": "http://{own}"}, 200),
        ("POST", {"Origin": "http://evil.test"}, 403),
        ("POST", {"Origin": "http://a.test"}, 403),
        ("POST", {"Origin": "null"}, 403),
        ("POST", {"Origin": "https://{own}"}, 403),
        ("DELETE", {"Origin": "http://{own}", "Sec-Fetch-Site": "same-site"}, 403),
        ("PUT", {"Origin": "http://{own}", "Sec-Fetch-Site": "same-origin"}, 200),
        ("POST", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("POST", {"Sec-Fetch-Site": "cross-site"}, 403),
        ("GET", {"Origin": "http://evil.test"}, 200),
    ],
)
async def test_a_page_of_another_origin_cannot_change_anything(
    edge: Gateway, method: str, sent: dict[str, str], status: int
) -> None:
    """With a cookie, a request that may change state must come from the host's own origin."""
    filled = {name: value.replace("{own}", edge.authority("a.test")) for name, value in sent.items()}
    assert (await edge.ask(method, "a.test", "/", filled | {"Cookie": cookie()})).status == status


async def test_a_token_needs_no_origin(edge: Gateway) -> None:
    """No page can make a browser send a bearer token, so an API client need not name an origin."""
    assert (await edge.ask("POST", "a.test", "/", {"Authorization": f"Bearer {TOKEN}"})).status == 200


async def test_the_probe_enters_a_starting_workspace_and_leaves_no_trace(unused: Gateway, running: Running) -> None:
    """The readiness probe reaches the backend of a starting route; it is neither activity nor a counted request."""
    starting = guarded(running, state="starting", workspace="abcdefghij")
    await unused.publish(starting, grants=Grants(keys=(KEY,), tokens=(*GRANTS.tokens, PROBE_GRANT)))
    assert (await unused.get("a.test", "/healthz", Authorization=f"Bearer {PROBE}")).status == 200
    assert (await unused.get("a.test", "/healthz", Authorization=f"Bearer {TOKEN}")).json()["code"] == "starting"
    await unused.publish(guarded(running, "other", host="b.test"))
    assert (await unused.get("b.test", Authorization=f"Bearer {PROBE}")).status == 403
    text = await metrics(unused, 'route="test/one",code="5xx"} 1')
    assert 'code="2xx"' not in text
    assert (await unused.sink.read()).activity == {}


async def test_the_probe_verifies_no_certificate_that_nobody_else_verifies(edge: Gateway, tmp_path: Path) -> None:
    """Else a workspace whose editor has one of its own would start for ever."""
    context, _ = server_context(tmp_path, "backend.test")
    lax = BackendTls(server_name="backend.test", verify=False)
    async with backend(tls=context) as secure:
        backends = (Backend(address=secure.address, protocol="https", tls=lax),)
        starting = guarded(secure, state="starting", workspace="abcdefghij", backends=backends)
        await edge.publish(starting, grants=Grants((KEY,), (PROBE_GRANT,)))
        assert (await edge.get("a.test", Authorization=f"Bearer {PROBE}")).status == 200


async def test_a_backend_cannot_set_our_cookies_or_widen_a_service_worker(edge: Gateway) -> None:
    """Cookies of our names are dropped from answers; a service worker rules its own route at most."""

    async def answer(_request: Request) -> bytes:
        lines = ("Set-Cookie: mooring=stolen; Path=/", "Set-Cookie: own=1", "Set-Cookie: __Host-Mooring=x; Secure")
        return ok(b"", *lines, "Service-Worker-Allowed: /")

    async with backend(answer) as bad:
        await edge.publish(guarded(bad, "ws", path="/ws/abcdefghij", access=Access(kind="public")))
        reply = await edge.get("a.test", "/ws/abcdefghij/sw.js")
        assert [value for name, value in reply.values if name == "set-cookie"] == ["own=1"]
        assert reply.headers["service-worker-allowed"] == "/ws/abcdefghij/"


async def test_reserved_paths_and_the_console_go_to_the_server(edge: Gateway, running: Running) -> None:
    """`/.mooring/` of every host and all of the console's host reach the server, with credentials and routed host."""
    away = await edge.get(CONSOLE, "/")
    assert (away.status, away.json()["code"]) == (502, "unavailable")
    async with backend(unix=edge.home.api_socket):
        for host, path in ((CONSOLE, "/api/v1/x?y"), ("a.test", "/.mooring/session")):
            reply = await edge.get(host, path, Cookie="mooring=x; a=1", Authorization="Bearer y")
            assert reply.json()["target"] == path
            assert headers(reply)["host"] == edge.authority(host)
            assert headers(reply)["cookie"] == "mooring=x; a=1"
            assert headers(reply)["authorization"] == "Bearer y"
        # A name that its owner points to this address, so that a page of theirs is of the same origin.
        for path in ("/.mooring/", "/.mooring/ticket?ticket=x", "/.mooringx"):
            assert (await edge.get("unknown.test", path)).status == 404
    assert running.seen == []


async def metrics(edge: Gateway, wanted: str) -> str:
    """The metrics once they hold `wanted`."""
    deadline = time.monotonic() + 5
    while wanted not in (text := (await edge.sink.read()).metrics):
        assert time.monotonic() < deadline, text
    return text


@pytest.mark.parametrize("host", ["w--ann.localhost", "p3000--w--ann.localhost"])
async def test_where_browsers_keep_host_cookies_a_plain_one_is_nobodys(
    edge: Gateway, running: Running, host: str
) -> None:
    """A cookie of the plain name can come from a page of a neighbour: it signs nobody in where `__Host-` works."""
    access = Access(kind="subjects", subjects=("ann",))
    await edge.publish(Route(name="l", host=host, backends=(Backend(address=running.address),), access=access))
    good = cookie(host)
    assert (await edge.get(host, Cookie=good.removeprefix("__Host-"))).status == 401
    assert (await edge.get(host, Cookie=f"mooring=tossed; {good}")).status == 200


@pytest.mark.parametrize(
    ("site", "mode", "dest", "status"),
    [
        ("same-site", "navigate", "iframe", 403),
        ("cross-site", "navigate", "object", 403),
        ("same-site", "no-cors", "script", 403),
        ("same-site", "cors", "empty", 403),
        ("cross-site", "navigate", "document", 200),
        ("none", "navigate", "document", 200),
        ("same-origin", "navigate", "iframe", 200),
        ("same-origin", "cors", "empty", 200),
    ],
)
async def test_an_editor_is_neither_framed_nor_read_by_a_page_of_another_origin(
    edge: Gateway, running: Running, site: str, mode: str, dest: str, status: int
) -> None:
    """What a page of another workspace could have a browser load with its cookie is refused; a link is not."""
    backends = (Backend(address=running.address),)
    access = Access(kind="subjects", subjects=("ann",))
    await edge.publish(Route(name="e", host="e.test", backends=backends, access=access, workspace="abcdefghij"))
    said = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
    reply = await edge.ask("GET", "e.test", "/", {**said, "Cookie": cookie("e.test")})
    assert reply.status == status


async def test_long_credentials_are_read_but_not_kept(edge: Gateway) -> None:
    """A cookie as long as a request may hold works; thousands of a stranger's cost a worker no memory."""
    long = f"{cookie()}; x={'y' * 20000}"
    for _ in range(2):
        assert (await edge.get("a.test", Cookie=long)).status == 200
    assert (await edge.get("a.test", Authorization=f"Bearer {'z' * 20000}")).status == 401


async def test_an_editor_says_that_only_its_own_pages_may_frame_it(edge: Gateway, running: Running) -> None:
    """Where a browser does not tell who asks (plain HTTP), it is told; a port may be framed by the editor."""
    backends, access = (Backend(address=running.address),), Access(kind="subjects", subjects=("ann",))
    hosts = ("e.test", "p{port}--e.test")
    for host in hosts:
        await edge.publish(
            Route(name=f"r{len(host)}", host=host, backends=backends, access=access, workspace="abcdefghij")
        )
    for host, said in (("e.test", "SAMEORIGIN"), ("p80--e.test", None)):
        reply = await edge.ask("GET", host, "/", {"Upgrade-Insecure-Requests": "1", "Cookie": cookie(host)})
        assert (reply.status, reply.headers.get("x-frame-options")) == (200, said)

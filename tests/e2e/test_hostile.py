"""A workspace whose code is hostile, and strangers at the listener: what they try, and that nothing comes of it."""

import asyncio
import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest
from playwright.async_api import BrowserContext, Error

from support import postgres
from support.browser import chromium, visit
from support.mooring import Mooring, free_port, installation
from support.waiting import pause, until

# Everything that a page may send without being asked: each resolves, whatever became of it.
ATTACK = """
async ([victim, console_, paths, port]) => {
  const quiet = promise => Promise.race([promise, new Promise(r => setTimeout(r, 3000))]).catch(() => {});
  const results = {};
  await Promise.all([victim, port, console_, paths].map(async base => {
    for (const path of ["/attack", "/api/v1/me", "/.mooring/events", "/.mooring/sign-out"]) {
      for (const method of ["GET", "POST"]) {
        await quiet(fetch(base + path, { method, mode: "no-cors", credentials: "include",
          body: method === "POST" ? "x=1" : undefined }));
        await quiet(fetch(base + path, { method, credentials: "include" }).then(async answer => {
          results[base + path] = await answer.text();
        }));
      }
    }
    await quiet(fetch(base + "/attack", { method: "DELETE", credentials: "include", headers: { "X-Own": "1" } }));
    await quiet(new Promise(done => {
      const socket = new WebSocket(base.replace("http", "ws") + "/attack");
      socket.onopen = () => { results["socket " + base] = "open"; done(); };
      socket.onerror = done;
    }));
    for (const tag of ["iframe", "img", "script", "object", "embed"]) {
      const element = document.createElement(tag);
      element[tag === "object" ? "data" : "src"] = base + "/attack?" + tag;
      document.body.append(element);
    }
    const frame = document.createElement("iframe");
    frame.name = "into-" + Math.random();
    const form = document.createElement("form");
    Object.assign(form, { method: "POST", action: base + "/attack?form", target: frame.name });
    document.body.append(frame, form);
    form.submit();
    navigator.sendBeacon(base + "/attack?beacon", "x");
  }));
  for (const domain of ["", "; Domain=localhost", "; Domain=dev.example"]) {
    for (const name of ["mooring", "__Host-mooring"]) {
      document.cookie = name + "=tossed; Path=/" + domain;
      document.cookie = name + "=tossed; Secure; Path=/" + domain;
    }
  }
  await quiet(fetch("/cookies"));
  await quiet(navigator.serviceWorker ? navigator.serviceWorker.register("/sw.js", { scope: "/" }) : Promise.resolve());
  await new Promise(done => setTimeout(done, 1500));
  return results;
}
"""


def workspaces(mooring: Mooring) -> None:
    """Two running workspaces of the hostile kind: `evil` and `good`."""
    mooring.add_hostile_template()
    for name in ("evil", "good"):
        mooring.cli("workspace", "create", name, "--template", "hostile", "--wait")


def origin(link: str) -> str:
    """Scheme and authority of a link."""
    parts = urlsplit(link)
    return f"{parts.scheme}://{parts.netloc}"


def link_to(mooring: Mooring, name: str, *options: str) -> str:
    """A one-time link into a workspace."""
    return mooring.cli("workspace", "open", name, "--print", *options).stdout.strip()


def ask(mooring: Mooring, host: str, path: str = "/", method: str = "GET", **headers: str) -> httpx2.Response:
    """A request to the public listener, `_` in a header's name standing for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.request(method, f"http://127.0.0.1:{mooring.port}{path}", headers={"Host": host} | named, timeout=10)


def seen(mooring: Mooring, name: str) -> list[dict[str, str]]:
    """What the code of a workspace was asked."""
    host = f"{name}--admin.{'dev.example' if '--domain' in mooring.options else 'localhost'}"
    scheme = "https" if "--tls" in mooring.options else "http"
    answer = httpx2.get(
        f"{scheme}://127.0.0.1:{mooring.port}/seen",
        headers={"Host": host, "Authorization": f"Bearer {mooring.token}"},
        verify=False,
        timeout=10,
    )
    found: list[dict[str, str]] = json.loads(answer.text)
    return found


PLAIN_HTTP = ("--domain", "dev.example")


@pytest.mark.parametrize(
    "options", [(), PLAIN_HTTP, ("--domain", "dev.example", "--tls")], ids=["localhost", "http", "tls"]
)
async def test_a_hostile_page_drives_nothing_but_its_own_workspace(options: tuple[str, ...]) -> None:
    """With every person's session in the browser, a page of one workspace reaches no other, no port and no console."""
    with installation(*options) as mooring:
        workspaces(mooring)
        port = free_port()
        flags = "--host-resolver-rules=MAP *.dev.example 127.0.0.1, MAP dev.example 127.0.0.1"
        async with chromium(None, flags) as browser:
            context = await browser.new_context(ignore_https_errors=True)
            homes = [mooring.url, link_to(mooring, "good"), link_to(mooring, "good", "--by-path")]
            homes += [link_to(mooring, "good", "--port", str(port)), link_to(mooring, "evil")]
            for link in homes:
                page = await context.new_page()
                await visit(page, link)
            before = len(seen(mooring, "good"))
            targets = [origin(link) for link in (homes[1], homes[0], homes[2], homes[3])]
            await visit(page, origin(homes[4]) + "/page")
            results = await page.evaluate(ATTACK, targets)
            assert results == {}
            assert "/cookies" in {it["path"] for it in seen(mooring, "evil")}, "the attack did not come to its end"
            arrived = seen(mooring, "good")[before:]
            # Without TLS a browser does not say who causes a GET; its answer stays unread, and nothing else passes.
            assert [it for it in arrived if it["method"] != "GET" or options != PLAIN_HTTP] == []
            assert page.frames[0].url.endswith("/page")
            assert not any("mooring" in it["headers"].lower().partition("cookie:")[2] for it in seen(mooring, "evil"))
            await still_signed_in(context, origin(homes[0]), origin(homes[1]))
            await windows(context, origin(homes[4]), [origin(homes[1]), origin(homes[0])], secure=options != PLAIN_HTTP)
            await crowded(mooring, context, origin(homes[4]), origin(homes[1]))


# What a page can do with a window that it opened, and with one whose name it knows.
WINDOWS = """
async ([victims, own]) => {
  const results = await Promise.all(victims.map(async victim => {
    const opened = window.open(victim + "/page");
    await new Promise(done => setTimeout(done, 2000));
    const tried = { closed: opened.closed, read: null, told: null };
    try { tried.read = opened.document.body.innerHTML; } catch (error) { tried.read = error.name; }
    try { opened.postMessage("attack", "*"); } catch (error) { tried.told = error.name; }
    try { opened.location = own + "/page?led-astray"; } catch (error) { tried.led = error.name; }
    return tried;
  }));
  window.open(own + "/page?taken", "editor");
  await new Promise(done => setTimeout(done, 1000));
  return results;
}
"""
LISTEN = "window.name = 'editor'; window.told = []; addEventListener('message', event => window.told.push(event.data))"


async def windows(context: BrowserContext, evil: str, victims: list[str], *, secure: bool) -> None:
    """A window that a hostile page opens is out of its reach where browsers know how; a name leads to no other tab."""
    await context.add_init_script("addEventListener('message', event => { (window.told ??= []).push(event.data) })")
    named = await context.new_page()
    await visit(named, victims[0] + "/page")
    await named.evaluate(LISTEN)
    page = await context.new_page()
    await visit(page, evil + "/page")
    before = set(context.pages)
    results = await page.evaluate(WINDOWS, [victims, evil])
    for tried in results:
        assert tried["read"] in ("SecurityError", "", None), tried
    assert named.url == victims[0] + "/page"
    assert await named.evaluate("window.told") == []
    if secure:
        assert [tried["closed"] for tried in results] == [True, True]
        opened = {urlsplit(it.url).netloc: it for it in context.pages if it not in before}
        for victim in victims:
            assert await opened[urlsplit(victim).netloc].evaluate("window.told ?? []") == []
    for it in set(context.pages) - {named}:
        await it.close()


CROWD = """
() => {
  const where = location.protocol === "https:" ? "; Secure" : "";
  const domain = location.hostname.split(".").slice(-2).join(".");
  for (let i = 0; i < 600; i++) {
    document.cookie = `crowd${i}=${"x".repeat(i < 300 ? 10 : 3000)}; Domain=${domain}; Path=/; Max-Age=9999${where}`;
  }
  // Set behind our back, they would come after somebody has cleared them: to read waits for all of them.
  return document.cookie.length;
}
"""


async def crowded(mooring: Mooring, context: BrowserContext, evil: str, good: str) -> None:
    """However many cookies a neighbour sets, others are served, and after clearing them a link signs in as ever."""
    page = await context.new_page()
    await visit(page, evil + "/page")
    assert await page.evaluate(CROWD) > 0
    # Too long for a request (HTTP/2 then ends the connection), or ours among those that the browser dropped.
    with suppress(Error):
        answer = await visit(page, good + "/page")
        assert answer.status in (200, 400, 401), answer.status
    assert seen(mooring, "good")
    await context.clear_cookies()
    await visit(page, link_to(mooring, "good"))
    answer = await visit(page, good + "/page")
    assert (answer.status, await page.title()) == (200, "hostile")


async def still_signed_in(context: BrowserContext, console: str, good: str) -> None:
    """The console and the other workspace know the person as before."""
    page = await context.new_page()
    answer = await visit(page, good + "/page")
    assert answer.status == 200
    answer = await visit(page, console + "/")
    assert "good" in await answer.text()
    assert answer.headers["x-frame-options"] == "DENY"


@pytest.fixture(scope="module")
def plain() -> Iterator[Mooring]:
    """An installation with both workspaces, for strangers without a browser."""
    with installation() as running:
        workspaces(running)
        yield running


def test_only_our_own_names_are_answered(plain: Mooring) -> None:
    """A name that somebody else points here, or another spelling of ours, reaches nothing: DNS rebinding is useless."""
    path = f"/.mooring/ticket?{urlsplit(link_to(plain, 'good')).query}"
    known = {"Authorization": f"Bearer {plain.token}"}
    for host in ("attacker.example", "127.0.0.1", "[::1]", "good--admin.localhost.attacker.example", "xlocalhost"):
        for target in ("/", "/api/v1/me", "/readyz", path):
            assert ask(plain, host, target, **known).status_code == 404, (host, target)
    for host in (
        "localhost.",
        "localhost:80:80",
        "localhost:x",
        "localhost@attacker.example",
        "good--admin.localhost.",
    ):
        assert ask(plain, host, path, **known).status_code in (400, 404), host
    assert ask(plain, f"LOCALHOST:{plain.port}", "/api/v1/me", **known).status_code == 200
    assert ask(plain, "good--admin.localhost", path).status_code == 303


def test_a_ticket_works_once_at_its_own_host(plain: Mooring) -> None:
    """Used twice, or shown to another host, it is worth nothing; headers that proxies set cannot name the host."""
    first = f"/.mooring/ticket?{urlsplit(link_to(plain, 'good')).query}"
    assert ask(plain, "good--admin.localhost", first).status_code == 303
    assert ask(plain, "good--admin.localhost", first).status_code == 401
    second = f"/.mooring/ticket?{urlsplit(link_to(plain, 'good')).query}"
    claimed = {"X_Forwarded_Host": "good--admin.localhost", "Forwarded": "host=good--admin.localhost"}
    assert ask(plain, "evil--admin.localhost", second, **claimed).status_code == 401
    assert ask(plain, "good--admin.localhost", second).status_code == 401


def test_what_a_client_says_of_itself_is_not_believed(plain: Mooring) -> None:
    """Address, scheme and host come from the connection, on the way to a workspace too."""
    lies = {
        "X_Forwarded_For": "6.6.6.6",
        "X_Real_IP": "6.6.6.6",
        "Forwarded": "for=6.6.6.6;proto=https",
        "X_Forwarded_Proto": "https",
        "X_Forwarded_Host": "localhost",
        "X_Forwarded_Prefix": "/evil",
    }
    ask(plain, "good--admin.localhost", "/lies", Authorization=f"Bearer {plain.token}", **lies)
    told = seen(plain, "good")[-1]["headers"]
    assert "6.6.6.6" not in told
    assert "/evil" not in told
    assert "X-Forwarded-Proto: http\n" in told.replace("\r", "")
    assert plain.token not in told


@pytest.mark.parametrize("path", ["sections", "listeners/abcdefghij/80", "report"])
def test_the_gateways_api_is_closed_to_people(plain: Mooring, path: str) -> None:
    """Not even an administrator's token opens it."""
    for authorization in (f"Bearer {plain.token}", "Bearer x", "Basic eA==", "Bearer \xe9"):
        headers = {"Host": "localhost", "Authorization": authorization.encode("latin1")}
        url = f"http://127.0.0.1:{plain.port}/api/v1/gateway/{path}"
        answer = httpx2.request("POST" if path == "report" else "GET", url, headers=headers, content=b"{}", timeout=10)
        assert answer.status_code == 401


def test_a_port_url_reaches_the_workspaces_own_listeners_alone(plain: Mooring) -> None:
    """Mooring's listener, somebody else's server and the neighbour's port are refused and counted."""
    known = {"Authorization": f"Bearer {plain.token}"}
    port = free_port()
    assert ask(plain, "good--admin.localhost", f"/listen/{port}", **known).status_code == 200
    assert ask(plain, f"p{port}--good--admin.localhost", "/", **known).text == "mine"
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        for other in (plain.port, stranger.getsockname()[1], port, 22):
            answer = ask(plain, f"p{other}--evil--admin.localhost", "/", **known)
            assert answer.status_code == 502, other
    counted = 'mooring_gateway_refused_total{gateway="local",reason="no_backend"}'
    until(lambda: counted in ask(plain, "localhost", "/metrics", **known).text)


@contextmanager
def redis_server(port: int) -> Iterator[Callable[[], int]]:
    """A Redis on loopback; gives how many connections have reached it, but for those that ask."""
    words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    asked = 0

    def connections() -> int:
        nonlocal asked
        done = subprocess.run(
            ["redis-cli", "-p", str(port), "info", "stats"], capture_output=True, text=True, check=False
        )
        found = re.search(r"total_connections_received:(\d+)", done.stdout)
        asked += found is not None
        return int(found[1]) - asked if found else -1

    server = subprocess.Popen(words, stdout=subprocess.DEVNULL)
    try:
        until(lambda: connections() >= 0)
        yield connections
    finally:
        server.kill()
        server.wait()


def listening_ports(mooring: Mooring) -> set[int]:
    """Every TCP port that a process of Mooring's listens on, but for those of workspaces."""
    inodes = set()
    for pid in set(mooring.processes()) - set(mooring.processes("editor")):
        # Some live for a moment only, and so do some of what they have open.
        with suppress(OSError):
            for fd in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    inodes.add(str(fd.readlink()).removeprefix("socket:[").removesuffix("]"))
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {int(fields[1].partition(":")[2], 16) for fields in lines if fields[3] == "0A" and fields[9] in inodes}


def test_a_port_url_reaches_no_service_of_the_machine(plain: Mooring) -> None:
    """Redis, PostgreSQL and each of Mooring's own listeners see nothing of it, by a port's host or below a path."""
    known = {"Authorization": f"Bearer {plain.token}"}
    (workspace,) = (item["id"] for item in listed(plain) if item["name"] == "evil")
    redis, database = free_port(), free_port()
    with redis_server(redis) as connections, postgres.server(database) as server:
        ours = listening_ports(plain)
        assert plain.port in ours
        for port in (redis, database, *ours):
            for method in ("GET", "POST", "PUT"):
                assert ask(plain, f"p{port}--evil--admin.localhost", "/", method, **known).status_code == 502
                below = f"/ws/{workspace}/ports/{port}/FLUSHALL"
                assert ask(plain, "ws.localhost", below, method, **known).status_code == 502
        # The number of a service at another address is the workspace's own, and leads to it or nowhere.
        ask(plain, "evil--admin.localhost", f"/listen/{redis}/127.0.0.2", **known)
        answer = ask(plain, f"p{redis}--evil--admin.localhost", "/", **known)
        assert answer.status_code == 502 or answer.text == "mine"
        ask(plain, "evil--admin.localhost", f"/close/{redis}", **known)
        assert connections() == 0
        assert "incomplete startup packet" not in (log := (server.folder / "log").read_text())
        assert "unsupported frontend protocol" not in log
        assert "invalid length of startup packet" not in log


def listed(mooring: Mooring) -> list[dict[str, str]]:
    """The workspaces."""
    found = mooring.json("workspace", "list")
    items: list[dict[str, str]] = found["items"] if isinstance(found, dict) else found  # type: ignore[assignment]
    return items


def test_a_port_that_changes_hands_is_let_go(plain: Mooring) -> None:
    """Once another process listens where the workspace did, at most the second that answers are kept passes."""
    known = {"Authorization": f"Bearer {plain.token}"}
    port = free_port()
    ask(plain, "good--admin.localhost", f"/listen/{port}", **known)
    assert ask(plain, f"p{port}--good--admin.localhost", "/", **known).text == "mine"
    ask(plain, "good--admin.localhost", f"/close/{port}", **known)
    with socket.create_server(("127.0.0.1", port), reuse_port=False) as taker:
        taker.settimeout(0.2)
        pause(1.5)
        assert ask(plain, f"p{port}--good--admin.localhost", "/", **known).status_code == 502
        with pytest.raises(TimeoutError):
            taker.accept()


def test_nobody_publishes_a_way_into_mooring_itself(plain: Mooring, tmp_path: Path) -> None:
    """Files, our sockets and our own listener are refused with the reason, over the API and the command line."""
    home = plain.home
    for backend, why in (
        ({"files": str(home / "keys")}, "operator"),
        ({"files": "/etc"}, "operator"),
        ({"unix": str(home / "run/api.sock")}, "is Mooring's own"),
        ({"address": f"127.0.0.1:{plain.port}"}, "is Mooring's own"),
        ({"address": "169.254.169.254:80"}, "metadata"),
    ):
        route = {"name": "r", "host": "r.localhost", "access": {"kind": "public"}, "backends": [backend]}
        file = tmp_path / "section.json"
        file.write_text(json.dumps({"routes": [route]}))
        done = plain.cli("route", "publish", str(file), "--source", "mine", check=False)
        assert done.returncode != 0
        assert why in done.stderr, done.stderr
    assert ask(plain, "r.localhost").status_code == 404


def test_a_thousand_unfinished_requests_stop_nobody(plain: Mooring) -> None:
    """Connections that never say what they want wait alone."""
    held = []
    try:
        for _ in range(1000):
            held.append(socket.create_connection(("127.0.0.1", plain.port), timeout=10))
            held[-1].send(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        for _ in range(10):
            assert ask(plain, "good--admin.localhost", "/healthz", Authorization=f"Bearer {plain.token}").is_success
    finally:
        for connection in held:
            connection.close()


def test_no_log_holds_a_secret(plain: Mooring) -> None:
    """Tickets, cookies and tokens that were used, and refused, are in no file but those made for them."""
    secrets = [plain.token, urlsplit(plain.url).query.partition("=")[2]]
    ticket = urlsplit(link_to(plain, "good")).query
    answer = ask(plain, "good--admin.localhost", f"/.mooring/ticket?{ticket}")
    cookie = answer.headers["set-cookie"].partition(";")[0]
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    ask(plain, "good--admin.localhost", f"/.mooring/ticket?{ticket}")
    ask(plain, "good--admin.localhost", "/x", Cookie=cookie)
    secrets += [ticket.partition("=")[2], cookie.partition("=")[2]]
    logs = list(plain.home.rglob("*.log*"))
    assert {"server.log", "gateway.log"} <= {path.name for path in logs}
    for path in logs:
        text = path.read_text(errors="replace")
        for secret in secrets:
            assert secret not in text, path


async def test_what_a_workspace_prints_is_text_in_every_view(plain: Mooring) -> None:
    """A failing editor's last words become events: markup stays text and escape sequences do not reach a terminal."""
    words = "<img src=x onerror=alert(1)>\\033]0;owned\\007\\033[2J"
    plain.add_template(
        "shouting",
        'version = 1\nruntime = "process"\n[editor]\ncommand = ["/bin/sh", "-c", '
        f"'''printf \"{words}\\n\"; exit 1''']\n",
    )
    plain.cli("workspace", "create", "loud", "--template", "shouting", check=False)
    async with asyncio.timeout(60):
        while "onerror" not in (shown := plain.cli("workspace", "events", "loud", check=False).stdout):
            await asyncio.sleep(0.5)
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\x1b" not in plain.cli("workspace", "list").stdout
    async with chromium() as browser:
        page = await browser.new_page()
        alerts: list[str] = []
        page.on("dialog", lambda dialog: alerts.append(dialog.message))
        await visit(page, plain.cli("console", "--print").stdout.strip())
        await page.get_by_text("<img src=x onerror=alert(1)>").first.wait_for()
        # What a page loads because of it comes a moment later.
        await asyncio.sleep(2)
        assert await page.locator("img[src=x]").count() == 0
        assert alerts == []
    plain.cli("workspace", "delete", "loud", "--yes")

"""Requests at the edge of what a gateway takes for usual: drawn from a seed, most of them nearly fine."""

import random
from dataclasses import dataclass

from mooring.model.grants import SigningKey
from support.grants import KEY, TOKEN, cookie
from support.nginx import CONSOLE

OLD_KEY, GONE = SigningKey("k0", b"a secret of more than thirty-two", 1), "gone"
HOSTS = 40
OTHERS = ("none.test", CONSOLE, "p3000--a.test", "127.0.0.1", "[::1]", "*", "", "w0.test.", "w0..test", "w0_test")


@dataclass(frozen=True)
class Sent:
    """A request."""

    method: str
    target: str
    version: str
    fields: tuple[tuple[str, str], ...]
    body: bytes

    def raw(self, more: tuple[str, str]) -> bytes:
        """Its bytes, with one header more."""
        lines = [f"{self.method} {self.target} {self.version}", *(f"{n}:{v}" for n, v in (*self.fields, more))]
        return "\r\n".join(lines).encode("latin1") + b"\r\n\r\n" + self.body

    def pairs(self, more: tuple[str, str], scheme: str) -> list[tuple[str, str]]:
        """The same for HTTP/2, which knows no space before a value."""
        fields = [(name.lower(), value.removeprefix(" ")) for name, value in (*self.fields, more)]
        hosts = [value for name, value in fields if name == "host"]
        first = [(":method", self.method), (":scheme", scheme), (":path", self.target)]
        named = [(":authority", hosts[0])] if hosts else []
        return [
            *first,
            *named,
            *(("host", host) for host in hosts[1:]),
            *(pair for pair in fields if pair[0] != "host"),
        ]


class Drawer:
    """Draws requests, the same ones from the same seed."""

    def __init__(self, seed: int, port: int, scheme: str = "http") -> None:
        self.random = random.Random(seed)  # noqa: S311
        self.port = port
        self.scheme = scheme

    def one(self, *usual: str, odd: tuple[str, ...] = (), chance: float = 0.15) -> str:
        """One of the usual texts, now and then an odd one."""
        return self.random.choice(odd if odd and self.random.random() < chance else usual)

    def host(self) -> str:
        """A routed host most of the time."""
        number = self.random.randrange(HOSTS)
        return self.one(f"w{number}.test", f"w{number}.localhost", odd=OTHERS, chance=0.03)

    def authority(self, host: str) -> str:
        """The host as a header spells it."""
        host = self.one(host, odd=(host.upper(), host.title(), f"{host}.", f" {host}", f"x@{host}"), chance=0.05)
        odd = ("", ":", ":0", ":65536", ":123456", ":x", ":80:80", ": 80", ":-1", f":{self.port}.")
        return host + self.one(f":{self.port}", odd=odd, chance=0.05)

    def path(self) -> str:
        """A path and a query."""
        names = ("a", "b.js", "c~1", "@x", "d:e", "f=g", "h,i", "!$&'()*+", "", "")
        odd = (".", "..", ".h", "..;", "%41", "%2e", "%2f", "%zz", "%", "e;f", "\\", "|", "\xe9", '"', "^", "#", "\x7f")
        parts = [self.one(*names, odd=odd, chance=0.02) for _ in range(self.random.randrange(4))]
        path = "/" + "/".join(parts) + self.one("", odd=("x" * 5000, "/.mooring/x", "/goproxy/"), chance=0.02)
        return path + self.one("", "", "?", "?a=b&c", odd=("?%2f..", "??", "?#", "#?", "?\xff", "?/../"), chance=0.1)

    def target(self, host: str) -> str:
        """What stands behind the method."""
        start = ("http://" + self.authority(host), f"http://{self.host()}", "https://" + host, "*", "x", "ftp://x")
        return self.one("", odd=start, chance=0.04) + self.path()

    def cookies(self, host: str) -> str:
        """A Cookie header."""
        good = self.cookie(host)
        parts = [self.one("x=1", "theme=dark", "a", "", "b=c=d", good, good) for _ in range(self.random.randrange(3))]
        parts.insert(self.random.randrange(len(parts) + 1), good)
        if self.random.random() < 0.05:
            parts.insert(0, "z" * self.random.choice([3000, 4090, 9000]))
        return self.one("; ", ";", " ;\t", ";;", odd=(", ", "&"), chance=0.05).join(parts)

    def cookie(self, host: str) -> str:
        """One of ours, mostly good."""
        subject = self.one("ann", odd=("bob", "an", "annn", "mooring:probe"), chance=0.1)
        key, session = self.random.choice([KEY] * 19 + [OLD_KEY]), self.one("s1", odd=(GONE, "s" * 300), chance=0.1)
        seconds = self.random.choice([500] * 19 + [-5])
        good = cookie(self.one(host, odd=("w1.test",), chance=0.05), subject, key=key, seconds=seconds, session=session)
        name, _, value = good.partition("=")
        if self.scheme == "https":
            name, good = "__Host-mooring", f"__Host-mooring={value}"
        other = {"mooring": "__Host-mooring", "__Host-mooring": "mooring"}[name]
        wrong = (f"{other}={value}", f"{name} = {value}", good[:-1], good + ".", f"{name}=v1.x", f"{name}=", name)
        return self.one(good, odd=(*wrong, good.upper(), f"={good}", f'{name}="{value}"', value), chance=0.1)

    def fields(self, host: str) -> list[tuple[str, str]]:
        """Headers but for Host and what belongs to a body."""
        found = [("Cookie", self.cookies(host)) for _ in range(self.one_of(1, 1, 1, 1, 0, 2, 3))]
        for name, values in (
            ("Authorization", ("", "Bearer x", f"Bearer {TOKEN}", "Basic eDp5", "none cors /ok", " none cors x")),
            ("Sec-Fetch-Site", ("same-origin", "none", "same-origin", "cross-site", "", "none cors x", "NONE")),
            ("Sec-Fetch-Mode", ("cors", "no-cors", "navigate", "", "navigates", "CORS", "cors x")),
            ("Sec-Fetch-Dest", ("document", "script", "iframe", "")),
            ("Accept", ("*/*", "", "text/html", "x, text/html;q=1", "TEXT/HTML")),
            ("Upgrade-Insecure-Requests", ("1", "", "0", " none cors x")),
            ("Origin", (f"{self.scheme}://{host}:{self.port}", "null", "http://evil.test", "")),
            ("X-Forwarded-For", ("6.6.6.6",)),
            ("X-Forwarded-Host", ("evil.test",)),
            ("Connection", ("keep-alive", "x-forwarded-for, cookie", "Keep-Alive, TE", "")),
            ("TE", ("trailers",)),
            ("X-Want", ("cookie", "worker", "empty", "teapot", "gone")),
            ("X_Under", ("1",)),
        ):
            found += [(name, self.random.choice(values)) for _ in range(self.one_of(*[0] * 24, 1, 1, 2))]
        self.random.shuffle(found)
        return [(self.random.choice([name, name, name.lower(), name.upper()]), value) for name, value in found]

    def one_of(self, *counts: int) -> int:
        """A number."""
        return self.random.choice(counts)

    def sent(self) -> Sent:
        """A request."""
        host = self.host()
        method = self.one("GET", "GET", "GET", "HEAD", "OPTIONS", odd=("POST", "PUT", "get", "TRACE", "PATCH"))
        version = self.one("HTTP/1.1", odd=("HTTP/1.0", "HTTP/1.2"), chance=0.05)
        hosts = [self.authority(host) for _ in range(self.one_of(*[1] * 60, 0, 2))]
        fields = [("Host", each) for each in hosts] + self.fields(host)
        body = b"body" if method in ("POST", "PUT", "PATCH") or self.random.random() < 0.03 else b""
        if body:
            fields.append(("Content-Length", "4"))
        spaced = tuple((n, self.one(" ", odd=("", "  ", "\t"), chance=0.03) + value) for n, value in fields)
        return Sent(method, self.target(host), version, spaced, body)

"""The connection to the server: its client, the credential, and the translation of its errors."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import httpx2

from mooring.errors import DeadlineExceeded, Misconfigured, MooringError, Unavailable
from mooring.settings import ServerLink

_REFUSED = (401, 403)


def client(link: ServerLink) -> httpx2.AsyncClient:
    """A client of the server that `link` names; its proxies come from no environment.

    Raises:
        Misconfigured: the credential cannot be read.
    """
    transport = httpx2.AsyncHTTPTransport(
        verify=ssl.create_default_context() if link.url.startswith("https:") else False,
        uds=str(link.socket) if link.socket else None,
        trust_env=False,
    )
    return httpx2.AsyncClient(
        base_url=link.url,
        headers={"authorization": f"Bearer {_credential(link)}"},
        timeout=httpx2.Timeout(link.connect_s, read=link.silence_s),
        transport=transport,
        trust_env=False,
    )


@contextmanager
def translated(link: ServerLink) -> Iterator[None]:
    """Raise what the HTTP client raises as an error of ours."""
    try:
        yield
    except httpx2.TimeoutException as error:
        raise DeadlineExceeded(f"the server at {link.socket or link.url} is silent") from error
    except (httpx2.HTTPError, OSError) as error:
        raise Unavailable(f"the server at {link.socket or link.url} does not answer: {error}") from error


def check(link: ServerLink, response: httpx2.Response) -> None:
    """Raise unless the server accepted the request.

    Raises:
        Misconfigured: it refuses our credential.
        Unavailable: any other status but success.
    """
    if response.status_code in _REFUSED:
        raise Misconfigured(f"the server refuses the credential in {link.token_file}: give it the server's own")
    if not response.is_success:
        raise Unavailable(f"the server answered {response.status_code} to {response.request.url.path}")


def describe(error: Exception) -> str:
    """One line for a problem list."""
    return error.detail if isinstance(error, MooringError) else f"{type(error).__name__}: {error}"


def _credential(link: ServerLink) -> str:
    try:
        token = link.token_file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"the gateway's credential cannot be read: {error}", field="token_file") from error
    if not token.isascii() or not token.isprintable() or not token:
        raise Misconfigured(f"{link.token_file} holds no credential", field="token_file")
    return token

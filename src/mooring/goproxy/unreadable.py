"""What a developer is told about a repository that the proxy cannot read: the go command's advice is for their machine.

That a server knows no repository proves no absence: many say so of what these credentials may not see. Taken for one,
the private path would be named to the next proxy of the client's list.
"""

import netrc as netrc_format
import re
from pathlib import Path

_FOUND_NONE = re.compile(r"([\w.~/-]+?\.git)(?:/\S*)?@\S+: no secure protocol found for repository")
_REFUSED = re.compile(r"could not read (username|password)|authentication failed|returned error: 40[13]", re.IGNORECASE)
_HIDDEN = re.compile(r"repository .*not found|returned error: (404|410)", re.IGNORECASE)
_HOST = re.compile(r"https://([^/\s'\":]+)")
_FROM_GIT = re.compile(r"^\s*(?:fatal|remote): .*", re.MULTILINE)


def unexplained(text: str) -> str | None:
    """The repository of which the go command says no more than that it found none."""
    found = _FOUND_NONE.search(text)
    return found and f"https://{found[1]}"


def explained(asked: str, text: str, netrc: Path | None) -> str:
    """What git said (`text`) about the repository of `asked`, in terms of the proxy where it is about access. Blocking.

    Whether there is a password is told and nothing of it: a token may stand for the user as well.
    """
    host, said = _HOST.search(text), [line.strip() for line in _FROM_GIT.findall(text)]
    if host is None or not said:
        return text
    if _REFUSED.search(text):
        problem = f"{host[1]} does not let the module proxy read this repository"
    elif _HIDDEN.search(text):
        problem = f"{host[1]} has no such repository, or does not show it to the module proxy"
    else:
        return text
    means = f"with what its netrc has for {host[1]}" if _knows(netrc, host[1]) else "without a password"
    return "\n".join((f"{asked}: {problem}, which asks {means}", *(f"git: {line}" for line in said)))


def _knows(file: Path | None, host: str) -> bool:
    try:
        return file is not None and netrc_format.netrc(str(file)).authenticators(host) is not None
    except (OSError, netrc_format.NetrcParseError):
        return False

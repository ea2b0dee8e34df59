"""What a developer is told about a repository that the proxy cannot read: the go command's advice is for their machine.

That a server knows no repository proves no absence: many say so of what these credentials may not see. Taken for one,
the private path would be named to the next proxy of the client's list.
"""

import netrc as netrc_format
import re
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path

from mooring.goproxy.faults import Unreadable

_FOUND_NONE = "no secure protocol found for repository"
_REFUSED = re.compile(r"could not read (username|password)|authentication failed|returned error: 40[13]", re.IGNORECASE)
_HIDDEN = re.compile(r"repository .*not found|returned error: (404|410)", re.IGNORECASE)
_HOST = re.compile(r"https://([^/\s'\":]+)")
_GIT, _SERVER = ("fatal: ", "remote: "), ("remote: ", "fatal: remote error: ")
_LINES, _LETTERS = 8, 600


def unexplained(asked: str, text: str) -> str | None:
    """The repository in the path of `asked` where the go command says no more than that it found none."""
    path, ends, _ = f"{asked.partition('@')[0]}/".partition(".git/")
    return f"https://{path}.git" if ends and _FOUND_NONE in text else None


def explained(asked: str, text: str, netrc: Path | None) -> Unreadable | None:
    """What git said (`text`) about the repository of `asked`, in terms of the proxy; None where it is not about access.

    Whether the netrc has an entry is told and nothing of it: a token may stand for the user as well. Blocking.
    """
    said = [line.strip() for line in text.splitlines() if _by(_GIT, line)]
    # What the server makes up must not have the netrc searched for a host of its choice.
    host = _HOST.search("\n".join(line for line in said if not _by(_SERVER, line)))
    if host is None:
        return None
    if any(map(_REFUSED.search, said)):
        problem = f"{host[1]} does not let the module proxy read this repository"
    elif any(map(_HIDDEN.search, said)):
        problem = f"{host[1]} has no such repository, or does not show it to the module proxy"
    else:
        return None
    knows = _knows(netrc, host[1])
    means = f"which asks with what its netrc has for {host[1]}" if knows else f"whose netrc has nothing for {host[1]}"
    return Unreadable(excerpt((f"{asked}: {problem}, {means}", *(f"git: {line}" for line in said))))


def of_this_machine(text: str) -> str:
    """`text` without what a server had git pass on."""
    return "\n".join(line for line in text.splitlines() if not _by(_SERVER, line))


def of_the_go_command(text: str) -> str:
    """`text` up to what git said, which may go on for lines of a server's choice."""
    return "\n".join(takewhile(lambda line: not _by(_GIT, line), text.splitlines()))


def excerpt(lines: Iterable[str]) -> str:
    """As much as a person reads."""
    return "\n".join(list(lines)[:_LINES])[:_LETTERS]


def _by(whom: tuple[str, ...], line: str) -> bool:
    return line.lstrip().startswith(whom)


def _knows(file: Path | None, host: str) -> bool:
    try:
        return file is not None and netrc_format.netrc(str(file)).authenticators(host) is not None
    except (OSError, UnicodeDecodeError, netrc_format.NetrcParseError):
        return False

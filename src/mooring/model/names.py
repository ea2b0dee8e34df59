"""Names and identifiers: which are allowed, and how a host name is made of them.

A host label has at most 63 characters (RFC 1035): `p65535--` (8) + name (32) + `--` (2) + owner (20) = 62.
"""

import re
import secrets
from dataclasses import dataclass

from mooring.errors import InvalidInput

ID_LENGTH = 10
_ID_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_ID = re.compile(r"[a-z0-9]{10}")
# No double hyphen: `--` separates the parts of a host label. At most 32 characters.
_NAME = re.compile(r"[a-z](?:[a-z0-9]|-(?!-)){0,30}[a-z0-9]")
_OWNER = re.compile(r"[a-z](?:[a-z0-9]|-(?!-)){0,18}[a-z0-9]")
NAME_RULE = (
    "2 to 32 lower-case letters, digits and single hyphens, from a letter to a letter or digit, not beginning with xn"
)
OWNER_RULE = NAME_RULE.replace("32", "20")
MAX_PORT = 65535


def new_id() -> str:
    """A random workspace id: 10 characters `[a-z0-9]`, 51 bits."""
    return "".join(secrets.choice(_ID_ALPHABET) for _ in range(ID_LENGTH))


def is_id(text: str) -> bool:
    """Whether `text` has the form of a workspace id."""
    return _ID.fullmatch(text) is not None


def check_name(name: str, *, field: str = "name") -> str:
    """`name` if it is a valid workspace or template name.

    Raises:
        InvalidInput: with the rule.
    """
    if _NAME.fullmatch(name) is None or name.startswith("xn"):
        raise InvalidInput(f"{field} must be {NAME_RULE}", field=field)
    return name


def check_owner(name: str, *, field: str = "owner") -> str:
    """`name` if it is a valid owner (user) name.

    Raises:
        InvalidInput: with the rule.
    """
    if _OWNER.fullmatch(name) is None or name.startswith("xn"):
        raise InvalidInput(f"{field} must be {OWNER_RULE}", field=field)
    return name


@dataclass(frozen=True, slots=True)
class Hosts:
    """The host names of one installation, all without a port.

    `domain` is `localhost` on one machine, a domain with a wildcard record, or `<ip>.<xip domain>`. The console (and
    the API) is the domain itself, each workspace has a host of its own below it, and `ws.<domain>` is the origin of
    the path form `/ws/<id>/…`. No workspace can be called that: its label holds `--`.
    """

    domain: str

    @property
    def console(self) -> str:
        return self.domain

    @property
    def paths(self) -> str:
        return f"ws.{self.domain}"

    def workspace(self, name: str, owner: str) -> str:
        return f"{name}--{owner}.{self.domain}"

    def port(self, name: str, owner: str, port: int | str = "{port}") -> str:
        """The host of a port; by default the pattern that a route carries."""
        return f"p{port}--{name}--{owner}.{self.domain}"

"""What a module proxy's sources and storage do wrong: leaves of the error tree, each with its own stable code."""

import errno

from mooring.errors import Conflict, Forbidden, Unavailable

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""What a disk says that takes no more, while everything on it can still be read."""


class Mismatch(Conflict):
    """What a source sent is not what the checksum database or the notary recorded: never served, never kept."""

    code = "mismatch"


class BadUpstream(Unavailable):
    """A source answered with something that is no answer of the protocol."""

    code = "bad_upstream"


class UpstreamRefused(Forbidden):
    """A source refuses to give something to us; our own rules and permissions allow it."""

    code = "upstream_refused"


class Unreadable(Unavailable):
    """A repository is not there, or not for us, until somebody changes either. Clients see the code of its parent."""


class NoSpace(Unavailable):
    """The store is full; what is kept can still be read."""

    code = "no_space"


class BadZip(Conflict):
    """The zip breaks a rule of https://go.dev/ref/mod#zip-files."""

    code = "bad_zip"


class BadNote(Conflict):
    """A note is malformed, or nobody we trust signed it."""

    code = "bad_note"


class BadTree(Conflict):
    """What a log serves contradicts what it signed."""

    code = "bad_tree"

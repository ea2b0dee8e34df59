"""The error tree, and the one table from an error to HTTP and to an exit status.

    MooringError
    ├── InvalidInput        a value that the caller can correct; names the field and what is allowed
    ├── NotFound            the thing does not exist, or the caller may not know that it does
    ├── Conflict            the request contradicts what exists (a name in use, a forbidden transition)
    │   └── StaleRevision   the If-Match revision is not the current one
    ├── Unauthenticated     no credential, or one that is not valid (any more)
    ├── Forbidden           a valid credential that does not allow this
    ├── LimitExceeded       a quota, a size or a rate; says which and how much is allowed
    ├── Unavailable         something we depend on does not answer now; a later try may succeed
    │   └── DeadlineExceeded
    └── Misconfigured       the operator must change a setting or install something; says what to type

No I/O here, and no import of any other part. Adapters translate foreign errors in one function each, `raise … from`.
"""

from dataclasses import dataclass


class MooringError(Exception):
    """The root: `code` is stable and documented, `detail` is for a person."""

    code = "internal"

    def __init__(self, detail: str, *, field: str | None = None) -> None:
        """Keep the text for a person and, for bad input, the field (dotted path) that it is about."""
        super().__init__(detail)
        self.detail = detail
        self.field = field


class InvalidInput(MooringError):
    code = "invalid_input"


class NotFound(MooringError):
    code = "not_found"


class Conflict(MooringError):
    code = "conflict"


class StaleRevision(Conflict):
    code = "stale_revision"


class Unauthenticated(MooringError):
    code = "unauthenticated"


class Forbidden(MooringError):
    code = "forbidden"


class LimitExceeded(MooringError):
    code = "limit_exceeded"


class Unavailable(MooringError):
    code = "unavailable"


class DeadlineExceeded(Unavailable):
    code = "deadline_exceeded"


class Misconfigured(MooringError):
    code = "misconfigured"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an error leaves the process: HTTP status, a short title, and the CLI's exit status."""

    http: int
    title: str
    exit: int


OUTCOMES: dict[type[MooringError], Outcome] = {
    InvalidInput: Outcome(422, "Invalid input", 2),
    NotFound: Outcome(404, "Not found", 4),
    StaleRevision: Outcome(412, "Changed in the meantime", 5),
    Conflict: Outcome(409, "Conflict", 5),
    Unauthenticated: Outcome(401, "Not signed in", 6),
    Forbidden: Outcome(403, "Not allowed", 7),
    LimitExceeded: Outcome(429, "Limit exceeded", 8),
    DeadlineExceeded: Outcome(504, "Too slow", 9),
    Unavailable: Outcome(503, "Not available now", 9),
    Misconfigured: Outcome(500, "Misconfigured", 3),
    MooringError: Outcome(500, "Internal error", 1),
}


def outcome(error: MooringError) -> Outcome:
    """The row of the nearest class of `error` that the table names."""
    return next(OUTCOMES[kind] for kind in type(error).__mro__ if kind in OUTCOMES)

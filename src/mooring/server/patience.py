"""What one client may hold of a server that many share: how long it is waited for, and how much of it is kept."""

import resource

HEAD_S = 30.0
"""Seconds from a request's first byte to the end of its headers, and of a connection until the first byte."""
IDLE_S = 90.0
"""Between two requests: a build's next download comes after some compiling; a new connection costs it two ways."""
SEND_S = 120.0
"""Until a client has taken the part of its answer that waits in memory: of a kept file 256 KiB at most; of what is
made for the request, as the catalog is, or passed on from a checksum database, all of it."""
BODY_S = 30.0
"""After an answer to a request with a body, which nobody here reads: closed at once, the answer could get lost."""
GOODBYE_S = 5.0
"""For a connection without a request to close when this process ends; over TLS what it was sent last may wait still."""
HEAD_BYTES = 64 * 1024
"""Of a request's first line and headers; a parser keeps whatever comes, which is gigabytes within seconds."""
_FILES = 65536


def open_many_files() -> None:
    """Let this process have as many files as it may: every connection, and every zip that is being sent, is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))

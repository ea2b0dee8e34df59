"""What the server tells a keeper to keep, and what the keeper tells back. Both travel as JSON, one document a line.

Over the keeper's socket, server to keeper: `{"op": "keep"|"sweep", "order": ORDER}` first, then `{"op": "stop"}`,
`{"op": "exec", "key", "argv", "environment", "tty"}` with three descriptors, `{"op": "signal", "key", "signal"}`.
Keeper to server: `{"state": STATE}` at once and at each change, `{"exec": key, "pid"|"error"}`,
`{"exit": key, "status"}`. The environment travels here and nowhere else: no secret is in an argument or a file.

Imported by the keeper: no typing, no dataclasses at run time.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Order:
    """One start of a workspace. `adopt` (pid, start time) is an editor that already runs; `folders` are its cgroups.

    `user` (uid, gid) is whom the keeper becomes, None when it is that user already. `memory` is the limit as a person
    wrote it. `orphans`: a keeper before may have left processes that are nobody's now. `restarts` and `crashes`
    (seconds since the epoch) go on from the keeper before, and with an editor that is taken over its `notices`.
    """

    __slots__ = (
        "adopt", "argv", "crashes", "cwd", "environment", "fifo", "folders", "generation", "grace_s", "id", "instance",
        "limited", "log", "memory", "notices", "orphans", "port", "restarts", "socket", "state", "steps", "unlimited",
        "user",
    )  # fmt: skip
    id: str
    instance: str
    generation: int
    argv: list[str]
    environment: dict[str, str]
    cwd: str
    socket: str | None
    port: int | None
    steps: list[list[Any]]
    folders: list[str]
    limited: list[str]
    unlimited: list[str]
    memory: str
    log: str
    state: str
    fifo: str
    user: list[int] | None
    adopt: list[int] | None
    orphans: bool
    notices: list[str]
    restarts: int
    crashes: list[float]
    grace_s: float

    def __init__(self, document: dict[str, Any]) -> None:
        """Take every field from `document`; a missing one is a KeyError, since both ends are of one version."""
        for name in self.__slots__:
            setattr(self, name, document[name])

    def document(self) -> dict[str, Any]:
        """As it travels."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def marker(self) -> list[str]:
        """What every process of the workspace has in its environment."""
        return marker(self.id, self.instance)


def marker(workspace_id: str, instance: str) -> list[str]:
    """The environment that marks a process of that workspace of that installation."""
    return [f"MOORING_WORKSPACE={workspace_id}", f"MOORING_INSTANCE={instance}"]

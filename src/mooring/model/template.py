"""A template: how a workspace is started. The TOML files of `workspaces/templates.py` are read into this."""

from typing import Annotated, Literal, Self

from pydantic import Field, StrictBool, StrictInt, model_validator

from mooring.model.routes import Document
from mooring.model.workspace import Environment, GitUrl, IdleRule, Limits

SeedPath = Annotated[str, Field(pattern=r"^\{(home|data)\}(/[A-Za-z0-9_][A-Za-z0-9._-]*)+$", max_length=255)]
SeedText = Annotated[str, Field(max_length=65536, pattern=r"^[^\x00]*$")]
Word = Annotated[str, Field(pattern=r"^[^\x00]*$")]
MAX_VERSION = 1_000_000


class Editor(Document):
    """The program that a browser talks to.

    `command` is an argument list; in it and in `environment` these words in braces are replaced: `{socket}`,
    `{port}`, `{home}` (the workspace's files), `{data}` (the editor's own state), `{prefix}` (its path prefix),
    `{name}`, `{editor}` (the code-server program), `{go}` (the folder of the Go SDK), `{port_url}` (the URL of a
    port, with `{{port}}` in it). `listen` says where it answers: a unix socket
    (process runtime) or a port (docker). `path_prefix` is true for an editor that wants to see the prefix it is
    mounted under. `seed` maps paths (`{data}/…` or `{home}/…`) to texts that are written there before a start when
    the file does not exist: first settings, which stay the person's afterwards.
    """

    command: tuple[Word, ...] = Field(default=(), max_length=64)
    listen: Literal["socket", "port"] = "socket"
    port: StrictInt = Field(default=9999, ge=1024, le=65535)
    seed: dict[SeedPath, SeedText] = Field(default_factory=dict, max_length=16)
    health_path: str = Field(default="/healthz", pattern=r"^/[A-Za-z0-9._~/-]*$")
    path_prefix: StrictBool = False
    start_timeout_s: StrictInt = Field(default=120, ge=1, le=3600)


class Template(Document):
    """One version of a template. `runtime` process needs `editor.command`, docker needs `image`."""

    name: str
    version: StrictInt = Field(default=1, ge=1, le=MAX_VERSION)
    description: str = Field(default="", max_length=500)
    runtime: Literal["process", "docker"] = "process"
    image: str | None = Field(default=None, pattern=r"^[a-z0-9][a-zA-Z0-9._/:@-]{0,254}$")
    editor: Editor = Editor()
    environment: Environment = Field(default_factory=dict)
    limits: Limits = Limits()
    repository: GitUrl | None = None
    idle: IdleRule = IdleRule()

    @model_validator(mode="after")
    def _runtime_has_what_it_needs(self) -> Self:
        if self.runtime == "process" and not self.editor.command:
            raise ValueError("runtime process needs editor.command")
        if self.runtime == "docker" and self.image is None:
            raise ValueError("runtime docker needs image")
        return self

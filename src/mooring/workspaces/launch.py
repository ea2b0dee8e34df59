"""How a workspace is started: pure, from workspace and template to what a runtime executes.

Both runtimes use it, so a template means the same in each. A value that a person typed is always an argument or a
variable of its own; nothing is ever pasted into a shell's text.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from mooring.errors import Misconfigured
from mooring.model.names import Hosts
from mooring.model.template import Template
from mooring.model.workspace import Workspace
from mooring.settings import Listen

# A clone that was killed half-way leaves only `.part`; a finished one is never repeated, even when it was deleted.
# One that asked for a password would wait for ever: nobody sits at its terminal. Its last words are found in English.
_CLONE = """
set -eu
export GIT_TERMINAL_PROMPT=0 LC_ALL=C
test ! -e "$3" || exit 0
test ! -e "$2" || { : > "$3"; exit 0; }
rm -rf -- "$2.part"
git clone --progress -- "$1" "$2.part"
mv -- "$2.part" "$2"
: > "$3"
"""
# Written only when absent: what a person has changed in the editor stays. What a full disk took half of is no first
# setting, and would be taken for a person's; nor does an editor begin without them, which would write some of its own.
_SEED = """
set -eu
while test "$1" != "--"; do
  if ! test -e "$1"; then
    mkdir -p -- "$(dirname -- "$1")"
    printf %s "$2" > "$1.part"
    mv -- "$1.part" "$1"
  fi
  shift 2
done
shift
exec "$@"
"""
_WORD = re.compile(r"\{(socket|port|home|data|prefix|name|port_url|editor|go)\}")


@dataclass(frozen=True, slots=True)
class Places:
    """Paths as the workspace's own processes see them.

    `socket` is None where the editor listens on `template.editor.port` (docker). `editor` is the code-server program,
    `go` the folder of the Go SDK.
    """

    home: str
    data: str
    editor: str
    socket: str | None = None
    go: str = "/usr/local/go"


@dataclass(frozen=True, slots=True)
class Step:
    """A command of the first start. It runs beside the editor, its output goes to the log, its failure is a notice.

    It may be run at every start: a step that once succeeded does nothing any more.
    """

    name: str
    argv: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Launch:
    """What to execute. `environment` is added to the runtime's own base (PATH, HOME, USER, SHELL, LANG).

    Exactly one of `socket` and `port` says where the editor will answer. `program` is what must exist: `argv` may begin
    with a shell that writes first settings. It is empty where the image's own command is started.
    """

    argv: tuple[str, ...]
    program: str
    environment: Mapping[str, str]
    cwd: str
    socket: str | None
    port: int | None
    first_start: tuple[Step, ...] = ()


def prefix(workspace: Workspace) -> str:
    """The path under which a workspace is mounted where it has no host of its own, with a slash at both ends."""
    return f"/ws/{workspace.id}/"


def health_path(workspace: Workspace, template: Template) -> str:
    """The path on the workspace's own host that the readiness probe asks."""
    path = template.editor.health_path
    return prefix(workspace) + path.lstrip("/") if template.editor.path_prefix else path


def port_url(workspace: Workspace, listen: Listen) -> str:
    """The URL of a port of the workspace, with `{{port}}` in it (the form that code-server expects)."""
    return listen.url(Hosts(listen.domain).port(workspace.name, workspace.owner, "{{port}}"))


def launch(workspace: Workspace, template: Template, places: Places, listen: Listen) -> Launch:
    """What starts `workspace`, made from `template`.

    The workspace's environment goes before the template's. An empty `editor.command` (docker) leaves the image's own.

    Raises:
        Misconfigured: when the template listens on a socket and the runtime has none to offer.
    """
    editor = template.editor
    if editor.listen == "socket" and places.socket is None:
        raise Misconfigured(f"template {template.name}: editor.listen must be port with runtime {template.runtime}")
    words = {
        "socket": places.socket or "",
        "port": str(editor.port),
        "home": places.home,
        "data": places.data,
        "prefix": prefix(workspace),
        "name": workspace.name,
        "port_url": port_url(workspace, listen),
        "editor": places.editor,
        "go": places.go,
    }
    return Launch(
        argv=_argv(template, words),
        program=_fill(editor.command[0], words) if editor.command else "",
        environment=_environment(workspace, template, words),
        cwd=places.home,
        socket=places.socket if editor.listen == "socket" else None,
        port=editor.port if editor.listen == "port" else None,
        first_start=_first_start(workspace, template, places),
    )


def _argv(template: Template, words: Mapping[str, str]) -> tuple[str, ...]:
    command = tuple(_fill(word, words) for word in template.editor.command)
    if not command or not template.editor.seed:
        return command
    files = (part for path, text in template.editor.seed.items() for part in (_fill(path, words), text))
    return ("sh", "-c", _SEED, "seed", *files, "--", *command)


def _fill(text: str, words: Mapping[str, str]) -> str:
    # One pass: braces inside a replaced value (the port URL has some) are not replaced again.
    return _WORD.sub(lambda match: words[match[1]], text)


def _environment(workspace: Workspace, template: Template, words: Mapping[str, str]) -> dict[str, str]:
    own = {
        "MOORING_WORKSPACE": workspace.id,
        "MOORING_WORKSPACE_NAME": workspace.name,
        "MOORING_OWNER": workspace.owner,
    }
    filled = {name: _fill(value, words) for name, value in template.environment.items()}
    return {**filled, **workspace.spec.environment, **own}


def _first_start(workspace: Workspace, template: Template, places: Places) -> tuple[Step, ...]:
    url = workspace.spec.repository or template.repository
    if url is None:
        return ()
    target = f"{places.home}/{repository_folder(url)}"
    return (Step("git clone", ("sh", "-c", _CLONE, "clone", url, target, f"{places.data}/cloned")),)


def repository_folder(url: str) -> str:
    """The folder that a repository is cloned into: the last part of its URL without `.git`."""
    folder = url.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git").lstrip(".")
    return folder or "repository"

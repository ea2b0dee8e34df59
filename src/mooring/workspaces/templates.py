"""Templates: TOML files that a team reads and writes, and the versions that workspaces were made from.

The shipped files lie in `builtin/`; those of the team's folder go before shipped ones of the same name. A file is read
again when it changed. A version that a workspace was made from is kept for good: it still starts when the file is
gone, and a file that says something else under the same version number is a mistake that is named.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import ValidationError

from mooring.errors import Conflict, InvalidInput, NotFound
from mooring.model.names import check_name
from mooring.model.template import Template
from mooring.model.toml import BadToml, Mistake, line_of, mistakes_of, read
from mooring.workspaces.ports import TemplateHistory

log = structlog.get_logger(__name__)

BUILTIN = Path(__file__).parent / "builtin"
MAX_BYTES = 256 * 1024


class BadTemplate(InvalidInput):
    """A file that is no template; `mistakes` has all of them."""

    code = "bad_template"

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("; ".join(map(str, mistakes)), field="template")
        self.mistakes = tuple(mistakes)


def parse(text: str, file: str) -> Template:
    """The template in `text`; its name is the file's without `.toml`.

    Raises:
        BadTemplate: naming file, line and key of each mistake.
    """
    try:
        document = read(text, file)
    except BadToml as error:
        raise BadTemplate(error.mistakes) from error
    stem = Path(file).stem
    try:
        check_name(stem)
    except InvalidInput as error:
        raise BadTemplate([Mistake(file, 1, "", f"the file's {error.detail}")]) from error
    if document.setdefault("name", stem) != stem:
        mistake = Mistake(file, line_of(text, ["name"]), "name", f"must be {stem}, as the file is called")
        raise BadTemplate([mistake])
    try:
        return Template.model_validate(document)
    except ValidationError as error:
        raise BadTemplate(mistakes_of(text, file, error)) from error


_Stamp = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, slots=True)
class _Folder:
    """What a folder of templates holds, and the file stamps (name, mtime, size) that it was read at."""

    stamp: _Stamp
    templates: Mapping[str, Template]
    mistakes: tuple[Mistake, ...]


class Catalogue:
    """The templates of an installation. Bad files never hide the good ones."""

    def __init__(self, team: Path | None, history: TemplateHistory) -> None:
        self._folders = [BUILTIN] if team is None else [BUILTIN, team]
        self._history = history
        self._read: dict[Path, _Folder] = {}
        self._kept: dict[tuple[str, int], Template] = {}

    async def newest(self) -> tuple[Template, ...]:
        """The newest version of each template, in the order of names."""
        files = await self._files()
        return tuple([await self._agreed(files[name]) for name in sorted(files)])

    async def mistakes(self) -> tuple[Mistake, ...]:
        """What is wrong with the files, those included that contradict what a workspace was made from."""
        files = await self._files()
        found = [mistake for folder in self._folders for mistake in self._read[folder].mistakes]
        for name, template in sorted(files.items()):
            if await self._agreed(template) != template:
                found.append(Mistake(f"{name}.toml", 1, "version", _changed(template)))
        return tuple(found)

    async def get(self, name: str, version: int | None = None) -> Template:
        """A version of a template, the newest when None.

        Raises:
            NotFound: there is no such template or version.
            BadTemplate: its file cannot be used.
        """
        if version is not None and (kept := await self._from_history(name, version)) is not None:
            return kept
        template = (await self._files()).get(name)
        if template is not None and version in (None, template.version):
            return await self._agreed(template)
        mistakes = [m for folder in self._folders for m in self._read[folder].mistakes if Path(m.file).stem == name]
        if mistakes and template is None:
            raise BadTemplate(mistakes)
        what = f"template {name}" if version is None else f"version {version} of template {name}"
        raise NotFound(f"there is no {what}", field="template")

    async def keep(self, template: Template) -> None:
        """Keep this version for good, because a workspace is made from it."""
        if await self._from_history(template.name, template.version) == template:
            return
        try:
            await self._history.keep(template)
        except Conflict as error:
            raise Conflict(_changed(template), field="template") from error
        self._kept[template.name, template.version] = template

    async def _agreed(self, template: Template) -> Template:
        """What is kept under this name and version, else `template` itself."""
        return await self._from_history(template.name, template.version) or template

    async def _from_history(self, name: str, version: int) -> Template | None:
        if (name, version) not in self._kept:
            kept = await self._history.kept(name, version)
            if kept is None:
                return None
            self._kept[name, version] = kept
        return self._kept[name, version]

    async def _files(self) -> dict[str, Template]:
        found: dict[str, Template] = {}
        for folder in self._folders:
            self._read[folder] = await asyncio.to_thread(_read_folder, folder, self._read.get(folder))
            # The team's broken file must not bring back the shipped template that it stands for.
            for mistake in self._read[folder].mistakes:
                found.pop(Path(mistake.file).stem, None)
            found.update(self._read[folder].templates)
        return found


def _changed(template: Template) -> str:
    return (
        f"{template.name} version {template.version} was already used with other contents: "
        f"give the file version {template.version + 1}"
    )


def _read_folder(folder: Path, before: _Folder | None) -> _Folder:
    """The folder's templates; `before` itself when no file changed."""
    try:
        paths = sorted(path for path in folder.glob("*.toml") if path.is_file())
        stamp = tuple((path.name, path.stat().st_mtime_ns, path.stat().st_size) for path in paths)
    except OSError as error:
        log.warning("templates cannot be listed", folder=str(folder), error=str(error))
        return before or _Folder((), {}, (Mistake(str(folder), 1, "", error.strerror or str(error)),))
    if before is not None and before.stamp == stamp:
        return before
    templates: dict[str, Template] = {}
    mistakes: list[Mistake] = []
    for path in paths:
        try:
            templates[path.stem] = _read_file(path)
        except BadTemplate as error:
            mistakes.extend(error.mistakes)
    return _Folder(stamp, templates, tuple(mistakes))


def _read_file(path: Path) -> Template:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise BadTemplate([Mistake(path.name, 1, "", f"must have at most {MAX_BYTES} bytes")])
        return parse(path.read_text(encoding="utf-8"), path.name)
    except UnicodeDecodeError as error:
        raise BadTemplate([Mistake(path.name, 1, "", "must be UTF-8")]) from error
    except OSError as error:
        raise BadTemplate([Mistake(path.name, 1, "", error.strerror or str(error))]) from error

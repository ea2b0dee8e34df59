"""What work on a module store came to, as a person or a program reads it. Sizes are bytes in documents."""

from pathlib import Path

import typer
from pydantic import BaseModel

from mooring.cli.language import _
from mooring.cli.output import Format, note, record, write
from mooring.cli.plain import indented
from mooring.model import shown

_SHOWN = 20


class Wrong(BaseModel):
    """A file that is not known to be right. `unsure`: it may be, but nobody could be asked."""

    file: str
    problem: str
    unsure: bool


class Verified(BaseModel):
    """How many files were hashed, how many of them are `wrong` or `unsure`, and which."""

    files: int
    right: int
    wrong: int
    unsure: int
    findings: tuple[Wrong, ...]


class Removed(BaseModel):
    """A version whose zip was removed, or would be."""

    version: str
    size: int


class Reason(BaseModel):
    """Why a version stays, or could not be had."""

    version: str
    why: str


class Evicted(BaseModel):
    """What the store held and holds now (with `dry_run`: would hold); `most` is what was wanted."""

    dry_run: bool
    before: int
    after: int
    most: int
    removed: tuple[Removed, ...]
    kept: tuple[Reason, ...]


class Fetched(BaseModel):
    """How many files are `here` of those that were wanted; the first reason for each version that lacks some."""

    files: int
    here: int
    failed: tuple[Reason, ...]


class Export(BaseModel):
    """The tar file; `unproved` are the records of the checksum database that go without all of their proof."""

    file: Path
    files: int
    unproved: int


class NewToken(BaseModel):
    """A token, and the patterns of the private modules that its owner may have."""

    name: str
    modules: tuple[str, ...]
    token: str


class Revoked(BaseModel):
    """How many tokens of somebody were removed."""

    name: str
    tokens: int


def finding(item: Wrong, form: Format) -> None:
    """Say what is wrong with a file as soon as it is found; a document waits for all of them."""
    if form is Format.table:
        _line(f"{'unsure' if item.unsure else 'WRONG'}  {item.file}\n{item.problem}")


def verified(done: Verified, form: Format) -> None:
    """The sum; the findings were told already."""
    text = f"{done.files} files: {done.right} right, {done.wrong} wrong, {done.unsure} unsure"
    _said(done, text, form)


def evicted(done: Evicted, form: Format) -> None:
    """A line for each version that went or had to stay, then the sum."""
    if form is Format.table:
        for gone in done.removed:
            _line(f"{'would go' if done.dry_run else 'removed'} {shown.size(gone.size):>8}  {gone.version}")
        for item in done.kept:
            _line(f"kept  {item.version}\n{item.why}")
    before, after, most = map(shown.size, (done.before, done.after, done.most))
    _said(done, f"{before} before, {after} after; at most {most} are wanted", form)


def fetched(done: Fetched, form: Format) -> None:
    """How many are here; the first reasons why others are not, beside it."""
    _said(done, _("{here} of {count} files are here").format(here=done.here, count=done.files), form)
    if form is not Format.table:
        return
    for item in done.failed[:_SHOWN]:
        # Most reasons begin with the name themselves. An upstream's words may be in them.
        note(indented(item.why if item.why.startswith(item.version) else f"{item.version}: {item.why}"))
    if len(done.failed) > _SHOWN:
        note(_("and {count} more").format(count=len(done.failed) - _SHOWN))


def exported(done: Export, form: Format) -> None:
    """How many files were written; what the export lacks is said beside either form."""
    _said(done, f"{done.files} files in {done.file}", form)
    if done.unproved:
        text = _("{count} records of the checksum database lack a proof that it did not send: export again later")
        note(text.format(count=done.unproved))


def made(token: NewToken, form: Format) -> None:
    """The token, alone on standard output so that a script can take it."""
    note(_("Keep it: it is not shown again. GOPROXY is the proxy's URL with /t-TOKEN behind it."))
    _said(token, token.token, form)


def revoked(done: Revoked, form: Format) -> None:
    """How many there were, beside the results."""
    if form is Format.table:
        note(_("Tokens of {name} revoked: {count}.").format(name=done.name, count=done.tokens))
    else:
        record(done, {}, form)


def _said(done: BaseModel, text: str, form: Format) -> None:
    if form is Format.table:
        _line(text)
    else:
        write(done.model_dump(mode="json"), form)


def _line(text: str) -> None:
    # An upstream's words may be in it, too.
    typer.echo(indented(text))
